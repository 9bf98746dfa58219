"""An inventory: it tests the storage, lists everything of the namespace once, and sweeps what dead
runs left behind.

Only objects with this operator's directories and names are ever touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import DUMPS
from dbbackup.contract.keys import MANIFEST, OWN_NAMES, PROBE, RESTORES, SAFETY_SUFFIX, Leaf, leaf, parse_directory, root, split_key
from dbbackup.contract.manifest import Manifest
from dbbackup.contract.pages import Pager
from dbbackup.contract.report import InventoryItem, InventoryReport, ManifestSummary
from dbbackup.contract.run import InventoryOptions
from dbbackup.dataplane.bucket import SealedArtifact, open_bucket, read_manifest, refuse_unsupported
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep.parallel import results_in_order
from dbbackup.dataplane.upkeep.probe import ProbeResult, probe
from dbbackup.storage.base import ObjectInfo, Storage, UploadInfo

_PROBE_AGE = timedelta(hours=1)
"""Test objects of another inventory that are older than this belong to a dead run."""
_SUMMARY_LIMIT = 4096
"""Maximum bytes of one manifest's summary: names that Kubernetes and PostgreSQL allow need far
less."""
_PROBLEM_LIMIT = 300


@dataclass(slots=True)
class Directory:
    """An artifact's directory, as the listing shows it. `own` are objects with this operator's
    names; `others` counts the rest."""

    key: str
    leaf: Leaf
    own: dict[str, ObjectInfo] = field(default_factory=dict)
    others: int = 0

    @property
    def sealed(self) -> bool:
        return MANIFEST in self.own

    @property
    def size(self) -> int:
        return sum(info.size for info in self.own.values())

    @property
    def newest(self) -> datetime:
        return max(info.modified for info in self.own.values())


def execute(run: Run) -> None:
    """A BackupStorage's inventory: its pages, and `run.facts`; or Failure."""
    if run.spec.inventory is None:
        raise Failure("InvalidSpec", "the run spec lacks `inventory`")
    storage = open_bucket(run)
    below = root(run.spec.storage.prefix, run.spec.owner.namespace)
    Inventory(run, storage, below, run.spec.inventory, probe(storage, below, run.stop)).execute()


def list_artifacts(run: Run, storage: Storage, below: str) -> Iterator[InventoryItem]:
    """Every artifact below the root `below`, with its manifest's summary. Tests nothing, and
    removes nothing."""
    never = datetime.fromtimestamp(0, UTC)
    inventory = Inventory(run, storage, below, InventoryOptions(), ProbeResult(never, conditional_writes=False))
    yield from inventory.sealed()


class Inventory:
    """One pass over everything below the root `below`."""

    def __init__(self, run: Run, storage: Storage, below: str, options: InventoryOptions, tried: ProbeResult) -> None:
        self._run = run
        self._storage = storage
        self._below = below
        self._tried = tried
        self._known = {options.known[at : at + 8] for at in range(0, len(options.known), 8)}
        self._busy = frozenset(options.busy)
        self._sweep_before = tried.now - timedelta(seconds=options.sweep_after_seconds)
        self._bytes = self._foreign = self._debris = self._uploads = 0
        self._refused: Failure | None = None

    def execute(self) -> None:
        pager, stop = Pager(self._run.reporter.page), self._run.stop
        artifacts = swept = 0
        oldest: datetime | None = None
        newest: datetime | None = None
        for outcome in results_in_order(stop, self._work()):
            if not isinstance(outcome, InventoryItem):
                swept += outcome
                continue
            pager.add(outcome)
            artifacts += 1
            found = parse_directory(self._below, outcome.key)
            if found:
                oldest, newest = min(oldest or found.time, found.time), max(newest or found.time, found.time)
        if self._refused:
            self._run.warn(f"some abandoned objects could not be removed: {self._refused}")
        self._run.facts.inventory = InventoryReport(
            now=self._tried.now,
            conditional_writes=self._tried.conditional_writes,
            artifacts=artifacts,
            bytes=self._bytes,
            oldest=oldest,
            newest=newest,
            debris=self._debris,
            uploads=self._uploads,
            swept=swept,
            foreign=self._foreign,
        )
        self._run.facts.pages = pager.end()

    def sealed(self) -> Iterator[InventoryItem]:
        work = (partial(self._item, directory) for directory in self._directories() if directory.sealed)
        yield from (outcome for outcome in results_in_order(self._run.stop, work) if isinstance(outcome, InventoryItem))

    def _work(self) -> Iterator[Callable[[], InventoryItem | int]]:
        """A task for each artifact, directory without a manifest, and upload. Its result is the
        artifact's item, or the number of directories or uploads that it swept."""
        for directory in self._directories():
            if directory.sealed:
                self._foreign += directory.others
                yield partial(self._item, directory)
            elif directory.others:
                self._foreign += directory.others + len(directory.own)
            elif directory.leaf.short_uid not in self._busy:
                self._debris += 1
                if directory.newest <= self._sweep_before:
                    yield partial(self._sweep, directory)
        for upload in self._own_uploads():
            self._uploads += 1
            if upload.initiated <= self._sweep_before:
                yield partial(self._abort, upload)

    # listing

    def _directories(self) -> Iterator[Directory]:
        """The directories of artifacts, by their place and name. A server lists the objects of one
        directory together, so only one is in memory at a time."""
        current: Directory | None = None
        for info in self._storage.list(self._below):
            self._run.stop.check()
            self._bytes += info.size
            key, name = split_key(self._below, info.key) or ("", "")
            if current is None or current.key != key:
                if current:
                    yield current
                found = parse_directory(self._below, key) if key else None
                current = Directory(key, found) if found else None
            if current is None:
                self._loose(info)
            elif name in OWN_NAMES:
                current.own[name] = info
            else:
                current.others += 1
        if current:
            yield current

    def _loose(self, info: ObjectInfo) -> None:
        """Counts an object outside of all artifacts' directories; deletes an old test object."""
        top, _, name = info.key.removeprefix(self._below).partition("/")
        if top == RESTORES and name.endswith(".json") and "/" not in name:
            return
        if top != PROBE or not name or "/" in name:
            self._foreign += 1
        elif info.modified <= self._tried.now - _PROBE_AGE:
            self._delete([info.key], "a test object of an interrupted inventory")

    def _own_uploads(self) -> Iterator[UploadInfo]:
        """Unfinished uploads into artifacts' directories, except those of runs that are active."""
        try:
            for upload in self._storage.list_uploads(self._below):
                self._run.stop.check()
                key, name = split_key(self._below, upload.key) or ("", "")
                found = parse_directory(self._below, key)
                if found and name in OWN_NAMES and found.short_uid not in self._busy:
                    yield upload
        except Failure as failure:
            if failure.reason.name != "StorageRefused":
                raise
            self._run.warn(f"abandoned uploads cannot be listed, let a lifecycle rule of the bucket abort them: {failure}")

    # artifacts

    def _item(self, directory: Directory) -> InventoryItem | int:
        """The artifact's item; 0 (nothing swept) where it was deleted since it was listed."""
        manifest: ManifestSummary | None = None
        problem: str | None = None
        try:
            if directory.leaf.short_uid not in self._known:
                manifest, problem = self._summary(directory)
            elif not DUMPS & directory.own.keys():
                problem = "its dump is missing"
        except Failure as failure:
            if failure.reason.retryable:
                raise
            if failure.reason.name == "ArtifactMissing":
                return 0
            problem = str(failure)
        problem = self._run.reporter.redact(problem)[:_PROBLEM_LIMIT] if problem else None
        modified = directory.own[MANIFEST].modified
        return InventoryItem(key=directory.key, size_bytes=directory.size, modified=modified, manifest=manifest, problem=problem)

    def _summary(self, directory: Directory) -> tuple[ManifestSummary, str | None]:
        """The manifest's summary, and why no restore could use the artifact; Failure where the
        manifest cannot be used."""
        manifest, digest = read_manifest(self._storage, directory.key, directory.own[MANIFEST].size)
        where = f"{directory.key}/{MANIFEST}"
        owner = manifest.owner
        safety = owner.kind == "DatabaseRestore"
        times = (owner.created_at, manifest.started_at, manifest.finished_at, manifest.expires_at)
        if any(time is not None and time.tzinfo is None for time in times):
            raise Failure("ManifestInvalid", f"{where}: it contains a time without a time zone")
        if (
            owner.kind not in ("DatabaseBackup", "DatabaseRestore")
            or leaf(owner, SAFETY_SUFFIX if safety else "") != directory.key.rpartition("/")[2]
        ):
            raise Failure("ManifestInvalid", f"{where} belongs to {owner.kind} {owner.namespace}/{owner.name}"[:_PROBLEM_LIMIT])
        artifact = SealedArtifact(directory.key, manifest, digest)
        summary = ManifestSummary(
            owner=owner,
            artifact=artifact.report(),
            database=artifact.database_report(),
            started_at=manifest.started_at,
            finished_at=manifest.finished_at,
            expires_at=manifest.expires_at,
            schedule=manifest.schedule,
            safety=safety,
        )
        if len(summary.to_json().encode()) > _SUMMARY_LIMIT:
            raise Failure("ManifestInvalid", f"{where}: its names are longer than any that Kubernetes and PostgreSQL allow")
        return summary, _damage(directory, manifest)

    # sweeping

    def _sweep(self, directory: Directory) -> int:
        if self._storage.head(f"{directory.key}/{MANIFEST}") is not None:
            return 0
        keys = [info.key for info in directory.own.values()]
        return self._delete(keys, f"objects of a run that was never sealed, untouched since {directory.newest:%Y-%m-%d %H:%M} UTC")

    def _abort(self, upload: UploadInfo) -> int:
        return self._remove(
            f"the upload of {upload.key}, abandoned since {upload.initiated:%Y-%m-%d %H:%M} UTC", lambda: self._storage.abort_upload(upload)
        )

    def _delete(self, keys: Iterable[str], why: str) -> int:
        keys = list(keys)
        return self._remove(f"{', '.join(keys)}: {why}", lambda: self._storage.delete(keys))

    def _remove(self, what: str, call: Callable[[], None]) -> int:
        """1 where `call` removed it, else 0. Where a lock or a policy of the bucket forbids it,
        that is reported and does not fail the run."""
        try:
            call()
        except Failure as failure:
            if failure.reason.retryable:
                raise
            self._run.reporter.warn(f"could not be removed: {what}: {failure}")
            self._refused = failure
            return 0
        self._run.reporter.info(f"removed {what}")
        return 1


def _damage(directory: Directory, manifest: Manifest) -> str | None:
    """Why the artifact cannot be restored, as far as the listing shows it."""
    try:
        refuse_unsupported(directory.key, manifest)
    except Failure as failure:
        return str(failure)
    for stored in manifest.stored:
        found = directory.own.get(stored.name)
        if found is None:
            return f"{stored.name} is missing"
        if found.size != stored.size:
            return f"{stored.name} has {found.size} bytes, its manifest says {stored.size}"
    return None
