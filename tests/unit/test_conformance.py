"""How conformance tests are chosen, their results read, kept and judged, and the report written."""

from __future__ import annotations

import io
import json
import pathlib
import re
import tarfile

import pytest

from tests.conformance import __main__ as conformance
from tests.conformance import images, report, results, suite

LISTED = """\
The following spec names can be used with 'ginkgo run --focus/skip':
    ../e2e/apps/job.go:90: [sig-apps] Job should run (a.b) [Conformance]
    ../e2e/apps/job.go:99: [sig-apps] Job should be slow [Slow]
    ../e2e/apps/daemon_set.go:10: [sig-apps] Daemon set should stop [Conformance] [Serial]

"""
JOB = "[sig-apps] Job should run (a.b) [Conformance]"
DAEMON = "[sig-apps] Daemon set should stop [Conformance] [Serial]"


def test_conformance_tests_are_found_in_the_list() -> None:
    assert suite.find_tests(LISTED) == [DAEMON, JOB]


def test_a_test_is_chosen_by_its_whole_name() -> None:
    option = suite.focus(JOB)
    assert option == r"--focus=\[sig\-apps\] Job should run \(a\.b\) \[Conformance\]$"
    pattern = option.removeprefix("--focus=")
    assert re.search(pattern, f"Kubernetes e2e suite {JOB}")
    assert not re.search(pattern, f"{JOB} [Serial]")


@pytest.mark.parametrize(
    ("tests", "batches"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["a", "b", "c", "d", "e"], [["a", "d"], ["b", "e"], ["c"]], id="interleaved"),
        pytest.param(
            ["a", "b [Serial]", "c"], [["a", "c"], ["b [Serial]"]], id="serial ones by themselves"
        ),
    ],
)
def test_batches(tests: list[str], batches: list[list[str]]) -> None:
    assert suite.split(tests, size=2) == batches


def test_the_short_form_has_one_test_for_each_of_its_lines() -> None:
    tests = [f"[sig] {part} and so on" for part in suite.SHORT]
    assert suite.choose_short([*tests, JOB]) == tests
    with pytest.raises(ValueError, match="not one test each"):
        suite.choose_short(tests[1:])
    with pytest.raises(ValueError, match="not one test each"):
        suite.choose_short([*tests, f"{tests[0]} [Slow]"])


def junit(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


def case(status: str, inner: str = "", *, name: str = f"[It] {JOB}") -> str:
    return f'<testcase name="{name}" status="{status}" time="1.26">{inner}</testcase>'


@pytest.mark.parametrize(
    ("xml", "found"),
    [
        pytest.param(case("passed"), results.Result(state="passed", seconds=1.3), id="passed"),
        pytest.param(
            case("failed", '<failure type="failed">  no pod\nat x.go </failure>'),
            results.Result(state="failed", seconds=1.3, message="no pod\nat x.go"),
            id="failed",
        ),
        pytest.param(
            case("panicked", '<error message="nil" type="panicked"></error>'),
            results.Result(state="failed", seconds=1.3, message="nil"),
            id="panicked",
        ),
        pytest.param(
            case("skipped", '<skipped message="skipped - needs ssh"/>'),
            results.Result(state="skipped", seconds=1.3, message="needs ssh"),
            id="skipped by itself",
        ),
        pytest.param(case("skipped", '<skipped message="skipped"/>'), None, id="not chosen"),
        pytest.param(case("interrupted", "<error>stop</error>"), None, id="broken off"),
        pytest.param(
            case("timedout", "<error>[TIMEDOUT] A suite timeout occurred&#10;In [It]</error>"),
            None,
            id="broken off as the time of all was over",
        ),
        pytest.param(case("failed", name="[BeforeSuite]"), None, id="no test"),
    ],
)
def test_junit(xml: str, found: results.Result | None) -> None:
    assert results.read_junit(junit(xml)) == ({JOB: found} if found else {})


def test_results_are_kept_for_one_image(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "build" / "v1.json"
    store = results.Store(file, image="sha256:1")
    store.add({JOB: results.Result(state="failed", seconds=1, message="no")})
    store.add({JOB: results.Result(state="passed", seconds=2)})
    again = results.Store(file, image="sha256:1").results
    assert again == {JOB: results.Result(state="passed", seconds=2)}
    assert results.Store(file, image="sha256:2").results == {}


PASSED = results.Result(state="passed", seconds=60)
FAILED = results.Result(state="failed", seconds=60, message="a | b\n<c>")
SKIPPED = results.Result(state="skipped", seconds=0, message="needs ssh")
NEEDS_TWO = {"d": results.Known(needs="two nodes", cause="it counts")}


@pytest.mark.parametrize(
    ("found", "known", "code"),
    [
        pytest.param({"a": PASSED, "d": PASSED}, {}, 0, id="all pass"),
        pytest.param({"a": PASSED, "d": FAILED}, NEEDS_TWO, 0, id="a known one fails"),
        pytest.param({"a": PASSED, "d": FAILED}, {}, 1, id="one fails"),
        pytest.param({"a": PASSED, "d": SKIPPED}, {}, 1, id="one skips itself"),
        pytest.param({"a": PASSED, "d": PASSED}, NEEDS_TWO, 1, id="a known one passes"),
        pytest.param({"a": PASSED}, {}, 3, id="one is left"),
        pytest.param({"a": FAILED}, {}, 1, id="one fails, one is left"),
    ],
)
def test_the_exit_code(found: results.Results, known: dict[str, results.Known], code: int) -> None:
    assert conformance.conclude(results.judge(["a", "d"], found, known)) == code


def test_what_known_yaml_names_is_a_test() -> None:
    verdict = results.judge(["a"], {}, NEEDS_TWO)
    assert (verdict.stale, verdict.named, verdict.missing) == (("d",), (), ("a",))


def test_known_yaml_says_what_each_needs() -> None:
    known = results.read_known(results.KNOWN.read_text())
    assert all(test.startswith("[sig-") and "[Conformance]" in test for test in known)


@pytest.mark.parametrize("entry", ["{test: a}", "{test: a, needs: luck, cause: b}"])
def test_an_entry_without_a_cause_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="are wanted"):
        results.read_known(f"- {entry}")


@pytest.mark.parametrize(
    ("retry", "match", "left"),
    [
        pytest.param(False, "", ["c"], id="what has no result"),
        pytest.param(True, "", ["b", "c"], id="what failed, too"),
        pytest.param(True, "b", ["b"], id="by name"),
    ],
)
def test_what_is_left_to_run(retry: bool, match: str, left: list[str]) -> None:
    found = {"a": PASSED, "b": FAILED}
    assert conformance.choose(["a", "b", "c"], found, retry=retry, match=match) == left


def test_the_report_counts_and_gives_reasons() -> None:
    found = {"a": PASSED, "b": FAILED, "d": FAILED}
    verdict = results.judge(["a", "b", "c", "d"], found, NEEDS_TWO)
    text = report.render("v1.37.2", verdict, found, NEEDS_TWO)
    for line in (
        "**1 of 3** that one node can run pass (33.3 %).",
        "| [Conformance] in e2e.test | 4 |",
        "| not run yet | 1 |",
        "| b | a \\| b &lt;c> |",
        "| d | two nodes: it counts |",
    ):
        assert line in text.splitlines()


def test_a_section_is_replaced_and_others_stay() -> None:
    document = report.put("# Title\n", "v1.36", "old\n")
    document = report.put(document, "v1.37", "other\n")
    assert report.put(document, "v1.36", "new\n") == (
        "# Title\n\n<!-- v1.36 -->\nnew\n<!-- end of v1.36 -->\n"
        "\n<!-- v1.37 -->\nother\n<!-- end of v1.37 -->\n"
    )


HOST = "registry.example"


@pytest.mark.parametrize(
    ("name", "local"),
    [
        (f"{HOST}/e2e/agnhost:2.66.1", f"{images.LOCAL}/agnhost:2.66.1"),
        (f"{HOST}/jessie-dnsutils:1.7", f"{images.LOCAL}/glibc-dns-testing:1.7"),
        (f"{HOST}/k8s-authenticated-test/agnhost:2.6", None),
        (f"invalid.{HOST}/alpine:3.1", None),
        (f"{HOST}/agnhost", None),
    ],
)
def test_images_are_chosen_by_their_names(name: str, local: str | None) -> None:
    found = images.choose([name, name])
    assert [(image.name, image.local) for image in found] == ([(name, local)] if local else [])


def test_every_target_is_in_the_dockerfile() -> None:
    stages = re.findall(r"^FROM .* AS (\S+)$", images.DOCKERFILE.read_text(), re.MULTILINE)
    assert {*images.TARGETS.values(), "runner", "registry"} <= set(stages)


def test_an_archive_gets_other_names() -> None:
    source, target = io.BytesIO(), io.BytesIO()
    files = {
        "blobs/sha256/1": b"layer",
        "index.json": b"{}",
        "manifest.json": json.dumps([{"RepoTags": ["ours:1"], "Layers": ["blobs/1"]}]).encode(),
        "oci-layout": b"{}",
    }
    with tarfile.open(fileobj=source, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source.seek(0)
    images.rename(source, target, {"ours:1": "theirs/image:1"})
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        assert tar.getnames() == ["blobs/sha256/1", "manifest.json"]
        layer, listed = map(tar.extractfile, tar.getnames())
        assert layer is not None
        assert layer.read() == b"layer"
        assert listed is not None
        assert json.load(listed) == [{"RepoTags": ["theirs/image:1"], "Layers": ["blobs/1"]}]
