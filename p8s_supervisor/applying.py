"""Server-side apply of many objects: bounded, with the reason for each that is refused."""

from __future__ import annotations

import collections.abc
import dataclasses
import time

from p8s_supervisor import (
    admission,
    component_files,
    context,
    errors,
    kube,
    manifests,
    probes,
    wait,
)

# How long the kinds of a new CustomResourceDefinition may take to be served.
DEFINITION_SECONDS = 5.0
# How many refused objects, and reasons, of a file are told.
TOLD = 3
SYSTEM = "system/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An object to apply.

    Attributes:
        file: where it comes from.
        manifest: the object, with apiVersion, kind and a name.
    """

    file: str
    manifest: kube.Object

    def __str__(self) -> str:
        metadata = self.manifest["metadata"]
        name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        return f"{self.manifest['kind']} {name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """An object that could not be applied.

    Attributes:
        item: the object.
        reason: the apiserver's words.
        is_silent: there was no answer in time: to try again at once would only wait again.
    """

    item: Item
    reason: str
    is_silent: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        applied: the objects, such as `Deployment kube-system/coredns`.
        refusals: those that could not be applied.
    """

    applied: list[str]
    refusals: list[Refusal]

    def by_file(self) -> dict[str, str]:
        """For each file with refused objects the reasons, each once with its objects."""
        found: dict[str, dict[str, list[str]]] = {}
        for refusal in self.refusals:
            reasons = found.setdefault(refusal.item.file, {})
            reasons.setdefault(refusal.reason, []).append(str(refusal.item))
        return {
            file: shorten([f"{shorten(names)}: {why}" for why, names in reasons.items()], "; ")
            for file, reasons in found.items()
        }


def apply(
    client: kube.Client,
    items: collections.abc.Sequence[Item],
    *,
    seconds: float,
    longest: float,
    manager: str = kube.FIELD_MANAGER,
    cancelled: collections.abc.Callable[[], bool] = lambda: False,
    clock: wait.Clock = time,
) -> Outcome:
    """Apply objects in order; those refused again, as long as that makes progress.

    Args:
        client: the apiserver's client.
        items: the objects.
        seconds: for all of them; what is not tried by then is refused.
        longest: for each, in seconds.
        manager: who owns the fields.
        cancelled: looked at before each object.
        clock: time, or a fake in tests.
    """
    begun = clock.monotonic()
    applied: list[Item] = []
    waiting = list(items)
    while True:
        refusals = []
        for item in waiting:
            left = begun + seconds - clock.monotonic()
            if left <= 0 or cancelled():
                told = f"not tried, others took all of {seconds:g} s"
                refusals.append(Refusal(item=item, reason=told, is_silent=True))
                continue
            try:
                client.apply(item.manifest, seconds=min(longest, left), manager=manager)
            except errors.KubeError as error:
                told = _hide(item, admission.explain(client, error))
                silent = admission.is_silent(error)
                refusals.append(Refusal(item=item, reason=told, is_silent=silent))
            else:
                applied.append(item)
        progressed = len(refusals) < len(waiting)
        waiting = [refusal.item for refusal in refusals]
        if all(refusal.is_silent for refusal in refusals):
            break
        if not progressed:
            defined = any(item.manifest["kind"] == "CustomResourceDefinition" for item in applied)
            if not defined or clock.monotonic() - begun > min(seconds, DEFINITION_SECONDS):
                break
            clock.sleep(0.2)
    return Outcome(applied=[str(item) for item in applied], refusals=refusals)


def shorten(told: list[str], separator: str = ", ") -> str:
    """The first few of a list, and how many more there are."""
    more = len(told) - TOLD
    return separator.join(told[:TOLD]) + (f" and {more} more" if more > 0 else "")


def _hide(item: Item, reason: str) -> str:
    """A reason without the object's name, and without a Secret's content, which it may quote."""
    manifest = item.manifest
    reason = reason.removeprefix(f"{manifest['kind']} {manifest['metadata']['name']}: ")
    if manifest["kind"] != "Secret":
        return reason
    content = (manifest.get(field) for field in ("data", "stringData"))
    values = [str(value) for part in content if isinstance(part, dict) for value in part.values()]
    if not any(value and value in reason for value in values):
        return reason
    return "refused; the reason is not shown, it quotes the content"


def find_client(run: context.Context) -> kube.Client:
    """The apiserver's client.

    Raises:
        RequestError: 503, it does not answer.
    """
    reason = "it is not started yet" if run.client is None else probes.apiserver_answers(run.client)
    if run.client is None or reason:
        raise errors.RequestError(
            f"kube-apiserver does not answer: {reason}", status=503, hint="wait for /ready"
        )
    return run.client


def apply_system(
    run: context.Context, client: kube.Client, *, seconds: float, longest: float
) -> Outcome:
    """Apply the system's own manifests, and note which files are refused; see `apply`."""
    items = [
        Item(file=file, manifest=manifest)
        for file, found in manifests.system_by_file(manifests.values(run.plan)).items()
        for manifest in component_files.change_system(run.plan, found)
    ]
    outcome = apply(client, items, seconds=seconds, longest=longest)
    note(run, SYSTEM, outcome.by_file())
    return outcome


def note(run: context.Context, prefix: str, refused: dict[str, str]) -> None:
    """Keep which files are refused and why; tell of each once, and once when it is applied.

    Args:
        run: the context.
        prefix: what the conditions of these files begin with.
        refused: file → reason, all that there are now.
    """
    before = {name: reason for name, reason in list(run.refused.items()) if name.startswith(prefix)}
    now = {f"{prefix}{file}": reason for file, reason in refused.items()}
    run.refused.update(now)  # in place: other threads change other conditions
    for name, reason in now.items():
        if name not in before:
            run.tell(f"{name} is not applied: {reason}")
            run.journal.record("refused", f"{name}: {reason}", file=name, reason=reason)
    for name in before.keys() - now.keys():
        run.refused.pop(name, None)
        run.tell(f"{name} is applied now")
        run.journal.record("applied", f"{name} is applied now", file=name)
