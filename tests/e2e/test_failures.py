"""Each way to fail: the object ends, says why and what to do, leaves nothing behind, and no secret
is to be seen anywhere.

All runs of a kind go side by side, each with a Secret, a storage or a database of its own that is
wrong in one way.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import sql
from tests.e2e.conftest import Operator
from tests.e2e.lib import compare, hold, s3
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.record import Recording, recording
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

Databases = Callable[..., Database]


@dataclass(frozen=True, slots=True)
class Case:
    """`attempts` that are made; `says` are parts of status.failure.message."""

    reason: str
    spec: Raw
    secret: str = "db"
    attempts: int = 1
    says: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """A tenant with secret values that nobody else has: `values`. `slow` and `dying` hold their
    dumps after the rows."""

    tenant: Tenant
    bucket: Bucket
    good: Database
    slow: Database
    dying: Database
    values: dict[str, str]


def random_password(found: Database) -> Database:
    password = f"pw-{secrets.token_hex(12)}"
    with found.server.connect() as connection:
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(found.owner), sql.Literal(password)))
    return dataclasses.replace(found, password=password)


def role(found: Database, name: str) -> Database:
    """The database by a new role that may connect and read table `guarded`."""
    who = f"{found.prefix}{name}"
    with found.server.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(who)))
    found.execute(f"GRANT SELECT ON guarded TO {who}")
    return random_password(dataclasses.replace(found, owner=who))


@pytest.fixture
def world(tenant: Tenant, database: Databases) -> World:
    server = s3.start(tenant, "s3", f"AK{secrets.token_hex(8)}", f"sk-{secrets.token_hex(16)}")
    bucket = server.bucket("main")
    stranger = dataclasses.replace(server, access_key=f"AK{secrets.token_hex(8)}", secret_key=f"sk-{secrets.token_hex(16)}")
    server.account(stranger.access_key, stranger.secret_key)
    good, slow, dying = (random_password(database(15)) for _ in range(3))
    for found in (good, slow, dying):
        hold.fill(found, 1 if found is good else 12)
    good.execute(
        "CREATE TABLE guarded (id int)",
        "INSERT INTO guarded VALUES (1)",
        "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY none ON guarded USING (false)",
    )
    reader = role(good, "reader")
    good.execute(f"GRANT SELECT ON big, things, zz_held TO {reader.owner}")
    stranger_in_database = role(good, "stranger")
    wrong = dataclasses.replace(good, password=f"wrong-{secrets.token_hex(12)}")
    wrong_key = dataclasses.replace(server, secret_key=f"wrong-{secrets.token_hex(16)}")
    for name, found in {"db": good, "slow": slow, "dying": dying, "wrong": wrong, "reader": reader, "stranger": stranger_in_database}.items():
        tenant.add_database(found, name)
    no_password = good.secret("no-user")
    del no_password["stringData"]["username" if "username" in no_password["stringData"] else "user"]
    half = bucket.secret("half")
    del half["stringData"]["secretAccessKey"]
    tenant.apply(no_password, half)
    tenant.add_storage(bucket)
    tenant.apply(
        bucket.storage("small", maxArtifactSize="1Mi"),
        server.bucket("not-there", create=False).storage("not-there"),
        bucket.storage("half", secret="half"),
        bucket.storage("no-secret", secret="nobody"),
        dataclasses.replace(bucket, s3=stranger).secret("s3-stranger"),
        bucket.storage("forbidden", secret="s3-stranger"),
        dataclasses.replace(bucket, s3=wrong_key).secret("s3-wrong"),
        bucket.storage("wrong-key", secret="s3-wrong"),
        bucket.storage("nobody-home", s3={"endpoint": "http://127.0.0.1:9"}),
    )
    users = (good, slow, dying, wrong, reader, stranger_in_database)
    accounts = (server, stranger, wrong_key)
    values = {f"password of {found.owner}": found.password for found in users}
    values |= {f"access key {number}": found.access_key for number, found in enumerate(accounts)}
    values |= {f"secret key {number}": found.secret_key for number, found in enumerate(accounts)}
    return World(tenant, bucket, good, slow, dying, values)


BACKUPS = {
    "wrong-password": Case("AuthenticationFailed", {"retries": 1}, "wrong"),
    "unknown-database": Case("DatabaseNotFound", {"retries": 1, "database": {"name": "nowhere"}}, says=("nowhere",)),
    "unreachable-host": Case("DatabaseUnreachable", {"retries": 1, "database": {"host": "127.0.0.1", "port": 9}}, attempts=2, says=("127.0.0.1",)),
    "no-such-host": Case("DatabaseUnreachable", {"database": {"host": "nowhere.invalid"}}, says=("nowhere.invalid",)),
    "missing-secret": Case("SecretMissing", {"retries": 1}, "nobody", says=("nobody",)),
    "missing-key": Case("KeyMissing", {}, "no-user", says=("no-user",)),
    "missing-storage-secret": Case("SecretMissing", {"storageRef": {"name": "no-secret"}}, says=("nobody",)),
    "missing-storage-key": Case("KeyMissing", {"storageRef": {"name": "half"}}, says=("half", "secretAccessKey")),
    "missing-storage": Case("StorageNotFound", {"storageRef": {"name": "nobody"}, "startDeadline": "5s"}, attempts=0, says=("nobody",)),
    "missing-bucket": Case("BucketNotFound", {"storageRef": {"name": "not-there"}}, says=("not-there",)),
    "forbidden-bucket": Case("StorageAccessDenied", {"storageRef": {"name": "forbidden"}, "retries": 1}, says=("main",)),
    "wrong-s3-key": Case("StorageAuthenticationFailed", {"storageRef": {"name": "wrong-key"}}, says=("main",)),
    "no-s3-server": Case("StorageUnavailable", {"storageRef": {"name": "nobody-home"}}, says=("127.0.0.1:9",)),
    "hidden-rows": Case("RowSecurity", {}, "reader", says=("guarded",)),
    "no-privilege": Case("InsufficientPrivilege", {"retries": 1, "excludeTables": ["public.guarded"]}, "stranger", says=("big", "things")),
    "too-large": Case("ArtifactTooLarge", {"storageRef": {"name": "small"}, "retries": 1, "compression": {"algorithm": "none"}}, "slow"),
    "over-its-time": Case("Timeout", {"timeout": "20s"}, "slow"),
    "dies-half-way": Case("ConnectionLost", {"compression": {"algorithm": "none"}, "timeout": "5m"}, "dying"),
}


def begin(tenant: Tenant, cases: dict[str, Case], make: Callable[..., Raw]) -> dict[str, Raw]:
    return {name: make(name, case.secret, **{"retries": 0, **case.spec}) for name, case in cases.items()}


def problems(tenant: Tenant, name: str, obj: Raw, case: Case, timeout: float) -> Iterator[str]:
    """What is not as it should be with a run that should have failed."""
    try:
        ended = tenant.failed(obj, case.reason, timeout)
    except AssertionError as error:
        yield str(error)[:1500]
        return
    failure = ended["status"]["failure"]
    yield from (f"{part} is not in: {failure['message']}" for part in case.says if part not in failure["message"])
    if "Traceback" in failure["message"] or len(failure["message"]) > 1000:
        yield f"nobody can read: {failure['message']}"
    if obj["kind"] == "DatabaseBackup" and "sha256" in ended["status"].get("artifact", {}):
        yield f"an artifact: {ended['status']['artifact']}"
    if obj["kind"] == "DatabaseBackup" and ended["status"].get("attempts", 0) != case.attempts:
        yield f"{ended['status'].get('attempts')} attempts"
    hold.eventually(lambda: told(tenant, obj, case.reason), f"an Event that tells {case.reason}", 20)


def told(tenant: Tenant, obj: Raw, reason: str) -> bool:
    events = [event for event in tenant.events(obj["kind"], obj["metadata"]["name"]) if event["reason"] == "Failed"]
    return [event["type"] for event in events] == ["Warning"] and reason in events[0]["message"]


def commands(tenant: Tenant, pod: str) -> str:
    """The command lines of all processes in the pod."""
    program = "import glob; print(*(open(f, 'rb').read().replace(b'\\0', b' ').decode() for f in glob.glob('/proc/[0-9]*/cmdline')), sep='\\n')"
    return tenant.exec(pod, "python", "-c", program)


def test_each_failure_of_a_backup_is_told_and_leaves_nothing(world: World, operator: Operator) -> None:
    tenant, bucket = world.tenant, world.bucket
    with recording(tenant) as recorded, ExitStack() as held:
        for found in (world.slow, world.dying):
            held.enter_context(hold.dump_after_rows(found))
        objects = begin(tenant, BACKUPS, tenant.backup)
        hold.stays(world.dying, hold.DUMP)
        hold.eventually(bucket.uploads, "parts are in the bucket")
        (pod,) = tenant.pods_of(objects["dies-half-way"])
        running = commands(tenant, pod["metadata"]["name"])
        hold.terminate(world.dying, hold.DUMP)
        wrong = [f"{name}: {what}" for name, case in BACKUPS.items() for what in problems(tenant, name, objects[name], case, 180)]
    assert not wrong, "\n\n".join(wrong)
    assert "pg_dump" in running
    assert (bucket.keys(), bucket.uploads()) == ([], [])
    nowhere_told(world, recorded, running, operator.log(tenant.name))
    assert len(recorded.logs) > len(BACKUPS) / 2, "too few logs were seen to say that no secret is in them"


def nowhere_told(world: World, recorded: Recording, running: str, operator_log: str) -> None:
    assert [kind for kind, states in recorded.states.items() if not states] == ["databaserestores"]
    assert len(recorded.places_of(world.good.name)) > 5, "what is no secret is found"
    assert world.good.name in operator_log or world.tenant.name in operator_log
    for what, value in world.values.items():
        assert not recorded.places_of(value), what
        assert value not in running, what
        assert value not in operator_log, what


# Restores


DAMAGED: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "missing": ("ArtifactMissing", lambda _: None),
    "truncated": ("ArtifactCorrupt", lambda data: data[:-50]),
    "flipped": ("ArtifactCorrupt", lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]),
    "empty": ("ArtifactCorrupt", lambda _: b""),
}


def test_each_failure_of_a_restore_is_told_and_the_target_is_as_it_was(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    found = random_password(database(15))
    found.execute(
        "CREATE TABLE parent (id int PRIMARY KEY, text text)",
        "INSERT INTO parent SELECT n, md5(n::text) FROM generate_series(1, 5000) n",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
        "INSERT INTO child SELECT n, n FROM generate_series(1, 100) n",
        "SELECT lo_from_bytea(4711, 'as it was backed up')",
    )
    tenant.add_storage(bucket)
    tenant.add_database(found)
    made = [tenant.backup("whole"), tenant.backup("parents", excludeTables=["public.child"])]
    whole, _ = (tenant.completed(obj) for obj in made)
    key = whole["status"]["artifact"]["key"]
    # Rows that the artifact `parents` lacks, and that a table which stays refers to: the foreign
    # key cannot come back at the restore's end.
    found.execute(
        "INSERT INTO parent VALUES (9999, 'newer')",
        "INSERT INTO child VALUES (9999, 9999)",
        "DELETE FROM parent WHERE id BETWEEN 200 AND 300",
        "SELECT lo_put(4711, 0, 'as the target has it')",
    )
    before = compare.everything(found)
    options: dict[str, Any] = {"onExisting": "Replace", "safetyBackup": False}
    cases = {"constraint": Case("ConstraintViolation", {"source": "parents", **options}, says=("child",))}
    for name, (reason, damage) in DAMAGED.items():
        damaged(bucket, key, f"{key.rsplit('/', 1)[0]}/{name}", damage)
        cases[name] = Case(reason, {"source": {"artifact": {"key": f"{key.rsplit('/', 1)[0]}/{name}"}}, **options}, says=(name,))
    bucket.put(f"{key}/manifest.json", bucket.get(f"{key}/manifest.json") + b" ")
    cases["manifest-changed"] = Case("ManifestDigestMismatch", {"source": "whole", **options}, says=("manifest.json",))
    cases["wrong-password"] = Case("AuthenticationFailed", {"source": "parents", **options}, "wrong")
    cases["not-replaced"] = Case("TargetNotEmpty", {"source": "parents"}, says=("parent",))
    tenant.add_database(dataclasses.replace(found, password="wrong-one"), "wrong")
    kept = bucket.keys()
    objects = {
        name: tenant.restore(name, case.spec["source"], case.secret, **{k: v for k, v in case.spec.items() if k != "source"})
        for name, case in cases.items()
    }
    wrong = [
        f"{name}: {what}" for name, case in cases.items() for what in problems(tenant, name, objects[name], case, 180) if "an artifact" not in what
    ]
    assert not wrong, "\n\n".join(wrong)
    compare.assert_same(before, compare.everything(found))
    assert bucket.keys() == kept
    assert bucket.uploads() == []


def damaged(bucket: Bucket, directory: str, copy: str, damage: Callable[[bytes], bytes | None]) -> None:
    """A copy of the artifact in which its one object is damaged."""
    name = bucket.manifest(directory)["objects"][0]["name"]
    for whole in ("manifest.json", "catalog.jsonl.gz"):
        bucket.put(f"{copy}/{whole}", bucket.get(f"{directory}/{whole}"))
    if (data := damage(bucket.get(f"{directory}/{name}"))) is not None:
        bucket.put(f"{copy}/{name}", data)
