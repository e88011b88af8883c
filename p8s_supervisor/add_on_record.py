"""What the state volume says of add-ons: which were switched by hand, and what was applied of each."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from p8s_supervisor import files, kube

Reference = tuple[str, str, str, str]
"""An object: apiVersion, kind, namespace (empty for none) and name."""


@dataclasses.dataclass
class Record:
    """What is kept.

    Attributes:
        setting: the setting `add_ons`, as text, when something was last switched by hand.
        switched: what was switched by hand since it has that text: add-on → whether it is on.
        applied: add-on → its objects that may be in the cluster, in the order of their application.
    """

    setting: str = ""
    switched: dict[str, bool] = dataclasses.field(default_factory=dict)
    applied: dict[str, list[Reference]] = dataclasses.field(default_factory=dict)

    def switch(self, name: str, *, on: bool, setting: str) -> None:
        """Note that an add-on was switched by hand, under a setting."""
        if setting != self.setting:
            self.setting, self.switched = setting, {}
        self.switched[name] = on

    def find_switched(self, setting: str) -> dict[str, bool]:
        """What was switched by hand under a setting."""
        return self.switched if setting == self.setting else {}

    def choose(self, setting: str, names: tuple[str, ...]) -> list[str]:
        """The add-ons that are to run: those of the setting, as switched under that setting.

        Args:
            setting: its text.
            names: what it says.
        """
        switched = self.find_switched(setting)
        chosen = [name for name in names if switched.get(name, True)]
        return chosen + [name for name, on in switched.items() if on and name not in chosen]


def refer(manifest: kube.Object) -> Reference:
    """How an object is kept."""
    metadata = manifest["metadata"]
    return (
        manifest["apiVersion"],
        manifest["kind"],
        metadata.get("namespace") or "",
        metadata["name"],
    )


def read(file: pathlib.Path) -> Record:
    """What an earlier start, or this one, has written; an empty record where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not file.exists():
        return Record()
    try:
        found = json.loads(file.read_text())
        return Record(
            setting=str(found["setting"]),
            switched={str(name): bool(on) for name, on in found["switched"].items()},
            applied={
                str(name): [(str(a), str(b), str(c), str(d)) for a, b, c, d in references]
                for name, references in found["applied"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: {error}") from error


def write(file: pathlib.Path, record: Record) -> None:
    """For `read`."""
    files.write(file, json.dumps(dataclasses.asdict(record), indent=2) + "\n")
