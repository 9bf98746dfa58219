"""Objects as the API server returns them -> typed specs, or `SpecError`.

The API server has checked them against the CRDs already and filled in the defaults. They are
checked again here, since an object may be older than the CRD; unknown fields are ignored for the
same reason. The defaults here equal those of the CRDs (a test compares them).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from dbbackup.api.metadata import GROUP
from dbbackup.api.units import parse_duration, parse_quantity, parse_ttl
from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import Algorithm, Format
from dbbackup.contract.run import Compression, SecretKeys, SslMode

VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"

Phase = Literal["Pending", "Running", "Completed", "Failed", "Deleting", "Expired"]
DeletionPolicy = Literal["Retain", "Delete"]


class SpecError(Failure):
    """A spec that cannot be carried out. `path` is the field, such as `spec.timeout`; the reason is
    InvalidSpec."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__("InvalidSpec", f"{path}: {message}")
        self.path = path


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _seconds_or_none(value: object) -> object:
    return parse_duration(value, least=0) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_quantity(value) if isinstance(value, str) else value


def _ttl(value: object) -> object:
    return parse_ttl(value) if isinstance(value, str) else value


Seconds = Annotated[int, BeforeValidator(_seconds), Field(gt=0)]
"""A duration in the object; whole seconds here."""
Ttl = Annotated[int | Literal["never"], BeforeValidator(_ttl)]
"""A time to live in the object; whole seconds here, or never."""
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
"""A quantity in the object; whole bytes here."""
Name = Annotated[str, Field(min_length=1)]


class Spec(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class NameRef(Spec):
    name: Name


class StorageRef(Spec):
    name: Name = "default"


class KeyRef(Spec):
    name: Name
    key: Name = "ca.crt"


class CredentialsRef(Spec):
    name: Name
    access_key_id_key: Name = "accessKeyId"
    secret_access_key_key: Name = "secretAccessKey"


class S3(Spec):
    bucket: Name
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    credentials_secret_ref: CredentialsRef | None = None
    ca_secret_ref: KeyRef | None = None


class Keys(Spec, SecretKeys):
    model_config = Spec.model_config


class Database(Spec):
    """Fields that are not set here come from the Secret."""

    secret_ref: NameRef
    keys: Keys = Keys()
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    name: str | None = None
    user: str | None = None
    ssl_mode: SslMode | None = None
    ca_secret_ref: KeyRef | None = None


class Resources(Spec):
    """Quantities as the object holds them: they are copied to the Job unread."""

    requests: dict[str, str | int] = Field(default_factory=dict)
    limits: dict[str, str | int] = Field(default_factory=dict)


class JobSettings(Spec):
    """How the Job runs. Empty fields come from the operator's configuration."""

    resources: Resources = Field(default_factory=Resources)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    service_account_name: str | None = None
    priority_class_name: str | None = None


class StorageSpec(Spec):
    """spec of a BackupStorage. `job` is for the Jobs of its inventory and its pruning."""

    s3: S3
    create_bucket: bool = False
    max_artifact_size: Bytes | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    capacity: Bytes | None = None
    default_ttl: Ttl = Field(30 * 86400, alias="defaultTTL")
    inventory_interval: Seconds = 86400
    job: JobSettings = Field(default_factory=JobSettings)


class CompressionSpec(Spec, Compression):
    model_config = Spec.model_config

    @model_validator(mode="after")
    def _level(self) -> CompressionSpec:
        highest: dict[Algorithm, int] = {"zstd": 19, "gzip": 9, "none": 0}
        if self.level is not None and not 1 <= self.level <= highest[self.algorithm]:
            top = highest[self.algorithm]
            raise ValueError(f"{self.algorithm}'s level is 1 to {top}" if top else "level has no meaning for algorithm none")
        return self


class BackupSpec(Spec):
    """spec of a DatabaseBackup: a run, or an artifact that an inventory found in the bucket
    (`origin: Discovered`, `artifact_key`)."""

    origin: Literal["Run", "Discovered"] = "Run"
    artifact_key: Name | None = None
    database: Database | None = None
    storage_ref: StorageRef = StorageRef()
    format: Format = "plain"
    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    exclude_extensions: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    clean: bool = True
    row_counts: Literal["Exact", "Off"] = "Exact"
    compression: CompressionSpec = CompressionSpec()
    ttl: Ttl | None = None
    deletion_policy: DeletionPolicy = "Retain"
    timeout: Seconds = 3600
    start_deadline: Seconds = 600
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    job: JobSettings = Field(default_factory=JobSettings)

    @model_validator(mode="after")
    def _origin(self) -> BackupSpec:
        if self.origin == "Run" and (self.database is None or self.artifact_key is not None):
            raise ValueError("database is required, and artifactKey goes with origin Discovered only")
        if self.origin == "Discovered" and (self.artifact_key is None or self.database is not None):
            raise ValueError("origin Discovered takes artifactKey, and no database")
        return self


class ArtifactSource(Spec):
    storage_ref: StorageRef = StorageRef()
    key: Name


class ScheduleSource(Spec):
    """The newest good backup of a schedule. `before`: only backups whose snapshot is older than
    that. `database`: its name, if the schedule backs up several."""

    name: Name
    before: AwareDatetime | None = None
    database: Name | None = None


class RestoreSource(Spec):
    """Exactly one field is set."""

    backup_ref: NameRef | None = None
    schedule_ref: ScheduleSource | None = None
    artifact: ArtifactSource | None = None

    @model_validator(mode="after")
    def _one(self) -> RestoreSource:
        if sum(source is not None for source in (self.backup_ref, self.schedule_ref, self.artifact)) != 1:
            raise ValueError("set exactly one of backupRef, scheduleRef and artifact")
        return self


class RestoreSpec(Spec):
    """spec of a DatabaseRestore. The safety backup goes to the storage of the source."""

    source: RestoreSource
    database: Database
    create_database: bool = False
    on_existing: Literal["Fail", "Replace"] = "Fail"
    safety_backup: bool = True
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    timeout: Seconds = 3600
    start_deadline: Seconds = 600
    start_before: AwareDatetime | None = None
    lock_timeout: Seconds = 60
    job: JobSettings = Field(default_factory=JobSettings)

    @model_validator(mode="after")
    def _selection(self) -> RestoreSpec:
        if self.schemas and self.tables:
            raise ValueError("set schemas or tables, not both")
        return self

    def too_late(self, first_seen: datetime) -> bool:
        """Whether the restore was first seen after its `startBefore`."""
        return self.start_before is not None and first_seen > self.start_before


Count = Annotated[int, Field(ge=1)]


class Retention(Spec):
    """Which good backups of a schedule stay, counted for each database. `max_prune_share` is a
    percentage: see `plan.retention`."""

    keep_last: Count | None = None
    keep_hourly: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None
    min_keep: Count = 1
    max_prune_share: Annotated[int, Field(ge=1, le=100)] = 50

    @property
    def keeps(self) -> bool:
        """Whether any keep rule is set: then the rules decide what stays, not the storage's
        defaultTTL."""
        rules = (self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly)
        return any(rule is not None for rule in rules)


class Databases(Spec):
    """Names or patterns (`*`, `?`) of the server's databases. They never match templates, nor
    databases that allow no connections."""

    include: Annotated[tuple[Name, ...], Field(min_length=1)] = ("*",)
    exclude: tuple[Name, ...] = ()

    @property
    def discovers(self) -> bool:
        """Whether the server must be asked which databases it has: names without patterns are known
        already."""
        return any(char in pattern for pattern in self.include for char in "*?")


class TemplateMetadata(Spec):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Template(Spec):
    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: BackupSpec


class ScheduleSpec(Spec):
    """spec of a DatabaseBackupSchedule."""

    schedule: Name
    time_zone: Name = "Etc/UTC"
    jitter: Annotated[int, BeforeValidator(_seconds_or_none), Field(ge=0)] = 0
    suspend: bool = False
    immediate: bool = False
    concurrency_policy: Literal["Forbid", "Allow", "Replace"] = "Forbid"
    starting_deadline: Seconds | None = None
    template: Template
    databases: Databases | None = None
    retention: Retention = Retention()
    failed_history_limit: Annotated[int, Field(ge=0)] = 3

    @model_validator(mode="after")
    def _names(self) -> ScheduleSpec:
        target = self.template.spec.database
        if self.databases is not None and target is not None and target.name is not None:
            raise ValueError("template.spec.database.name must be absent where databases is set")
        return self


_S = TypeVar("_S", bound=Spec)


def _parse(model: type[_S], obj: Mapping[str, Any]) -> _S:
    spec = obj.get("spec")
    if not isinstance(spec, Mapping):
        raise SpecError("spec", "is missing")
    try:
        return model.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "spec"
        for step in first["loc"]:
            path += f"[{step}]" if isinstance(step, int) else f".{step}"
        message = first["msg"].removeprefix("Value error, ")
        more = error.error_count() - 1
        raise SpecError(path, message + (f" (and {more} more)" if more else "")) from None


def parse_storage(obj: Mapping[str, Any]) -> StorageSpec:
    """The spec of a BackupStorage object, or SpecError."""
    return _parse(StorageSpec, obj)


def parse_backup(obj: Mapping[str, Any]) -> BackupSpec:
    """The spec of a DatabaseBackup object, or SpecError."""
    return _parse(BackupSpec, obj)


def parse_schedule(obj: Mapping[str, Any]) -> ScheduleSpec:
    """The spec of a DatabaseBackupSchedule object, or SpecError. Whether `schedule` and `timeZone`
    can be used is for `plan.cron`."""
    return _parse(ScheduleSpec, obj)


def parse_restore(obj: Mapping[str, Any]) -> RestoreSpec:
    """The spec of a DatabaseRestore object, or SpecError."""
    return _parse(RestoreSpec, obj)
