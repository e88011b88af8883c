"""The CAs that the node trusts beside the public ones: the setting `ca_bundle`."""

from __future__ import annotations

import pathlib
import typing

from p8s_supervisor import files

if typing.TYPE_CHECKING:
    from p8s_supervisor import components  # PID 1 checks the settings, and needs no PKI

# What comes after it is ours, and is taken away before it is added again: the container's own files
# outlive its restart.
MARK = b"\n# --- p8s: the setting ca_bundle\n"
# An object of Kubernetes has room for a MiB.
MOST_BYTES = 900 * 1024


def find_bundle(plan: components.Plan) -> pathlib.Path | None:
    """The user's bundle in the node; None where there is none."""
    file = plan.paths.root / str(plan.settings.ca_bundle).lstrip("/")
    return file if file.exists() else None


def find_mistake(file: pathlib.Path) -> str | None:
    """Why a file is none of CAs to trust, with what to do; None where it is one."""
    import ssl  # late: most clusters have no such file

    try:
        content = file.read_bytes()
    except IsADirectoryError:
        return "a directory: docker makes one where the host has no such file; mount a PEM file"
    except OSError as error:
        return f"cannot be read: {error.strerror}; mount a PEM file there"
    if b"PRIVATE KEY-----" in content:
        return "it holds a private key: leave only certificates in it"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(file))
    except (ssl.SSLError, OSError):
        return "no PEM file with certificates (-----BEGIN CERTIFICATE-----)"
    return None


def find_bundle_mistake(file: pathlib.Path) -> str | None:
    """Why a file cannot be the bundle: it is offered to pods too; see `find_mistake`."""
    wrong = find_mistake(file)
    if wrong is None and file.stat().st_size > MOST_BYTES:
        return f"larger than {MOST_BYTES // 1024} KiB, which a ConfigMap has no room for"
    return wrong


def install(plan: components.Plan) -> None:
    """Add the bundle to what the node's programs trust, before the first of them reads that.

    Raises:
        OSError: it cannot be read, or the node's own cannot be written.
    """
    bundle, file = find_bundle(plan), plan.paths.certificates
    if bundle is None:
        return
    own = file.read_bytes().partition(MARK)[0]
    files.write(file, own + MARK + bundle.read_bytes())
