"""What errors say, and the exit code that each ends the container with."""

from __future__ import annotations

import pytest

from p8s_supervisor import errors


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        pytest.param(errors.P8sError("it broke"), "it broke", 1, id="without a hint"),
        pytest.param(
            errors.P8sError("it broke", hint="mend it"),
            "it broke\n  hint: mend it",
            1,
            id="with a hint",
        ),
        pytest.param(
            errors.SettingsError(["a is wrong"]),
            "1 wrong setting:\n  - a is wrong\n"
            "  hint: `docker run --rm p8s --help` lists every setting",
            2,
            id="one wrong setting",
        ),
        pytest.param(
            errors.SettingsError(["a is wrong", "b is wrong"]),
            "2 wrong settings:\n  - a is wrong\n  - b is wrong\n"
            "  hint: `docker run --rm p8s --help` lists every setting",
            2,
            id="two wrong settings",
        ),
        pytest.param(
            errors.WaitTimeoutError("etcd's port", seconds=2.5, reason="refused"),
            "etcd's port: not within 2.5 s; last reason: refused",
            1,
            id="timeout",
        ),
        pytest.param(
            errors.ComponentFailedError("etcd", "no disk", log_tail=["one", "two"]),
            "etcd failed: no disk\n  | one\n  | two",
            1,
            id="component with its log",
        ),
        pytest.param(
            errors.CommandError("nft -f -", code=3, output="  bad rule\n"),
            "`nft -f -` ended with 3: bad rule",
            1,
            id="command",
        ),
        pytest.param(
            errors.CommandError("nft -f -", code=3, output=" \n"),
            "`nft -f -` ended with 3: no output",
            1,
            id="silent command",
        ),
        pytest.param(errors.KubeError("forbidden", status=403), "forbidden", 1, id="apiserver"),
    ],
)
def test_an_error_says_what_went_wrong(error: errors.P8sError, text: str, code: int) -> None:
    assert (str(error), error.exit_code) == (text, code)


def test_errors_carry_their_parts() -> None:
    settings = errors.SettingsError(["a", "b"])
    timeout = errors.WaitTimeoutError("a thing", seconds=1, reason="why not")
    component = errors.ComponentFailedError("etcd", "gone", log_tail=["last line"])
    command = errors.CommandError("ls /x", code=2, output="")
    assert settings.errors == ("a", "b")
    assert (timeout.awaited, timeout.reason) == ("a thing", "why not")
    assert (component.component, component.log_tail) == ("etcd", ("last line",))
    assert (command.command, command.code) == ("ls /x", 2)
    assert errors.KubeError("gone", status=404).status == 404
