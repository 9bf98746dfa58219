"""Deletes many artifacts in one run: the manifests first, so that the rest of an interrupted run is
never taken for a backup.

An artifact is deleted only where its manifest names the item's owner, and only objects with this
operator's names are deleted. Missing objects count as deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import MANIFEST, OWN_NAMES, parse_directory, root
from dbbackup.contract.pages import Pager
from dbbackup.contract.report import PrunedItem
from dbbackup.contract.run import PruneItem
from dbbackup.dataplane.bucket import open_bucket, read_manifest
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep.parallel import results_in_order
from dbbackup.storage.base import ObjectInfo, Storage


@dataclass(slots=True)
class ArtifactToPrune:
    """One item: the objects that exist of it, and why it cannot be deleted."""

    item: PruneItem
    names: frozenset[str] = frozenset()
    problem: str | None = None

    def keys(self, *, manifest: bool) -> list[str]:
        """The key of its manifest, or the keys of all other objects."""
        return [f"{self.item.key}/{name}" for name in sorted(self.names) if (name == MANIFEST) is manifest]


def execute(run: Run) -> None:
    """A prune: its pages, one PrunedItem for each item, and `run.facts`; Failure where the storage
    as a whole does not answer."""
    if run.spec.prune is None:
        raise Failure("InvalidSpec", "the run spec lacks `prune`")
    below = root(run.spec.storage.prefix, run.spec.owner.namespace)
    artifacts = [ArtifactToPrune(item, problem=_refusal(below, item)) for item in run.spec.prune.items]
    try:
        storage: Storage | None = open_bucket(run, create=False)
    except Failure as failure:
        if failure.reason.name != "BucketNotFound":
            raise
        storage = None
        run.warn(f"nothing is left to delete: {failure}")
    if storage is not None:
        _prune(run, storage, [artifact for artifact in artifacts if artifact.problem is None])
    pager = Pager(run.reporter.page)
    for artifact in artifacts:
        problem = run.reporter.redact(artifact.problem)[:500] if artifact.problem else None
        pager.add(PrunedItem(key=artifact.item.key, uid=artifact.item.uid, problem=problem))
    run.facts.pages = pager.end()


def _refusal(below: str, item: PruneItem) -> str | None:
    """Why the item's key cannot belong to its owner in the run's namespace; None where it can."""
    found = parse_directory(below, item.key)
    if found is None:
        return f"{item.key} is not an artifact's directory below {below}: nothing was deleted"
    if found.short_uid != item.uid[:8]:
        return f"{item.key} is not the directory of the object with UID {item.uid}: nothing was deleted"
    return None


def _prune(run: Run, storage: Storage, artifacts: list[ArtifactToPrune]) -> None:
    for _ in results_in_order(run.stop, (partial(_look, storage, artifact) for artifact in artifacts)):
        pass
    for manifest in (True, False):
        run.stop.check()
        good = [artifact for artifact in artifacts if artifact.problem is None]
        _delete(run, storage, good, partial(ArtifactToPrune.keys, manifest=manifest))
    gone = sum(artifact.problem is None for artifact in artifacts)
    run.reporter.info(f"{gone} artifacts are gone, {len(artifacts) - gone} could not be deleted")


def _look(storage: Storage, artifact: ArtifactToPrune) -> None:
    """Finds the artifact's objects, and the owner that its manifest names."""
    key = artifact.item.key
    existing: dict[str, ObjectInfo] = {}
    for info in storage.list(key + "/"):
        name = info.key.removeprefix(key + "/")
        if name in OWN_NAMES:
            existing[name] = info
    artifact.names = frozenset(existing)
    if MANIFEST not in existing:
        return
    try:
        manifest, _ = read_manifest(storage, key, existing[MANIFEST].size)
    except Failure as failure:
        if failure.reason.retryable:
            raise
        if failure.reason.name != "ArtifactMissing":  # else another run has begun to delete it
            artifact.problem = f"nothing was deleted, as its owner is unknown: {failure}"
        return
    owner, unknown = manifest.owner, sorted({stored.name for stored in manifest.stored} - OWN_NAMES)
    if owner.uid != artifact.item.uid:
        artifact.problem = f"{key} belongs to {owner.kind} {owner.namespace}/{owner.name} with UID {owner.uid}: nothing was deleted"
    elif unknown:
        artifact.problem = f"{key} contains {unknown[0]}, which this operator does not know: nothing was deleted"


def _delete(run: Run, storage: Storage, artifacts: list[ArtifactToPrune], keys: Callable[[ArtifactToPrune], list[str]]) -> None:
    """Deletes in as few requests as the server allows; where it refuses, artifact by artifact, so
    that each gets its own problem."""
    wanted = [key for artifact in artifacts for key in keys(artifact)]
    if not wanted:
        return
    try:
        storage.delete(wanted)
    except Failure as failure:
        if failure.reason.retryable:
            raise
    else:
        return
    for _ in results_in_order(run.stop, (partial(_delete_one, storage, artifact, keys) for artifact in artifacts)):
        pass


def _delete_one(storage: Storage, artifact: ArtifactToPrune, keys: Callable[[ArtifactToPrune], list[str]]) -> None:
    try:
        storage.delete(keys(artifact))
    except Failure as failure:
        if failure.reason.retryable:
            raise
        artifact.problem = str(failure)
