"""Audit lines, derived from an object before and after a change: what people do with plain kubectl
or GitOps leaves no other trace here. The lines name no object; `handlers.auditing` fills that in.

An object does not say who wrote it, only which field manager did, a name that every writer chooses
freely. So `who` is the annotation `dbbackup.io/requested-by`, which the chart's admission policy
keeps honest, or UNKNOWN; the manager stands in `via` and `source`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dbbackup.api.metadata import APPROVE_PRUNE, CHECK_NOW, IMPORT, OWNER_UID, PIN, REQUESTED_BY, RUN, RUN_NOW, SUSPEND, TOOL
from dbbackup.api.objects import Raw, annotation, artifact_key
from dbbackup.audit import UNKNOWN, Line, Outcome

OPERATOR = "operator"
"""`who` and `via` of what the operator did by itself: a schedule's runs, imports, retention."""
OPERATOR_MANAGER = "dbbackup-operator"
_VIA = {"dbbackup-cli": "cli", "dbbackup-console": "console"}
_MARKS = {RUN_NOW: "run-now", CHECK_NOW: "check-now", IMPORT: "import", APPROVE_PRUNE: "approve-prune"}
"""Annotation to action: every new value of it is a new request."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of an object: enough to see what the next change does to it."""

    requested_by: str
    generation: int
    spec: str
    marks: tuple[str | None, ...]
    pinned: bool
    suspended: tuple[bool, bool]
    """By its spec; by the annotation."""
    deleting: bool
    target: str
    policy: str


def seen(obj: Raw) -> Seen:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    return Seen(
        requested_by=annotation(obj, REQUESTED_BY) or "",
        generation=int(metadata.get("generation") or 0),
        spec=_digest({key: value for key, value in spec.items() if key != "suspend"}),
        marks=tuple(annotation(obj, name) for name in _MARKS),
        pinned=annotation(obj, PIN) == "true",
        suspended=(bool(spec.get("suspend")), annotation(obj, SUSPEND) == "true"),
        deleting=bool(metadata.get("deletionTimestamp")),
        target=_target(obj),
        policy=str(spec.get("deletionPolicy") or ""),
    )


def untouched(obj: Raw) -> bool:
    """Whether no operator has written its status yet: then its creation is not in the audit log
    either."""
    return not (obj.get("status") or {}).get("conditions")


def created(obj: Raw, *, own: bool = False) -> list[Line]:
    """Lines of a new object. `own`: this operator made it, for a schedule or an import."""
    manager = _creator(obj)
    if own and manager.name == OPERATOR_MANAGER:
        who, via = OPERATOR, OPERATOR
    else:
        who, via = annotation(obj, REQUESTED_BY) or UNKNOWN, manager.via
    action = "restore" if obj["kind"] == "DatabaseRestore" else "create"
    first = Line(action, who, via, source=manager.source, target=_target(obj), extra=_restored_from(obj))
    now = seen(obj)
    nothing = replace(now, marks=(None,) * len(_MARKS), pinned=False, suspended=(False, False))
    lines = [first, *_requests(nothing, obj, now, who)]
    return [*lines, deleted(now)] if now.deleting else lines


def open_requests(obj: Raw) -> list[Line]:
    """Lines of an object that existed before this operator started: what was requested by
    annotation and has not been done yet."""
    status = obj.get("status") or {}
    done = (status.get("lastRunNow"), status.get("lastCheck"), (status.get("lastImport") or {}).get("token"), annotation(obj, APPROVE_PRUNE))
    now = seen(obj)
    before = tuple(mark if mark == past else None for mark, past in zip(now.marks, done, strict=True))
    return list(_requests(replace(now, marks=before), obj, now, UNKNOWN))


def changed(before: Seen, obj: Raw, *, own: str | None = None) -> list[Line]:
    """Lines of an object that looked like `before`. `own`: why the operator itself deletes it, if
    it does."""
    after = seen(obj)
    # Only those whom the policy trusts can change the annotation: they name the person they write
    # for.
    who = after.requested_by if after.requested_by != before.requested_by and after.requested_by else UNKNOWN
    lines = list(_requests(before, obj, after, who))
    if after.generation != before.generation and after.spec != before.spec:
        manager = _writer(obj, "f:spec")
        lines.append(Line("update", who, manager.via, source=manager.source, target=after.target))
    if after.deleting and not before.deleting:
        lines.append(deleted(after, own=own, who=who))
    return lines


def deleted(before: Seen, *, own: str | None = None, who: str = UNKNOWN) -> Line:
    """An object does not say who deleted it; `who` is known only if the same change names them."""
    extra = {"deletion_policy": before.policy} if before.policy else {}
    if own is not None:
        return Line("delete", OPERATOR, OPERATOR, target=before.target, reason=own, extra=extra)
    return Line("delete", who, UNKNOWN, target=before.target, extra=extra)


def tool(pod: Raw) -> Line | None:
    """The line of a pod that a person has made with the operator's image, as `kubectl dbbackup`
    does; None for the pods of the operator's own Jobs."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    if OWNER_UID in labels or labels.get(TOOL) is None:
        return None
    manager = _creator(pod)
    action = {"serve": "transfer"}.get(str(labels.get(RUN)), str(labels.get(RUN)))
    owner = next(iter(metadata.get("ownerReferences") or ()), None)
    target = f"{owner['kind']} {owner['name']}" if owner else ""
    return Line(action, annotation(pod, REQUESTED_BY) or UNKNOWN, manager.via, source=manager.source, target=target)


def ended(obj: Raw) -> Line | None:
    """The line of a run that has ended; None if the object's phase does not say so."""
    status = obj.get("status") or {}
    action = "restore" if obj["kind"] == "DatabaseRestore" else "backup"
    outcomes: dict[str, Outcome] = {"Completed": "succeeded", "Failed": "failed"}
    outcome = outcomes.get(str(status.get("phase")))
    if outcome is None or (obj.get("spec") or {}).get("origin") == "Discovered":
        return None
    who = annotation(obj, REQUESTED_BY) or UNKNOWN
    reason = str((status.get("failure") or {}).get("reason") or "") if outcome == "failed" else ""
    key = artifact_key(obj)
    return Line(f"{action}-ended", who, OPERATOR, target=_target(obj), reason=reason, outcome=outcome, extra={"artifact": key} if key else {})


# Parts of a line


def _requests(before: Seen, obj: Raw, after: Seen, who: str) -> Iterator[Line]:
    for (name, action), old, new in zip(_MARKS.items(), before.marks, after.marks, strict=True):
        if new is not None and new != old:
            manager = _writer(obj, "f:metadata", "f:annotations", f"f:{name}")
            yield Line(action, who, manager.via, source=manager.source, target=new)
    if after.pinned != before.pinned:
        manager = _writer(obj, "f:metadata", "f:annotations", f"f:{PIN}")
        yield Line("pin" if after.pinned else "unpin", who, manager.via, source=manager.source, target=after.target)
    if any(after.suspended) != any(before.suspended):
        by_annotation = after.suspended[1] != before.suspended[1]
        path = ("f:metadata", "f:annotations", f"f:{SUSPEND}") if by_annotation else ("f:spec", "f:suspend")
        manager = _writer(obj, *path)
        yield Line("suspend" if any(after.suspended) else "resume", who, manager.via, source=manager.source)


def _restored_from(obj: Raw) -> dict[str, str]:
    """For a restore: what it restores."""
    source = (obj.get("spec") or {}).get("source") or {}
    if name := (source.get("backupRef") or {}).get("name"):
        return {"from": f"DatabaseBackup {name}"}
    if name := (source.get("scheduleRef") or {}).get("name"):
        return {"from": f"DatabaseBackupSchedule {name}"}
    if key := (source.get("artifact") or {}).get("key"):
        return {"from": str(key)}
    return {}


def _target(obj: Raw) -> str:
    """What the object is about: the database as its spec names it, or bucket and prefix."""
    spec = obj.get("spec") or {}
    if obj["kind"] == "BackupStorage":
        s3 = spec.get("s3") or {}
        return "/".join(str(part) for part in (s3.get("bucket"), s3.get("prefix")) if part)
    if obj["kind"] == "DatabaseBackupSchedule":
        spec = (spec.get("template") or {}).get("spec") or {}
    database = spec.get("database") or {}
    host = "/".join(str(part) for part in (database.get("host"), database.get("name")) if part)
    secret = (database.get("secretRef") or {}).get("name")
    return " ".join(part for part in (f"Secret {secret}" if secret else "", host) if part)


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()[:16]


# Field managers


@dataclass(frozen=True, slots=True)
class Manager:
    """A field manager: who claims to have written a field. Empty where none is known."""

    name: str = ""
    operation: str = ""
    time: str = ""

    @property
    def via(self) -> str:
        if not self.name:
            return UNKNOWN
        return _VIA.get(self.name) or ("kubectl" if self.name.startswith("kubectl") else self.name)

    @property
    def source(self) -> str:
        return " ".join(part for part in (f"manager {self.name}" if self.name else "", self.operation, self.time) if part)


def _managers(obj: Raw, *path: str) -> list[Manager]:
    """Those that own something at that path, earliest first; the subresource `status` does not
    count."""
    found = []
    for entry in obj["metadata"].get("managedFields") or ():
        node: Any = entry.get("fieldsV1") or {}
        for step in path:
            node = node.get(step) if isinstance(node, Mapping) else None
        if node is not None and not entry.get("subresource"):
            found.append(Manager(str(entry.get("manager") or ""), str(entry.get("operation") or ""), str(entry.get("time") or "")))
    return sorted(found, key=lambda manager: manager.time)


def _writer(obj: Raw, *path: str) -> Manager:
    found = _managers(obj, *path)
    return found[-1] if found else Manager()


def _creator(obj: Raw) -> Manager:
    found = _managers(obj, "f:spec") or _managers(obj)
    return found[0] if found else Manager()
