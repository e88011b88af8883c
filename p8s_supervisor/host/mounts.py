"""Files and directories of the host in the node: docker's --volume, for `p8s run`."""

from __future__ import annotations

import pathlib
import typing

from p8s_supervisor.host import clusters

PROPAGATIONS = ("rprivate", "private", "rslave", "slave", "rshared", "shared")


def parse(text: str) -> dict[str, typing.Any]:
    """A mount as the engine's API has it, from `SOURCE:TARGET[:OPTIONS]`.

    Args:
        text: SOURCE is a path of the engine's host, or the name of a volume; OPTIONS are ro, rw and
            docker's words for mount propagation, by commas.

    Raises:
        ValueError: it is none.
    """
    source, _, rest = text.partition(":")
    target, _, given = rest.partition(":")
    options = [option for option in given.split(",") if option]
    unknown = [option for option in options if option not in ("ro", "rw", *PROPAGATIONS)]
    if not source or not target.startswith("/"):
        raise ValueError("not SOURCE:TARGET with a TARGET from / on")
    if unknown:
        raise ValueError(f"no such option: {', '.join(unknown)}")
    if target.rstrip("/") in ("", clusters.STATE):
        raise ValueError(f"the node has its own {target}")
    is_path = source.startswith(("/", ".", "~"))
    mount: dict[str, typing.Any] = {
        "Type": "bind" if is_path else "volume",
        "Source": str(pathlib.Path(source).expanduser().resolve()) if is_path else source,
        "Target": target,
        "ReadOnly": "ro" in options,
    }
    propagation = [option for option in options if option in PROPAGATIONS]
    if propagation:
        mount["BindOptions"] = {"Propagation": propagation[-1]}
    return mount
