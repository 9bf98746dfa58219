"""The input of a decision (`Facts`) and its output (`Decision`). Both are plain values: `handlers`
gathers the one and carries out the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from dbbackup.api.objects import Raw
from dbbackup.contract.model import Model
from dbbackup.contract.report import DiscoveredItem, InventoryItem, Progress, PrunedItem, Report
from dbbackup.plan.settings import Settings

Want = Literal["slot", "events", "tail", "job", "items"]
"""Facts that cost a call or have an effect, and so are fetched only if a decision asks for them: a
concurrency slot, the Events about the Job and its pod, the end of the container's log, whether the
API server itself still has the Job, the items that a run wrote to its log."""


@dataclass(frozen=True, slots=True)
class LogView:
    """What the run's log has said so far, as far as it has been followed."""

    key: str | None = None
    xid: str | None = None
    waiting: str | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """The answer to the request for a slot; `message` says why it was not granted."""

    granted: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server did not accept the Job. Terminating: the namespace is being deleted. Invalid:
    it will never accept it."""

    kind: Literal["Terminating", "Refused", "Invalid"]
    message: str


@dataclass(frozen=True, slots=True)
class Items:
    """All items that a run wrote to its log, or why they could not be read."""

    values: Sequence[InventoryItem | PrunedItem | DiscoveredItem] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Related:
    """Other objects of the namespace. For a schedule: its backups. For a storage: its backups,
    those in other storages (`elsewhere`), all restores and all schedules."""

    backups: Sequence[Raw] = ()
    restores: Sequence[Raw] = ()
    schedules: Sequence[Raw] = ()
    elsewhere: Sequence[Raw] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """`storage` and `source` are the BackupStorage and the DatabaseBackup that the object refers
    to, None if they don't exist.

    `slot`, `events`, `tail`, `job_gone` and `items` are None until a decision has asked for them,
    `refusal` until the API server has refused a creation in this pass.
    """

    obj: Raw
    now: datetime
    settings: Settings
    storage: Raw | None = None
    source: Raw | None = None
    jobs: Sequence[Raw] = ()
    pods: Sequence[Raw] = ()
    log: LogView = LogView()
    related: Related = Related()
    slot: Slot | None = None
    events: Sequence[Raw] | None = None
    tail: Sequence[str] | None = None
    job_gone: bool | None = None
    refusal: Refusal | None = None
    items: Items | None = None

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.obj.get("status") or {})

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.obj["metadata"]["creationTimestamp"])


@dataclass(frozen=True, slots=True)
class Note:
    """An Event on the object. Two with the same reason differ by `key`; the same note twice is one
    Event."""

    reason: str
    message: str
    warning: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """A change of another object than the one decided about.

    `create`: creates `obj` if its name is free, then writes `status`, also to an existing object
    that names the same artifact. `status`: writes the whole status of `obj`. `delete`: deletes
    exactly this `obj`, after writing its last `status` if there is one.
    """

    do: Literal["create", "status", "delete"]
    obj: Raw
    status: Raw | None = None
    notes: Sequence[Note] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """Items to read from the log of a run's pod; `report` says how many pages they fill."""

    pod: str
    report: Report
    model: type[Model]


@dataclass(frozen=True, slots=True)
class Decision:
    """Carried out in this order: finalizer added, Job created, effects, status written, Events,
    Jobs deleted, finalizer removed.

    If `want` is not empty, nothing else counts: the facts are fetched and the decision is made
    again; `read` says which "items". `status` is the whole status to write, None to leave it.
    `follow` names the pod whose log to follow. `holds_slot`: the run counts against the concurrency
    limits.
    """

    want: frozenset[Want] = frozenset()
    status: Raw | None = None
    add_finalizer: bool = False
    remove_finalizer: bool = False
    create: Raw | None = None
    effects: Sequence[Effect] = field(default=())
    read: Read | None = None
    delete: Sequence[Raw] = field(default=())
    notes: Sequence[Note] = field(default=())
    follow: str | None = None
    holds_slot: bool = False
    requeue: timedelta | None = None


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7386) that turns `old` into `new`; {} if nothing has to change."""
    patch: dict[str, Any] = {}
    for key in old.keys() | new.keys():
        if key not in new:
            patch[key] = None
        elif key not in old:
            patch[key] = new[key]
        elif isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            if inner := merge_patch(old[key], new[key]):
                patch[key] = inner
        elif old[key] != new[key]:
            patch[key] = new[key]
    return patch
