"""The objects that watches and lists have delivered: those of our kinds, their Jobs and pods, found
by name, by UID and by owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from dbbackup.api.metadata import OWNER_UID
from dbbackup.api.objects import DELETED, TERMINAL, Raw, schedule_name, storage_name

RUN_KINDS = ("DatabaseBackup", "DatabaseRestore")
IDLE = (*TERMINAL, "Deleting")
"""Phases of runs that do not wait for another object."""
REMEMBERED = 20_000
"""How many UIDs of deleted objects are kept: an answer that was on its way when the deletion
arrived must not bring the object back."""


class Key(NamedTuple):
    """An object of one of our kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def key_of(obj: Raw) -> Key:
    return Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


def version_of(obj: Raw) -> int:
    """The resourceVersion as a number. Kubernetes documents since 1.35 that they can be compared
    so; with etcd they always could."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0


def _groups_of(key: Key, obj: Raw) -> Iterator[tuple[str, str, str]]:
    yield "kind", key.namespace, key.kind
    if key.kind == "DatabaseBackup":
        yield "storage", key.namespace, storage_name(obj)
        if name := schedule_name(obj):
            yield "schedule", key.namespace, name


def _slim(obj: Raw) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    slim = {**obj, "metadata": metadata}
    if obj.get("kind") == "Pod":
        slim.pop("spec", None)
    return slim


def _owned_as(known: Raw | None, child: dict[str, Any]) -> dict[str, Any]:
    """The child with the owners that it had: `--cascade=orphan` removes the Job from a pod's
    owners, and the pod runs on."""
    owners = known["metadata"].get("ownerReferences") if known is not None else None
    if owners and not child["metadata"].get("ownerReferences"):
        child["metadata"]["ownerReferences"] = owners
    return child


class Cache:
    """An older version never replaces a newer one and a deleted object never comes back, so that
    answers to our own calls and events of the watches may come in any order.
    """

    def __init__(self) -> None:
        self._gone: dict[str, None] = {}
        self._objects: dict[Key, Raw] = {}
        self._by_uid: dict[str, Key] = {}
        self._active: dict[str, set[Key]] = {}
        self._groups: dict[tuple[str, str, str], set[Key]] = {}
        self._children: dict[str, dict[tuple[str, str], Raw]] = {}

    def get(self, key: Key) -> Raw | None:
        return self._objects.get(key)

    def key(self, uid: str) -> Key | None:
        return self._by_uid.get(uid)

    def all_keys(self) -> list[Key]:
        return list(self._objects)

    def holds(self, kind: str) -> bool:
        """Whether any object of that kind exists: one of ours, a Job or a Pod. A deleted pod that
        was kept for its report does not count."""
        if kind in ("Job", "Pod"):
            children = (item for known in self._children.values() for item in known.items())
            return any(child_kind == kind and not child.get(DELETED) for (child_kind, _), child in children)
        return any(key.kind == kind for key in self._objects)

    def active(self, namespace: str) -> Iterator[Key]:
        """Runs in that namespace that are not over, and may wait for another object."""
        yield from tuple(self._active.get(namespace, ()))

    def put(self, obj: Raw) -> bool:
        """Takes in an object of one of our kinds; False if the cache has this version or a newer
        one."""
        key, uid = key_of(obj), obj["metadata"]["uid"]
        if uid in self._gone:
            return False
        known = self._objects.get(key)
        if known is not None and known["metadata"]["uid"] == uid and version_of(known) >= version_of(obj):
            return False
        if known is not None and known["metadata"]["uid"] != uid:
            if version_of(known) > version_of(obj):
                return False
            self._by_uid.pop(known["metadata"]["uid"], None)
        self._group(key, known, obj)
        self._objects[key] = _slim(obj)
        self._by_uid[uid] = key
        phase = (obj.get("status") or {}).get("phase")
        if key.kind in RUN_KINDS and phase not in IDLE:
            self._active.setdefault(key.namespace, set()).add(key)
        else:
            self._active.get(key.namespace, set()).discard(key)
        return True

    def _group(self, key: Key, before: Raw | None, after: Raw | None) -> None:
        old = set(_groups_of(key, before)) if before is not None else set()
        new = set(_groups_of(key, after)) if after is not None else set()
        for group in old - new:
            self._groups[group].discard(key)
            if not self._groups[group]:
                del self._groups[group]
        for group in new - old:
            self._groups.setdefault(group, set()).add(key)

    def group(self, what: Literal["schedule", "storage", "kind"], namespace: str, name: str) -> list[Raw]:
        """The DatabaseBackups of a schedule or of a storage, or all objects of a kind, in that
        namespace."""
        return [self._objects[key] for key in sorted(self._groups.get((what, namespace, name), ()))]

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def remove(self, key: Key, uid: str) -> bool:
        """Forgets the object, if it is still the one with that UID."""
        self._bury(uid)
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return False
        del self._objects[key]
        self._group(key, known, None)
        self._by_uid.pop(uid, None)
        active = self._active.get(key.namespace)
        if active is not None:
            active.discard(key)
            if not active:
                del self._active[key.namespace]
        return True

    @staticmethod
    def owner_uid(child: Raw) -> str | None:
        return (child["metadata"].get("labels") or {}).get(OWNER_UID)

    def put_child(self, child: Raw) -> bool:
        """Takes in a Job or a pod; False if it has no owner here, or the cache has this version or
        a newer one."""
        uid = self.owner_uid(child)
        if uid is None or child["metadata"]["uid"] in self._gone:
            return False
        children = self._children.setdefault(uid, {})
        place = (child["kind"], child["metadata"]["uid"])
        known = children.get(place)
        if known is not None and version_of(known) >= version_of(child):
            return False
        children[place] = _owned_as(known, _slim(child))
        return True

    def remove_child(self, child: Raw) -> None:
        """Forgets a Job. A pod is kept for its report, marked as deleted, until
        `forget_children`."""
        self._bury(child["metadata"]["uid"])
        uid = self.owner_uid(child)
        children = self._children.get(uid or "")
        if children is None:
            return
        place = (child["kind"], child["metadata"]["uid"])
        if child["kind"] == "Pod" and uid in self._by_uid:
            children[place] = {**_owned_as(children.get(place), _slim(child)), DELETED: True}
            return
        children.pop(place, None)
        if not children:
            self._children.pop(uid or "", None)

    def forget_children(self, uid: str) -> None:
        """Forgets that owner's deleted pods."""
        children = self._children.get(uid)
        if children is None:
            return
        for place in [place for place, child in children.items() if child.get(DELETED)]:
            del children[place]
        if not children:
            del self._children[uid]

    def children(self, uid: str, kind: str) -> tuple[Raw, ...]:
        """That owner's Jobs or pods in its namespace: a label in another namespace proves
        nothing."""
        owner = self._by_uid.get(uid)
        return tuple(
            child
            for (child_kind, _), child in self._children.get(uid, {}).items()
            if child_kind == kind and (owner is None or child["metadata"]["namespace"] == owner.namespace)
        )

    def missing(self, kind: str, namespace: str | None, seen: set[str], version: int) -> list[Raw]:
        """Objects in the cache that a whole list as of `version` did not contain: no watch has
        reported their deletion."""
        if kind in ("Job", "Pod"):
            known = [child for children in self._children.values() for (child_kind, _), child in children.items() if child_kind == kind]
        else:
            known = [obj for key, obj in self._objects.items() if key.kind == kind]
        return [
            obj
            for obj in known
            if obj["metadata"]["uid"] not in seen
            and version_of(obj) <= version
            and not obj.get(DELETED)
            and namespace in (None, obj["metadata"]["namespace"])
        ]
