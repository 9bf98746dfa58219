"""Backups as people see them: names, status, columns, Events, waiting, sizes, many at once,
consistency under writes."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
import pytest
from tests.data import big
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant, backup

from dbbackup.api.units import size_text

MIB = 1 << 20


def table(text: str) -> list[dict[str, str]]:
    """What `kubectl get` printed, by column."""
    lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"(?<!\S)\S", lines[0])]
    cuts = list(zip(starts, [*starts[1:], None], strict=True))
    titles = [lines[0][start:end].strip() for start, end in cuts]
    return [dict(zip(titles, (line[start:end].strip() for start, end in cuts), strict=True)) for line in lines[1:]]


def conditions(obj: Raw) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in obj["status"]["conditions"]}


def stored(bucket: Bucket, status: Raw) -> tuple[str, bytes]:
    """Name and bytes of the artifact, as they really lie in the bucket."""
    key = status["artifact"]["key"]
    names = [name.removeprefix(f"{key}/") for name in bucket.keys(f"{key}/")]
    (name,) = [name for name in names if name.startswith("dump.")]
    assert sorted(names) == sorted(["catalog.jsonl.gz", name, "RESTORE.md", "manifest.json"])
    return name, bucket.get(f"{key}/{name}")


def test_everything_that_a_status_tells_is_true(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(17, inventory=True)
    tenant.add_storage(bucket, s3={"prefix": "team-a"})
    tenant.add_database(found)
    created = tenant.backup("one")

    tenant.run("wait", "--for=condition=Finished", "dbb/one", "--timeout=120s", timeout=130)

    done = tenant.get("dbb", "one")
    status = done["status"]
    assert status["phase"] == "Completed", status
    assert conditions(done) == {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"}
    assert status["observedGeneration"] == 1
    start, end = (datetime.fromisoformat(status[field]) for field in ("startTime", "completionTime"))
    assert datetime.fromisoformat(created["metadata"]["creationTimestamp"]) <= start <= end
    assert re.fullmatch(r"\d+s|\d+m \d+s", status["duration"])

    name, data = stored(bucket, status)
    artifact = status["artifact"]
    assert name == "dump.sql.zst"
    assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
    assert artifact["manifestSha256"] == hashlib.sha256(bucket.get(f"{artifact['key']}/manifest.json")).hexdigest()
    assert (status["sizeBytes"], status["size"]) == (len(data), size_text(len(data)))
    assert len(data) < MIB
    assert artifact["key"].startswith(f"team-a/{tenant.name}/{found.server.host}_5432/{found.name}/")
    assert {field: artifact[field] for field in ("storage", "bucket", "prefix", "endpoint", "format", "compression")} == {
        "storage": "default",
        "bucket": bucket.name,
        "prefix": "team-a",
        "endpoint": bucket.s3.endpoint,
        "format": "plain",
        "compression": "zstd",
    }

    contents = found.contents()
    tables = found.query("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'auth')")
    assert status["database"]["identity"] == found.identity
    assert status["database"]["name"] == found.name
    assert status["database"]["serverVersion"].startswith("17.")
    assert status["database"]["tables"] == len(tables)
    assert status["database"]["rows"] == sum(contents[name][0] for (name,) in tables)
    assert status["database"]["sizeBytes"] > MIB
    assert status["database"]["tls"] is False
    manifest = bucket.manifest(artifact["key"])
    assert manifest["rows"] == status["database"]["rows"]
    for entry in manifest["contents"]["tables"]:
        assert entry["rows"] == contents[f"{entry['schema']}.{entry['name']}"][0], entry

    (row,) = table(tenant.run("get", "dbb", "one"))
    assert (row["NAME"], row["PHASE"], row["DATABASE"], row["SIZE"], row["DURATION"]) == (
        "one",
        "Completed",
        found.name,
        status["size"],
        status["duration"],
    )
    (wide,) = table(tenant.run("get", "dbb", "one", "-o", "wide"))
    assert (wide["STORAGE"], wide["FORMAT"], wide["KEY"], wide["REASON"]) == ("default", "plain", artifact["key"], "Completed")

    described = tenant.run("describe", "dbb", "one")
    events = described[described.index("Events:") :]
    assert re.search(r"Normal\s+JobCreated\s.*created Job backup-one-", events), events
    assert re.search(r"Normal\s+Completed\s.*stored " + re.escape(status["size"]), events), events
    assert "Warning" not in events


def test_waiting_says_for_what_until_the_storage_appears(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(15)
    tenant.add_database(found)
    early = tenant.backup("early")
    seen = tenant.wait_until("dbb", "early", lambda obj: obj["status"].get("phase") == "Pending", 30, "Pending")
    assert conditions(seen) == {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"}
    ready = next(entry for entry in seen["status"]["conditions"] if entry["type"] == "Ready")
    assert "default" in ready["message"]
    tenant.add_storage(bucket)
    assert tenant.completed(early)["status"]["database"]["rows"] == 0


def test_five_backups_at_once_with_names_made_by_the_server(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(15)
    found.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    tenant.add_storage(bucket)
    tenant.add_database(found)
    wanted = [backup("unused") for _ in range(4)]
    for obj in wanted:
        obj["metadata"] = {"generateName": "nightly-"}
    long = backup("a-name-that-is-so-long-that-a-job-of-that-name-could-never-be-made." + "x" * 100)
    made = tenant.create(*wanted, long)
    done = [tenant.completed(obj)["status"] for obj in made]
    assert len({obj["metadata"]["name"] for obj in made}) == 5
    assert len({status["artifact"]["key"] for status in done}) == 5
    for status in done:
        _, data = stored(bucket, status)
        assert hashlib.sha256(data).hexdigest() == status["artifact"]["sha256"]
        assert status["database"]["rows"] == 1000
    assert len(bucket.keys()) == 20
    assert bucket.uploads() == []


def test_a_storage_lets_no_more_runs_in_than_it_allows(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(15)
    found.execute("CREATE TABLE t (i int)")
    tenant.add_storage(bucket, maxConcurrent=1)
    tenant.add_database(found)
    with found.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")  # the first backup waits for it, for as long as this test wants
        first = tenant.backup("first")
        tenant.wait_until("dbb", "first", lambda obj: obj["status"].get("phase") == "Running", 60, "Running")
        second = tenant.backup("second")
        waiting = tenant.wait_until("dbb", "second", lambda obj: obj["status"].get("phase") == "Pending", 30, "Pending")
        ready = next(entry for entry in waiting["status"]["conditions"] if entry["type"] == "Ready")
        assert (ready["reason"], ready["message"]) == ("WaitingForTurn", "waits for its turn: BackupStorage default allows one run at once")
        assert tenant.jobs_of(second) == []
    one, two = tenant.completed(first)["status"], tenant.completed(second)["status"]
    assert datetime.fromisoformat(two["startTime"]) >= datetime.fromisoformat(one["completionTime"])


@contextmanager
def writers(found: Database, statements: Callable[[psycopg.Connection[tuple[object, ...]], int], None], count: int = 2) -> Iterator[list[int]]:
    """Sessions that write all the time while the block runs; the list holds how often each did."""
    stop, done, failures = threading.Event(), [0] * count, list[BaseException]()

    def write(number: int) -> None:
        try:
            with found.connect() as connection:
                while not stop.is_set():
                    statements(connection, number)
                    done[number] += 1
        except BaseException as failure:  # noqa: BLE001  told by the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures


HELD = """DO $$ BEGIN
  WHILE (SELECT count(DISTINCT pid) FROM pg_locks WHERE relation = 'late'::regclass AND mode = 'AccessShareLock' AND granted) < {} LOOP
    PERFORM pg_sleep(0.005);
  END LOOP;
END $$"""
"""Returns once that many sessions read the table: the backup's coordinator, then pg_dump."""


@pytest.mark.parametrize(("major", "form", "readers"), [(15, "custom", 1), (17, "plain", 2)])
def test_a_backup_is_of_one_moment_while_writes_and_a_truncate_go_on(
    major: int, form: str, readers: int, tenant: Tenant, database: Callable[..., Database], bucket: Bucket
) -> None:
    """Each transaction moves an amount between two accounts and writes a journal: at any one moment
    they agree. Table `late` is truncated while the backup has its locks, before pg_dump has its own
    or after: the backup holds all of its rows, or is of a moment after; nothing between."""
    found, target = database(major), database(major)
    found.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, amount bigint NOT NULL DEFAULT 0)",
        "CREATE TABLE journal (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES accounts, amount bigint NOT NULL)",
        "CREATE TABLE late AS SELECT i, repeat(md5(i::text), 40) AS filler FROM generate_series(1, 20000) i",
        "CREATE TABLE marker AS SELECT false AS truncated",
        "INSERT INTO accounts SELECT generate_series(1, 100)",
    )

    def move(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
        with connection.transaction():
            connection.execute("UPDATE accounts SET amount = amount + 7 WHERE id = 1")
            connection.execute("INSERT INTO journal (account, amount) VALUES (1, 7)")
            connection.execute("UPDATE accounts SET amount = amount - 7 WHERE id = 2")
            connection.execute("INSERT INTO journal (account, amount) VALUES (2, -7)")

    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.apply(target.secret("target"))
    with writers(found, move) as done, found.connect() as other:
        made = tenant.backup("busy", format=form)
        other.execute("SET statement_timeout = '100s'")
        other.execute(HELD.format(readers))
        with other.transaction():
            other.execute("UPDATE marker SET truncated = true")
            other.execute("TRUNCATE late")
        ended = tenant.completed(made)
    assert min(done) > 0
    assert found.value("SELECT count(*) FROM late") == 0

    restored = tenant.completed(tenant.restore("look", "busy", "target"))
    state = target.query("SELECT (SELECT truncated FROM marker), (SELECT count(*) FROM late)")[0]
    assert state in ({1: [(False, 20000), (True, 0)], 2: [(False, 20000)]}[readers])
    of_journal = target.query("SELECT account, sum(amount)::bigint FROM journal GROUP BY account ORDER BY account")
    assert of_journal == target.query("SELECT id, amount FROM accounts WHERE amount <> 0 ORDER BY id")
    assert sum(amount for _, amount in of_journal) == 0
    rows = target.value("SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM accounts) + (SELECT count(*) FROM late) + 1")
    assert restored["status"]["restored"]["rows"] == ended["status"]["database"]["rows"] == rows


def test_a_database_of_over_100_megabytes(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    """Every row arrives, and no more memory is used than the default limit leaves."""
    found, target = database(15), database(17)
    found.script(big.render(110, tables=2, owner=found.owner))
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.apply(target.secret("target"))
    status = tenant.completed(tenant.backup("big"), timeout=240)["status"]
    manifest = bucket.manifest(status["artifact"]["key"])
    assert manifest["dumpBytes"] > 100_000_000
    name, data = stored(bucket, status)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (status["sizeBytes"], status["artifact"]["sha256"])
    parts = next(entry for entry in manifest["objects"] if entry["name"] == name)["parts"]
    offset = 0
    for part in parts:
        assert hashlib.sha256(data[offset : offset + part["size"]]).hexdigest() == part["sha256"]
        offset += part["size"]
    assert offset == len(data)
    restored = tenant.completed(tenant.restore("look", "big", "target"), timeout=240)["status"]
    assert restored["restored"]["rows"] == status["database"]["rows"] > 400_000
    for relation in ("sources", "events_1", "events_2"):
        rows = f"SELECT count(*), sum(('x' || left(md5(t::text), 8))::bit(32)::bigint) FROM {relation} t"
        assert target.query(rows) == found.query(rows)
