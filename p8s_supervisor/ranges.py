"""The cluster's ranges where nobody has chosen them: others where docker's network has the usual ones.

docker goes through 172.17.0.0/16 to 172.31.0.0/16 and 192.168.0.0/20 to 192.168.240.0/20, one network after
the other: every thirty-first holds the default ranges.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import ipaddress
import json
import pathlib
import typing

from p8s_supervisor import parsers, settings

NAMES = ("service_cidr", "pod_cidr")
# Tried in turn, in place of the defaults.
OTHERS = (("10.254.254.0/24", "10.254.253.0/24"), ("172.31.254.0/24", "172.31.253.0/24"))


def choose(
    loaded: settings.Loaded,
    networks: collections.abc.Collection[parsers.Network],
    record: pathlib.Path,
) -> settings.Loaded:
    """The settings, with other ranges where the defaults overlap one of the container's networks.

    A cluster keeps those that it was made with, on whatever network it is started later.

    Args:
        loaded: the settings as they were given; ranges that somebody chose are left alone.
        networks: the container's.
        record: what the state volume says of its cluster; see `record`.
    """
    if any(loaded.sources[name] != "default" for name in NAMES):
        return loaded
    kept = _read(record)
    if kept in OTHERS:
        return _replace(loaded, kept, source=str(record))
    own = (loaded.texts["service_cidr"], loaded.texts["pod_cidr"])
    if kept is not None or not _overlap(own, networks):
        return loaded
    free = [texts for texts in OTHERS if not _overlap(texts, networks)]
    return _replace(loaded, free[0], source="the container's network") if free else loaded


def _overlap(
    texts: collections.abc.Iterable[str], networks: collections.abc.Collection[parsers.Network]
) -> bool:
    ranges = [ipaddress.ip_network(text) for text in texts]
    return any(
        own.version == network.version and own.overlaps(network)
        for own in ranges
        for network in networks
    )


def _read(record: pathlib.Path) -> tuple[str, ...] | None:
    """The ranges of the volume's cluster; None where there is none, or it cannot be told."""
    try:
        kept = json.loads(record.read_text())
        return tuple(str(kept[name]) for name in NAMES)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # `record.check` says what is wrong with it


def _replace(
    loaded: settings.Loaded, texts: collections.abc.Iterable[str], *, source: str
) -> settings.Loaded:
    given = dict(zip(NAMES, texts, strict=True))
    parsed: dict[str, typing.Any] = {
        name: settings.parse(name, text) for name, text in given.items()
    }
    return settings.Loaded(
        dataclasses.replace(loaded.settings, **parsed),
        loaded.texts | given,
        loaded.sources | dict.fromkeys(NAMES, source),
    )
