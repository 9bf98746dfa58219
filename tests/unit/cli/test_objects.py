"""What flags become; what people are shown. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from tests.unit.support.plan_world import SETTINGS, T0, storage_obj

from dbbackup.api import specs as api
from dbbackup.api.targets import database_target
from dbbackup.cli import checks, output, pods, specs, timeline, waiting
from dbbackup.cli.app import cli
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.verbs import delete, restore
from dbbackup.cli.verbs import list as listing
from dbbackup.contract.run import RunSpec
from dbbackup.plan.restore import newest_of
from dbbackup.plan.storage import published

Raw = dict[str, Any]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def flags(verb: str, *arguments: str) -> Raw:
    """The values of a verb's parameters, as click reads them."""
    command = cli.get_command(click.Context(cli), verb.split(maxsplit=1)[0])
    for name in verb.split()[1:]:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command.make_context(verb, list(arguments)).params


# Specs


def test_the_shortest_backup() -> None:
    assert specs.backup(flags("create", "--secret", "db")) == {"database": {"secretRef": {"name": "db"}}}


def test_every_flag_of_create() -> None:
    words = (
        "--secret db --database app --host h --port 5433 --user u --ssl-mode verify-full --ca-secret ca:root.pem --storage s --format custom "
        "--schema a,b --schema c --exclude-schema x,y --exclude-extension pg_cron --exclude-table a.x "
        "--exclude-table-data a.y --compression zstd:9 --no-clean --no-row-counts --ttl 30d "
        "--deletion-policy Delete --timeout 2h --retries 0"
    )
    spec = specs.backup(flags("create", *words.split()))
    read = api.parse_backup({"spec": spec})
    assert read.database is not None
    assert (read.database.name, read.database.port, read.database.ssl_mode) == ("app", 5433, "verify-full")
    assert read.database.ca_secret_ref is not None
    assert (read.database.ca_secret_ref.name, read.database.ca_secret_ref.key) == ("ca", "root.pem")
    assert (read.schemas, read.exclude_tables, read.exclude_table_data) == (("a", "b", "c"), ("a.x",), ("a.y",))
    assert (read.exclude_schemas, read.exclude_extensions) == (("x", "y"), ("pg_cron",))
    assert (read.compression.algorithm, read.compression.level, read.clean, read.row_counts) == ("zstd", 9, False, "Off")
    assert (read.ttl, read.deletion_policy, read.timeout, read.retries, read.storage_ref.name) == (30 * 86400, "Delete", 7200, 0, "s")
    assert set(spec) <= {field.alias or name for name, field in api.BackupSpec.model_fields.items()}, "no field that the API does not know"


def test_a_schedule() -> None:
    words = (
        "nightly",
        "0 3 * * *",
        "--secret",
        "db",
        "--keep-daily",
        "7",
        "--min-keep",
        "2",
        "--include",
        "*",
        "--exclude",
        "tmp*",
        "--jitter",
        "10m",
    )
    spec = specs.schedule(flags("schedule create", *words, "--immediate", "--concurrency", "Allow"))
    read = api.parse_schedule({"spec": spec})
    assert (read.retention.keep_daily, read.retention.min_keep, read.jitter, read.immediate) == (7, 2, 600, True)
    assert read.databases is not None
    assert (read.databases.include, read.databases.exclude) == (("*",), ("tmp*",))


@pytest.mark.parametrize(
    ("words", "source"),
    [
        (["good"], {"backupRef": {"name": "good"}}),
        (["--key", "/a/b/", "--storage", "s"], {"artifact": {"storageRef": {"name": "s"}, "key": "a/b"}}),
        (["--schedule", "n", "--before", "2026-11-20"], {"scheduleRef": {"name": "n", "before": "2026-11-20T00:00:00Z"}}),
        (
            ["--schedule", "n", "--before", "2026-11-20T01:00:00+01:00", "--source-database", "d"],
            {"scheduleRef": {"name": "n", "before": "2026-11-20T00:00:00Z", "database": "d"}},
        ),
    ],
)
def test_the_source_of_a_restore(words: list[str], source: Raw) -> None:
    values = flags("restore", *words, "--secret", "db", "--replace", "--no-safety-backup", "--table", "a.b")
    found = specs.restore_source(
        backup_name=values["backup"],
        schedule=values["schedule"],
        before=values["before"],
        source_database=values["source_database"],
        key=values["key"],
        storage=values["storage"],
    )
    assert found == source
    read = api.parse_restore({"spec": specs.restore(values, found, specs.database(values))})
    assert (read.on_existing, read.safety_backup, read.tables) == ("Replace", False, ("a.b",))


@pytest.mark.parametrize(
    "asked",
    [{}, {"backup_name": "a", "schedule": "b"}, {"backup_name": "a", "before": "2026-01-01"}, {"schedule": "s", "before": "yesterday"}],
)
def test_what_is_no_source(asked: Raw) -> None:
    everything = {"backup_name": None, "schedule": None, "before": None, "source_database": None, "key": None, "storage": None, **asked}
    with pytest.raises(CliError) as raised:
        specs.restore_source(**everything)
    assert raised.value.code is CliExit.USAGE


def test_without_a_secret_a_restore_goes_where_the_backup_came_from() -> None:
    known = {"secretRef": {"name": "db"}, "host": "h"}
    assert specs.database(flags("restore", "x"), known) == known
    assert specs.database(flags("restore", "x", "--database", "copy"), known) == {**known, "name": "copy"}
    assert specs.database(flags("restore", "x", "--secret", "other"), known) == {"secretRef": {"name": "other"}}
    with pytest.raises(CliError, match="which database"):
        specs.database(flags("restore", "x"))


def test_own_names_are_names() -> None:
    assert specs.own_name("My_App", NOW) == "my-app-20261123-120000"
    assert specs.own_name("\u00fc", NOW) == "run-20261123-120000"
    assert len(specs.own_name("x" * 300, NOW)) == specs.NAME_LIMIT


# Restores


def good(name: str, completed: str, database: str = "app", phase: str = "Completed") -> Raw:
    status = {
        "phase": phase,
        "completionTime": completed,
        "artifact": {"key": f"k/{name}"},
        "database": {"name": database, "identity": f"h:5432/{database}"},
    }
    return {"metadata": {"name": name, "creationTimestamp": completed}, "status": status}


BACKUPS = [
    good("a", "2026-11-20T03:00:00Z"),
    good("b", "2026-11-21T03:00:00Z"),
    good("c", "2026-11-22T03:00:00Z", phase="Failed"),
    good("d", "2026-11-19T03:00:00Z", "shop"),
]


@pytest.mark.parametrize(("before", "database"), [(None, "app"), ("2026-11-21T03:00:00Z", "app"), (None, "shop"), ("2026-11-01T00:00:00Z", "app")])
def test_the_newest_is_the_operators_choice(before: str | None, database: str) -> None:
    source = api.ScheduleSource.model_validate({"name": "n", "before": before, "database": database})
    mine, its = restore.newest(BACKUPS, before, database), newest_of(BACKUPS, source)
    assert mine == its


def test_several_databases_must_be_chosen_from() -> None:
    with pytest.raises(CliError, match="several") as raised:
        restore.newest(BACKUPS, None, None)
    assert "h:5432/shop" in raised.value.hint


def test_what_a_restore_shows() -> None:
    source_obj = good("a", "2026-11-20T03:00:00Z")
    target = restore.Target("app", "db:5432/app", "contains 3 tables, 1 MiB; PostgreSQL 17.5")
    into, source = {"secretRef": {"name": "db"}}, {"backupRef": {"name": "a"}}
    text = "\n".join(restore.restore_text(source, source_obj, target, into, flags("restore", "a", "--replace"), NOW))
    for text_part in (
        "backup a of h:5432/app",
        "3d 9h".replace(" ", ""),
        "db:5432/app (Secret db)",
        "contains 3 tables",
        "replaces what the backup contains",
        "backed up first",
    ):
        assert text_part in text
    assert "no way back" in "\n".join(
        restore.restore_text(source, source_obj, target, into, flags("restore", "a", "--replace", "--no-safety-backup"), NOW)
    )
    assert "is refused if the target is not empty" in "\n".join(restore.restore_text(source, source_obj, target, into, flags("restore", "a"), NOW))


def test_what_a_deletion_shows() -> None:
    obj: Raw = {"kind": "DatabaseBackup", "metadata": {"name": "a", "annotations": {"dbbackup.io/pin": "x"}}, "spec": {}}
    obj["status"] = {"phase": "Completed", "jobName": "j", "size": "1 MiB", "artifact": {"key": "k"}}
    assert "the artifact k (1 MiB) will be deleted" in delete.deletion_text(obj, keep_artifact=False)
    assert "It is pinned." in delete.deletion_text(obj, keep_artifact=False)
    assert "the artifact k stays" in delete.deletion_text(obj, keep_artifact=True)
    obj["status"] = {"phase": "Failed"}
    assert "it has no artifact" in delete.deletion_text(obj, keep_artifact=False)


# Pods


def test_a_pod_is_the_storages_with_what_only_the_person_knows() -> None:
    storage = storage_obj()
    storage["metadata"]["creationTimestamp"] = "2026-11-23T01:00:00Z"
    storage["status"] = published(storage, SETTINGS)
    spec = {"secretRef": {"name": "db"}, "host": "h", "port": 1, "caSecretRef": {"name": "ca", "key": "k"}, "keys": {"sslMode": "m"}}
    made = pods.pod(storage, "reach", user="alice", image="other", database=pods.database_target(spec), timeoutSeconds=60)
    container = made["spec"]["containers"][0]
    run = RunSpec.model_validate_json(container["env"][0]["value"])
    assert run.run == "reach"
    assert run.database == database_target(api.Database.model_validate(spec))
    assert container["image"] == "other"
    assert {volume["secret"]["secretName"] for volume in made["spec"]["volumes"] if "secret" in volume} >= {"db", "ca"}
    assert made["metadata"]["labels"]["dbbackup.io/run"] == "reach"
    assert made["metadata"]["annotations"]["dbbackup.io/requested-by"] == "alice"
    assert made["metadata"]["ownerReferences"][0]["kind"] == "BackupStorage"
    assert storage["status"] == published(storage, SETTINGS), "the storage itself is not changed"
    with pytest.raises(CliError, match="podTemplate"):
        pods.pod({"metadata": storage["metadata"], "status": {}}, "serve")


def test_a_pods_report() -> None:
    assert pods.report({"message": json.dumps({"outcome": "Succeeded"})}) == {"outcome": "Succeeded"}
    with pytest.raises(CliError, match="OOMKilled, exit code 137"):
        pods.report({"reason": "OOMKilled", "exitCode": 137})
    assert pods.failure_of({"reason": "SecretMissing", "message": "m"}).hint.startswith("Create the Secret")


# Texts


def test_a_table_is_plain_and_aligned() -> None:
    lines = output.table(["NAME", "N"], [["a", "1"], ["long-name", ""]])
    assert lines == ["NAME        N", "a           1", "long-name   -"]


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.table(["NAME"], [["\x1b[2Jx\ny"]], headers=False) == ["\\x1b[2Jx y"]
    output.say("a\x07b\x9b")
    assert capsys.readouterr().out == "a\\x07b\\x9b\n"


def test_totals_count_what_is_there() -> None:
    found: list[Raw] = [{"status": {"phase": phase, "sizeBytes": 1024}} for phase in ("Completed", "Expired", "Completed", "Failed")]
    assert listing.totals([*found, {}], "backup") == "5 backups: 1 Pending, 2 Completed, 1 Failed, 1 Expired; 2 KiB"


def test_newest_first_by_the_run_of_what_was_imported() -> None:
    made = {"metadata": {"name": "new", "creationTimestamp": "2026-11-22T00:00:00Z"}, "spec": {}}
    old = {
        "metadata": {"name": "old", "creationTimestamp": "2026-11-23T00:00:00Z"},
        "spec": {"origin": "Discovered"},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    }
    assert [obj["metadata"]["name"] for obj in listing.newest_first([old, made])] == ["new", "old"]


def test_a_story_is_in_order() -> None:
    obj: Raw = {
        "kind": "DatabaseBackup",
        "metadata": {"name": "a", "creationTimestamp": "2026-11-23T10:00:00Z", "annotations": {"dbbackup.io/requested-by": "alice"}},
        "spec": {},
        "status": {
            "phase": "Completed",
            "startTime": "2026-11-23T10:01:05Z",
            "completionTime": "2026-11-23T10:02:00Z",
            "duration": "55s",
            "attempts": 2,
        },
    }
    event = {
        "metadata": {"creationTimestamp": "x"},
        "lastTimestamp": "2026-11-23T10:01:30Z",
        "type": "Warning",
        "reason": "Retrying",
        "message": "m",
        "count": 3,
    }
    moments = [(moment.kind, moment.text) for moment in timeline.timeline(obj, [event])]
    assert moments == [
        ("own", "created by alice"),
        ("own", "the run began, after waiting 1m 5s"),
        ("warning", "Retrying: m (3 times)"),
        ("own", "done after 55s, in attempt 2"),
    ]


def running(**progress: Any) -> Raw:
    return {"status": {"phase": "Running", "progress": {"phase": "dumping", **progress}}}


def test_progress_in_words() -> None:
    dumping = running(tablesDone=2, tablesTotal=5, bytesRead=2048, bytesStored=1024, percent=40)
    assert waiting.progress_text(dumping) == ("dumping, 2 of 5 tables, 2 KiB read, 1 KiB stored", 40.0)
    pending = {"status": {"phase": "Pending", "conditions": [{"type": "Ready", "message": "its turn comes"}]}}
    assert waiting.progress_text(pending) == ("Pending: its turn comes", None)
    assert waiting.progress_text({}) == ("Pending", None)


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    show = waiting._lines("x", lambda: now)
    for now, read in ((0.0, 1), (5.0, 2), (9.9, 3), (10.0, 4), (12.0, 5)):  # noqa: B007 - the clock reads it
        show(running(bytesRead=read * 1024, percent=read))
    assert capsys.readouterr().err.splitlines() == ["x: dumping, 1 KiB read (1 %)", "x: dumping, 4 KiB read (4 %)"]


def test_a_failure_is_printed_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"reason": "Timeout", "message": "too long", "hint": "be quick", "logTail": "\n".join(f"line {n}" for n in range(40))}
    assert waiting.print_end({"kind": "DatabaseBackup", "metadata": {"name": "a"}, "status": {"phase": "Failed", "failure": failure}}) == 1
    said = capsys.readouterr().err
    assert said.startswith("Failed a: Timeout: too long\nbe quick\n  | line 20\n")


# Findings


def states(found: list[checks.Finding]) -> list[str]:
    return [finding.state for finding in found]


def test_the_doctor_on_kubernetes_and_operators() -> None:
    assert checks.kubernetes({"major": "1", "minor": "35+", "gitVersion": "v1.35"}).state == "ok"
    assert checks.kubernetes({"major": "1", "minor": "30"}).state == "problem"
    assert states(checks.operator([], "0.2.0")) == ["problem"]
    labels = {"app.kubernetes.io/version": "0.3.1"}
    made = {"metadata": {"namespace": "n", "name": "o", "labels": labels}, "status": {"readyReplicas": 1}}
    assert states(checks.operator([made], "0.3.0")) == ["ok"]
    assert states(checks.operator([made], "0.2.0")) == ["ok", "warning"]
    assert states(checks.operator([{**made, "status": {}}, made], "0.3.1")) == ["problem", "ok", "warning"]


def test_the_doctor_on_rights() -> None:
    allowed = [[True] * len(capability.rights) for capability in checks.CAPABILITIES]
    assert states(checks.capabilities(allowed)) == ["ok"]
    allowed[4][-1] = False
    [able, unable] = checks.capabilities(allowed)
    assert "download" not in able.message
    assert "download (lacks delete pods)" in unable.message
    asked = checks.CAPABILITIES[4].access_reviews("ns")
    assert {"namespace": "ns", "verb": "create", "group": "", "resource": "pods", "subresource": "portforward"} in asked


def with_ready(status: str, reason: str, **more: Any) -> Raw:
    return {
        "metadata": {"name": "x"},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "m"}], **more},
    }


def test_the_doctor_on_storages() -> None:
    assert states(checks.storage({"metadata": {"name": "x"}}, NOW, tried=False)) == ["problem"]
    bad = checks.storage(with_ready("False", "StorageAccessDenied"), NOW, tried=True)
    assert (states(bad), bool(bad[0].hint)) == (["problem"], True)
    checking = with_ready("False", "Checking")
    checking["status"]["conditions"].append({"type": "Reconciling", "status": "True"})
    assert states(checks.storage(checking, NOW, tried=False)) == ["warning"]
    good_one = with_ready("True", "Available", checkedAt="2026-11-23T11:00:00Z", usage={"bytes": 1, "orphans": 2})
    assert states(checks.storage(good_one, NOW, tried=True)) == ["ok", "warning"]
    stale = with_ready("True", "Available", checkedAt="2026-11-01T11:00:00Z")
    assert states(checks.storage(stale, NOW, tried=False)) == ["ok", "warning"]
    stale["status"]["conditions"] += [
        {"type": "NearCapacity", "status": "True", "message": "m"},
        {"type": "PruneHeld", "status": "True", "message": "m"},
    ]
    assert states(checks.storage(stale, NOW, tried=True)) == ["ok", "warning", "warning"]


def test_the_doctor_on_schedules_and_databases() -> None:
    assert states(checks.schedule(with_ready("True", "Scheduled", lastSuccessfulTime="2026-11-23T03:00:00Z"), NOW)) == ["ok"]
    found = checks.schedule(with_ready("False", "InvalidSpec", consecutiveFailures=2, suspended=True), NOW)
    assert states(found) == ["problem", "problem", "warning"]
    database = {"identity": "h:5432/a", "serverVersion": "17", "sizeBytes": 1, "tables": 1, "tls": False}
    report = {"database": database, "failure": {"reason": "ServerTooNew", "message": "m"}, "warnings": ["w"]}
    assert states(checks.database("d", report)) == ["ok", "problem", "warning"]


def test_each_database_is_tried_once() -> None:
    one, two = {"secretRef": {"name": "a"}}, {"secretRef": {"name": "a"}, "name": "x"}
    objects: list[Raw] = [{"spec": {"template": {"spec": {"database": one}}}}, {"spec": {"database": one}}, {"spec": {"database": two}}, {"spec": {}}]
    assert checks.targets(objects) == [("database of Secret a", one), ("database of Secret a x", two)]


def test_times() -> None:
    assert output.age("2026-11-23T10:30:00Z", NOW) == "1h30m"
    assert output.age(None, NOW) == output.age("never", NOW) == "-"
    assert output.moment_text(T0.isoformat()).endswith(" UTC")
