#!/usr/bin/env python3
"""What is pinned and what is the newest of its line: outdated.py [--audit].

One line for each part of the image; with --audit also what pip-audit and govulncheck know of them.
Asks the registries as this machine's pip, go and apt are set up. Exit code: 0, all is the newest;
1, something is older or has a known hole; 3, nothing of the kind, but not every registry answered.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPONENTS = ROOT / "image/components"
# Directory → what its go.mod is there for. The others of its requirements are the module's own.
MODULES = {
    **{
        f"kubernetes/{found.name}": "k8s.io/kubernetes"
        for found in COMPONENTS.glob("kubernetes/[0-9]*")
    },
    "etcd": "go.etcd.io/etcd/server/v3",
    "containerd": "github.com/containerd/containerd/v2",
    "coredns": "github.com/coredns/coredns",
    "cni": "github.com/containernetworking/plugins",
    "storage": "github.com/rancher/local-path-provisioner",
    "metrics": "sigs.k8s.io/metrics-server",
    "ingress": "github.com/traefik/traefik/v3",
    "registry": "github.com/distribution/distribution/v3",
}
UPGRADES = "apt-get -qq -o APT::Update::Error-Mode=any update && apt-get -s -qq dist-upgrade"
# (what, pinned, newest)
Rows = list[tuple[str, str, str]]


def run(*command: str, directory: pathlib.Path = ROOT) -> str:
    """A command's output; RuntimeError where what it asked did not answer."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = (done.stderr or done.stdout).strip().splitlines()[-2:]
        raise RuntimeError(f"{' '.join(command[:3])}: {'; '.join(told)}")
    return done.stdout


def find_newest(pinned: str, released: list[str]) -> str:
    """The newest patch release of a version's line, MAJOR.MINOR."""
    line = re.compile(re.escape(pinned.rpartition(".")[0]) + r"\.(\d+)")
    patches = [version for version in released if line.fullmatch(version)]
    return max([pinned, *patches], key=lambda version: int(version.rpartition(".")[2]))


def look_at_module(directory: str) -> Rows:
    """A component's main module, and the toolchain that it is built with."""
    module, place = MODULES[directory], COMPONENTS / directory
    text = (place / "go.mod").read_text()
    pinned = re.findall(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", text, re.MULTILINE)[0]
    go = re.findall(r"^(?:toolchain go|go )(\S+)", text, re.MULTILINE)[-1]
    ask = ("go", "list", "-m", "-versions")
    toolchains = run(*ask, "golang.org/toolchain", directory=place)
    released = re.findall(r"go([\d.]+)\.linux-amd64", toolchains)
    versions = run(*ask, module, directory=place).split()[1:]
    return [
        (module, pinned, find_newest(pinned, versions)),
        (f"Go of {directory}", go, find_newest(go, released)),
    ]


def look_at_minors() -> Rows:
    """The newest minor of Kubernetes that there is a go.mod for."""
    own = (directory.partition("/")[2] for directory in MODULES if "/" in directory)
    asked = run("go", "list", "-m", "-versions", "k8s.io/kubernetes")
    released = re.findall(r" v(1\.\d+)\.\d+(?= |$)", asked.strip())
    newest = max(own, key=_by_number)
    return [("Kubernetes' newest minor", newest, max([newest, *released], key=_by_number))]


def _by_number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def look_at_python() -> Rows:
    """Every pinned package, beside what `make lock` would pin now."""
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    )
    with tempfile.TemporaryDirectory() as directory:
        report = pathlib.Path(directory) / "report.json"
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        wanted = ("--dry-run", "--ignore-installed", "--report", str(report))
        run(*pip, *wanted, "-r", "requirements-dev.in")
        found = {
            re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower(): entry["metadata"]["version"]
            for entry in json.loads(report.read_text())["install"]
        }
    return [(name, pins.get(name, "nothing"), newest) for name, newest in sorted(found.items())]


def look_at_debian() -> Rows:
    """Packages of the image that Debian has newer ones of."""
    image = os.environ.get("IMAGE", "p8s:latest")
    told = run("docker", "run", "--rm", "--entrypoint=sh", image, "-c", UPGRADES)
    newer = re.findall(r"^Inst (\S+) \[(\S+)\] \((\S+)", told, re.MULTILINE)
    return newer or [("Debian's packages", "newest", "newest")]


def audit_python() -> Rows:
    """What pip-audit knows of the image's packages."""
    tool = ROOT / "build/audit/bin/pip-audit"
    if not tool.exists():
        run(sys.executable, "-m", "venv", "build/audit")
        run("build/audit/bin/pip", "install", "--quiet", "pip-audit")
    # Its exit code tells of holes, as what it prints does.
    asked = f"{tool} -r image/requirements.txt --require-hashes --disable-pip -f json || true"
    answer = json.loads(run("sh", "-c", asked) or '{"dependencies": []}')["dependencies"]
    unknown = [entry["name"] for entry in answer if "skip_reason" in entry]
    if unknown or not answer:  # a mirror of the index may have no such data
        raise RuntimeError(f"nothing is told of {len(unknown)} packages")
    return [
        (f"{entry['name']} ({hole['id']})", entry["version"], ", ".join(hole["fix_versions"]))
        for entry in answer
        for hole in entry["vulns"]
        if hole["fix_versions"]
    ]


def audit_go() -> Rows:
    """What govulncheck knows of the components' modules, used or not."""
    tool = ("go", "run", "golang.org/x/vuln/cmd/govulncheck@latest", "-scan=module", "-format=json")
    holes = set()
    for directory in MODULES:
        told, decoder = run(*tool, directory=COMPONENTS / directory), json.JSONDecoder()
        while told := told.lstrip():
            message, end = decoder.raw_decode(told)
            told = told[end:]
            if fixed := message.get("finding", {}).get("fixed_version"):
                where = message["finding"]["trace"][0]
                name = f"{directory}: {where['module']} ({message['finding']['osv']})"
                holes.add((name, where.get("version", "?"), fixed))
    return sorted(holes)


def main(arguments: list[str]) -> int:
    """Ask all at once, tell, and give the exit code."""
    looks: dict[str, typing.Callable[[], Rows]] = {
        directory: functools.partial(look_at_module, directory) for directory in sorted(MODULES)
    }
    looks |= {"minors": look_at_minors, "Python": look_at_python, "Debian": look_at_debian}
    if "--audit" in arguments:
        looks |= {"pip-audit": audit_python, "govulncheck": audit_go}
    code = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = {name: pool.submit(look) for name, look in looks.items()}
    for name, future in asked.items():
        try:
            rows = future.result()
        except (OSError, RuntimeError) as error:
            print(f"no answer: {name}: {error}")
            code = code or 3
            continue
        for what, pinned, newest in rows:
            print(f"{'newest' if pinned == newest else 'OUTDATED'}: {what} {pinned} → {newest}")
            code = code if pinned == newest else 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
