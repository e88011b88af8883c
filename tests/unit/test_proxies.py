"""Who is told of a proxy, and what is reached without one."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import tomllib

import pytest

from p8s_supervisor import components, errors, init, proxies, runtime, settings
from tests import fakes

NOWHERE = ["--config=/dev/null"]


def test_everybodys_variables_are_settings() -> None:
    environment = {
        "HTTP_PROXY": "http://a:1",
        "http_proxy": "http://b:1",
        "https_proxy": "c:1",
        "NO_PROXY": "",
        "no_proxy": "d",
    }
    loaded = settings.load(NOWHERE, environment)
    chosen = loaded.settings
    assert (chosen.http_proxy, chosen.https_proxy, chosen.no_proxy) == (
        "http://a:1",
        "http://c:1",
        ("d",),
    )
    assert loaded.sources["https_proxy"] == "environment"
    own = environment | {"P8S_HTTP_PROXY": "", "P8S_NO_PROXY": "e"}
    chosen = settings.load([*NOWHERE, "--https-proxy=f:1"], own).settings
    assert (chosen.http_proxy, chosen.https_proxy, chosen.no_proxy) == ("", "http://f:1", ("e",))


def test_a_proxy_s_password_is_not_shown() -> None:
    loaded = settings.load(NOWHERE, {"HTTP_PROXY": "http://user:hunter2@a:1"})
    assert loaded.describe()["http_proxy"] == {"value": "…@a:1", "source": "environment"}
    assert loaded.is_secret("http_proxy")
    assert not loaded.is_secret("https_proxy")
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(NOWHERE, {"HTTP_PROXY": "http://user:hunter2@a:1/path"})
    assert "hunter2" not in str(caught.value)
    assert "http_proxy = '…@a:1/path' (from environment): the URL of" in str(caught.value)


def test_no_process_of_the_node_inherits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HTTP_PROXY": "a", "https_proxy": "b", "NO_PROXY": "c", "ALL_PROXY": "d", "KEPT": "e"}
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr("sys.argv", ["p8s-init"])
    read: list[dict[str, str]] = []
    monkeypatch.setattr(init, "prepare", lambda _, environment: read.append(dict(environment)))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(init, "remove_cgroups", lambda: None)
    inherited: list[dict[str, str]] = []

    def run_supervisord() -> int:
        inherited.append(dict(os.environ))
        return 0

    monkeypatch.setattr(init, "run_supervisord", run_supervisord)
    with pytest.raises(SystemExit):
        init.main()
    assert (read, inherited) == ([given], [{"KEPT": "e"}])


@pytest.mark.parametrize("asked", ["true", "false"])
def test_containers_begin_with_a_spec_of_ours_where_that_is_asked(
    tmp_path: pathlib.Path, asked: str
) -> None:
    plan = fakes.make_plan(tmp_path, "--http-proxy=p:1", f"--pod-proxies={asked}")
    config = tomllib.loads(runtime.containerd_config(plan, snapshotter="overlayfs"))
    crun = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["crun"]
    wanted = str(tmp_path / "run/p8s/container-spec.json") if asked == "true" else None
    assert crun.get("base_runtime_spec") == wanted


def test_a_command_is_given_its_variables() -> None:
    script = components.command_script(["run", "it"], {"HTTP_PROXY": "http://u:$p w@a"})
    assert script == "export HTTP_PROXY='http://u:$p w@a'\nexec run \\\n  it\n"


def test_without_a_proxy_nobody_is_told(tmp_path: pathlib.Path) -> None:
    plan = fakes.make_plan(tmp_path, "--no-proxy=a.b", "--pod-proxies=true")
    assert proxies.environment(plan) == proxies.for_pods(plan) == {}


def test_the_cluster_s_own_is_reached_without(tmp_path: pathlib.Path) -> None:
    plan = fakes.make_plan(
        tmp_path,
        "--https-proxy=proxy:3128",
        "--no-proxy=a.b,localhost",
        "--cluster-domain=c.d",
        "--node-name=knot",
    )
    assert proxies.environment(plan) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "a.b,localhost,127.0.0.1,::1,knot,172.17.0.2,192.168.253.0/24,192.168.254.0/24,"
        ".svc,.c.d",
    }
    assert proxies.for_pods(plan) == {}


def test_pods_have_them_in_both_cases(tmp_path: pathlib.Path) -> None:
    plan = fakes.make_plan(tmp_path, "--http-proxy=p:1", "--pod-proxies=true")
    found = proxies.for_pods(plan)
    assert set(found) == {"HTTP_PROXY", "NO_PROXY", "http_proxy", "no_proxy"}
    assert found["HTTP_PROXY"] == found["http_proxy"] == "http://p:1"


def test_a_container_has_no_limits_that_cri_would_have_taken_out() -> None:
    default = {
        "process": {"cwd": "/", "rlimits": [1], "apparmorProfile": "x", "selinuxLabel": "y"},
        "linux": {"seccomp": {}, "namespaces": []},
    }
    assert json.loads(proxies.container_spec(json.dumps(default), {"A": "b=c"})) == {
        "process": {"cwd": "/", "env": ["A=b=c"]},
        "linux": {"namespaces": []},
    }
