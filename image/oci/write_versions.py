"""Writes what the node is made of as JSON: `write_versions.py OUTPUT DIRECTORY...`.

What OUTPUT has already stays. Each directory has a file per component, written by the build stage that knows its version.
"""

from __future__ import annotations

import json
import pathlib
import sys


def main(output: pathlib.Path, directories: list[pathlib.Path]) -> None:
    versions = {
        file.name: file.read_text().strip()
        for directory in directories
        for file in directory.iterdir()
    }
    # As each project writes it: only Kubernetes' own version strings have the v.
    versions = {
        name: text if name == "kubernetes" else text.removeprefix("v")
        for name, text in versions.items()
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(output.read_text()) if output.exists() else {}
    output.write_text(json.dumps(before | versions, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), [pathlib.Path(argument) for argument in sys.argv[2:]])
