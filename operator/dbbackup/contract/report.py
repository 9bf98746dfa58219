"""What a Job answers: the lines of its log while it runs, and one `Report` at its end.

The report travels as JSON in the container's termination message. The items of inventories, prunes
and discoveries are too many for that: they travel as pages in the log (see `contract.pages`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from dbbackup.contract.formats import Algorithm, Format
from dbbackup.contract.model import Model
from dbbackup.contract.run import Owner, RunKind
from dbbackup.text import cut, few

REPORT_LIMIT = 4096
"""Bytes. The kubelet cuts a termination message there."""
WARNINGS = 16
"""Maximum warnings in a report or a status."""

Finding = Literal["TookEffect", "NoEffect", "Unknown"]
"""What a check found out about a lost run: its backup is sealed or its restore committed; it has
changed nothing; or neither bucket nor server can say."""


class FailureReport(Model):
    reason: str
    message: str
    hint: str
    retryable: bool


class ArtifactReport(Model):
    """`key` is the artifact's directory; `sha256` is the digest of the stored dump, and
    `manifest_sha256` that of manifest.json."""

    key: str
    sha256: str
    manifest_sha256: str
    size_bytes: int
    format: Format
    compression: Algorithm
    encrypted: bool = False
    format_version: int = 1


class DatabaseReport(Model):
    """`identity` is host:port/name as the Job resolved it."""

    identity: str
    name: str
    server_version: str
    size_bytes: int
    tables: int
    rows: int | None = None
    tls: bool


class ManifestSummary(Model):
    """What an import needs to make the object of an artifact again. `safety`: a restore made the
    artifact before a Replace."""

    owner: Owner
    artifact: ArtifactReport
    database: DatabaseReport
    started_at: datetime
    finished_at: datetime
    expires_at: datetime | None = None
    schedule: str | None = None
    safety: bool = False


class InventoryItem(Model):
    """One artifact, as an inventory reports it. `key` is its directory; `size_bytes` counts all its
    objects. `manifest` is there only for artifacts without a known object; `problem` says why such
    a manifest could not be used."""

    key: str
    size_bytes: int
    modified: datetime
    manifest: ManifestSummary | None = None
    problem: str | None = None


class PrunedItem(Model):
    """One artifact that a prune was to delete. `problem` says why it still stands; without one it
    is gone, or was not there."""

    key: str
    uid: str
    problem: str | None = None


class DiscoveredItem(Model):
    """One database of a server, as a discovery reports it. Templates and databases that allow no
    connections are left out."""

    name: str


class InventoryReport(Model):
    """`now` is the storage's clock. `bytes` counts everything below the namespace's directory.
    `oldest` and `newest` are the times in the artifacts' keys. `debris` counts directories without
    a manifest and `uploads` unfinished uploads, both before the sweep and without those of active
    runs. `swept` counts the directories and uploads that were removed. `foreign` counts objects of
    others, which are never touched.
    """

    now: datetime
    conditional_writes: bool
    artifacts: int
    bytes: int
    oldest: datetime | None = None
    newest: datetime | None = None
    debris: int = 0
    uploads: int = 0
    swept: int = 0
    foreign: int = 0


class PagesReport(Model):
    """Counts and SHA-256 of the pages in the run's log, so that none can be missing unseen."""

    pages: int
    items: int
    sha256: str


class RestoredReport(Model):
    """`bytes` counts the uncompressed bytes that the server took. `rows` and `bytes` are absent
    where a check settled the restore and its record does not hold them."""

    tables: int
    rows: int | None = None
    bytes: int | None = None


class SafetyBackupReport(Model):
    key: str
    sha256: str
    manifest_sha256: str
    size_bytes: int


class Report(Model):
    """How a run ended.

    `finding` is there only in the report of a check that could look, and not before 0.2.
    `uncleared` says that the run failed and could not remove what it had stored, so a check Job
    must. Like every later field it is absent where it says nothing: an operator of 0.1 refuses a
    report with a field that it does not know.
    """

    version: Literal[1] = 1
    run: RunKind
    uid: str
    outcome: Literal["Succeeded", "Failed"]
    started_at: datetime
    finished_at: datetime
    failure: FailureReport | None = None
    artifact: ArtifactReport | None = None
    database: DatabaseReport | None = None
    restored: RestoredReport | None = None
    safety_backup: SafetyBackupReport | None = None
    inventory: InventoryReport | None = None
    pages: PagesReport | None = None
    bytes_read: int | None = None
    warnings: tuple[str, ...] = ()
    finding: Finding | None = None
    uncleared: bool | None = None

    def fit(self) -> str:
        """JSON of at most REPORT_LIMIT bytes and WARNINGS warnings: it cuts texts, never
        figures."""
        report, budget = self.model_copy(update={"warnings": tuple(few(self.warnings, WARNINGS))}), 1500
        while len((text := report.to_json()).encode()) > REPORT_LIMIT and budget:
            budget //= 2
            changes: dict[str, object] = {"warnings": tuple(cut(warning, budget) for warning in few(self.warnings, 4))}
            if self.failure:
                changes["failure"] = self.failure.model_copy(
                    update={"message": cut(self.failure.message, budget), "hint": cut(self.failure.hint, budget)}
                )
            report = self.model_copy(update=changes)
        return text


class Progress(Model):
    """Live progress. `percent` is absent where no honest figure can be given."""

    phase: str
    bytes_read: int = 0
    bytes_stored: int = 0
    tables_done: int = 0
    tables_total: int = 0
    percent: Annotated[int, Field(ge=0, le=100)] | None = None


class LogEvent(Model):
    """A line of the Job's log. Beside plain `log` lines: `key`, before the first upload; `waiting`,
    for another run; `progress`; `transaction`, a restore's transaction ID, before anything is
    restored; `page`; and `report`, the last line."""

    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)

    ts: datetime
    level: Literal["debug", "info", "warning", "error"] = "info"
    event: Literal["log", "key", "waiting", "progress", "transaction", "page", "report"] = "log"
    message: str = ""
    key: str | None = None
    xid: str | None = None
    progress: Progress | None = None
