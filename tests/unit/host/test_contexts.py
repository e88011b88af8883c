"""The user's kubeconfig: what is merged, what is kept, and that the removal is exact."""

from __future__ import annotations

import pathlib
import stat
import typing

import pytest
import yaml

from p8s_supervisor import errors
from p8s_supervisor.host import contexts
from tests import host_fakes

OURS = host_fakes.KUBECONFIG
OTHER = """\
apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster:
    server: https://example.org
    certificate-authority-data: AAAA
  name: work
users:
- name: me
  user:
    token: "0123"
    exec:
      command: aws
      args: [eks, get-token]
contexts:
- context:
    cluster: work
    user: me
    namespace: team
  name: work
current-context: work
x-unknown: 0x1F
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / ".kube" / "config"


def put(file: pathlib.Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def read(file: pathlib.Path) -> typing.Any:
    return yaml.safe_load(file.read_text())


def names(file: pathlib.Path, section: str) -> list[str]:
    return [entry["name"] for entry in read(file)[section] or []]


@pytest.mark.parametrize(
    ("listed", "existing", "expected"),
    [
        pytest.param("", [], "home/.kube/config", id="unset"),
        pytest.param("a", [], "a", id="one"),
        pytest.param("a:b", ["b"], "b", id="the first that is there"),
        pytest.param("a:b", ["a", "b"], "a", id="both are there"),
        pytest.param("a:b", [], "b", id="none is there: kubectl takes the last"),
        pytest.param(":a::", [], "a", id="empty entries"),
    ],
)
def test_the_file_is_the_one_that_kubectl_writes(
    tmp_path: pathlib.Path, listed: str, existing: list[str], expected: str
) -> None:
    for name in existing:
        (tmp_path / name).touch()
    value = ":".join(str(tmp_path / entry) if entry else "" for entry in listed.split(":"))
    found = contexts.find_file({"KUBECONFIG": value} if listed else {}, home=tmp_path / "home")
    assert found == tmp_path / expected


def test_a_new_file_is_for_its_owner_alone_and_goes_with_the_cluster(file: pathlib.Path) -> None:
    contexts.merge(file, "p8s-a", OURS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = read(file)
    assert (config["apiVersion"], config["kind"]) == ("v1", "Config")
    assert config["current-context"] == "p8s-a"
    assert config["clusters"] == [
        {"name": "p8s-a", "cluster": {"server": "https://127.0.0.1:16443"}}
    ]
    assert config["users"] == [{"name": "p8s-a", "user": {"token": "secret"}}]
    context = config["contexts"][0]["context"]
    assert (context["cluster"], context["user"]) == ("p8s-a", "p8s-a")
    assert contexts.remove(file, "p8s-a") is True
    assert not file.exists()
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(OTHER, id="a usual file"),
        pytest.param("apiVersion: v1\nkind: Config\ncurrent-context: ''\n", id="no sections"),
        pytest.param(
            "apiVersion: v1\nclusters: []\ncontexts: []\ncurrent-context: ''\nusers: []\n",
            id="empty lists",
        ),
        pytest.param(
            '{"clusters": [], "contexts": [], "users": [], "current-context": ""}\n', id="JSON"
        ),
        pytest.param("a: &x 2026-01-01T00:00:00Z\nb: *x\ncurrent-context: ''\n", id="odd scalars"),
    ],
)
def test_what_was_there_is_there_afterwards(file: pathlib.Path, text: str) -> None:
    put(file, text)
    before = read(file)
    contexts.merge(file, "p8s-a", OURS)
    merged = read(file)
    assert merged["current-context"] == "p8s-a"
    for key, value in before.items():
        if key in contexts.SECTIONS:
            assert (merged[key] or [])[: len(value)] == value
        elif key != "current-context":
            assert merged[key] == value
    contexts.remove(file, "p8s-a")
    after = read(file)
    assert {key: value for key, value in after.items() if value} == {
        key: value for key, value in before.items() if value
    }


def test_the_text_of_others_is_kept_as_it_is_written(file: pathlib.Path) -> None:
    put(file, OTHER)
    contexts.merge(file, "p8s-a", OURS)
    assert 'token: "0123"' in file.read_text()
    assert "x-unknown: 0x1F" in file.read_text()
    assert "args: [eks, get-token]" in file.read_text()
    contexts.remove(file, "p8s-a")
    assert file.read_text() == OTHER


@pytest.mark.parametrize("text", ["clusters: null\ncontexts: ~\nusers:\n", "", "null\n", "---\n"])
def test_what_kubectl_leaves_empty_can_be_merged_into(file: pathlib.Path, text: str) -> None:
    put(file, text)
    contexts.merge(file, "p8s-a", OURS)
    assert names(file, "clusters") == ["p8s-a"]
    assert contexts.remove(file, "p8s-a") is True
    assert file.exists()
    assert not any(read(file)[section] for section in contexts.SECTIONS)


def test_a_second_run_replaces_the_first(file: pathlib.Path) -> None:
    put(file, OTHER)
    contexts.merge(file, "p8s-a", OURS)
    again = OURS | {"clusters": [{"name": "p8s", "cluster": {"server": "https://127.0.0.1:2"}}]}
    contexts.merge(file, "p8s-a", again)
    assert names(file, "clusters") == ["work", "p8s-a"]
    assert read(file)["clusters"][1]["cluster"]["server"] == "https://127.0.0.1:2"
    contexts.remove(file, "p8s-a")
    assert file.read_text() == OTHER


@pytest.mark.parametrize(
    ("removed", "currents"),
    [
        pytest.param(["b", "a"], ["p8s-a", "work"], id="last in, first out"),
        pytest.param(["a", "b"], ["p8s-b", "work"], id="first in, first out"),
    ],
)
def test_two_clusters_give_the_context_back(
    file: pathlib.Path, removed: list[str], currents: list[str]
) -> None:
    put(file, OTHER)
    contexts.merge(file, "p8s-a", OURS)
    contexts.merge(file, "p8s-b", OURS)
    found = []
    for name in removed:
        contexts.remove(file, f"p8s-{name}")
        found.append(read(file)["current-context"])
    assert found == currents
    assert file.read_text() == OTHER


@pytest.mark.parametrize("removed", [["a", "b"], ["b", "a"]])
def test_a_file_that_we_made_goes_with_the_last_cluster(
    file: pathlib.Path, removed: list[str]
) -> None:
    contexts.merge(file, "p8s-a", OURS)
    contexts.merge(file, "p8s-b", OURS)
    for name in removed:
        contexts.remove(file, f"p8s-{name}")
    assert not file.exists()


def test_a_context_that_the_user_chose_meanwhile_stays(file: pathlib.Path) -> None:
    put(file, OTHER)
    contexts.merge(file, "p8s-a", OURS)
    put(file, file.read_text().replace("current-context: p8s-a", "current-context: elsewhere"))
    contexts.remove(file, "p8s-a")
    assert read(file)["current-context"] == "elsewhere"


def test_a_previous_context_that_is_gone_is_not_given_back(file: pathlib.Path) -> None:
    put(file, OTHER.replace("current-context: work", "current-context: gone"))
    contexts.merge(file, "p8s-a", OURS)
    contexts.remove(file, "p8s-a")
    assert read(file)["current-context"] == ""


def test_nothing_to_remove(file: pathlib.Path) -> None:
    assert contexts.remove(file, "p8s-a") is False
    put(file, OTHER)
    assert contexts.remove(file, "p8s-a") is False
    assert file.read_text() == OTHER


def test_mode_and_link_are_kept(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "real"
    put(target, OTHER)
    target.chmod(0o640)
    file.parent.mkdir()
    file.symlink_to(target)
    contexts.merge(file, "p8s-a", OURS)
    assert file.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(target, "clusters") == ["work", "p8s-a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("a: [", "cannot be read", id="no YAML"),
        pytest.param("- a\n", "it is no mapping", id="a list"),
        pytest.param("just words\n", "it is no mapping", id="a scalar"),
        pytest.param("clusters: {a: b}\n", "its clusters are no list of entries", id="a mapping"),
        pytest.param("users: [a]\n", "its users are no list of entries", id="a list of words"),
        pytest.param("contexts: word\n", "its contexts are no list of entries", id="a word"),
        pytest.param("a: 1\n---\nb: 2\n", "cannot be read", id="two documents"),
    ],
)
def test_a_broken_file_is_left_alone(file: pathlib.Path, text: str, told: str) -> None:
    put(file, text)
    for change in (
        lambda: contexts.merge(file, "p8s-a", OURS),
        lambda: contexts.remove(file, "p8s-a"),
    ):
        with pytest.raises(errors.P8sError, match=told) as raised:
            change()
        assert "KUBECONFIG" in raised.value.hint
    assert file.read_text() == text
    assert [entry.name for entry in file.parent.iterdir()] == ["config"]


def test_a_binary_file_is_left_alone(file: pathlib.Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.P8sError, match="cannot be read"):
        contexts.merge(file, "p8s-a", OURS)
    assert file.read_bytes() == b"\xff\xfe\x00"


def test_somebody_elses_lock_is_waited_for_and_named(file: pathlib.Path) -> None:
    put(file, OTHER)
    lock = file.with_name("config.lock")
    lock.touch()
    with pytest.raises(errors.P8sError, match="is locked by") as raised:
        contexts.merge(file, "p8s-a", OURS, lock_seconds=0.1)
    assert raised.value.hint.endswith(f"rm {lock}")
    assert lock.exists()
    assert file.read_text() == OTHER


def test_a_place_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(errors.P8sError, match="cannot be written"):
        contexts.merge(tmp_path / "taken" / "config", "p8s-a", OURS)
