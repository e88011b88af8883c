"""The little state that the flows share."""

from __future__ import annotations

import pathlib

from p8s_supervisor import errors
from tests import fakes


def test_the_first_who_asks_for_the_stop_is_kept(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    assert (run.stop.is_set(), run.stop_reason) == (False, "")
    for reason in ("SIGTERM", "POST /stop from 127.0.0.1"):
        run.request_stop(reason)
    assert (run.stop.is_set(), run.stop_reason, run.failure) == (True, "SIGTERM", None)


def test_the_first_failure_is_kept_and_asks_for_the_stop(tmp_path: pathlib.Path) -> None:
    run = fakes.make_context(tmp_path)
    first, second = errors.P8sError("first"), errors.P8sError("second")
    run.fail(first)
    run.fail(second)
    assert (run.failure, run.stop_reason, run.stop.is_set()) == (first, "the start failed", True)


def test_what_fails_after_a_stop_was_asked_for_is_no_failure_of_the_start(
    tmp_path: pathlib.Path,
) -> None:
    run = fakes.make_context(tmp_path)
    run.request_stop("SIGTERM")
    run.fail(errors.P8sError("the apiserver is gone"))
    assert (run.failure, run.stop_reason) == (None, "SIGTERM")
