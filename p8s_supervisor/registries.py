"""Where images are pulled from: mirrors, containerd's hosts.toml, and registries' passwords.

containerd reads REGISTRY/hosts.toml in one directory, at each pull. What the user mounts is linked
there as it is; a mirror of the settings is a file of that form. kubelet finds passwords by an
image's registry; a mirror's own password is a header in its hosts.toml.
"""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import json
import pathlib
import typing
import urllib.parse

from p8s_supervisor import files, origins, paths, settings, trust

if typing.TYPE_CHECKING:
    from p8s_supervisor import components  # PID 1 checks the settings, and needs no PKI

HOSTS = "hosts.toml"


def find_mistakes(loaded: settings.Loaded, places: paths.Paths) -> list[str]:
    """What is wrong with the files that the settings name, one sentence each, with what to do."""
    wrong = [
        f"registry_mirrors: {file} is there, which says the same: keep one of them"
        for mirror in loaded.settings.registry_mirrors
        for file in (places.registry_hosts / _directory_name(mirror.registry),)
        if file.exists() and not file.is_symlink()  # a link is ours, of an earlier start
    ]
    for name, check in (
        ("registries", lambda top: _check_directory(top, loaded.settings.registry_mirrors)),
        ("docker_config", _check_docker_config),
        ("ca_bundle", _check_bundle),
    ):
        file = _in_node(places, getattr(loaded.settings, name))
        if file.exists() or file.is_symlink() or loaded.sources[name] != "default":
            wrong += [f"{name}: {mistake}" for mistake in check(file)]
    return wrong


def _in_node(places: paths.Paths, path: pathlib.PurePosixPath) -> pathlib.Path:
    return places.root / str(path).lstrip("/")


def _check_bundle(file: pathlib.Path) -> list[str]:
    wrong = trust.find_bundle_mistake(file)
    return [f"{file}: {wrong}"] if wrong else []


def _check_directory(
    top: pathlib.Path, mirrors: collections.abc.Iterable[origins.Mirror]
) -> list[str]:
    if not top.is_dir():
        return [f"{top}: not a directory in the node: mount one with {HOSTS} files there"]
    from p8s_supervisor import hosts_toml  # late: most clusters have no such file

    wrong = []
    mirrored = {_directory_name(mirror.registry) for mirror in mirrors}
    for entry in _list_entries(top):
        if not entry.is_dir():
            wrong.append(
                f"{entry}: not a directory: what is said of a registry is in REGISTRY/{HOSTS}"
            )
            continue
        registry = _registry_of(entry.name)
        if registry != "_default":
            try:
                origins.parse_registry(registry)
            except ValueError as error:
                wrong.append(f"{entry}: {error}")
        if _directory_name(registry) in mirrored:
            wrong.append(f"{entry}: {registry} is in registry_mirrors too: keep one of them")
        wrong += [f"{entry}: {mistake}" for mistake in hosts_toml.find_mistakes(entry)]
    return wrong


def _list_entries(top: pathlib.Path) -> list[pathlib.Path]:
    """Without names that begin with a dot: what Kubernetes' own mounts and editors leave there."""
    return sorted(entry for entry in top.iterdir() if not entry.name.startswith("."))


def _directory_name(registry: str) -> str:
    """As containerd looks for it first. Source: core/remotes/docker/config/hosts.go, hostDirectory."""
    host, colon, port = registry.rpartition(":")
    return f"{host}_{port}_" if colon and not registry.endswith("]") else registry


def _registry_of(name: str) -> str:
    """The registry that a directory is of; a port is written in one of two ways."""
    if name.endswith("_") and name.count("_") > 1:
        host, _, port = name[:-1].rpartition("_")
        return f"{host}:{port}"
    return name


# --- passwords


def _check_docker_config(file: pathlib.Path) -> list[str]:
    """kubelet says nothing of a file that it cannot read, and pulls without a password."""
    try:
        passwords = _read_passwords(file)
    except IsADirectoryError:
        return [f"{file}: a directory: docker makes one where the host has no such file"]
    except OSError as error:
        return [f"{file}: cannot be read: {error.strerror}; mount docker's config.json there"]
    except ValueError as error:
        return [f"{file}: {error}"]
    return [
        f"{file}: {registry}: {password}"
        for registry, password in passwords.items()
        if not isinstance(password, tuple)
    ]


def _tell_lack(reason: str) -> str:
    return (
        f"{reason}; docker keeps passwords in a helper of the host, which the node cannot ask: "
        "docs/registries.md says how to write such a file"
    )


def _read_passwords(file: pathlib.Path) -> dict[str, tuple[str, str] | str]:
    """For each registry of a docker config.json user and password, or why there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file; the reason does not quote it.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        where = (
            f": {error.msg} in line {error.lineno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise ValueError(f"not JSON{where}") from None
    auths = content.get("auths") if isinstance(content, dict) else None
    if not isinstance(auths, dict) or not auths:
        raise ValueError(_tell_lack("it has no `auths` with registries"))
    return {str(registry): _read_password(entry) for registry, entry in auths.items()}


def _read_password(entry: typing.Any) -> tuple[str, str] | str:
    if not isinstance(entry, dict):
        return "not an object"
    user, password = entry.get("username"), entry.get("password")
    if encoded := entry.get("auth"):
        try:
            bare = str(encoded).strip().rstrip("=")
            text = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
        except ValueError:
            return "its `auth` is not base64"
        user, colon, password = text.partition(":")
        if not colon:
            return "its `auth` is not USER:PASSWORD in base64"
    if not isinstance(user, str) or not isinstance(password, str) or not (user and password):
        return _tell_lack("it has no password")
    return user, password


def _find_header(passwords: dict[str, tuple[str, str] | str], url: str) -> str | None:
    """The header Authorization for a mirror; None where there is no password for its host."""
    wanted = urllib.parse.urlsplit(url).netloc
    for registry, password in passwords.items():
        host = urllib.parse.urlsplit(registry if "://" in registry else f"//{registry}").netloc
        if host == wanted and isinstance(password, tuple):
            return "Basic " + base64.b64encode(":".join(password).encode()).decode()
    return None


def list_secrets(plan: components.Plan) -> list[str]:
    """Passwords of registries and of proxies: for whoever has to hide them."""
    file, found = _in_node(plan.paths, plan.settings.docker_config), []
    with contextlib.suppress(OSError, ValueError):  # it may have been changed after the start
        for password in _read_passwords(file).values():
            if isinstance(password, tuple):
                found += [password[1], base64.b64encode(":".join(password).encode()).decode()]
    for proxy in (plan.settings.http_proxy, plan.settings.https_proxy):
        found.append(urllib.parse.urlsplit(proxy).password or "")
    return [secret for secret in found if secret]


# --- into the node


def write(plan: components.Plan) -> None:
    """Everything where containerd and kubelet look for it; what an earlier start left goes.

    Raises:
        OSError: the user has mounted something over it that cannot be written.
    """
    chosen, places = plan.settings, plan.paths
    docker_config = _in_node(places, chosen.docker_config)
    _link(places.kubelet_docker_config, docker_config if docker_config.exists() else None)
    wanted = _write_mirrors(plan, docker_config) if chosen.registry_mirrors else {}
    top = _in_node(places, chosen.registries)
    if top.is_dir():
        wanted |= {entry.name: entry for entry in _list_entries(top)}
    for entry in places.registry_hosts.glob("*"):
        if entry.is_symlink() and entry.name not in wanted:
            entry.unlink()
    for name, target in wanted.items():
        _link(places.registry_hosts / name, target)


def _write_mirrors(plan: components.Plan, docker_config: pathlib.Path) -> dict[str, pathlib.Path]:
    from p8s_supervisor import hosts_toml  # late: most clusters have no mirror

    passwords = _read_passwords(docker_config) if docker_config.exists() else {}
    urls: dict[str, list[str]] = {}
    for mirror in plan.settings.registry_mirrors:
        urls.setdefault(_directory_name(mirror.registry), []).append(mirror.url)
    for name, found in urls.items():
        headers = {url: _find_header(passwords, url) for url in found}
        # It may hold a password.
        files.write(plan.paths.mirrors / name / HOSTS, hosts_toml.render(headers), mode=0o600)
    return {name: plan.paths.mirrors / name for name in urls}


def _link(link: pathlib.Path, target: pathlib.Path | None) -> None:
    """A link to what the user mounted: an edit of it counts at once, and no password is copied."""
    if link.is_symlink() or target is not None:
        link.unlink(missing_ok=True)
    if target is not None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
