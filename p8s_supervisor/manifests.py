"""The manifests: YAML files beside this module, their $NAMES filled in from the plan."""

from __future__ import annotations

import json
import pathlib
import string
import typing

from p8s_supervisor import audit, component_files, components

DIRECTORY = pathlib.Path(__file__).parent / "manifests"
NODE_IMAGE = "p8s.local/node:1"


def values(plan: components.Plan) -> dict[str, str]:
    """What the $NAMES in the manifests stand for."""
    chosen = plan.settings
    audit_mounts, audit_volumes = audit.mounts(
        plan.audit, policy=plan.paths.audit_policy, log=plan.paths.audit_log
    )
    return _mounts(plan) | {
        "NODE_IMAGE": NODE_IMAGE,
        "STATE": str(plan.paths.state),
        "PKI": str(plan.paths.pki),
        "AUTHORITIES": str(plan.paths.authorities),
        "KUBERNETES": str(plan.paths.kubernetes),
        "AUTHENTICATION": str(plan.paths.authentication),
        # JSON is YAML: a list of arguments needs no quoting of its own.
        "KUBE_APISERVER": json.dumps(components.kube_apiserver(plan)),
        "KUBE_CONTROLLER_MANAGER": json.dumps(components.kube_controller_manager(plan)),
        "KUBE_SCHEDULER": json.dumps(components.kube_scheduler(plan)),
        "AUDIT_MOUNTS": audit_mounts,
        "AUDIT_VOLUMES": audit_volumes,
        "NODE_ADDRESS": plan.node_addresses[0],
        "API_ADDRESS": chosen.pod_gateway,
        "API_PORT": str(chosen.api_port),
        "POD_CIDR": str(chosen.pod_cidr),
        "CLUSTER_DOMAIN": chosen.cluster_domain,
        "DNS_SERVICE_IP": chosen.dns_service_ip,
        "PROXY_MODE": component_files.proxy_mode(plan),
        "VERBOSITY": str(chosen.verbosity),
    }


def _mounts(plan: components.Plan) -> dict[str, str]:
    """What the static pods mount for what the user gives."""
    found = {}
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        mounts, volumes = component_files.list_mounts(plan, name)
        key = name.replace("-", "_").upper()
        found[f"{key}_MOUNTS"] = audit.to_items(mounts, indent=4)
        found[f"{key}_VOLUMES"] = audit.to_items(volumes, indent=2)
    return found


def render(file: pathlib.Path, names: dict[str, str]) -> str:
    """A manifest's text with its names filled in ($$ is a dollar sign).

    Raises:
        KeyError: the file has a name that `names` lacks.
    """
    return string.Template(file.read_text()).substitute(names)


def static_pod(name: str, names: dict[str, str]) -> str:
    """The text of a static pod's manifest."""
    return render(DIRECTORY / "static-pods" / f"{name}.yaml", names)


def add_on_by_file(name: str, names: dict[str, str]) -> dict[str, list[dict[str, typing.Any]]]:
    """An add-on's objects, as `system_by_file` has the system's."""
    return _read(f"add-ons/{name}", names)


def system(names: dict[str, str]) -> list[dict[str, typing.Any]]:
    """The objects to apply, in order."""
    return [document for found in system_by_file(names).values() for document in found]


def system_by_file(names: dict[str, str]) -> dict[str, list[dict[str, typing.Any]]]:
    """The objects to apply, in order, under the names of their files."""
    return _read("system", names)


def _read(directory: str, names: dict[str, str]) -> dict[str, list[dict[str, typing.Any]]]:
    import yaml  # late: not needed before the apiserver answers

    loader: typing.Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {
        file.name: [
            document
            for document in yaml.load_all(render(file, names), Loader=loader)
            if document is not None
        ]
        for file in sorted(DIRECTORY.glob(f"{directory}/*.yaml"))
    }
