"""Which notifications are sent, and when; where a message may go; how it is signed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.support.plan_world import T0, Raw, backup_obj, restore_obj, storage_obj

from dbbackup.api.conditions import timestamp
from dbbackup.plan import notify, sinks
from dbbackup.plan.facts import Note
from dbbackup.plan.notify import Notification
from dbbackup.plan.sinks import SinkError


def conditions(**statuses: str) -> list[Raw]:
    """`Ready="True"`, or `Ready="False Reason"`."""
    found = []
    for kind, text in statuses.items():
        value, _, reason = text.partition(" ")
        found.append({"type": kind, "status": value, "reason": reason or "Fine", "message": f"{kind} says", "lastTransitionTime": timestamp(T0)})
    return found


DONE: Raw = {"phase": "Completed", "completionTime": timestamp(T0), "conditions": conditions(Ready="True")}
FAILED: Raw = {
    "phase": "Failed",
    "completionTime": timestamp(T0),
    "failure": {"reason": "AuthenticationFailed", "message": "no entry", "hint": "look at the Secret"},
    "conditions": conditions(Ready="False"),
}
RUNNING: Raw = {"phase": "Running", "conditions": conditions(Ready="False")}


def other(status: Raw, minutes: int = 0, labels: Raw | None = None, **spec: Any) -> Raw:
    """An earlier run."""
    moment = timestamp(T0 - timedelta(hours=1) + timedelta(minutes=minutes))
    metadata = {"uid": f"other-{minutes}", "creationTimestamp": moment, **({"labels": labels} if labels else {})}
    return backup_obj({**status, "completionTime": moment}, metadata=metadata, **spec)


# What is worth telling


def test_a_failure_is_notified_with_its_reason() -> None:
    assert notify.notification(backup_obj(RUNNING), FAILED) == Notification("failure", "AuthenticationFailed", "no entry")
    assert notify.notification(restore_obj(RUNNING), FAILED) == Notification("failure", "AuthenticationFailed", "no entry")


def test_a_success_is_a_recovery_only_just_after_a_failure() -> None:
    def event(*others: Raw) -> str | None:
        what = notify.notification(backup_obj(RUNNING), DONE, (), lambda: others)
        return what.event if what else None

    assert event() == "success"
    assert event(other(FAILED)) == "recovery"
    assert event(other(FAILED), other(DONE, 1)) == "success"
    assert event(other(DONE), other(FAILED, 1)) == "recovery"
    assert event(other(FAILED), other(RUNNING, 1)) == "recovery"
    assert event(other(FAILED), other({**DONE, "phase": "Expired"}, 1)) == "success"


@pytest.mark.parametrize(
    "stranger", [{"labels": {"dbbackup.io/schedule": "weekly"}}, {"database": {"secretRef": {"name": "app-db"}, "name": "another"}}]
)
def test_a_failure_of_something_else_makes_no_recovery(stranger: Raw) -> None:
    what = notify.notification(backup_obj(RUNNING), DONE, (), lambda: [other(FAILED, **stranger)])
    assert what is not None
    assert what.event == "success"


def test_a_backup_whose_artifact_is_lost_fails_and_recovers() -> None:
    lost = {**FAILED, "failure": {"reason": "ArtifactMissing", "message": "gone"}}
    assert notify.notification(backup_obj(DONE), lost) == Notification("failure", "ArtifactMissing", "gone")
    assert notify.notification(backup_obj(lost), DONE) == Notification("recovery", "ArtifactFound", "Ready says")


@pytest.mark.parametrize(
    ("before", "after", "spec"),
    [
        ({}, RUNNING, {}),
        (RUNNING, {**RUNNING, "progress": {}}, {}),
        (FAILED, FAILED, {}),
        (DONE, {**DONE, "phase": "Deleting"}, {}),
        ({**DONE, "phase": "Deleting"}, {**DONE, "phase": "Expired"}, {}),
        ({}, DONE, {"origin": "Discovered"}),
    ],
)
def test_what_is_no_news_to_people(before: Raw, after: Raw, spec: Raw) -> None:
    assert notify.notification(backup_obj(before, **spec), after) is None


def storage(**status: Any) -> Raw:
    return {**storage_obj(), "status": status}


def test_a_storage_is_notified_when_unusable_full_and_recovered() -> None:
    well = {"conditions": conditions(Ready="True Available")}
    once, twice = ({"checkFailures": count, "conditions": conditions(Ready="False StorageUnreachable")} for count in (1, 2))
    stalled = {"checkFailures": 1, "conditions": conditions(Ready="False BucketMissing", Stalled="True")}
    full = {"conditions": conditions(Ready="True Available", NearCapacity="True Full")}
    assert notify.notification(storage(**well), once) is None
    assert notify.notification(storage(**once), twice) == Notification("failure", "StorageUnreachable", "Ready says")
    assert notify.notification(storage(**twice), {**twice, "checkFailures": 3}) is None
    assert notify.notification(storage(**twice), well) == Notification("recovery", "Available", "Ready says")
    assert notify.notification(storage(), stalled) == Notification("failure", "BucketMissing", "Ready says")
    assert notify.notification(storage(**well), full) == Notification("failure", "NearCapacity", "NearCapacity says")
    assert notify.notification(storage(**full), well) == Notification("recovery", "NearCapacity", "")


def schedule(status: Raw | None = None, **spec: Any) -> Raw:
    return {**backup_obj(status), "kind": "DatabaseBackupSchedule", "spec": {"schedule": "@daily", **spec}}


def test_a_schedule_is_notified_where_no_backup_could_fail() -> None:
    well, broken = {"conditions": conditions(Ready="True Scheduled")}, {"conditions": conditions(Ready="False InvalidSpec", Stalled="True")}
    refused = {"conditions": conditions(Ready="False RunRefused")}
    for reason in ("DiscoveryFailed", "RunMissed"):
        assert notify.notification(schedule(well), well, [Note(reason, "why")]) == Notification("failure", reason, "why")
    assert notify.notification(schedule(well), well, [Note("RunCreated", "made")]) is None
    assert notify.notification(schedule(well), broken) == Notification("failure", "InvalidSpec", "Ready says")
    assert notify.notification(schedule(broken), well) == Notification("recovery", "Scheduled", "Ready says")
    assert notify.notification(schedule(well), refused, [Note("RunRefused", "quota")]) == Notification("failure", "RunRefused", "quota")
    assert notify.notification(schedule(refused), refused, [Note("RunRefused", "quota")]) is None


def test_a_schedule_that_failed_by_itself_recovers_by_its_next_good_run() -> None:
    before = {"conditions": conditions(Ready="True Scheduled")}
    failed = notify.with_owed(before, Notification("failure", "DiscoveryFailed", "why"), schedule(before), T0)
    good = {**failed, "lastSuccessfulTime": timestamp(T0)}
    assert notify.notification(schedule(failed), good) == Notification("recovery", "RunSucceeded", f"a run has succeeded at {timestamp(T0)}")
    well = notify.with_owed(good, Notification("recovery", "RunSucceeded", "x"), schedule(good), T0)
    assert notify.notification(schedule(well), {**well, "lastSuccessfulTime": timestamp(T0 + timedelta(days=1))}) is None
    assert notify.notification(schedule(before), {**before, "lastSuccessfulTime": timestamp(T0)}) is None


# What is owed stands on the object


WHAT = Notification("failure", "AuthenticationFailed", "no entry: none at all")


def marked(what: Notification = WHAT, status: Raw = FAILED, at: int = 0, **more: Any) -> Raw:
    obj = backup_obj(RUNNING, **more)
    return {**obj, "status": notify.with_owed({**status}, what, obj, T0 + timedelta(seconds=at))}


def test_what_is_owed_survives_in_the_status() -> None:
    obj = marked()
    assert notify.owed(obj) == WHAT
    assert [item["type"] for item in obj["status"]["conditions"]] == ["Ready", "Notified"]
    assert notify.owed(backup_obj(FAILED)) is None


def test_a_notification_delivered_or_given_up_is_not_owed() -> None:
    obj = marked()
    for given_up, value, said in (({}, "True", "delivered to ops, page"), ({"page": "HTTP 410"}, "False", "not delivered to page: HTTP 410")):
        status = notify.settled(obj, WHAT, given_up, ("ops", "page"), T0)
        mark = status["conditions"][-1]
        assert (mark["status"], mark["reason"], mark["message"]) == (value, "Failure", said)
        assert notify.owed({**obj, "status": status}) is None


def test_the_id_is_that_of_the_event() -> None:
    assert notify.event_id(marked(), WHAT) == notify.event_id(marked(), WHAT)
    assert notify.event_id(marked(at=5), WHAT) != notify.event_id(marked(), WHAT)
    assert notify.event_id(marked(status=DONE), WHAT) != notify.event_id(marked(), WHAT)


def test_a_long_message_fits_the_status_and_stays_readable() -> None:
    obj = marked(Notification("failure", "X", "y" * 100_000))
    assert len(obj["status"]["conditions"][-1]["message"]) <= notify.TEXT_LIMIT
    assert notify.owed(obj) is not None


def test_the_mark_never_pushes_out_a_condition_that_is_needed_nor_breaks_the_limit() -> None:
    many = [{"type": f"T{number}", "status": "True"} for number in range(16)]
    status = notify.with_owed({"conditions": many}, WHAT, backup_obj(), T0)
    assert len(status["conditions"]) == 16
    assert status["conditions"][-1]["type"] == "Notified"


# Messages


def test_the_payload_has_what_a_person_needs() -> None:
    status = {
        **FAILED,
        "sizeBytes": 7,
        "database": {"identity": "db:5432/app"},
        "duration": "9s",
        "startTime": timestamp(T0),
        "artifact": {"storage": "default", "bucket": "b", "key": "team/ns/h/d/x", "sha256": "x"},
    }
    obj = marked(status=status)
    obj["metadata"] = {**obj["metadata"], "labels": {"dbbackup.io/schedule": "nightly"}, "annotations": {"dbbackup.io/requested-by": "alice"}}
    sent = json.loads(notify.payload(obj, WHAT, "ops").to_json())
    assert sent.pop("id")
    assert sent == {
        "version": 1,
        "event": "failure",
        "time": timestamp(T0),
        "sink": "ops",
        "object": {"kind": "DatabaseBackup", "namespace": "ns", "name": "nightly", "uid": obj["metadata"]["uid"]},
        "reason": "AuthenticationFailed",
        "message": "no entry: none at all",
        "hint": "look at the Secret",
        "schedule": "nightly",
        "database": "db:5432/app",
        "requestedBy": "alice",
        "artifact": {"storage": "default", "bucket": "b", "key": "team/ns/h/d/x", "sizeBytes": 7},
        "startTime": timestamp(T0),
        "completionTime": timestamp(T0),
        "duration": "9s",
    }


def test_slack_shows_names_as_text() -> None:
    """`<!channel>` would call everybody, `<https://evil|here>` would show a link."""
    obj = marked(Notification("failure", "X", "<!channel> & <https://evil|here>"))
    text = notify.slack(notify.payload(obj, Notification("failure", "X", "<!channel> & <https://evil|here>"), "ops"))["text"]
    assert text.startswith(":x: *DatabaseBackup ns/nightly failed*: X\n&lt;!channel&gt; &amp; &lt;https://evil|here&gt;\n")
    assert "<" not in text


def test_slack_gets_runs_and_storages() -> None:
    full = {**storage_obj(), "status": notify.with_owed({}, Notification("recovery", "NearCapacity", "half full"), storage_obj(), T0)}
    assert notify.slack(notify.payload(full, Notification("recovery", "NearCapacity", "half full"), "ops"))["text"] == (
        ":white_check_mark: *BackupStorage ns/default recovered*: NearCapacity\nhalf full"
    )
    done = marked(Notification("success", "Completed", "stored"), DONE)
    assert notify.slack(notify.payload(done, Notification("success", "Completed", "stored"), "ops"))["text"] == (
        ":white_check_mark: *DatabaseBackup ns/nightly completed*: Completed\nstored"
    )


# Sinks


def sink(**more: Any) -> sinks.Sink:
    [found] = sinks.parse([{"name": "ops", "type": "webhook", "url": "https://example.com/x", **more}])
    return found


def test_a_sink_takes_what_it_asks_for() -> None:
    assert sink().wants("failure", "DatabaseBackup", "shop")
    assert sink().wants("recovery", "BackupStorage", "shop")
    assert not sink().wants("success", "DatabaseBackup", "shop")
    picky = sink(events=["success"], kinds=["DatabaseRestore"], namespaces=["shop"])
    assert picky.wants("success", "DatabaseRestore", "shop")
    assert not picky.wants("failure", "DatabaseRestore", "shop")
    assert not picky.wants("success", "DatabaseBackup", "shop")
    assert not picky.wants("success", "DatabaseRestore", "other")
    assert not sink(type="heartbeat").wants("failure", "DatabaseBackup", "shop")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({}, "the list"),
        ([{"name": "Ops", "type": "webhook", "url": "https://x"}], "0.name"),
        ([{"name": "ops", "type": "mail", "url": "https://x"}], "0.type"),
        ([{"name": "ops", "type": "webhook"}], "either url or urlSecretRef"),
        ([{"name": "ops", "type": "webhook", "url": "https://x", "urlSecretRef": {"name": "a", "key": "b"}}], "either url or urlSecretRef"),
        ([{"name": "ops", "type": "slack", "url": "https://x", "secretRef": {"name": "a", "key": "b"}}], "signs webhooks only"),
        ([{"name": "ops", "type": "slack", "url": "https://x"}] * 2, "two sinks have that name"),
        ([{"name": "ops", "type": "heartbeat", "url": "https://x", "every": "often"}], "0.every"),
        ([{"name": "ops", "type": "webhook", "url": "https://x", "events": ["disaster"]}], "0.events"),
        ([{"name": "ops", "type": "webhook", "url": "https://x", "namespace": ["shop"]}], "0.namespace"),
        ([{"name": "ops", "type": "webhook", "url": "https://x", "secretRef": {"name": "a", "key": "b", "kye": "c"}}], "kye"),
    ],
)
def test_sinks_that_cannot_be_used_are_refused_without_their_urls(value: Any, wanted: str) -> None:
    with pytest.raises(SinkError, match=wanted) as caught:
        sinks.parse(value)
    assert "https" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://hooks.example.com/T/B", "https://192.0.2.1:8443/x?y=z", "https://[2001:db8::1]/"])
def test_https_to_anywhere_is_fine_as_far_as_the_url_goes(url: str) -> None:
    assert sinks.forbidden_url(url, allow_private=False) is None


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://hooks.example.com", "https"),
        ("file:///etc/passwd", "neither"),
        ("https://", "neither"),
        ("https://[::1", "cannot be read"),
        ("https://x:port/", "cannot be read"),
        ("https://user:pass@example.com/", "user name"),
        ("https://receiver.shop.svc/", "within the cluster"),
        ("https://receiver.shop.svc.cluster.local./", "within the cluster"),
        ("https://metadata.google.internal/", "within the cluster"),
        ("https://localhost/", "within the cluster"),
    ],
)
def test_urls_that_are_not_called(url: str, wanted: str) -> None:
    why = sinks.forbidden_url(url, allow_private=False)
    assert why is not None
    assert wanted in why


def test_a_receiver_in_the_cluster_may_be_allowed() -> None:
    assert sinks.forbidden_url("http://receiver.shop.svc:8080/", allow_private=True) is None
    assert sinks.forbidden_address("10.96.0.10", allow_private=True) is None
    assert sinks.forbidden_address("127.0.0.1", allow_private=True) is None
    assert sinks.forbidden_url("gopher://receiver.shop.svc/", allow_private=True) is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:2800:220:1::1", "::ffff:1.1.1.1"])
def test_public_addresses(address: str) -> None:
    assert sinks.forbidden_address(address, allow_private=False) is None


PRIVATE = ["10.0.0.1", "172.16.5.4", "192.168.1.1", "127.0.0.1", "100.64.0.1", "::1", "fd00::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "0.0.0.0",
    "224.0.0.1",
    "ff02::1",
]


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER, "2002:a00:1::1", "nonsense"])
def test_private_addresses_are_refused(address: str) -> None:
    assert sinks.forbidden_address(address, allow_private=False) is not None


@pytest.mark.parametrize("address", NEVER)
def test_link_local_addresses_are_refused_whatever_is_allowed(address: str) -> None:
    assert sinks.forbidden_address(address, allow_private=True) is not None


def test_a_signature_holds_for_that_body_that_time_and_that_key_alone() -> None:
    value = sinks.signature(b"key", b"{}", 1_700_000_000)
    assert value == "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    others = {
        sinks.signature(b"other", b"{}", 1_700_000_000),
        sinks.signature(b"key", b"[]", 1_700_000_000),
        sinks.signature(b"key", b"{}", 1_700_000_001),
    }
    assert len({value, *others}) == 4


def test_which_answers_are_tried_again() -> None:
    assert [status for status in (200, 400, 401, 404, 408, 410, 425, 429, 500, 503) if sinks.retryable(status)] == [408, 425, 429, 500, 503]


# Heartbeats


def beat(**more: Any) -> sinks.Sink:
    return sink(type="heartbeat", **more)


HOUR = timedelta(hours=1)
GOOD = {
    "lastScheduleTime": timestamp(T0 - timedelta(hours=5)),
    "lastSuccessfulTime": timestamp(T0 - timedelta(hours=5) + timedelta(minutes=3)),
    "nextScheduleTime": timestamp(T0 + timedelta(hours=19)),
    "consecutiveFailures": 0,
}


def test_a_heart_beats_while_every_schedule_is_well() -> None:
    assert notify.missing_beat([], beat(), T0) is None
    assert notify.missing_beat([schedule(GOOD), schedule({"observedGeneration": -1})], beat(), T0) is None


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({**GOOD, "consecutiveFailures": 1}, "has failed"),
        ({**GOOD, "consecutiveFailures": 3}, "3 times in a row"),
        ({**GOOD, "nextScheduleTime": timestamp(T0 - timedelta(minutes=61))}, "has not created the run"),
        ({**GOOD, "lastScheduleTime": timestamp(T0 - timedelta(minutes=61))}, "no good backup"),
        ({"lastScheduleTime": timestamp(T0 - timedelta(minutes=61))}, "no good backup"),
        ({**GOOD, "conditions": conditions(Stalled="True")}, "cannot be used"),
    ],
)
def test_it_stops_where_one_is_not(status: Raw, wanted: str) -> None:
    why = notify.missing_beat([schedule(GOOD), schedule(status)], beat(), T0)
    assert why is not None
    assert wanted in why
    assert "ns/nightly" in why


def test_a_run_has_the_grace_to_become_good() -> None:
    late = {**GOOD, "lastScheduleTime": timestamp(T0 - timedelta(minutes=61))}
    assert notify.overdue(schedule(late), T0, HOUR) is not None
    assert notify.overdue(schedule(late), T0, 2 * HOUR) is None
    assert notify.missing_beat([schedule(late)], beat(grace="2h"), T0) is None


def test_schedules_that_owe_nothing() -> None:
    bad = {**GOOD, "consecutiveFailures": 3}
    suspended = schedule(bad)
    suspended["metadata"] = {**suspended["metadata"], "annotations": {"dbbackup.io/suspend": "true"}}
    going = schedule(bad)
    going["metadata"] = {**going["metadata"], "deletionTimestamp": timestamp(T0)}
    assert notify.missing_beat([schedule(bad, suspend=True), suspended, going], beat(), T0) is None
    assert notify.missing_beat([schedule(bad)], beat(namespaces=["other"]), T0) is None
