"""Typed specs -> the parts of a run spec. References become names of Secrets; no Secret is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from dbbackup.api.specs import BackupSpec, Database, RestoreSpec, StorageSpec
from dbbackup.contract.run import BackupOptions, Compression, DatabaseTarget, Owner, OwnerKind, RestoreOptions, SecretKeys, StorageTarget


def owner(obj: Mapping[str, Any]) -> Owner:
    """The Owner of an object of one of our kinds."""
    meta = obj["metadata"]
    return Owner(
        kind=cast("OwnerKind", obj["kind"]),
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        created_at=datetime.fromisoformat(meta["creationTimestamp"]),
    )


def storage_target(name: str, spec: StorageSpec) -> StorageTarget:
    """`name` is that of the BackupStorage."""
    s3 = spec.s3
    credentials = s3.credentials_secret_ref
    keys = {"access_key_id_key": credentials.access_key_id_key, "secret_access_key_key": credentials.secret_access_key_key} if credentials else {}
    return StorageTarget(
        name=name,
        bucket=s3.bucket,
        prefix=s3.prefix,
        endpoint=s3.endpoint,
        region=s3.region,
        addressing=s3.addressing,
        credentials_secret=credentials.name if credentials else None,
        ca_secret=s3.ca_secret_ref.name if s3.ca_secret_ref else None,
        ca_key=s3.ca_secret_ref.key if s3.ca_secret_ref else "ca.crt",
        create_bucket=spec.create_bucket,
        max_artifact_size=spec.max_artifact_size,
        **keys,
    )


def database_target(database: Database) -> DatabaseTarget:
    return DatabaseTarget(
        secret=database.secret_ref.name,
        keys=SecretKeys.model_validate(database.keys.model_dump()),
        host=database.host,
        port=database.port,
        name=database.name,
        user=database.user,
        ssl_mode=database.ssl_mode,
        ca_secret=database.ca_secret_ref.name if database.ca_secret_ref else None,
        ca_key=database.ca_secret_ref.key if database.ca_secret_ref else "ca.crt",
    )


def expiry(created: datetime, ttl: int | Literal["never"] | None, storage: StorageSpec) -> datetime | None:
    """When the artifact of an object created at that time expires; None for never."""
    seconds = storage.default_ttl if ttl is None else ttl
    return None if seconds == "never" else created + timedelta(seconds=seconds)


def backup_options(spec: BackupSpec) -> BackupOptions:
    return BackupOptions(
        format=spec.format,
        schemas=spec.schemas,
        exclude_schemas=spec.exclude_schemas or None,
        exclude_extensions=spec.exclude_extensions or None,
        exclude_tables=spec.exclude_tables,
        exclude_table_data=spec.exclude_table_data,
        clean=spec.clean,
        row_counts=spec.row_counts,
        compression=Compression(algorithm=spec.compression.algorithm, level=spec.compression.level),
    )


def restore_options(spec: RestoreSpec, key: str, manifest_sha256: str | None) -> RestoreOptions:
    """`key` is the artifact's directory; `manifest_sha256` what the backup's status recorded,
    absent for a source by `artifact`."""
    return RestoreOptions(
        key=key,
        manifest_sha256=manifest_sha256,
        create_database=spec.create_database,
        on_existing=spec.on_existing,
        safety_backup=spec.safety_backup,
        schemas=spec.schemas,
        tables=spec.tables,
        lock_timeout_seconds=spec.lock_timeout,
    )
