"""A cluster's context in the user's kubeconfig: merged in, and taken out exactly.

The file is edited as a tree of YAML nodes: what p8s does not know stays as it was written, in its
order and with its quotes. YAML comments are the exception: no YAML library of Python's keeps them.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import io
import os
import pathlib
import stat
import typing

from p8s_supervisor import errors, files, wait

if typing.TYPE_CHECKING:
    import yaml

SECTIONS = ("clusters", "users", "contexts")
# What p8s remembers in its context, where kubectl leaves it alone.
EXTENSION = "p8s"
# There: the engine that removes the cluster's container, with everything that tells of it.
THROWN_AWAY = "removed-by-engine"
LOCK_SECONDS = 5.0

Config = dict[str, typing.Any]


def find_file(
    environment: collections.abc.Mapping[str, str], *, home: pathlib.Path | None = None
) -> pathlib.Path:
    """The file that kubectl would write a new context to.

    Source: client-go, tools/clientcmd/config.go, PathOptions.GetDefaultFilename.
    """
    listed = [
        pathlib.Path(entry) for entry in environment.get("KUBECONFIG", "").split(":") if entry
    ]
    if not listed:
        return (home or pathlib.Path.home()) / ".kube/config"
    return next((file for file in listed if file.exists()), listed[-1])


def merge(
    file: pathlib.Path,
    name: str,
    config: Config,
    *,
    engine: str = "",
    lock_seconds: float = LOCK_SECONDS,
) -> None:
    """Put a cluster's entries into a kubeconfig, and make its context the current one.

    Args:
        file: the kubeconfig; made where it is missing.
        name: what cluster, user and context are called in it.
        config: a kubeconfig with one cluster, user and context.
        engine: identity of the engine that will remove the cluster at its end; empty for none.
        lock_seconds: how long another writer is waited for.

    Raises:
        P8sError: the file is locked, is no kubeconfig, or cannot be written; it is untouched.
    """
    with _locked(file, lock_seconds):
        existed = file.exists()
        tree = _Tree.read(file)
        before = tree.current()
        if before == name:  # run again: what it was before the first time
            before = tree.remembered(name).get("previous-context", "")
        made = not existed or tree.remembered(name).get("made-file", False)
        remembered = {"previous-context": before, "made-file": made}
        if engine:
            remembered[THROWN_AWAY] = engine
        tree.put("clusters", name, "cluster", config["clusters"][0]["cluster"])
        tree.put("users", name, "user", config["users"][0]["user"])
        tree.put(
            "contexts",
            name,
            "context",
            {
                "cluster": name,
                "user": name,
                "extensions": [{"name": EXTENSION, "extension": remembered}],
            },
        )
        tree.set_current(name)
        _write(file, tree.render())


def remove(file: pathlib.Path, name: str, *, lock_seconds: float = LOCK_SECONDS) -> bool:
    """Take a cluster's entries out, and give the current context back where it is still ours.

    Returns:
        Whether there was anything to remove.

    Raises:
        P8sError: as `merge`.
    """
    if not file.exists():
        return False
    with _locked(file, lock_seconds):
        tree = _Tree.read(file)
        remembered = tree.remembered(name)
        found = [tree.drop(section, name) for section in SECTIONS]
        if not any(found):
            return False
        tree.hand_on(name, remembered)
        if tree.current() == name:
            previous = remembered.get("previous-context", "")
            tree.set_current(previous if tree.has("contexts", previous) else "")
        if remembered.get("made-file") and tree.is_empty():
            file.unlink()
        else:
            _write(file, tree.render())
        return True


def mentions(file: pathlib.Path, name: str) -> bool:
    """Whether a name stands in a kubeconfig: without its lock, and without reading it as YAML."""
    try:
        return name in file.read_text(errors="replace")
    except OSError:
        return False


def list_thrown_away(file: pathlib.Path, engine: str) -> list[str]:
    """The contexts of clusters that an engine removes at their end.

    Raises:
        P8sError: the file is no kubeconfig.
    """
    tree = _Tree.read(file)
    names = [_text(_get(entry, "name")) for entry in tree.entries("contexts")]
    return [name for name in names if tree.remembered(name).get(THROWN_AWAY) == engine]


@dataclasses.dataclass
class _Tree:
    """A kubeconfig as YAML nodes."""

    file: pathlib.Path
    root: yaml.MappingNode

    @classmethod
    def read(cls, file: pathlib.Path) -> _Tree:
        import yaml

        try:
            text = file.read_text() if file.exists() else ""
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            told = " ".join(str(error).split())
            raise _broken(file, f"it cannot be read: {told}") from error
        if root is None or _is_null(root):
            root = _make({"apiVersion": "v1", "kind": "Config"})
        if not isinstance(root, yaml.MappingNode):
            raise _broken(file, "it is no mapping")
        tree = cls(file, root)
        for section in SECTIONS:
            tree._check(section)
        return tree

    def _check(self, section: str) -> None:
        import yaml

        entries = _get(self.root, section)
        if entries is None or _is_null(entries):
            return
        if not isinstance(entries, yaml.SequenceNode) or not all(
            isinstance(entry, yaml.MappingNode) for entry in entries.value
        ):
            raise _broken(self.file, f"its {section} are no list of entries")

    def entries(self, section: str) -> list[typing.Any]:
        entries = _get(self.root, section)
        return [] if entries is None or _is_null(entries) else list(entries.value)

    def _set_entries(self, section: str, entries: list[typing.Any]) -> None:
        import yaml

        node = _get(self.root, section)
        if not isinstance(node, yaml.SequenceNode):
            node = _make([])
            node.flow_style = self.root.flow_style
            _set(self.root, section, node)
        # An empty block sequence cannot be written; a full one in flow style cannot be read.
        if not node.value:
            node.flow_style = self.root.flow_style
        node.value = entries

    def has(self, section: str, name: str) -> bool:
        return any(_text(_get(entry, "name")) == name for entry in self.entries(section))

    def put(self, section: str, name: str, kind: str, content: Config) -> None:
        entry = _make({"name": name, kind: content})
        entries = self.entries(section)
        for index, old in enumerate(entries):
            if _text(_get(old, "name")) == name:
                entries[index] = entry
                break
        else:
            entries.append(entry)
        self._set_entries(section, entries)

    def drop(self, section: str, name: str) -> bool:
        entries = self.entries(section)
        left = [entry for entry in entries if _text(_get(entry, "name")) != name]
        if len(left) == len(entries):
            return False
        self._set_entries(section, left)
        return True

    def current(self) -> str:
        return _text(_get(self.root, "current-context"))

    def set_current(self, name: str) -> None:
        _set(self.root, "current-context", _make(name))

    def is_empty(self) -> bool:
        return not any(self.entries(section) for section in SECTIONS)

    def remembered(self, name: str) -> Config:
        """What `merge` kept in a context."""
        node = self._extension(name)
        found = _plain(node) if node is not None else None
        return found if isinstance(found, dict) else {}

    def hand_on(self, name: str, remembered: Config) -> None:
        """Contexts that came after a removed one remember what that one remembered."""
        for entry in self.entries("contexts"):
            extension = self._extension(_text(_get(entry, "name")))
            if extension is None or _text(_get(extension, "previous-context")) != name:
                continue
            _set(extension, "previous-context", _make(remembered.get("previous-context", "")))
            if remembered.get("made-file"):
                _set(extension, "made-file", _make(True))

    def _extension(self, name: str) -> typing.Any:
        for entry in self.entries("contexts"):
            context = _get(entry, "context")
            if _text(_get(entry, "name")) != name or context is None:
                continue
            extensions = _get(context, "extensions")
            for extension in extensions.value if extensions is not None else []:
                if _text(_get(extension, "name")) == EXTENSION:
                    return _get(extension, "extension")
        return None

    def render(self) -> str:
        import yaml

        # No line is folded: certificates are long, and a folded one would differ from before.
        return yaml.serialize(self.root, Dumper=yaml.SafeDumper, width=2**30, allow_unicode=True)


def _make(value: object) -> typing.Any:
    import yaml

    representer = yaml.SafeDumper(io.StringIO())
    representer.sort_keys = False
    representer.default_flow_style = False
    return representer.represent_data(value)


def _get(node: typing.Any, key: str) -> typing.Any:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _set(node: typing.Any, key: str, value: typing.Any) -> None:
    for index, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[index] = (name, value)
            return
    node.value.append((_make(key), value))


def _text(node: typing.Any) -> str:
    import yaml

    return node.value if isinstance(node, yaml.ScalarNode) and not _is_null(node) else ""


def _plain(node: typing.Any) -> typing.Any:
    import yaml

    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def _is_null(node: typing.Any) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _broken(file: pathlib.Path, reason: str) -> errors.P8sError:
    return errors.P8sError(
        f"the kubeconfig {file} is left alone: {reason}",
        hint="mend the file, or set KUBECONFIG to another; `p8s kubeconfig` prints the cluster's",
    )


@contextlib.contextmanager
def _locked(file: pathlib.Path, seconds: float) -> collections.abc.Iterator[None]:
    """kubectl's lock: a file beside, which is there while somebody writes."""
    lock = file.with_name(file.name + ".lock")

    def take() -> str | None:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return "somebody else is writing"
        return None

    try:
        # kubectl's own mode for this directory is the umask's; there are credentials in it.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wait.until(take, awaited=f"the lock {lock}", seconds=seconds)
    except errors.WaitTimeoutError as error:
        raise errors.P8sError(
            f"the kubeconfig {file} is locked by {lock}",
            hint=f"where no kubectl is writing it, remove what a killed one left: rm {lock}",
        ) from error
    except OSError as error:
        raise _broken(file, f"it cannot be written: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        raise _broken(file, f"it cannot be written: {error.strerror}") from error
    finally:
        lock.unlink(missing_ok=True)


def _write(file: pathlib.Path, text: str) -> None:
    target = file.resolve()  # a symbolic link stays one
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
    files.write(target, text, mode=mode, durable=True)
