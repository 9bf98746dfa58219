"""The contract between operator and Job: what a run is told (`RunSpec`), what it says (`Report`, log events).

The operator passes `RunSpec` as JSON in the environment variable `DBBACKUP_RUN` (see `dbbackup.places`); it names Secrets' keys, never values.
The Job ends by writing `Report` as JSON to its termination message. Both are camelCase outside, and refuse unknown fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

REPORT_LIMIT = 4096
"""Bytes: the kubelet cuts a termination message there."""
WARNINGS = 16
"""Of a report, and of a status."""

RunKind = Literal["backup", "restore", "check", "cleanup", "inventory", "prune", "discover", "serve", "reach"]
OwnerKind = Literal["DatabaseBackup", "DatabaseRestore", "BackupStorage", "DatabaseBackupSchedule"]
Format = Literal["plain", "custom"]
Algorithm = Literal["zstd", "gzip", "none"]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


class Owner(Model):
    """The object that a run belongs to. `created_at` is its creationTimestamp: the time in the artifact's key."""

    kind: OwnerKind
    namespace: str
    name: str
    uid: str
    created_at: datetime


class SecretKeys(Model):
    """Which key of the connection Secret holds what; absent: the conventions of CloudNativePG, Zalando, PGO, Percona, Service Binding."""

    uri: str | None = None
    host: str | None = None
    port: str | None = None
    name: str | None = None
    user: str | None = None
    password: str | None = None
    ssl_mode: str | None = None


class DatabaseTarget(Model):
    """How to reach a database. Explicit fields override the Secret's; the Secret lies at DATABASE_SECRET."""

    secret: str
    keys: SecretKeys = SecretKeys()
    host: str | None = None
    port: int | None = None
    name: str | None = None
    user: str | None = None
    ssl_mode: SslMode | None = None
    ca_secret: str | None = None
    ca_key: str = "ca.crt"


class StorageTarget(Model):
    """How to reach a bucket. Credentials lie at STORAGE_SECRET (absent: boto3's default chain)."""

    name: str
    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    credentials_secret: str | None = None
    access_key_id_key: str = "accessKeyId"
    secret_access_key_key: str = "secretAccessKey"
    ca_secret: str | None = None
    ca_key: str = "ca.crt"
    create_bucket: bool = False
    max_artifact_size: int | None = None
    """Bytes."""


NO_STORAGE = StorageTarget(name="", bucket="")
"""Of a run that stores nothing and reads nothing."""


class Compression(Model):
    algorithm: Algorithm = "zstd"
    level: int | None = None


class BackupOptions(Model):
    format: Format = "plain"
    schemas: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    clean: bool = True
    row_counts: Literal["Exact", "Off"] = "Exact"
    compression: Compression = Compression()


class RestoreOptions(Model):
    """`key` is the artifact's directory, with the storage's prefix; `manifest_sha256` pins its manifest when a backupRef gave it."""

    key: str
    manifest_sha256: str | None = None
    create_database: bool = False
    on_existing: Literal["Fail", "Replace"] = "Fail"
    safety_backup: bool = True
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    lock_timeout_seconds: int = 60


class CheckOptions(Model):
    """What a check Job settles: a run that left no report. `lost` is the reason to tell if it turns out to have failed."""

    run: Literal["backup", "restore"]
    lost_reason: str
    lost_message: str
    xid: str | None = None
    """The restore's transaction id as its log said it, where the operator saw it."""


class CleanupOptions(Model):
    """`key` is the artifact's directory; absent where the run never told it: then it is resolved again from the database's Secret."""

    key: str | None = None


class Lifetime(Model):
    """What the manifest says for the time after its object is gone: when it expires (absent: never), and which schedule made it."""

    expires_at: datetime | None = None
    schedule: str | None = None


class InventoryOptions(Model):
    """An inventory first tries the storage: writes, reads and deletes an object. Then it lists every artifact of the namespace.

    `known` joins the short UIDs (8 hex digits each) of the backups whose objects are there: of others the manifest is read and told.
    `busy` are the short UIDs of runs that are going on: what they have stored is never swept.
    Objects without a manifest, and uploads, older than `sweep_after_seconds` are deleted; the storage's clock counts.
    """

    known: str = ""
    busy: tuple[str, ...] = ()
    sweep_after_seconds: int = 3 * 86400


class PruneItem(Model):
    """`key` is the artifact's directory, `uid` its owner's, as its manifest must say it."""

    key: str
    uid: str


class PruneOptions(Model):
    items: tuple[PruneItem, ...]


class ServeOptions(Model):
    """Of a pod that hands a person what lies in the storage: on its own loopback only, which a port-forward reaches, and for whoever knows the token
    whose SHA-256 is `token_sha256`. It ends after `idle_seconds` without a request, and at the run's timeout."""

    token_sha256: str
    port: int = 8765
    idle_seconds: int = 120


class RunSpec(Model):
    run: RunKind
    owner: Owner
    storage: StorageTarget
    database: DatabaseTarget | None = None
    timeout_seconds: int = 3600
    backup: BackupOptions | None = None
    restore: RestoreOptions | None = None
    check: CheckOptions | None = None
    cleanup: CleanupOptions | None = None
    lifetime: Lifetime | None = None
    inventory: InventoryOptions | None = None
    prune: PruneOptions | None = None
    serve: ServeOptions | None = None


class FailureReport(Model):
    reason: str
    message: str
    hint: str
    retryable: bool


class ArtifactReport(Model):
    """`key` is the artifact's directory; `sha256` that of the stored artifact; `manifest_sha256` that of manifest.json."""

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
    """Of an artifact whose object is not known: what its object is made from again. `safety`: made by a restore before a Replace."""

    owner: Owner
    artifact: ArtifactReport
    database: DatabaseReport
    started_at: datetime
    finished_at: datetime
    expires_at: datetime | None = None
    schedule: str | None = None
    safety: bool = False


class InventoryItem(Model):
    """One artifact: a page item of an inventory. `key` is its directory, `size_bytes` counts all its objects. `manifest` only where it is not known;
    `problem` says why such a manifest could not be used."""

    key: str
    size_bytes: int
    modified: datetime
    manifest: ManifestSummary | None = None
    problem: str | None = None


class PrunedItem(Model):
    """One artifact that was to be deleted: a page item of a prune. `problem` says why it still stands; absent: it is gone, or was not there."""

    key: str
    uid: str
    problem: str | None = None


class DiscoveredItem(Model):
    """One database of a server: a page item of a discovery. Templates and databases without connections are left out."""

    name: str


class InventoryReport(Model):
    """`now` is the storage's clock. `bytes` counts everything below the namespace's directory. `oldest` and `newest` are the times in the artifacts'
    keys. `debris` counts directories without a manifest, `uploads` unfinished uploads, both before the sweep, of runs that go on left out;
    `swept` counts directories and uploads removed. `foreign` counts objects that are none of ours, which are never touched.
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
    """Of what the run told in its log, page by page: see `dbbackup.pages`."""

    pages: int
    items: int
    sha256: str


class RestoredReport(Model):
    """`rows` and `bytes` are absent where a check settled the restore and its record could not tell them."""

    tables: int
    rows: int | None = None
    bytes: int | None = None
    """Uncompressed bytes of the artifact that the server took."""


class SafetyBackupReport(Model):
    key: str
    sha256: str
    manifest_sha256: str
    size_bytes: int


class Report(Model):
    """The container's last act. Under REPORT_LIMIT bytes: `fit` cuts messages and warnings, never figures."""

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
    uncleared: bool = False
    """The run failed, and could not clear away what it had stored: a check Job does."""

    def fit(self) -> str:
        """JSON of at most REPORT_LIMIT bytes and WARNINGS warnings."""
        report, budget = self.model_copy(update={"warnings": few(self.warnings, WARNINGS)}), 1500
        while len(text := report.to_json()) > REPORT_LIMIT or len(text.encode()) > REPORT_LIMIT:
            budget //= 2
            changes: dict[str, object] = {"warnings": tuple(w[:budget] for w in few(self.warnings, 4))}
            if self.failure:
                changes["failure"] = self.failure.model_copy(
                    update={"message": self.failure.message[:budget] + "…", "hint": self.failure.hint[:budget]}
                )
            report = self.model_copy(update=changes)
        return text


def few(warnings: tuple[str, ...], limit: int) -> tuple[str, ...]:
    """At most so many, the last of which says how many more there are."""
    rest = len(warnings) - limit + 1
    return warnings if rest <= 1 else (*warnings[: limit - 1], f"and {rest} more")


class Progress(Model):
    """One line of live progress; `percent` is absent where nothing honest can be said."""

    phase: str
    bytes_read: int = 0
    bytes_stored: int = 0
    tables_done: int = 0
    tables_total: int = 0
    percent: Annotated[int, Field(ge=0, le=100)] | None = None


class LogEvent(Model):
    """A line of the Job's log. `event` is one of: log, key (before the first upload), waiting (for another run), progress,
    transaction (a restore's xid, before anything is restored), page (see `dbbackup.pages`), report."""

    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)

    ts: datetime
    level: Literal["debug", "info", "warning", "error"] = "info"
    event: Literal["log", "key", "waiting", "progress", "transaction", "page", "report"] = "log"
    message: str = ""
    key: str | None = None
    xid: str | None = None
    progress: Progress | None = None
