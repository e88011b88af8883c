"""How a cluster is told by which address it is reached, and when it cannot be."""

from __future__ import annotations

import pytest

from p8s_supervisor import errors, settings
from p8s_supervisor.host import clusters, runs
from tests import host_fakes


class Elsewhere(host_fakes.Engine):
    """An engine on another host."""

    def reach(self, address: str) -> str:
        return "docker.invalid" if address in ("", "0.0.0.0", "::") else address


@pytest.mark.parametrize(
    ("engine", "bind", "sans", "expected"),
    [
        pytest.param(host_fakes.Engine(), "127.0.0.1", "", ["--api-server=https://127.0.0.1:8"], id="loopback"),
        pytest.param(host_fakes.Engine(), "0.0.0.0", "", ["--api-server=https://127.0.0.1:8"], id="all"),
        pytest.param(
            host_fakes.Engine(), "127.0.0.2", "",
            ["--api-server=https://127.0.0.2:8", "--extra-sans=127.0.0.2"], id="another address",
        ),
        pytest.param(
            Elsewhere(), "0.0.0.0", "",
            ["--api-server=https://docker.invalid:8", "--extra-sans=docker.invalid"], id="elsewhere",
        ),
        pytest.param(
            Elsewhere(), "0.0.0.0", "a,b",
            ["--api-server=https://docker.invalid:8", "--extra-sans=a,b,docker.invalid"],
            id="beside others",
        ),
        pytest.param(
            Elsewhere(), "0.0.0.0", "docker.invalid",
            ["--extra-sans=docker.invalid", "--api-server=https://docker.invalid:8"], id="said already",
        ),
    ],
)  # fmt: skip
def test_the_node_is_told_how_it_is_reached(
    engine: host_fakes.Engine, bind: str, sans: str, expected: list[str]
) -> None:
    given = (f"--extra-sans={sans}",) if sans else ()
    wanted = runs.Wanted(
        spec=clusters.Spec(name="dev", bind=bind, flags=given),
        settings=settings.load(["--config=/dev/null", *given], {}).settings,
        publish_http=7,
        publish_api=8,
    )
    runs.start(engine, wanted)
    assert list(engine.specs[0].flags) == expected


def test_a_loopback_that_is_out_of_reach_is_told_before_anything_is_made() -> None:
    engine = Elsewhere()
    wanted = runs.Wanted(
        spec=clusters.Spec(name="dev"),
        settings=settings.load(["--config=/dev/null"], {}).settings,
    )
    with pytest.raises(errors.P8sError, match=r"engine is on docker\.invalid") as raised:
        runs.start(engine, wanted)
    assert "--bind=0.0.0.0" in raised.value.hint
    assert engine.calls == []
