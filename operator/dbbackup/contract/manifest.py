"""The manifest of an artifact, version 1. `keys` says where it lies; docs/bucket.md documents both
for users."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import Algorithm, Format
from dbbackup.contract.model import Model
from dbbackup.contract.report import SafetyBackupReport
from dbbackup.contract.run import Owner

FORMAT_VERSION: Literal[1] = 1
MANIFEST_LIMIT = 64 * 1024 * 1024
"""Maximum bytes of a manifest: 100,000 parts and 100,000 tables fit well."""


Size = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(Model):
    size: Size
    sha256: Sha256


class StoredObject(Model):
    """One object of the artifact. `name` is relative to the directory. Parts are consecutive byte
    ranges of the stored bytes."""

    name: str
    size: Size
    sha256: Sha256
    parts: tuple[Part, ...]


class CatalogFile(Model):
    """The artifact's catalog (`contract.catalog`): a name in the directory, stored bytes, SHA-256
    of these."""

    name: str
    size: Size
    sha256: Sha256


class TableEntry(Model):
    """`rows` are those that the dump loads into this table: a partition's may be its topmost
    table's. Exact; absent where they were not counted, or none are loaded into it."""

    schema_: str = Field(alias="schema")
    name: str
    kind: Literal["table", "partitioned", "foreign", "materialized", "unlogged"] = "table"
    rows: int | None = None
    data_excluded: bool = False


class ExtensionEntry(Model):
    name: str
    schema_: str = Field(alias="schema")
    version: str


class ConfigurationTable(Model):
    """A table, or sequence, of an extension, whose rows the dump holds as far as the extension
    asked for it (pg_extension_config_dump)."""

    extension: str
    schema_: str = Field(alias="schema")
    name: str


class Contents(Model):
    """What the dump holds and needs. `relations` counts tables, indexes, sequences, views, TOAST
    included: an estimate of its locks.

    `outside` names objects that dumped objects refer to and that the options left out of the dump:
    a target must hold them already.
    """

    schemas: tuple[str, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    extensions: tuple[ExtensionEntry, ...] = ()
    roles: tuple[str, ...] = ()
    event_triggers: tuple[str, ...] = ()
    superuser_publications: tuple[str, ...] = ()
    large_objects: int = 0
    relations: int = 0
    routines: int = 0
    outside: tuple[str, ...] = ()
    configuration: tuple[ConfigurationTable, ...] | None = None


class SourceDatabase(Model):
    """`server_version_num` as PostgreSQL's setting of that name (150018). Locale fields are those
    of pg_database, for createDatabase.

    `tls` says whether the dump's connection was encrypted. `search_path` is the session's default,
    by the settings of the database and the user.
    """

    identity: str
    host: str
    port: int
    name: str
    server_version: str
    server_version_num: int
    size_bytes: int
    encoding: str
    collate: str
    ctype: str
    locale_provider: str = "c"
    icu_locale: str | None = None
    icu_rules: str | None = None
    tls: bool = False
    search_path: str | None = None


class Options(Model):
    """The options of the backup's spec under which the dump was made. 0.1 does not know what is
    None where nothing was asked for."""

    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] | None = None
    exclude_extensions: tuple[str, ...] | None = None
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    clean: bool = True
    row_counts: Literal["Exact", "Off"] = "Exact"


class Manifest(Model):
    """manifest.json. `dump_bytes` counts the uncompressed artifact; `pg_dump_version` is that of
    the client that made it. `catalog` lists the dump's objects; artifacts of 0.1 lack it. `rows` is
    absent where those of a table are not known.

    `expires_at` (absent: never) and `schedule` apply once the object that made it is gone. Readers
    ignore fields that they do not know.
    """

    format_version: Literal[1] = FORMAT_VERSION
    type: Literal["dbbackup.io/manifest"] = "dbbackup.io/manifest"
    operator_version: str
    owner: Owner
    database: SourceDatabase
    format: Format
    compression: Algorithm
    encrypted: bool = False
    pg_dump_version: str
    started_at: datetime
    finished_at: datetime
    options: Options = Options()
    objects: Annotated[tuple[StoredObject, ...], Field(min_length=1)]
    contents: Contents
    catalog: CatalogFile | None = None
    dump_bytes: int
    rows: int | None = None
    expires_at: datetime | None = None
    schedule: str | None = None

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n").encode()

    @property
    def artifact(self) -> StoredObject:
        return self.objects[0]

    @property
    def stored(self) -> tuple[StoredObject | CatalogFile, ...]:
        """What the directory must hold besides the manifest for a restore."""
        return self.objects if self.catalog is None else (*self.objects, self.catalog)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_manifest(data: bytes, key: str, expected_sha256: str | None = None) -> Manifest:
    """The manifest at `key`; Failure ManifestDigestMismatch, FormatUnsupported or
    ManifestInvalid."""
    if expected_sha256 is not None and sha256_hex(data) != expected_sha256:
        raise Failure("ManifestDigestMismatch", f"{key}: its SHA-256 is {sha256_hex(data)}, the backup recorded {expected_sha256}")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        version = re.search(rb'"formatVersion"\s*:\s*(\d+)', data[:2000])
        if version and int(version[1]) > FORMAT_VERSION:
            raise Failure("FormatUnsupported", f"{key}: format version {int(version[1])}; this operator reads up to {FORMAT_VERSION}") from None
        raise Failure(
            "ManifestInvalid", f"{key}: {error.error_count()} errors, the first at {'.'.join(map(str, error.errors()[0]['loc'])) or 'the top'}"
        ) from None
    for stored in manifest.objects:
        if sum(part.size for part in stored.parts) != stored.size or "/" in stored.name:
            raise Failure("ManifestInvalid", f"{key}: the parts of {stored.name} do not add up to its size")
    if manifest.catalog is not None and "/" in manifest.catalog.name:
        raise Failure("ManifestInvalid", f"{key}: {manifest.catalog.name} is not a name in its directory")
    return manifest


def safety_report(key: str, manifest: Manifest, manifest_sha256: str) -> SafetyBackupReport:
    return SafetyBackupReport(key=key, sha256=manifest.artifact.sha256, manifest_sha256=manifest_sha256, size_bytes=manifest.artifact.size)
