"""The cluster is lost, etcd included; docs/disaster-recovery.md, run word for word, brings every
database back from the bucket, Git and a safe."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.contract.servers import OWNER
from tests.data import generate
from tests.disaster import page
from tests.disaster.conftest import Outside, Rig
from tests.disaster.page import Shell
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, RELEASE, Cluster
from tests.e2e.lib.compare import BARE, assert_same, everything
from tests.e2e.lib.kube import Kube, Raw, condition
from tests.e2e.lib.postgres import Database, Postgres

NAMESPACE, BUCKET, MAJOR = "shop", "shop-backups", 17
USER, PASSWORD = "inventory_owner", "owner-of-tests"
DATABASES = ("assetdex", "billing", "orders")
POSTGRES = Path(__file__).with_name("postgres.yaml")
SHOWN = 8
"""Lines of a block's output: Helm's notes are long."""
_ROLES = re.compile(r"(?<= TO )[\w, ]+(?= (?:USING|WITH CHECK) )")


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Kube]:
    """The namespace, which a former run may have left: then with the operator of that run, whose
    image may be another by now."""
    cluster.helm("uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=100s")
    yield Kube(cluster, NAMESPACE)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false", check=False)


class Runbook:
    """The page with its placeholders filled in. Times of its blocks are shown as they end, and
    kept: (step, seconds)."""

    def __init__(self, shell: Shell, values: dict[str, str], show: Callable[[str], None]) -> None:
        text = page.PAGE.read_text()
        assert {*values, "WHEN-IT-WAS-LOST"} == set(page.placeholders(text))
        self._shell, self._show = shell, show
        self._values = values
        self._blocks = page.blocks(text)
        self.times: list[tuple[str, float]] = []

    def follow(self, section: str, after: Callable[[str], None] = lambda _step: None) -> float:
        """Runs the section's blocks, and `after` with the step's heading after each. Returns the
        seconds that the commands took."""
        before = len(self.times)
        for block in self._blocks:
            if block.section == section:
                start = time.monotonic()
                output = self._shell.run(page.fill(block, self._values))
                if block.language == "sh":
                    self.times.append((block.step or section, time.monotonic() - start))
                    shown = [f"          {line}\n" for line in output.splitlines()[-SHOWN:]]
                    self._show(f"{self.times[-1][1]:6.1f} s  {self.times[-1][0]}\n" + "".join(shown))
                after(block.step)
        return sum(seconds for _, seconds in self.times[before:])

    def lost(self, moment: datetime) -> None:
        self._values = {**self._values, "WHEN-IT-WAS-LOST": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}


def server(shop: Kube) -> Postgres:
    return Postgres(shop, "postgres-0", MAJOR, shop.reach("postgres-0", 5432))


def fill(shop: Kube) -> None:
    """Three databases of one server; one of them is the demo's inventory."""
    postgres = server(shop)
    owned = "".join(f"CREATE DATABASE {name} OWNER {USER};" for name in DATABASES[1:])
    postgres.psql(f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'; CREATE DATABASE {DATABASES[0]}; {owned}")
    postgres.psql(generate.render(), DATABASES[0])
    for name in DATABASES[1:]:
        Database(postgres, name, USER, PASSWORD).execute(
            "CREATE TABLE entries (id bigserial PRIMARY KEY, booked timestamptz NOT NULL, text text)",
            f"INSERT INTO entries (booked, text) SELECT timestamptz '2026-01-01' + n * interval '1 h', '{name} ' || n FROM generate_series(1, 999) n",
            "CREATE INDEX ON entries (booked)",
            "CREATE VIEW newest AS SELECT * FROM entries ORDER BY booked DESC LIMIT 10",
            "SELECT lo_from_bytea(0, 'a large object')",
        )


def dumps(shop: Kube) -> dict[str, str]:
    """Each database as pg_dump tells it, but that it orders a policy's roles by their OIDs, which
    belong to the server."""
    found = {name: everything(Database(server(shop), name, USER, PASSWORD), *BARE) for name in DATABASES}
    return {name: _ROLES.sub(lambda match: ", ".join(sorted(match[0].split(", "))), text) for name, text in found.items()}


def backups(shop: Kube) -> dict[str, Raw]:
    """Completed ones by their key in the bucket."""
    return {obj["status"]["artifact"]["key"]: obj for obj in shop.objects("dbb") if obj["status"]["phase"] == "Completed"}


def test_every_database_comes_back_from_the_bucket(
    rig: Rig, cluster: Cluster, shop: Kube, outside: Outside, work: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def show(text: str) -> None:
        with capsys.disabled():
            print(text.rstrip("\n"), flush=True)

    repository, _, tag = cluster.image.rpartition(":")
    values = {
        "https://s3.example.com": outside.endpoint,
        "S3-ACCESS-KEY": OWNER[0],
        "S3-SECRET-KEY": OWNER[1],
        "DB-USER": USER,
        "DB-PASSWORD": PASSWORD,
        "registry.example.com/dbbackup": repository,
        "IMAGE-TAG": tag,
    }
    runbook = Runbook(Shell(work, environment), values, show)
    outside.client().create_bucket(Bucket=BUCKET)

    show("\ndisaster: a good day")
    runbook.follow("What must be there before")
    (work / "git/shop/postgres.yaml").write_text(POSTGRES.read_text().replace("__POSTGRES_IMAGE__", cluster.postgres_image(MAJOR)))
    runbook.follow("On a good day", lambda step: fill(shop) if step == "The operator and the objects" else None)
    stored, before = outside.keys(BUCKET), dumps(shop)
    made = backups(shop)
    assert {obj["status"]["database"]["name"] for obj in made.values()} == set(DATABASES)
    assert {key.rpartition("/")[0] for key in stored} == set(made)
    runbook.lost(datetime.now(UTC))

    show("disaster: the cluster is destroyed, etcd included, and another is made")
    start = time.monotonic()
    with capsys.disabled():
        rig("rig", "down", "--purge")
        rig("prepare.sh")
    rebuilt = time.monotonic() - start
    assert outside.keys(BUCKET) == stored, "the bucket outlived the cluster"
    assert "dbbackup" not in cluster.kubectl("get", "crd,namespaces", "-o", "name"), "the new cluster knows nothing"

    show("disaster: the bad day")
    lookups: list[str] = []

    def without_objects(step: str) -> None:
        if step.startswith("6."):
            lookups.extend(obj["metadata"]["name"] for obj in shop.objects("dbb"))

    seconds = runbook.follow("On the bad day", without_objects)
    assert lookups == [], "a restore by its key needs no DatabaseBackup"
    restored = shop.objects("dbr")
    assert {obj["spec"]["database"]["name"] for obj in restored} == set(DATABASES)
    assert {obj["status"]["phase"] for obj in restored} == {"Completed"}
    after = dumps(shop)
    for name in DATABASES:
        assert_same(before[name], after[name])
    imported = backups(shop)
    assert set(imported) == set(made)
    for key, obj in imported.items():
        assert obj["metadata"]["name"] == made[key]["metadata"]["name"]
        assert obj["status"]["origin"] == "Discovered"
        was, now = made[key]["status"], obj["status"]
        assert {**was["artifact"], "ownerUid": made[key]["metadata"]["uid"]} == now["artifact"]
        for field in ("database", "sizeBytes"):
            assert now[field] == was[field]
        assert now["completionTime"] <= was["completionTime"], "the manifest is sealed just before the run ends"

    runbook.follow("Afterwards")
    present = backups(shop)
    assert set(imported) < set(present), "retention took nothing that was imported"
    assert stored <= outside.keys(BUCKET)
    fresh = [obj for key, obj in present.items() if key not in imported]
    assert {obj["status"]["database"]["name"] for obj in fresh} == set(DATABASES)
    # Retention has seen them all, and would not take one of them with the next run either.
    schedule = shop.wait_until("dbs", "nightly", lambda seen: seen["status"]["retention"]["good"] == len(present), 30, "all of them counted")
    assert not schedule["status"]["retention"].get("next")
    assert condition(schedule, "Ready") == "True"
    assert condition(schedule, "PruneHeld") is None
    assert (schedule["status"]["consecutiveFailures"], schedule["status"]["suspended"]) == (0, False)
    assert datetime.fromisoformat(schedule["status"]["nextScheduleTime"]) > datetime.now(UTC)
    assert not [
        event for obj in present.values() for event in shop.events("DatabaseBackup", obj["metadata"]["name"]) if event["reason"] == "Expiring"
    ]

    # An annotation that stands in Git makes an empty cluster import by itself, with the storage's
    # first look.
    shop.run("delete", "dbs,bst,dbb", "--all")
    storage = yaml.safe_load((work / "git/shop/storage.yaml").read_text())
    shop.apply({**storage, "metadata": {**storage["metadata"], "annotations": {"dbbackup.io/import": "1"}}})
    again = shop.wait_until("bst", "default", lambda seen: "lastImport" in seen["status"], 60, "an import")
    assert (again["status"]["lastImport"]["token"], again["status"]["lastImport"]["imported"]) == ("1", len(present))
    assert set(backups(shop)) == set(present)

    show(f"disaster: {len(DATABASES)} databases restored and equal, {seconds:.0f} s after the cluster was empty ({rebuilt:.0f} s to make that)")
