"""The texts of settings as they are given: flags, and a YAML file.

What may be given more than once is joined by line ends.
"""

from __future__ import annotations

import collections.abc
import pathlib


def read_flags(
    arguments: collections.abc.Sequence[str],
    wrong: list[str],
    *,
    repeated: collections.abc.Container[str],
) -> dict[str, str]:
    """Setting → text, from `--name=value` or `--name value`.

    Args:
        arguments: the flags.
        wrong: is given what cannot be read.
        repeated: settings that may be given more than once; of others the last one counts.
    """
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name == "--":
            wrong.append(f"{argument!r}: not a setting; settings are given as --name=value")
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                wrong.append(f"{name}: a value is missing, as in {name}=VALUE")
                continue
            value = rest.pop(0)
        key = name.removeprefix("--").replace("-", "_")
        flags[key] = f"{flags[key]}\n{value}" if key in flags and key in repeated else value
    return flags


def read_file(
    file: pathlib.Path,
    wrong: list[str],
    *,
    required: bool,
    repeated: collections.abc.Container[str],
) -> dict[str, str]:
    """Setting → text, from a YAML file; lists are joined by commas.

    Args:
        file: the file.
        wrong: is given what cannot be read.
        required: whether it has to be there.
        repeated: settings whose lists are joined by line ends.
    """
    try:
        text = file.read_text()
    except OSError as error:
        if required or file.exists():
            wrong.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError as error:
        wrong.append(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}")
        return {}
    content = _parse_yaml(file, text, wrong)
    return {
        str(key): ("\n" if key in repeated else ",").join(map(str, value))
        if isinstance(value, list)
        else ("" if value is None else str(value))
        for key, value in content.items()
    }


def _parse_yaml(file: pathlib.Path, text: str, wrong: list[str]) -> dict[object, object]:
    import yaml  # late: most starts have no file

    try:
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # Not the error's own text: it shows the line, and a token may stand there.
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        wrong.append(f"{file}: not YAML: {where}{error.problem}")
        return {}
    except yaml.YAMLError:
        wrong.append(f"{file}: not YAML: it has characters that YAML does not allow")
        return {}
    if content is not None and not isinstance(content, dict):
        wrong.append(f"{file}: not a mapping of settings")
        return {}
    return content or {}
