"""BackupStorage: checks and inventories, also when a Job reports nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.support.plan_world import Raw
from tests.unit.support.simulation import World, error, quota

from dbbackup import __version__
from dbbackup.api.metadata import OWNER_UID
from dbbackup.contract.run import RunSpec
from dbbackup.kube import ApiError
from dbbackup.plan.settings import Settings
from dbbackup.plan.storage import published

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
KIND = "BackupStorage"


def at(day: int, hour: int = 3) -> datetime:
    """In November 2026; T0 is the 23rd, 01:00."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def status_of(world: World) -> Raw:
    return world.status(KIND, "default")


def ready(world: World) -> tuple[str, str]:
    return world.condition(KIND, "default")[:2]


def looks(world: World) -> int:
    return len(world.specs("inventory"))


@pytest.fixture
def world() -> World:
    made = World()
    made.storage()
    return made


# The check


def test_a_new_storage_is_tried_at_once(world: World) -> None:
    world.run(5)
    assert ready(world) == ("False", "Checking")
    assert world.condition(KIND, "default", "Reconciling")[0] == "True"
    world.run(MINUTE)
    assert ready(world) == ("True", "Available")
    assert status_of(world)["capabilities"] == {"conditionalWrites": True}
    assert status_of(world)["checkedAt"] == "2026-11-23T01:00:10Z"
    assert world.all("Job") == []
    [spec] = world.specs("inventory")
    assert (spec.storage.bucket, spec.storage.credentials_secret) == ("backups", "s3")


def test_it_is_looked_through_again_each_interval(world: World) -> None:
    world.run(DAY)
    assert looks(world) == 1
    world.run(MINUTE)
    assert looks(world) == 2
    world.edit(KIND, "default", inventoryInterval="6h")
    world.run(MINUTE)
    assert looks(world) == 3, "a change of the spec is tried at once"
    world.run(23 * HOUR)
    assert looks(world) == 6


@pytest.mark.parametrize(
    ("failure", "stalled"), [(("StorageUnavailable", True), "False"), (("StorageAccessDenied", False), "True")], ids=["may pass", "will not pass"]
)
def test_a_failure_is_stalled_only_where_trying_again_cannot_help(world: World, failure: tuple[str, bool], stalled: str) -> None:
    world.failing = lambda _: failure
    world.run(30)
    assert ready(world) == ("False", failure[0])
    assert world.condition(KIND, "default", "Stalled")[0] == stalled
    assert f"{failure[0]} happened. do something" in world.condition(KIND, "default")[2]
    assert len(world.events("StorageCheckFailed")) == 1
    assert status_of(world)["checkFailures"] == 1
    world.failing = lambda _: None
    world.run(90)
    assert ready(world) == ("True", "Available")
    assert "checkFailures" not in status_of(world)


def test_after_failures_it_is_tried_less_often(world: World) -> None:
    world.failing = lambda _: ("StorageUnavailable", True)
    world.run(HOUR)
    assert looks(world) == 6, "at 0, 1, 3, 7, 15, 31 minutes, and then every half hour"
    assert len(world.events("StorageCheckFailed")) == 1, "reported once"
    world.run(6 * HOUR)
    assert 6 + 11 <= looks(world) <= 6 + 12
    assert world.condition(KIND, "default", "Stalled")[0] == "False"


@pytest.mark.parametrize("change", ["spec", "check-now", "import", "annotation taken away"])
def test_a_change_ends_the_back_off(world: World, change: str) -> None:
    world.annotate(KIND, "default", "check-now", "0")
    world.run(MINUTE)
    world.annotate(KIND, "default", "check-now", "1")
    world.failing = lambda _: ("StorageUnavailable", True)
    world.run(HOUR)
    world.failing = lambda _: None
    before = looks(world)
    if change == "spec":
        world.edit(KIND, "default", s3={"region": "eu-1"})
    else:
        world.annotate(KIND, "default", change if change == "import" else "check-now", None if "away" in change else "2")
    world.run(30)
    assert looks(world) == before + 1
    assert ready(world) == ("True", "Available")


@pytest.mark.parametrize("outcome", ["comes", "fails"])
def test_an_outcome_for_what_is_no_longer_asked_does_not_count(world: World, outcome: str) -> None:
    """A spec that was corrected while the Job tried the old one."""
    world.pace = HOUR
    world.run(MINUTE)
    world.edit(KIND, "default", s3={"region": "eu-1"})
    if outcome == "fails":
        world.end(world.job("inventory"), ("StorageUnavailable", True))
    world.pace = timedelta(seconds=10)
    world.run(MINUTE)
    assert looks(world) == 2
    assert world.specs("inventory")[1].storage.region == "eu-1"
    assert ready(world) == ("True", "Available")
    assert (status_of(world)["checkedGeneration"], status_of(world).get("checkFailures")) == (2, None)


def test_check_now_looks_once(world: World) -> None:
    world.run(MINUTE)
    world.annotate(KIND, "default", "check-now", "1")
    world.run(HOUR)
    assert (looks(world), status_of(world)["lastCheck"]) == (2, "1")
    world.annotate(KIND, "default", "check-now", None)
    world.run(HOUR)
    assert looks(world) == 2


@pytest.mark.parametrize("what", ["is lost", "never starts", "is deleted by hand", "cannot be read"])
def test_a_look_that_brings_nothing_is_tried_again(world: World, what: str) -> None:
    world.pace = timedelta(seconds=10) if what == "cannot be read" else None
    world.silent = True
    world.orphan("a", at(1))
    world.run(1, rest=False)
    if what == "is lost":
        world.lose(world.job("inventory"))
    if what == "is deleted by hand":
        world.server.delete(("Job", world.job("inventory")))
        world.pace, world.silent = timedelta(seconds=10), False
        world.run(MINUTE)
        assert ready(world) == ("True", "Available")
        return
    world.run(11 * MINUTE if what == "never starts" else MINUTE, rest=False)
    expected = {"is lost": "RunLost", "never starts": "StartDeadlineExceeded", "cannot be read": "RunLost"}[what]
    assert ready(world)[1] == expected
    assert "usage" not in status_of(world), "an incomplete result is not used"
    world.pace, world.silent = timedelta(seconds=10), False
    for job in world.all("Job"):
        world.server.delete(("Job", job["metadata"]["name"]))
    world.run(2 * MINUTE)
    assert ready(world) == ("True", "Available")
    assert status_of(world)["usage"]["artifacts"] == 1


def invalid(body: Raw) -> ApiError | None:
    return error(422, "Invalid", "exceeded quota") if body["kind"] == "Job" else None


@pytest.mark.parametrize(("refusal", "stalled"), [(quota("Job"), "False"), (invalid, "True")], ids=["for now", "as it is"])
def test_a_refused_job_is_reported_and_comes_back(refusal: Callable[[Raw], ApiError | None], stalled: str) -> None:
    world = World()
    world.server.refuse = refusal
    world.storage()
    world.run(MINUTE)
    assert ready(world) == ("False", "PodRefused")
    assert world.condition(KIND, "default", "Stalled")[0] == stalled
    assert "exceeded quota" in world.condition(KIND, "default")[2]
    world.server.refuse = lambda _: None
    world.run(2 * MINUTE)
    assert ready(world) == ("True", "Available")


def test_nothing_is_made_in_a_namespace_that_goes(world: World) -> None:
    message = "unable to create new content in namespace ns because it is being terminated"
    world.server.refuse = lambda body: error(403, "Forbidden", message)
    world.run(HOUR)
    assert status_of(world) == {"observedGeneration": -1}


def test_a_spec_that_cannot_be_used_is_reported(world: World) -> None:
    world.run(MINUTE)
    obj = world.get(KIND, "default")
    world.server._put({**obj, "spec": {**obj["spec"], "capacity": "plenty"}}, "MODIFIED")
    world.run(MINUTE)
    assert ready(world) == ("False", "InvalidSpec")


# What the Job gets, what the status says


def test_usage(world: World) -> None:
    world.good("mine", at(2))
    world.orphan("lost", at(1))
    world.orphan("later", at(3))
    world.run(MINUTE)
    assert status_of(world)["usage"] == {
        "artifacts": 3,
        "bytes": 3000,
        "size": "2.9 KiB",
        "oldest": "2026-11-01T03:00:00Z",
        "newest": "2026-11-03T03:00:00Z",
        "orphans": 2,
        "debris": 0,
        "uploads": 0,
        "foreign": 0,
    }


@pytest.mark.parametrize(("size", "near"), [(799, "False"), (800, "True")])
def test_near_capacity_from_eighty_per_cent_on(world: World, size: int, near: str) -> None:
    world.edit(KIND, "default", capacity="1000")
    world.bucket[world.orphan("a", at(1))].size = size
    world.run(MINUTE)
    status, reason, message = world.condition(KIND, "default", "NearCapacity")
    assert (status, reason) == (near, "NearCapacity" if near == "True" else "EnoughRoom")
    assert f"are used, {size // 10} %" in message
    assert ready(world) == ("True", "Available")
    world.edit(KIND, "default", capacity="10Gi")
    world.run(MINUTE)
    assert world.condition(KIND, "default", "NearCapacity")[0] == "False"
    world.edit(KIND, "default", capacity=None)
    world.run(MINUTE)
    assert world.condition(KIND, "default", "NearCapacity") == ("", "", "")


def test_the_run_spec_has_known_artifacts_and_active_runs(world: World) -> None:
    world.pace = HOUR
    good, better = world.good("good", at(1)), world.good("better", at(2))
    running = world.apply("DatabaseBackup", "running", {"database": {"secretRef": {"name": "s"}}})
    elsewhere = world.good("elsewhere", at(1), storage="other")
    restoring = world.restore("back", {"artifact": {"key": good["status"]["artifact"]["key"]}})
    world.run(1)
    [spec] = world.specs("inventory")
    assert spec.inventory is not None
    assert spec.inventory.known == good["metadata"]["uid"][:8] + better["metadata"]["uid"][:8]
    assert set(spec.inventory.busy) == {obj["metadata"]["uid"][:8] for obj in (running, restoring)}
    assert spec.inventory.sweep_after_seconds == 3 * 86400
    assert elsewhere["metadata"]["uid"][:8] not in spec.inventory.known


def test_artifacts_that_cannot_be_used_are_reported(world: World) -> None:
    key = world.orphan("bad", at(1))
    world.bucket[key].problem = "manifest.json cannot be read"
    world.run(MINUTE)
    assert world.events("ArtifactUnusable") == [f"{key}: manifest.json cannot be read"]
    assert status_of(world)["usage"]["orphans"] == 0


# A bucket that somebody has wiped


@pytest.mark.parametrize("wiped", [3, 6])
def test_a_wiped_bucket_is_reported_and_its_backups_recover_with_it(world: World, wiped: int) -> None:
    names = [f"nightly-{17 + number}" for number in range(6)]
    for number, name in enumerate(names):
        world.good(name, at(17 + number), schedule="nightly")
    world.schedule(retention={"keepLast": 6})
    world.run(MINUTE)
    held = {key: world.bucket.pop(key) for key in sorted(world.bucket)[-wiped:]}
    world.annotate(KIND, "default", "check-now", "1")
    world.run(MINUTE)
    assert world.names(phase="Failed") == names[-wiped:]
    assert {world.condition("DatabaseBackup", name)[1] for name in names[-wiped:]} == {"ArtifactMissing"}
    world.run(until=at(24, 1))
    assert world.names(phase="Failed") == names[-wiped:], "a lost backup stays until a person has seen it, whatever failedHistoryLimit says"
    assert world.names(phase="Completed") == sorted([*names[:-wiped], "nightly-20261123-0300"])
    world.bucket.update(held)
    world.annotate(KIND, "default", "check-now", "2")
    world.run(10 * MINUTE)
    assert world.names(phase="Completed") == sorted([*names[1:], "nightly-20261123-0300"]), "keepLast 6"
    assert len(world.bucket) == 6


# What people's own tools read


def test_the_status_has_the_image_and_the_template_of_a_reading_pod(world: World) -> None:
    world.run(MINUTE)
    status = status_of(world)
    assert status["image"] == world.operator.settings.image
    assert status["operatorVersion"] == __version__
    pod = status["podTemplate"]
    container = pod["spec"]["containers"][0]
    assert container["image"] == status["image"]
    assert pod["spec"]["activeDeadlineSeconds"] < 7 * 3600, "it is gone some day, whatever becomes of whoever made it"
    assert OWNER_UID not in pod["metadata"]["labels"], "no operator takes it for a Job's"
    assert [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume] == ["s3"]
    run = RunSpec.model_validate_json(container["env"][0]["value"])
    assert (run.run, run.storage.bucket, run.owner.kind) == ("serve", "backups", KIND)


def test_a_pod_template_holds_no_nulls_that_a_merge_patch_could_not_write() -> None:
    defaults = {"podSecurityContext": {"runAsUser": None}, "annotations": {"a": None}, "tolerations": [{"key": "x", "value": None}]}
    settings = Settings(image="i", started_at=at(23), job_defaults=defaults)
    world = World()
    pod = published(world.storage(), settings)["podTemplate"]
    assert "null" not in json.dumps(pod).replace('\\"', "")
    assert "runAsUser" not in pod["spec"]["securityContext"]
    assert pod["spec"]["tolerations"] == [{"key": "x"}]
