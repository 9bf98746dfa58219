"""What the operator orders from a Job: `RunSpec`, one for every kind of run.

It travels as JSON in the environment variable `DBBACKUP_RUN` (see `contract.mounts`). It names
Secrets and their keys, never a value. The Job answers with a `Report` (see `contract.report`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from dbbackup.contract.formats import Algorithm, Format
from dbbackup.contract.model import Model
from dbbackup.contract.wire import PORT

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
    """Which key of the connection Secret holds which field. Where one is absent, the conventions of
    CloudNativePG, Zalando, PGO, Percona and Service Binding apply."""

    uri: str | None = None
    host: str | None = None
    port: str | None = None
    name: str | None = None
    user: str | None = None
    password: str | None = None
    ssl_mode: str | None = None


class DatabaseTarget(Model):
    """How to reach a database. Explicit fields override those of the Secret, which is mounted at
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
    """How to reach a bucket. Credentials are mounted at STORAGE_SECRET; without a Secret boto3's
    default chain finds them. `max_artifact_size` is in bytes."""

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


NO_STORAGE = StorageTarget(name="", bucket="")
"""Used by runs that need no storage."""


class Compression(Model):
    algorithm: Algorithm = "zstd"
    level: int | None = None


class BackupOptions(Model):
    """What 0.1 does not know is None where nothing is asked for: 0.1 refuses other fields."""

    format: Format = "plain"
    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] | None = None
    exclude_extensions: tuple[str, ...] | None = None
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
    """The lost run that a check Job settles. `lost_reason` and `lost_message` are the failure to
    report if the run turns out to have had no effect. `xid` is the restore's transaction ID, where
    the operator saw it in the log."""

    run: Literal["backup", "restore"]
    lost_reason: str
    lost_message: str
    xid: str | None = None


class CleanupOptions(Model):
    """`key` is the artifact's directory. Where the run never logged one, the Job looks for all
    directories of its owner."""

    key: str | None = None


class Lifetime(Model):
    """What the manifest records for the time after its object is gone: when the artifact expires
    (absent: never), and which schedule made it."""

    expires_at: datetime | None = None
    schedule: str | None = None


class InventoryOptions(Model):
    """An inventory first tries the storage: it writes, reads and deletes an object. Then it lists
    every artifact of the namespace.

    `known` joins the short UIDs (8 hex digits each) of the backups whose objects exist. The
    manifests of all others are read and reported. `busy` holds the short UIDs of active runs, whose
    objects are never swept. Objects without a manifest, and uploads, are deleted once they are
    older than `sweep_after_seconds` by the storage's clock.
    """

    known: str = ""
    busy: tuple[str, ...] = ()
    sweep_after_seconds: int = 3 * 86400


class PruneItem(Model):
    """`key` is the artifact's directory. Its manifest must name the owner `uid`."""

    key: str
    uid: str


class PruneOptions(Model):
    items: tuple[PruneItem, ...]


class ServeOptions(Model):
    """Options of a pod that serves a person what the storage holds. It listens on its own loopback,
    which a port-forward reaches, and asks for the token whose SHA-256 is `token_sha256`. It ends
    after `idle_seconds` without a request, and at the run's timeout."""

    token_sha256: str
    port: int = PORT
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
