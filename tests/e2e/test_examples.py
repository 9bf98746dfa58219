"""Each of examples/*.yaml applies and completes, with nothing changed but the namespace and the key
that one of them asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from tests.data import generate
from tests.e2e.lib import pods, postgres
from tests.e2e.lib.compare import BARE, assert_same, everything
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.tenant import Tenant
from tests.root import ROOT

EXAMPLES = ROOT / "examples"
TRIED: dict[str, tuple[str, ...]] = {
    "first": ("secrets.yaml", "storage.yaml"),
    "backups": ("backup.yaml", "backup-full.yaml", "backup-custom.yaml"),
    "schedule": ("schedule.yaml",),
    "copies": ("restore-new-database.yaml", "restore-from-bucket.yaml", "restore-newest.yaml"),
    "server": ("schedule-server.yaml",),
    "replaced": ("restore-selected-tables.yaml", "restore-in-place.yaml"),
}


def test_no_example_is_left_out() -> None:
    assert {name for names in TRIED.values() for name in names} == {path.name for path in EXAMPLES.glob("*.yaml")}


def documents(path: Path, namespace: str, **values: str) -> list[Raw]:
    text = path.read_text()
    for placeholder, value in values.items():
        assert placeholder.replace("_", "-") in text
        text = text.replace(placeholder.replace("_", "-"), value)
    text = re.sub(r"^  namespace: demo$", f"  namespace: {namespace}", text, flags=re.MULTILINE).replace(".demo.svc", f".{namespace}.svc")
    return [document for document in yaml.safe_load_all(text) if document]


def serve_s3(tenant: Tenant, credentials: dict[str, str]) -> None:
    environment = {"ROOT_ACCESS_KEY": credentials["accessKeyId"], "ROOT_SECRET_KEY": credentials["secretAccessKey"]}
    objects = pods.server(
        "s3",
        tenant.cluster.s3_image,
        7070,
        user=65532,
        probe={"httpGet": {"path": "/health", "port": 7070}},
        env=environment,
        args=("--port", ":7070", "--health", "/health", "posix", "/data"),
        volumes={"/data": {}, "/tmp": {}},
    )
    pods.start(tenant, "s3", objects)


def ran(tenant: Tenant, schedule: Raw) -> list[Raw]:
    """The backups of a schedule's first run, all of them Completed."""
    name = schedule["metadata"]["name"]
    tenant.wait_until(
        "dbs", name, lambda seen: bool(seen["status"].get("lastSuccessfulTime")) and not seen["status"].get("active"), 180, "a good run"
    )
    return [tenant.completed(backup) for backup in tenant.objects("dbb", f"dbbackup.io/schedule={name}")]


def test_every_example_completes(tenant: Tenant) -> None:
    """A server of its own: the examples' names of roles and databases are fixed."""

    def applied(names: Iterable[str], **values: str) -> list[Raw]:
        made = [obj for name in names for obj in tenant.apply(*documents(EXAMPLES / name, tenant.name, **(values if "bucket" in name else {})))]
        return [tenant.completed(obj, timeout=180) if obj["kind"] in ("DatabaseBackup", "DatabaseRestore") else obj for obj in made]

    secrets: dict[str, Any] = {document["metadata"]["name"]: document["stringData"] for document in documents(EXAMPLES / "secrets.yaml", tenant.name)}
    database = secrets["assetdex-db"]
    serve_s3(tenant, secrets["s3"])
    server = postgres.start(tenant, "postgres", 17)
    roles = generate.Roles.with_prefix()
    assert database["username"] == roles.owner
    server.psql(f"CREATE ROLE {roles.owner} LOGIN CREATEDB PASSWORD '{database['password']}'; CREATE DATABASE {database['dbname']};")
    server.psql(generate.render(), database["dbname"])

    def named(name: str) -> Database:
        return Database(server, name, database["username"], database["password"])

    applied(TRIED["first"])
    tenant.wait_until("bst", "default", lambda obj: condition(obj, "Ready") == "True", 30, "Ready")
    source = named(database["dbname"])
    before = everything(source, *BARE)
    backup = applied(TRIED["backups"])[0]
    [nightly] = [made for schedule in applied(TRIED["schedule"]) for made in ran(tenant, schedule)]
    assert nightly["metadata"]["labels"]["app.kubernetes.io/part-of"] == "assetdex"
    applied(TRIED["copies"], PUT_THE_KEY_HERE=backup["status"]["artifact"]["key"])
    for copy in ("assetdex_copy", "assetdex_from_bucket"):
        assert_same(before, everything(named(copy), *BARE))

    without_sessions = [f"--exclude-table-data={table}" for table in generate.EXCLUDED_ROWS]
    assert_same(everything(source, *BARE, *without_sessions), everything(named("assetdex_newest"), *BARE, *without_sessions))
    assert named("assetdex_newest").value("SELECT count(*) FROM auth.sessions") == 0
    weekly = [made for schedule in applied(TRIED["server"]) for made in ran(tenant, schedule)]
    assert {made["status"]["database"]["name"] for made in weekly} == {database["dbname"], "assetdex_copy", "assetdex_from_bucket", "assetdex_newest"}

    whole = everything(source, *without_sessions)
    source.execute(
        "DELETE FROM activity_logs", "DELETE FROM enum_colors", "DELETE FROM servers WHERE hostname IN (SELECT hostname FROM servers LIMIT 6)"
    )
    tables, in_place = TRIED["replaced"]
    applied([tables])
    assert source.value("SELECT count(*) FROM enum_colors") > 0
    assert source.value("SELECT count(*) FROM servers") == generate.SERVERS - 6
    applied([in_place])
    assert source.value("SELECT count(*) FROM servers") == generate.SERVERS
    assert_same(whole, everything(source, *without_sessions))
