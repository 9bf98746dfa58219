"""What each action changes in the cluster, as the object or patch that is sent: `Copy as YAML`
shows exactly what is applied. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dbbackup.api.metadata import FINALIZER, PIN, REQUESTED_BY, RUN_NOW, SUSPEND
from dbbackup.api.objects import Draft
from dbbackup.api.specs import API_VERSION
from dbbackup.api.units import parse_ttl
from dbbackup.console.people import Right
from dbbackup.console.problems import HttpProblem, invalid
from dbbackup.console.resources import KINDS
from dbbackup.console.views import NAME


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("must be a Kubernetes name: lower-case letters, digits, '-' and '.'")
    return text


def _ttl(text: str) -> str:
    parse_ttl(text)
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_name)]
DatabaseName = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(_printable)]
Ttl = Annotated[str, Field(max_length=32), AfterValidator(_ttl)]


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class BackupRequest(RequestModel):
    """A backup to start now."""

    name: Annotated[Name | None, Field(description="Name of the DatabaseBackup; the API server chooses one if it is absent.")] = None
    secret: Annotated[Name, Field(description="Connection Secret of the database, in the same namespace.")]
    database: Annotated[DatabaseName | None, Field(description="Name of the database, if the Secret has another or none.")] = None
    storage: Annotated[Name, Field(description="BackupStorage for the artifact.")] = "default"
    format: Annotated[Literal["plain", "custom"], Field(description="`plain` is SQL; `custom` is pg_dump's archive.")] = "plain"
    ttl: Annotated[
        Ttl | None, Field(description="How long to keep the artifact, such as 30d, or `never`; the storage's default if it is absent.")
    ] = None


class RestoreRequest(RequestModel):
    """A restore of one backup into one database."""

    name: Annotated[Name | None, Field(description="Name of the DatabaseRestore; the API server chooses one if it is absent.")] = None
    backup: Annotated[Name, Field(description="The DatabaseBackup to restore, in the same namespace.")]
    secret: Annotated[Name, Field(description="Connection Secret of the target's server, in the same namespace.")]
    database: Annotated[DatabaseName, Field(description="Name of the target database.")]
    create_database: Annotated[bool, Field(description="Creates the database if it does not exist.")] = False
    on_existing: Annotated[
        Literal["Fail", "Replace"], Field(description="`Fail` refuses a target that is not empty; `Replace` replaces its content.")
    ] = "Fail"
    safety_backup: Annotated[bool, Field(description="Backs up the whole target before a Replace.")] = True
    confirm: Annotated[str, Field(max_length=63, description="The name of the target database again.")]


class DeleteRequest(RequestModel):
    """A deletion, which cannot be undone."""

    confirm: Annotated[str, Field(max_length=253, description="The name of the backup again.")]
    delete_artifact: Annotated[bool, Field(description="Whether the artifact in the bucket is deleted too.")] = True
    uid: Annotated[str | None, Field(max_length=64, description="Deletes the backup only if it has this UID.")] = None


_M = TypeVar("_M", bound=RequestModel)


def parse(model: type[_M], data: Mapping[str, Any]) -> _M:
    """The request, or HttpProblem 422 that names the first invalid field."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the request"
        raise invalid(field, first["msg"].removeprefix("Value error, ")) from None


@dataclass(frozen=True, slots=True)
class Change:
    """One write for a person. `body` is the object to create, or a merge patch; `rights` are what
    Kubernetes must allow them.

    `name` is empty if the API server chooses it. A deletion patches first. `target` goes into the
    audit line.
    """

    action: str
    kind: str
    namespace: str
    name: str
    verb: Literal["create", "patch", "delete"]
    body: Draft
    target: str = ""
    uid: str | None = None

    @property
    def rights(self) -> tuple[Right, ...]:
        resource = KINDS[self.kind]
        verbs = ("patch", "delete") if self.verb == "delete" else (self.verb,)
        return tuple(Right(verb, resource, self.namespace, "" if verb == "create" else self.name) for verb in verbs)

    @property
    def description(self) -> str:
        """For messages: `create DatabaseBackup in namespace shop`."""
        return f"{self.action} {self.kind}{' ' if self.name else ''}{self.name} in namespace {self.namespace}"

    def yaml(self) -> str:
        """The change as YAML, with the kubectl command that makes it."""
        text = yaml.safe_dump(self.body, sort_keys=False, allow_unicode=True, width=120)
        if self.verb == "create":
            return f"# kubectl create -f FILE\n{text}"
        target = f"{KINDS[self.kind].plural}.dbbackup.io {self.name} --namespace {self.namespace}"
        text = f"# kubectl patch {target} --type merge --patch-file FILE\n{text}"
        return text + (f"# kubectl delete {target}\n" if self.verb == "delete" else "")


def _object(kind: str, namespace: str, name: str | None, prefix: str, who: str, spec: Draft) -> Draft:
    named = {"name": name} if name else {"generateName": prefix}
    metadata = {**named, "namespace": namespace, "annotations": {REQUESTED_BY: who}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def create_backup(namespace: str, request: BackupRequest, who: str) -> Change:
    database = {"secretRef": {"name": request.secret}, **({"name": request.database} if request.database else {})}
    spec: Draft = {"database": database, "storageRef": {"name": request.storage}, "format": request.format}
    if request.ttl:
        spec["ttl"] = request.ttl
    body = _object("DatabaseBackup", namespace, request.name, "backup-", who, spec)
    return Change("create", "DatabaseBackup", namespace, request.name or "", "create", body, request.database or f"Secret {request.secret}")


def create_restore(namespace: str, request: RestoreRequest, who: str, *, preview: bool = False) -> Change:
    """HttpProblem 422 if the target's name was not typed again; a preview does not need it."""
    if not preview and request.confirm != request.database:
        raise HttpProblem(
            422, "NotConfirmed", "The name that you typed is not that of the target database.", "Type the name of the target database again."
        )
    spec: Draft = {
        "source": {"backupRef": {"name": request.backup}},
        "database": {"secretRef": {"name": request.secret}, "name": request.database},
        "onExisting": request.on_existing,
        "safetyBackup": request.safety_backup,
    }
    if request.create_database:
        spec["createDatabase"] = True
    body = _object("DatabaseRestore", namespace, request.name, "restore-", who, spec)
    return Change("restore", "DatabaseRestore", namespace, request.name or "", "create", body, f"{request.backup} -> {request.database}")


def delete_backup(namespace: str, name: str, request: DeleteRequest, *, preview: bool = False) -> Change:
    """HttpProblem 422 if the backup's name was not typed again; a preview does not need it.

    To delete the artifact too, the patch sets the operator's finalizer: a slow operator would find
    the object gone before it had set it.
    """
    if not preview and request.confirm != name:
        raise HttpProblem(422, "NotConfirmed", "The name that you typed is not that of the backup.", "Type the name of the backup again.")
    body: Draft = {"spec": {"deletionPolicy": "Delete" if request.delete_artifact else "Retain"}}
    if request.delete_artifact:
        body = {"metadata": {"finalizers": [FINALIZER]}, **body}
    return Change(
        "delete", "DatabaseBackup", namespace, name, "delete", body, "artifact too" if request.delete_artifact else "object only", request.uid
    )


def _annotate(action: str, kind: str, namespace: str, name: str, annotation: str, value: str | None) -> Change:
    return Change(action, kind, namespace, name, "patch", {"metadata": {"annotations": {annotation: value}}})


def pin(namespace: str, name: str, *, pinned: bool) -> Change:
    return _annotate("pin" if pinned else "unpin", "DatabaseBackup", namespace, name, PIN, "true" if pinned else None)


def suspend(namespace: str, name: str, *, suspended: bool) -> Change:
    action = "suspend" if suspended else "resume"
    return _annotate(action, "DatabaseBackupSchedule", namespace, name, SUSPEND, "true" if suspended else None)


def run_now(namespace: str, name: str, token: str) -> Change:
    """`token` is any value that the schedule has not seen yet, such as the time."""
    return _annotate("run-now", "DatabaseBackupSchedule", namespace, name, RUN_NOW, token)
