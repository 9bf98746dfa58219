"""The contract between operator and Job: what a run is told (`RunSpec`), what it says (`Report`,
log events).

The operator passes `RunSpec` as JSON in the environment variable `DBBACKUP_RUN` (see
`dbbackup.places`); it names Secrets' keys, never values. The Job ends by writing `Report` as JSON
to its termination message. Both are camelCase outside, and refuse unknown fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from dbbackup.contract.formats import Algorithm, Format
from dbbackup.contract.model import Model

RunKind = Literal["backup", "restore", "check", "cleanup", "inventory", "prune", "discover", "serve", "reach"]
OwnerKind = Literal["DatabaseBackup", "DatabaseRestore", "BackupStorage", "DatabaseBackupSchedule"]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Owner(Model):
    """The object that a run belongs to. `created_at` is its creationTimestamp: the time in the
    artifact's key."""

    kind: OwnerKind
    namespace: str
    name: str
    uid: str
    created_at: datetime


class SecretKeys(Model):
    """Which key of the connection Secret holds what; absent: the conventions of CloudNativePG,
    Zalando, PGO, Percona, Service Binding."""

    uri: str | None = None
    host: str | None = None
    port: str | None = None
    name: str | None = None
    user: str | None = None
    password: str | None = None
    ssl_mode: str | None = None


class DatabaseTarget(Model):
    """How to reach a database. Explicit fields override the Secret's; the Secret lies at
    DATABASE_SECRET."""

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
    """`key` is the artifact's directory, with the storage's prefix; `manifest_sha256` pins its
    manifest when a backupRef gave it."""

    key: str
    manifest_sha256: str | None = None
    create_database: bool = False
    on_existing: Literal["Fail", "Replace"] = "Fail"
    safety_backup: bool = True
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    lock_timeout_seconds: int = 60


class CheckOptions(Model):
    """What a check Job settles: a run that left no report. `lost` is the reason to tell if it turns
    out to have failed."""

    run: Literal["backup", "restore"]
    lost_reason: str
    lost_message: str
    xid: str | None = None
    """The restore's transaction id as its log said it, where the operator saw it."""


class CleanupOptions(Model):
    """`key` is the artifact's directory; absent where the run never told it: then it is resolved
    again from the database's Secret."""

    key: str | None = None


class Lifetime(Model):
    """What the manifest says for the time after its object is gone: when it expires (absent:
    never), and which schedule made it."""

    expires_at: datetime | None = None
    schedule: str | None = None


class InventoryOptions(Model):
    """An inventory first tries the storage: writes, reads and deletes an object. Then it lists
    every artifact of the namespace.

    `known` joins the short UIDs (8 hex digits each) of the backups whose objects are there: of
    others the manifest is read and told. `busy` are the short UIDs of runs that are going on: what
    they have stored is never swept. Objects without a manifest, and uploads, older than
    `sweep_after_seconds` are deleted; the storage's clock counts.
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
    """Of a pod that hands a person what lies in the storage: on its own loopback only, which a
    port-forward reaches, and for whoever knows the token whose SHA-256 is `token_sha256`. It ends
    after `idle_seconds` without a request, and at the run's timeout."""

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
