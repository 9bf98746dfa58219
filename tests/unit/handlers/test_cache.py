"""The cache: nothing older replaces anything newer, last words of deleted pods stay, and what a
list lacks is found."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support.plan_world import RUNNING, UID, backup_obj, job_of, pod, restore_obj, storage_obj

from dbbackup.handlers.cache import Cache, Key, key_of
from dbbackup.handlers.observers import Observers
from dbbackup.handlers.watch import Watch

KEY = Key("DatabaseBackup", "ns", "nightly")


def version(obj: dict[str, Any], number: int, **metadata: Any) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(number), **metadata}}


@given(st.lists(st.integers(1, 1000), min_size=1))
def test_the_newest_stays_whatever_the_order(numbers: list[int]) -> None:
    cache = Cache()
    for number in numbers:
        cache.put(version(backup_obj({"phase": str(number)}), number))
    found = cache.get(KEY)
    assert found is not None
    assert found["status"]["phase"] == str(max(numbers))


def test_a_recreated_object_replaces_the_old_one_and_the_old_one_cannot_come_back() -> None:
    cache = Cache()
    cache.put(version(backup_obj(), 10))
    assert cache.put(version(backup_obj(), 20, uid="new"))
    assert not cache.put(version(backup_obj(), 15))
    assert (cache.key("new"), cache.key(UID)) == (KEY, None)
    assert not cache.remove(KEY, UID)
    assert cache.remove(KEY, "new")


def test_what_a_deleted_pod_said_last_stays_until_it_is_forgotten() -> None:
    cache = Cache()
    cache.put(backup_obj())
    cache.put_child(version(pod(state=RUNNING), 5))
    cache.remove_child(version(pod(code=0, message="last words"), 6))
    (kept,) = cache.children(UID, "Pod")
    assert kept["dbbackup.io/deleted"]
    assert kept["metadata"]["ownerReferences"], "by these it is believed"
    assert kept["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "last words"
    assert not cache.put_child(version(pod(state=RUNNING), 4)), "a late event does not bring it back"
    cache.forget_children(UID)
    assert cache.children(UID, "Pod") == ()


def test_a_pod_of_another_namespace_is_not_the_objects() -> None:
    cache = Cache()
    cache.put(backup_obj())
    cache.put_child(version(pod(code=0, message="forged", namespace="elsewhere"), 5))
    assert cache.children(UID, "Pod") == ()


def test_a_pod_whose_job_was_deleted_and_left_it_is_still_that_jobs() -> None:
    cache = Cache()
    cache.put(backup_obj())
    cache.put_child(version(pod(state=RUNNING), 5))
    cache.put_child(version(pod(state=RUNNING, ownerReferences=[]), 6))
    assert cache.children(UID, "Pod")[0]["metadata"]["ownerReferences"]
    cache.remove_child(version(pod(code=0, message="last words", ownerReferences=[]), 7))
    assert cache.children(UID, "Pod")[0]["metadata"]["ownerReferences"]


def test_what_was_deleted_does_not_come_back_with_a_late_answer() -> None:
    cache = Cache()
    cache.put(backup_obj())
    held = job_of(backup_obj())
    cache.put_child(held)
    cache.remove_child(version(held, 20))
    assert not cache.put_child(version(held, 21, deletionTimestamp="2026-11-23T01:00:00Z")), "the answer to our own deletion"
    assert cache.children(UID, "Job") == ()
    cache.remove(KEY, UID)
    assert not cache.put(version(backup_obj(), 30))
    assert cache.get(KEY) is None


def test_a_pod_without_an_owner_is_not_kept() -> None:
    cache = Cache()
    cache.put_child(version(pod(state=RUNNING), 5))
    cache.remove_child(version(pod(state=RUNNING), 6))
    assert cache.children(UID, "Pod") == ()


def test_a_list_finds_deletions_that_no_watch_reported_but_not_newer_objects() -> None:
    cache = Cache()
    cache.put(version(backup_obj(), 10))
    cache.put(version(backup_obj(metadata={"name": "younger", "uid": "younger"}), 30))
    cache.put_child(version(job_of(backup_obj()), 11))
    assert [key_of(obj).name for obj in cache.missing("DatabaseBackup", None, set(), 20)] == ["nightly"]
    assert cache.missing("DatabaseBackup", None, {UID}, 20) == []
    assert cache.missing("DatabaseBackup", "elsewhere", set(), 20) == []
    assert len(cache.missing("Job", None, set(), 20)) == 1


class World:
    def __init__(self) -> None:
        self.cache = Cache()
        self.added: list[Key] = []
        self.watch = Watch(
            self.cache, lambda key, _seconds: self.added.append(key), lambda key, uid: (self.cache.remove(key, uid), None)[1], Observers()
        )

    def tell(self, obj: dict[str, Any], what: str | None = "MODIFIED") -> list[Key]:
        self.added.clear()
        self.watch.event(obj["kind"], what, obj)
        return list(self.added)


def test_events_enqueue_the_owner() -> None:
    world = World()
    assert world.tell(backup_obj(), "ADDED") == [KEY]
    held = job_of(backup_obj())
    assert world.tell(held, "ADDED") == [KEY]
    assert world.tell(held) == [], "the same again is no news"
    assert world.tell(version(pod(state=RUNNING), 8)) == [KEY]
    assert world.tell(version(pod(state=RUNNING), 9), "DELETED") == [KEY]
    assert world.tell(version(held, 12), "DELETED") == [KEY]


def test_what_waits_for_an_object_is_looked_at_when_it_comes() -> None:
    world = World()
    world.tell(backup_obj({"phase": "Pending"}), "ADDED")
    restore = restore_obj({"phase": "Pending"}, metadata={"name": "back", "uid": "back"}, source={"backupRef": {"name": "nightly"}})
    world.tell(restore, "ADDED")
    restoring = Key("DatabaseRestore", "ns", "back")
    storage = Key("BackupStorage", "ns", "default")
    assert set(world.tell(version(storage_obj(), 2), "ADDED")) == {storage, KEY, restoring}
    assert set(world.tell(version(backup_obj({"phase": "Completed"}), 9))) == {KEY, restoring, storage}, "retention looks at what has changed"
    world.tell(version({**restore, "status": {"phase": "Completed"}}, 11))
    assert world.tell(version(storage_obj(), 12)) == [Key("BackupStorage", "ns", "default")], "what is over waits for nothing"


def test_what_waits_for_an_object_hears_of_our_own_write_to_it() -> None:
    world = World()
    restore = restore_obj({"phase": "Pending"}, metadata={"name": "back", "uid": "back"}, source={"backupRef": {"name": "nightly"}})
    world.tell(restore, "ADDED")
    written = version(backup_obj({"phase": "Completed"}), 9)
    world.cache.put(written)
    assert world.tell(written) == [Key("DatabaseRestore", "ns", "back")]


def names(cache: Cache, what: Any, name: str, namespace: str = "ns") -> list[str]:
    return [obj["metadata"]["name"] for obj in cache.group(what, namespace, name)]


def of_schedule(name: str, schedule: str | None, storage: str = "default", *, number: int = 5, **metadata: Any) -> dict[str, Any]:
    labels = {"dbbackup.io/schedule": schedule} if schedule else {}
    return version(backup_obj(metadata={"name": name, "uid": f"uid-{name}", "labels": labels, **metadata}, storageRef={"name": storage}), number)


def test_groups_follow_what_their_objects_say() -> None:
    cache = Cache()
    for obj in (of_schedule("b", "nightly"), of_schedule("a", "nightly", "other"), of_schedule("c", None), storage_obj()):
        cache.put(obj)
    cache.put(of_schedule("d", "nightly", namespace="elsewhere"))
    assert names(cache, "schedule", "nightly") == ["a", "b"], "by name, always in the same order"
    assert names(cache, "storage", "default") == ["b", "c"]
    assert names(cache, "kind", "DatabaseBackup") == ["a", "b", "c"]
    assert names(cache, "kind", "BackupStorage") == ["default"]
    assert names(cache, "schedule", "nightly", "elsewhere") == ["d"]
    cache.put(of_schedule("c", "nightly", number=6))
    cache.put(of_schedule("b", None, number=6))
    assert names(cache, "schedule", "nightly") == ["a", "c"]
    cache.put(of_schedule("a", "weekly", number=4))
    assert names(cache, "schedule", "weekly") == [], "what is older changes nothing"
    cache.put({**of_schedule("c", "weekly", number=9), "metadata": {**of_schedule("c", "weekly", number=9)["metadata"], "uid": "another"}})
    assert (names(cache, "schedule", "nightly"), names(cache, "schedule", "weekly")) == (["a"], ["c"])
    cache.remove(Key("DatabaseBackup", "ns", "a"), "uid-a")
    assert names(cache, "schedule", "nightly") == names(cache, "storage", "other") == []
    assert cache.group("schedule", "ns", "never") == []


def test_what_is_over_or_being_removed_waits_for_nothing() -> None:
    """Else each change of one among thousands that are being removed would look at all of them."""
    cache = Cache()
    phases = ("Pending", "Running", "Completed", "Failed", "Deleting", "Expired")
    for phase in phases:
        cache.put(backup_obj({"phase": phase}, metadata={"name": phase.lower(), "uid": phase}))
    assert sorted(key.name for key in cache.active("ns")) == ["pending", "running"]
    cache.put(version(backup_obj({"phase": "Deleting"}, metadata={"name": "running", "uid": "Running"}), 9))
    assert sorted(key.name for key in cache.active("ns")) == ["pending"]


def test_a_schedule_and_its_storages_hear_of_each_other() -> None:
    world = World()
    schedule = {**storage_obj(), "kind": "DatabaseBackupSchedule", "metadata": {**storage_obj()["metadata"], "name": "nightly", "uid": "s"}}
    scheduled, storage = Key("DatabaseBackupSchedule", "ns", "nightly"), Key("BackupStorage", "ns", "default")
    world.tell(storage_obj(), "ADDED")
    assert world.tell(schedule, "ADDED") == [scheduled, storage]
    made = of_schedule("a", "nightly")
    assert set(world.tell(made, "ADDED")) == {key_of(made), scheduled, storage}
    assert set(world.tell(version(made, 9), "DELETED")) == {scheduled, storage}
    assert world.tell(version(schedule, 9), "DELETED") == [storage], "its rules hold no longer"


def test_a_storage_hears_when_a_restore_has_ended() -> None:
    world = World()
    world.tell(storage_obj(), "ADDED")
    storage = Key("BackupStorage", "ns", "default")
    assert storage not in world.tell(restore_obj({"phase": "Running"}), "ADDED")
    assert storage in world.tell(version(restore_obj({"phase": "Failed"}), 9)), "what it read may go now"


def test_listed_means_that_every_watch_with_objects_has_delivered_one() -> None:
    world = World()
    assert world.watch.listed
    world.cache.put(backup_obj())
    assert not world.watch.listed
    world.watch.event("DatabaseBackup", None, version(backup_obj(), 6))
    assert world.watch.listed


def test_an_object_deleted_between_two_lists_does_not_keep_a_watch_unlisted() -> None:
    """A run that ended while no operator was there: it is dealt with, and its Job and pod are gone,
    before a watch has listed them."""
    world = World()
    obj = backup_obj({"phase": "Completed"})
    world.cache.put(obj)
    held, last = version(job_of(backup_obj()), 8), version(pod(code=0), 9)
    world.cache.put_child(held)
    world.cache.put_child(last)
    world.watch.event("DatabaseBackup", None, version(obj, 10))
    assert not world.watch.listed
    for kind in ("Job", "Pod"):
        for gone in world.cache.missing(kind, None, set(), 20):
            world.cache.remove_child(gone)
    assert world.watch.listed
    assert world.cache.children(UID, "Pod"), "its last words are looked at once more, and then forgotten"
