"""What is missing or damaged in the state volume: told by its name, or repaired without loss.

What etcd itself lost is seen by `etcd_mark`, and a CA by `pki`.
"""

from __future__ import annotations

import json
import pathlib
import time
import typing

from p8s_supervisor import context, errors, etcd_birth, etcd_files, etcd_mark, files, record, space

# kubelet ends at one that it cannot read. They say which processors, memory and resources pods were
# given; with the policies that kubelet has here it finds that in the pods again.
KUBELET_STATES = (
    "cpu_manager_state",
    "memory_manager_state",
    "dra_manager_state",
    "allocated_pods_state",
    "actuated_pods_state",
)
# What containerd keeps of a container beside its database.
# Source: containerd's internal/cri/store/container/status.go, versionedStatus.
CONTAINER_STATES = "io.containerd.grpc.v1.cri/containers/*/status"
MOMENTS = ("CreatedAt", "StartedAt", "FinishedAt")


def check(run: context.Context) -> None:
    """Look at the volume before anything is started. Safe to repeat.

    Raises:
        P8sError: it is full, or something that was there is gone.
    """
    if not run.resumed:  # what runs is not ended for want of room
        check_space(run)
    check_record(run)
    if etcd_mark.read(run.plan.paths) is not None:
        check_etcd(run)
        check_containerd(run)
    elif not run.resumed and etcd_birth.clear(run.plan.paths):
        run.tell("an earlier start ended while etcd was made: it is made anew; it held nothing yet")
    if not run.resumed:
        set_kubelet_states_aside(run)
        date_containers_back(run)


def check_space(run: context.Context) -> None:
    """Whether there is room for a start.

    Raises:
        P8sError: there is not.
    """
    places = run.plan.paths
    new = not places.cluster_record.exists()
    for path, needed in (
        (places.state, space.NEW_BYTES if new else space.LOW_BYTES),
        (places.root, space.LOW_BYTES),
    ):
        lack = space.find_lack(path, needed=needed)
        if lack is not None:
            raise errors.P8sError(lack, hint="make room, then start again; nothing was changed")


def check_record(run: context.Context) -> None:
    """A cluster in etcd without its record is not taken for a new one.

    Raises:
        P8sError: it would be.
    """
    places = run.plan.paths
    if places.cluster_record.exists() or not places.etcd_data.exists():
        return
    kept = {name: run.loaded.texts[name] for name in record.KEPT_SETTINGS}
    raise errors.P8sError(
        f"{places.cluster_record} is missing, but {places.etcd_data} holds a cluster",
        hint="put it back from a copy; it holds the settings that the cluster was made with; if "
        f"those of this start are right, write this into it: {json.dumps(kept)}",
    )


def check_etcd(run: context.Context) -> None:
    """etcd begins a new cluster where it finds no log; it must not in place of an old one.

    Where its log ends before its database it hangs: what is written with a number that the database
    has already is never applied.

    Raises:
        P8sError: there was a cluster, and it is gone; or the log ends too early.
    """
    places = run.plan.paths
    logs = places.etcd_data / "member/wal"
    if not any(logs.glob("*.wal")):
        raise errors.P8sError(
            f"etcd's log is missing: there is no *.wal in {logs}, but there was a cluster",
            hint=f"put {places.etcd_data} back from a copy, as a whole; a new cluster needs a new "
            "volume",
        )
    log = etcd_files.find_log_end(logs)
    database = etcd_files.find_database_end(places.etcd_data / "member/snap/db")
    if log is not None and database is not None and log < database:
        raise errors.P8sError(
            f"etcd's log was cut off or is damaged: in {logs} it ends at entry {log}, and the "
            f"database beside it at {database}",
            hint=f"put {places.etcd_data} back from a copy, as a whole; or make a new log from the "
            "database, as docs/reliability.md says: it holds all but the last moment",
        )
    # What etcd keeps of a log whose torn end it cut off: 64 MB each time, and nobody removes it.
    for copy in sorted(logs.glob("*.broken"))[:-1]:
        copy.unlink()


def check_containerd(run: context.Context) -> None:
    """containerd begins anew with what it finds no file of, and trusts what the others say.

    Raises:
        P8sError: a part of its store is gone.
    """
    root = run.plan.paths.containerd_root
    if not root.exists():
        run.tell(f"{root} is missing: images that were loaded have to be loaded again")
        return
    snapshotters = [
        directory
        for kind in ("overlayfs", "native")
        if (directory := root / f"io.containerd.snapshotter.v1.{kind}").exists()
        and (directory / "metadata.db").exists()
        and any((directory / "snapshots").glob("*"))
    ]
    if not snapshotters:
        wrong = f"{root}/io.containerd.snapshotter.v1.*: metadata.db or the snapshots are missing"
    else:
        file = root / "io.containerd.metadata.v1.bolt/meta.db"
        if file.exists() and file.stat().st_size:
            return
        wrong = f"{file} is missing or empty"
    raise errors.P8sError(f"containerd's store is damaged: {wrong}", hint=hint(run, "containerd"))


def set_kubelet_states_aside(run: context.Context) -> None:
    """Rename kubelet's state files that are not JSON: it makes them anew."""
    for name in KUBELET_STATES:
        file = run.plan.paths.kubelet_state / name
        try:
            damaged = not isinstance(json.loads(file.read_bytes()), dict)
        except FileNotFoundError:
            continue
        except ValueError:
            damaged = True
        if damaged:
            aside = file.with_name(f"{name}.damaged")
            file.rename(aside)
            run.tell(f"{file} is damaged: kubelet makes it anew; the old one is {aside.name}")


def date_containers_back(run: context.Context) -> None:
    """Have no container, all of which have ended, be of a time to come: the clock was set back.

    kubelet takes that of a pod's containers which was created last for the present one. Of
    tomorrow, it would hide the one that is started now: kubelet makes that again each second, is
    refused for its name, and the pod is never ready.
    """
    now = time.time_ns()
    ahead = {}
    for file in run.plan.paths.containerd_root.glob(CONTAINER_STATES):
        state = _read_state(file)
        if any(state.get(name, 0) > now for name in MOMENTS):
            ahead[file] = state
    if not ahead:
        return
    shift = max(state[name] for state in ahead.values() for name in MOMENTS) - now
    for file, state in ahead.items():
        # All by as much, so that their order stays.
        back = {name: state[name] - shift for name in MOMENTS if state[name] > now}
        text = json.dumps(state | back, separators=(",", ":"))
        files.write(file, text, mode=0o600, durable=True)
    run.tell(
        f"the clock was set back by {shift / 1e9:.0f} s or more since containers were made: "
        f"{len(ahead)} of them, which have ended, are dated back"
    )


def _read_state(file: pathlib.Path) -> dict[str, typing.Any]:
    """A container's state; empty where it is none: containerd tells of it, and goes on."""
    try:
        state = json.loads(file.read_bytes())
        return state if all(isinstance(state[name], int) for name in MOMENTS) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def hint(run: context.Context, component: str) -> str:
    """What to do where a component fails over what it finds in the volume; empty for others."""
    places = run.plan.paths
    if run.fresh:
        return ""
    return {
        "etcd": f"if it says that its data are damaged, put {places.etcd_data} back from a copy, as "
        "a whole; nothing was changed in it, and no new cluster is begun in its place",
        "containerd": f"put {places.containerd_root} back from a copy, or remove it as a whole: "
        "what p8s itself needs is imported anew; images that were loaded have to be loaded again",
        "kubelet": f"if it names a file of {places.kubelet_root} that is damaged, remove that one; "
        f"in the volume it lies in {places.kubelet_state}; pods' data are in its pods/",
    }.get(component, "")
