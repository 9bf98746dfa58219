"""This suite destroys the cluster, so it runs by itself, before the others, and only on the rig's.
It leaves a new one that is up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.servers import Versitygw
from tests.e2e.lib import diagnostics
from tests.e2e.lib.cluster import RIG, Cluster
from tests.e2e.lib.kube import Kube
from tests.root import ROOT

WORK = ROOT / "build" / "disaster"
RIG_SCRIPTS = ROOT / "tests" / "rig"


def pytest_collection_finish(session: pytest.Session) -> None:
    ours = [item for item in session.items if item.path.parent == Path(__file__).parent]
    if ours and (os.environ.get("PYTEST_XDIST_WORKER") or len(ours) != len(session.items)):
        raise pytest.UsageError("tests/disaster destroys the cluster under every other test: run it by itself, as tests/rig/test.sh does")


class Outside(Versitygw):
    """An S3 server on this machine, at an address that pods reach: it outlives the cluster. Its
    keys are `tests.contract.servers.OWNER`."""

    address: str

    @classmethod
    def at(cls, address: str, directory: Path) -> Outside:
        server = cls(directory)
        server.address = address
        return server

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.ports[0]}"

    def command(self) -> list[str]:
        return [argument.replace("127.0.0.1", self.address) for argument in super().command()]

    def keys(self, bucket: str) -> set[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


Rig = Callable[..., None]


@pytest.fixture(scope="session")
def rig() -> Rig:
    """`rig("prepare.sh")`, `rig("rig", "down", "--purge")`: one of the rig's scripts; its own words
    are shown as they come."""

    def run(script: str, *arguments: str) -> None:
        subprocess.run([RIG_SCRIPTS / script, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=400)

    return run


@pytest.fixture(scope="session")
def cluster(rig: Rig) -> Cluster:
    """The rig's, up, without this suite's release and namespace."""
    if os.environ.get("CLUSTER", "rig") == "existing":
        pytest.skip("CLUSTER=existing: nobody's cluster is destroyed for a test")
    if subprocess.run([RIG_SCRIPTS / "rig", "status"], cwd=ROOT, capture_output=True, check=False).returncode:
        rig("prepare.sh")
    return Cluster.from_environment()


@pytest.fixture
def work() -> Path:
    """An empty directory, from which the page's commands run: `charts` is there, as in a clone."""
    shutil.rmtree(WORK, ignore_errors=True)
    directory = WORK / "desk"
    directory.mkdir(parents=True)
    (directory / "charts").symlink_to(ROOT / "charts")
    (directory / "safe").mkdir()
    return directory


@pytest.fixture
def outside(cluster: Cluster, work: Path) -> Iterator[Outside]:
    address = cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
    directory = WORK / "s3"
    directory.mkdir()
    server = Outside.at(address, directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def environment(cluster: Cluster, work: Path) -> dict[str, str]:
    """Of the page's commands: the cluster's kubectl and helm, and Debian's `aws` where there is no
    other."""
    if not shutil.which("aws"):
        pytest.fail("the page's commands need aws: tests/rig/rig packages awscli")
    path = f"{RIG / 'bin'}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, **cluster.environment(), "PATH": path, "AWS_CONFIG_FILE": str(work / "none"), "AWS_PAGER": ""}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    kube = getattr(item, "funcargs", {}).get("shop")
    if report.failed and isinstance(kube, Kube):
        report.sections.append((f"cluster, namespace {kube.name}", diagnostics.report(kube)))
    return report  # type: ignore[return-value]
