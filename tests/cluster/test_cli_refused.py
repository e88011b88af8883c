"""The `p8s` command with a cluster that refuses one of the user's manifests, and runs."""

from __future__ import annotations

import pathlib
import time

from tests.cluster import image_layers, nodes, test_cli, test_manifests

WRONG = "50-refused.yaml"


def test_what_is_refused_is_told_and_the_cluster_is_left_running(
    kubectl_program: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    files = {
        WRONG: test_manifests.dump(test_manifests.NO_CONTAINERS).encode(),
        "60-fine.yaml": test_manifests.dump(test_manifests.config_map("fine")).encode(),
    }
    p8s = test_cli.Command(tmp_path / "config", kubectl_program)
    place = test_manifests.DIRECTORY
    with image_layers.derive(f"COPY *.yaml {place}/", files) as image, test_cli.named(p8s) as name:
        asked = ("run", "--detach", "--no-check", f"--name={name}", f"--image={image}")
        began = time.monotonic()
        done = p8s.attempt(*asked, "--drain=none")
        assert time.monotonic() - began < 30
        assert done.returncode == 3, done.stdout + done.stderr
        assert f"{name} runs, and is degraded" in done.stdout
        reason = f'{WRONG}: Deployment empty: Deployment.apps "empty" is invalid: [spec.selector: '
        assert f"p8s: manifests/{reason}" in done.stderr
        context = f"--context=p8s-{name}"
        assert "fine" in p8s.kubectl("get", "configmap", "fine", context)

        waited = p8s.attempt("wait", f"--name={name}", "--timeout=1s")
        assert waited.returncode == 3
        assert reason in waited.stderr

        file = tmp_path / WRONG
        file.write_bytes(files["60-fine.yaml"])
        nodes.docker("cp", str(file), f"p8s-{name}:{place}/{WRONG}")
        assert p8s("wait", f"--name={name}") == f"{name} is ready\n"
