"""`kubectl dbbackup` against the real cluster: each verb, with and without a terminal, and for
people who may not."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from tests.bench import finished
from tests.bench.api import Api
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.plugin import ESCAPES, Plugin, children, person
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup import __version__

MOST_CPU_SECONDS = 1.0
"""Of the plugin for a list of 1,000, 0.22 on two idle processors: other work on the machine
lengthens the time that passes, and hardly these."""


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """No backup gets past its table locks."""
    with database.connect(superuser=True) as connection:
        table = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LIMIT 1"
        ).fetchone()
        assert table is not None
        connection.execute("BEGIN")
        connection.execute(f"LOCK TABLE {table[0]} IN ACCESS EXCLUSIVE MODE")
        yield


def no_pods(tenant: Tenant) -> None:
    """What the plugin has started is gone, or going."""
    assert all("deletionTimestamp" in pod["metadata"] for pod in tenant.objects("pods", "dbbackup.io/tool=kubectl"))


def test_create_list_describe_logs(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    made = plugin("create", "first", "--secret", "db", "--label", "team=shop", "--ttl", "7d", "--wait")
    assert made.out == "", "progress goes to stderr"
    assert re.search(rf"Completed first: {re.escape(source.identity)}, \d", made.err), made.both
    obj = tenant.get("dbb", "first")
    user = json.loads(tenant.run("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"]
    assert obj["metadata"]["annotations"]["dbbackup.io/requested-by"] == user
    assert obj["metadata"]["labels"]["team"] == "shop"
    assert obj["spec"]["ttl"] == "7d"

    unnamed = plugin("create", "--secret", "db", "--format", "custom").out.strip()
    assert re.fullmatch(r"db-\d{8}-\d{6}", unnamed), "stdout has its name and nothing else"
    tenant.completed(tenant.get("dbb", unnamed))
    failed = plugin("create", "bad", "--secret", "nowhere", "--wait", code=1)
    assert "SecretMissing" in failed.err
    assert "Create the Secret" in failed.err, "the hint is printed"

    lines = plugin("list").out.splitlines()
    assert lines[0].split() == ["NAME", "PHASE", "DATABASE", "SIZE", "DURATION", "EXPIRES", "AGE"]
    assert [line.split()[0] for line in lines[1:4]] == ["bad", unnamed, "first"], "newest first"
    assert re.fullmatch(r"3 backups: 2 Completed, 1 Failed; .+iB", lines[-1])
    assert len(plugin("list", "-o", "wide", "--no-headers").out.splitlines()) == 3
    assert plugin("list", "-o", "name", "--phase", "Completed", "--limit", "1").out == f"databasebackup.dbbackup.io/{unnamed}\n"
    whole = plugin.json("list", "-l", "team=shop")["items"]
    assert [item["metadata"]["name"] for item in whole] == ["first"]
    assert "managedFields" not in whole[0]["metadata"]
    assert yaml.safe_load(plugin("list", "-o", "yaml").out)["items"][0]["metadata"]["name"] == "bad"
    assert tenant.name in plugin("list", "-A").out
    assert plugin("list", "--database", "no-such").err.startswith("no backups in namespace")

    story = plugin("describe", "first").out
    for text in (f"DatabaseBackup {tenant.name}/first", source.identity, f"created by {user}", "the run began", "done after", "Ready=True"):
        assert text in story
    assert story.index("created by") < story.index("the run began") < story.index("done after")
    story = plugin("describe", "backup/bad").out
    for text in ("Why it failed: SecretMissing", "What to do:", "Warning" if "Warning" in story else "!", "The end of its log"):
        assert text in story
    assert plugin.json("describe", "first")["metadata"]["name"] == "first"

    assert "SecretMissing" in plugin("logs", "bad").out
    assert "pod is gone" in plugin("logs", "bad").err
    assert "its log is gone with its pod" in plugin("logs", "first").err


def test_names_that_are_not_there(plugin: Plugin, tenant: Tenant) -> None:
    for arguments in (
        ("describe", "none"),
        ("describe", "restore/none"),
        ("logs", "none"),
        ("download", "none"),
        ("restore", "none", "--secret", "db"),
        ("restore", "--schedule", "none", "--secret", "db"),
        ("delete", "none", "--yes"),
        ("schedule", "run-now", "none"),
        ("schedule", "next", "none"),
        ("storage", "check", "none"),
        ("storage", "describe"),
        ("import", "none"),
        ("list", "--storage", "none"),
    ):
        done = plugin(*arguments, code=3)
        assert "none" in done.err or "default" in done.err, done.both
        assert tenant.name in done.err, done.both
    assert plugin("describe", "pod/none", code=2).err


def test_what_cannot_be_used_is_told_and_makes_nothing(plugin: Plugin, tenant: Tenant) -> None:
    for arguments, message in (
        (("create",), "--secret"),
        (("create", "x", "--secret", "db", "--format", "tar"), "tar"),
        (("create", "x", "--secret", "db", "--ttl", "tomorrow"), "must be a duration"),
        (("create", "Not_A_Name", "--secret", "db"), "Not_A_Name"),
        (("create", "x", "--secret", "db", "--compression", "zstd:high"), "number"),
        (("create", "x", "--secret", "db", "--label", "team"), "key=value"),
        (("restore",), "Name a backup"),
        (("schedule", "create", "s", "0 3 * *", "--secret", "db"), "4 fields"),
        (("schedule", "next"), "--cron"),
        (("nonsense",), "nonsense"),
        (("create", "--nonsense"), "nonsense"),
        (("download",), "--key"),
    ):
        assert message in plugin(*arguments, code=2).err
    assert tenant.objects("dbb") == []
    assert tenant.objects("dbs") == []


def test_dry_runs_are_documents_for_git(plugin: Plugin, tenant: Tenant) -> None:
    text = plugin(
        "create", "x", "--secret", "db", "--schema", "public,auth", "--exclude-table-data", "auth.*", "--compression", "zstd:9", "--dry-run"
    ).out
    obj = yaml.safe_load(text)
    assert obj["spec"] == {
        "database": {"secretRef": {"name": "db"}},
        "schemas": ["public", "auth"],
        "excludeTableData": ["auth.*"],
        "compression": {"algorithm": "zstd", "level": 9},
    }
    assert "dbbackup.io/requested-by" not in text, "whoever applies it is another"
    schedule = plugin(
        "schedule", "create", "s", "@daily", "--secret", "db", "--keep-daily", "7", "--time-zone", "Europe/Berlin", "--dry-run", "-o", "json"
    )
    assert json.loads(schedule.out)["spec"]["retention"] == {"keepDaily": 7}
    restore = yaml.safe_load(plugin("restore", "--key", "a/b/c", "--secret", "db", "--replace", "--dry-run").out)
    assert restore["spec"]["source"] == {"artifact": {"key": "a/b/c"}}
    assert tenant.objects("dbb") == tenant.objects("dbs") == tenant.objects("dbr") == []
    tenant.apply(obj)
    assert "must be a duration" in plugin("create", "y", "--secret", "db", "--timeout", "soon", "--dry-run", code=2).err, "the API server checks it"


def test_schedules(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    plugin("schedule", "create", "nightly", "0 3 * * *", "--secret", "db", "--keep-last", "3", "--time-zone", "Europe/Berlin")
    made = plugin("schedule", "run-now", "nightly", "--wait")
    name = made.out.strip()
    assert tenant.get("dbb", name)["status"]["phase"] == "Completed"
    listed = plugin("schedule", "list").out
    assert re.search(r"nightly +0 3 \* \* \* \(Europe/Berlin\) +Scheduled +\d{4}-", listed), listed
    assert plugin("list", "--schedule", "nightly", "-o", "name").out.strip().endswith(name)

    due = plugin("schedule", "next", "nightly", "--count", "3").out.splitlines()
    due_next = tenant.get("dbs", "nightly")["status"]["nextScheduleTime"]
    assert due[0].split(" UTC")[0] == due_next.replace("T", " ").rstrip("Z"), "as the operator itself counts"
    assert len(due) == 3
    assert "03:00:00 Europe/Berlin" in due[0]

    plugin("schedule", "suspend", "nightly")
    tenant.wait_until("dbs", "nightly", lambda obj: obj["status"].get("suspended") is True)
    assert "suspended" in plugin("schedule", "list").out
    plugin("schedule", "resume", "nightly")
    tenant.wait_until("dbs", "nightly", lambda obj: obj["status"].get("suspended") is False)


def test_a_restore_shows_what_it_does_and_asks(plugin: Plugin, tenant: Tenant, source: Database, database: Callable[..., Database]) -> None:
    plugin("create", "good", "--secret", "db", "--wait")
    before = source.contents()
    source.execute("DELETE FROM public.audit_log" if "public.audit_log" in before else f"TRUNCATE {next(iter(before))} CASCADE", superuser=True)

    wrong = plugin.terminal("restore", "good", "--replace", answers=[("Type the name of the target database", "production")])
    shown = ESCAPES.sub("", wrong.out)
    assert wrong.code == 4, shown
    for text in ("backup good", source.identity, "replaces", "is backed up first", "contains", "PostgreSQL 15"):
        assert text in shown
    assert tenant.objects("dbr") == []
    assert "no terminal" in plugin("restore", "good", "--replace", code=4).err
    no_pods(tenant)

    right = plugin.terminal("restore", "good", "--replace", "--wait", answers=[("Type the name of the target database", source.name)])
    assert right.code == 0, right.out
    assert "Completed" in right.out
    assert source.contents() == before
    [made] = tenant.objects("dbr")
    assert made["spec"]["database"]["name"] == source.name, "it goes where the person said, and nowhere else"
    assert made["metadata"]["annotations"]["dbbackup.io/requested-by"]
    safety = made["status"]["safetyBackup"]["key"]
    assert safety in plugin("describe", made["metadata"]["name"]).out
    assert "1 restore: 1 Completed" in plugin("list", "--restores").out

    empty = database(15)
    tenant.add_database(empty, "other")
    plugin("restore", "good", "--secret", "other", "--yes", "--wait")
    assert {name for name in empty.contents() if name in before}
    refused = plugin("restore", "good", "--secret", "other", "--yes", "--wait", "--name", "again", code=1)
    assert "TargetNotEmpty" in refused.err


def test_what_lies_in_the_bucket_and_import(plugin: Plugin, tenant: Tenant, source: Database, bucket: Bucket) -> None:
    plugin("create", "kept", "--secret", "db", "--wait")
    plugin("create", "lost", "--secret", "db", "--wait")
    done = plugin("delete", "lost", "--keep-artifact", "--yes")
    assert "lost is deleted" in done.err
    listed = plugin("list", "--storage", "default").out
    assert re.search(r"^kept +known ", listed, re.MULTILINE), listed
    assert re.search(r"^\(backup\) +no object ", listed, re.MULTILINE), listed
    assert "2 artifacts, 1 without an object" in listed
    items = json.loads(plugin("list", "--storage", "default", "-o", "json").out)
    assert {item["object"] for item in items} == {"kept", None}
    assert all(item["identity"] == source.identity for item in items)

    assert "ok" in plugin("storage", "check").err
    assert re.search(r"default +True +\S+ +- +.+ +2 +1 ", plugin("storage", "list").out), plugin("storage", "list").out
    assert "2, 1 without an object" in plugin("storage", "describe").out
    assert "1 backup created, 0 unusable artifacts skipped" in plugin("import").err
    assert tenant.get("dbb", "lost")["status"]["phase"] == "Completed"
    assert "0 backups created" in plugin("import", "default").err
    assert "import" in plugin("delete", "lost", "--yes", code=4).err, "its artifact is not its own run's"

    key = tenant.get("dbb", "kept")["status"]["artifact"]["key"]
    wrong = plugin.terminal("delete", "kept", answers=[("Type kept to delete it", "no")])
    assert wrong.code == 4
    assert tenant.find("dbb", "kept")
    right = plugin.terminal("delete", "kept", answers=[("Type kept to delete it", "kept")])
    assert right.code == 0, right.out
    assert key in ESCAPES.sub("", right.out).replace("\r\n", "")
    assert tenant.find("dbb", "kept") is None
    assert not bucket.keys(key)


def test_waiting_at_a_terminal_and_leaving_it(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    with locked(source):
        session = plugin.session("create", "slow", "--secret", "db", "--wait")
        session.until(lambda shown: "slow" in shown and ("Running" in shown or "waiting" in shown or "Pending" in shown))
        session.interrupt()
        done = session.end()
        assert done.code == 130
        assert "interrupted" in ESCAPES.sub("", done.out)
        assert plugin("create", "patient", "--secret", "db", "--wait", "--wait-timeout", "2s", code=5).err
        follower = plugin.popen("logs", "slow", "-f")
    tenant.completed(tenant.get("dbb", "slow"))  # the run went on by itself
    _, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err.decode()
    assert b"Traceback" not in err


def test_colours_are_for_terminals_alone(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    plugin("create", "one", "--secret", "db", "--wait")
    assert "\x1b[32mCompleted" in plugin.terminal("list").out
    plugin.variables["NO_COLOR"] = "1"
    assert "\x1b[32m" not in plugin.terminal("list").out


def test_a_reader_that_goes_away(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    for index in range(3):
        tenant.backup(f"some-{index}")
    for verb in (("list", "-o", "json"), ("describe", "some-0"), ("schedule", "next", "--cron", "* * * * *", "--count", "1000"), ("--help",)):
        with plugin.popen(*verb) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.wait(60) in (0, 141), verb
            assert process.stderr.read() == b"", verb


def test_a_thousand_backups(plugin: Plugin, tenant: Tenant) -> None:
    made = finished.effects(tenant_storage(tenant), range(1000), 10, datetime.now(UTC), timedelta(hours=1))
    with Api.through(tenant.cluster) as api:
        api.create(
            f"/apis/dbbackup.io/v1/namespaces/{tenant.name}/databasebackups", [(dict(effect.obj), dict(effect.status or {})) for effect in made]
        )
    seconds = []
    for _ in range(3):
        before = os.times()
        lines = plugin("list").out.splitlines()
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert lines[-1].startswith("1000 backups: 1000 Completed; ")
        assert len(lines) == 1003
    assert min(seconds) < MOST_CPU_SECONDS, seconds
    names = [line.split()[0] for line in lines[1:-2]]
    assert names[0].startswith("schedule-")
    assert names[0].removeprefix("schedule-")[3:] > names[-1].removeprefix("schedule-")[3:], "newest first, by the time of their runs"
    assert len(plugin("list", "--schedule", "schedule-003", "--limit", "7", "-o", "name").out.splitlines()) == 7


def tenant_storage(tenant: Tenant) -> Raw:
    """As it would be; there is none, so that nobody looks for what these objects stand for."""
    s3 = {"bucket": "nowhere", "endpoint": "http://nowhere.example"}
    return {"kind": "BackupStorage", "metadata": {"name": "default", "namespace": tenant.name}, "spec": {"s3": s3}}


def test_a_person_who_may_only_look(plugin: Plugin, tenant: Tenant, source: Database, tmp_path: Path) -> None:
    plugin("create", "one", "--secret", "db", "--wait")
    viewer = Plugin(tenant, person(tenant, "viewer", "dbbackup-database-backup-operator-view", where=tmp_path))
    assert "one" in viewer("list").out
    assert "done after" in viewer("describe", "one").out, "without the right to see Events too"
    for arguments in (
        ("create", "two", "--secret", "db"),
        ("restore", "one", "--yes", "--secret", "db"),
        ("delete", "one", "--yes"),
        ("schedule", "create", "s", "@daily", "--secret", "db"),
        ("storage", "check"),
        ("import",),
        ("download", "one"),
        ("list", "--storage", "default"),
        ("list", "-A"),
        ("console",),
    ):
        done = viewer(*arguments, code=4, cwd=tmp_path)
        assert "forbidden" in done.err or "may not" in done.err, done.both
    assert list(tmp_path.glob("one*")) == []
    found = viewer("doctor", "--check-timeout", "5s", code=None).out
    assert "create (lacks create databasebackups)" in found

    keeper = Plugin(tenant, person(tenant, "keeper", "dbbackup-database-backup-operator-backup", where=tmp_path))
    keeper("create", "two", "--secret", "db", "--wait")
    by = tenant.get("dbb", "two")["metadata"]["annotations"]["dbbackup.io/requested-by"]
    assert by == f"system:serviceaccount:{tenant.name}:keeper"
    assert keeper("restore", "two", "--yes", code=4).err


def test_doctor(plugin: Plugin, tenant: Tenant, source: Database) -> None:
    plugin("schedule", "create", "nightly", "@daily", "--secret", "db")
    good = plugin("doctor").out
    for text in ("is ready, version " + __version__, "checked just now", f"{source.identity} answers: PostgreSQL 15", "no problem"):
        assert text in good, good
    source.execute("CREATE TABLE secret_one (x int)", f'REVOKE ALL ON secret_one FROM "{source.owner}"', superuser=True)
    source.execute(f"ALTER ROLE \"{source.owner}\" PASSWORD 'another'", superuser=True)
    bad = plugin("doctor", "--secret", "db", "--secret", "none", code=1).out
    assert "AuthenticationFailed" in bad
    assert "SecretMissing" in bad
    assert "Check the user and the password" in bad
    source.execute(f"ALTER ROLE \"{source.owner}\" PASSWORD '{source.password}'", superuser=True)
    found = {item["about"]: item for item in json.loads(plugin("doctor", "--secret", "db", "-o", "json").out)}
    assert found["database of Secret db"]["state"] == "warning"
    assert "secret_one" in found["database of Secret db"]["message"]
    no_pods(tenant)
    tenant.run("delete", "bst", "default")
    tenant.run("delete", "dbs", "nightly")
    bare = plugin("doctor", code=1).out
    assert "there is no BackupStorage" in bare
    assert "no schedule backs up anything" in bare


def test_console(plugin: Plugin, operator: object) -> None:
    with plugin.popen("console", "--no-browser") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read()
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"<html" in page.read().lower()
        [forward] = children(process.pid, "port-forward")
        os.kill(forward, signal.SIGKILL)
        assert b"^C ends it" in process.stderr.readline()
        assert b"forwarding again" in process.stderr.readline()
        answers = retried(lambda: urllib.request.urlopen(address, timeout=30).status)
        assert answers == 200, "at the same address"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()
    assert plugin("console", "--operator-namespace", "default", code=3).err


def retried(action: Callable[[], int], timeout: float = 30) -> int:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return action()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_version_and_an_unreachable_cluster(plugin: Plugin, tenant: Tenant, source: Database, tmp_path: Path) -> None:
    assert f"plugin    {__version__}" in plugin("version").out
    nowhere = tmp_path / "config"
    server = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": ""}}
    nowhere.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": [server], "contexts": [context], "current-context": "c"}))
    away = Plugin(tenant, nowhere)
    for verb in (("list",), ("create", "x", "--secret", "db"), ("doctor",), ("storage", "check")):
        done = away(*verb, code=6)
        assert "127.0.0.1:1" in done.err
    assert "no-such" in plugin("--context", "no-such", "list", code=6).err
    plugin.variables["KUBECTL"] = "/no/such/kubectl"
    assert "kubectl cannot be run" in plugin("list", code=6).err
