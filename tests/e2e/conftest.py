"""Fixtures of the end-to-end tests. Tests run side by side (pytest-xdist): each has a namespace,
databases and a bucket of its own, on servers that all share.

    def test_round_trip(tenant, database, bucket):
        source = database(15)                    # empty, with an owner of its own
        tenant.add_storage(bucket)               # BackupStorage `default`
        tenant.add_database(source)              # Secret `db`
        done = tenant.completed(tenant.backup("one"))

A test that disturbs what all share (kills the operator, say) carries
`@pytest.mark.xdist_group("alone")`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.lib import cluster as clusters
from tests.e2e.lib import diagnostics, postgres, s3
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, Cluster
from tests.e2e.lib.kube import Kube, Raw
from tests.e2e.lib.plugin import Plugin
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import S3, Bucket
from tests.e2e.lib.tenant import Tenant

SHARED = "dbbackup-e2e"
"""Namespace of the servers that tests share; it stays for the next run."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def namespace(cluster: Cluster, name: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**RESTRICTED, "dbbackup.io/test": "true"}}}


@pytest.fixture(scope="session")
def run_id(request: pytest.FixtureRequest) -> str:
    """One for all workers of a pytest run."""
    worker_input = getattr(request.config, "workerinput", None)
    return str(worker_input["testrunuid"]) if worker_input else f"{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster.from_environment()


@pytest.fixture(scope="session")
def operator(cluster: Cluster, run_id: str) -> Operator:
    """The operator, installed by Helm from the chart once in a run."""
    with clusters.once("operator", run_id) as first:
        if first:
            clusters.install_operator(cluster)
    return Operator(Kube(cluster, OPERATOR_NAMESPACE))


class Operator:
    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def pods(self) -> list[Raw]:
        """Its pods that are not on their way out."""
        found = self.kube.objects("pods", "app.kubernetes.io/component=operator")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def kill(self) -> None:
        """As a node that is lost: no SIGTERM, no grace. A pod that was just going is killed too."""
        for pod in self.pods():
            self.kube.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")

    def wait_ready(self) -> None:
        self.kube.run("rollout", "status", "deployment", "-l", "app.kubernetes.io/component=operator", "--timeout=90s")

    def log(self, about: str = "") -> str:
        return diagnostics.operator_log(self.kube.cluster, about, lines=100_000)


@pytest.fixture(scope="session")
def shared(cluster: Cluster, run_id: str) -> Kube:
    with clusters.once("namespace", run_id):  # two workers that apply at the same moment: the second is refused as AlreadyExists
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(namespace(cluster, SHARED)))
    return Kube(cluster, SHARED)


@pytest.fixture(scope="session")
def shared_postgres(shared: Kube, run_id: str) -> Callable[[int], Postgres]:
    """The server of that major that all tests share; ready to serve."""
    known: dict[int, Postgres] = {}

    def get(major: int) -> Postgres:
        if major not in known:
            with clusters.once(f"postgres-{major}", run_id):
                known[major] = postgres.start(shared, f"postgres-{major}", major)
        return known[major]

    return get


@pytest.fixture(scope="session")
def shared_s3(shared: Kube, run_id: str) -> S3:
    with clusters.once("s3", run_id):
        return s3.start(shared)


@pytest.fixture
def tenant(request: pytest.FixtureRequest, cluster: Cluster, operator: Operator) -> Iterator[Tenant]:
    """A namespace of the test's own, under the restricted pod-security standard; deleted afterwards
    without waiting (KEEP=1 keeps it)."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:32].strip("-")
    kube = Tenant(cluster, f"e2e-{slug}-{secrets.token_hex(3)}")
    kube.cluster.kubectl("create", "-f", "-", stdin=json.dumps(namespace(cluster, kube.name)))
    yield kube
    if not os.environ.get("KEEP"):
        kube.cluster.kubectl("delete", "namespace", kube.name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def database(shared_postgres: Callable[[int], Postgres]) -> Iterator[Callable[..., Database]]:
    """`database(major=15, inventory=False)`: a new database with an owner of its own; with the
    demo's data, the role that owns the tables."""
    made: list[Database] = []

    def make(major: int = 15, *, inventory: bool = False, options: str = "") -> Database:
        prefix = f"t{secrets.token_hex(4)}_"
        plain = shared_postgres(major).database(f"{prefix}db", f"{prefix}user", options=options)
        found = Database(plain.server, plain.name, plain.owner, plain.password, prefix)
        made.append(found)
        if inventory:
            found.inventory()
            return found.as_owner_of_inventory()
        return found

    yield make
    for found in made:
        roles = found.query(f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{found.prefix.replace('_', chr(92) + '_')}%'")
        found.server.drop(found.name, *(role for (role,) in roles))


@pytest.fixture
def bucket(shared_s3: S3) -> Iterator[Bucket]:
    """An empty bucket."""
    found = shared_s3.bucket(f"t-{secrets.token_hex(6)}")
    yield found
    found.empty()


@pytest.fixture
def plugin(tenant: Tenant) -> Plugin:
    """`kubectl dbbackup` in the test's namespace."""
    return Plugin(tenant)


@pytest.fixture
def source(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> Database:
    """A database with the demo's data, its Secret `db`, and the storage `default`."""
    made = database(15, inventory=True)
    tenant.add_storage(bucket)
    tenant.add_database(made)
    return made


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist tells a group by the end of the test's id. A pytest that does not let it would
    run side by side what must be alone."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        loose = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if loose:
            raise pytest.UsageError(f"the groups of pytest-xdist have no effect (run it with --dist loadgroup): {loose[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    kube = getattr(item, "funcargs", {}).get("tenant")
    if report.failed and isinstance(kube, Kube):
        report.sections.append((f"cluster, namespace {kube.name}", diagnostics.report(kube)))
    return report  # type: ignore[return-value]
