"""Every error that p8s raises on purpose: one base, typed leaves, a hint each."""

from __future__ import annotations

import collections.abc
import enum


class ExitCode(enum.IntEnum):
    """Exit codes of the container, and of the command on the host."""

    STOPPED = 0
    START_FAILED = 1
    BAD_SETTINGS = 2
    DEGRADED = 3  # the command's alone: the cluster runs, and manifests of the user's are refused


class P8sError(Exception):
    """Base of all errors that are told to the user without a traceback.

    Attributes:
        message: what went wrong, in one sentence.
        hint: what the user can do about it; empty where there is nothing to say.
        exit_code: the container's exit code if the error ends it.
    """

    exit_code = ExitCode.START_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SettingsError(P8sError):
    """One or more settings are wrong or unknown.

    Attributes:
        errors: one sentence for each wrong setting.
    """

    exit_code = ExitCode.BAD_SETTINGS

    def __init__(self, errors: collections.abc.Sequence[str]) -> None:
        listed = "\n".join(f"  - {error}" for error in errors)
        super().__init__(
            f"{len(errors)} wrong setting{'s' if len(errors) != 1 else ''}:\n{listed}",
            hint="`docker run --rm p8s --help` lists every setting",
        )
        self.errors = tuple(errors)


class WaitTimeoutError(P8sError):
    """A deadline passed before a condition held.

    Attributes:
        awaited: what was waited for.
        reason: why it did not hold when last looked at.
    """

    def __init__(self, awaited: str, *, seconds: float, reason: str) -> None:
        super().__init__(f"{awaited}: not within {seconds:g} s; last reason: {reason}")
        self.awaited = awaited
        self.reason = reason


class CancelledError(P8sError):
    """A wait was given up because the cluster is being stopped."""


class ComponentFailedError(P8sError):
    """A component did not start or did not stay up.

    Attributes:
        component: its name.
        log_tail: the last lines of its log, without line ends.
    """

    def __init__(
        self,
        component: str,
        reason: str,
        *,
        log_tail: collections.abc.Sequence[str] = (),
        hint: str = "",
    ) -> None:
        told = "".join(f"\n  | {line}" for line in log_tail)
        super().__init__(f"{component} failed: {reason}{told}", hint=hint)
        self.component = component
        self.log_tail = tuple(log_tail)


class CommandError(P8sError):
    """A command ended with a code other than 0.

    Attributes:
        command: the command as one could paste it into a shell.
        code: its exit code.
    """

    def __init__(self, command: str, *, code: int, output: str) -> None:
        super().__init__(f"`{command}` ended with {code}: {output.strip() or 'no output'}")
        self.command = command
        self.code = code


class KubeError(P8sError):
    """The apiserver refused a request or could not be reached.

    Attributes:
        status: the HTTP status, or 0 where there was no answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RequestError(P8sError):
    """What a caller of the HTTP API asked for cannot be done.

    Attributes:
        status: the HTTP status that says so.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
