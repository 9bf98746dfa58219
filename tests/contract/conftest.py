"""Every test here runs against each server of `servers.LISTED`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.servers import LISTED, OWNER, Server

from dbbackup.contract.run import StorageTarget
from dbbackup.storage import retries
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import open_storage

Open = Callable[..., Storage]
_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under xdist each server runs in one worker, and those that a test starts and kills in
    another."""
    for item in items:
        if item.path.parent == Path(__file__).parent and isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None:
            kind = getattr(item.callspec.params["server"], "name", "")
            item.add_marker(pytest.mark.xdist_group(f"contract-{kind}{'-own' if 'own_server' in item.fixturenames else ''}"))


@pytest.fixture(scope="session", params=LISTED, ids=lambda server: server.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made: Server = request.param(tmp_path_factory.mktemp(request.param.name))
    try:
        made.start()
        made.add_stranger()
        yield made
    finally:
        made.kill()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter than a run's, so that a server's fault ends the test soon; longer than SeaweedFS
    takes to come back, 20 seconds and more."""
    monkeypatch.setattr(retries, "PATIENCE", 60.0)


@pytest.fixture
def own_server(server: Server, tmp_path: Path) -> Iterator[Server]:
    """A server of the same kind that the test may kill."""
    made = type(server)(tmp_path / "server")
    made.directory.mkdir()
    try:
        made.start()
        yield made
    finally:
        made.kill()


def secret_directory(directory: Path, keys: tuple[str, str]) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "accessKeyId").write_text(keys[0])
    (directory / "secretAccessKey").write_text(keys[1] + "\n")
    return str(directory)


def connect(endpoint: str, directory: Path, bucket: str, keys: tuple[str, str] = OWNER) -> Storage:
    target = StorageTarget(name="contract", bucket=bucket, endpoint=endpoint, credentials_secret="s3")
    return open_storage(target, secret_dir=secret_directory(directory / f"secret-{keys[0]}", keys))


@pytest.fixture
def bucket() -> str:
    return f"contract-{next(_numbers)}"


@pytest.fixture
def open_(server: Server, tmp_path: Path, bucket: str) -> Open:
    """`open_(bucket=..., keys=...)`: a Storage of its own, as the owner and of the test's bucket
    unless asked otherwise."""

    def make(bucket: str = bucket, keys: tuple[str, str] = OWNER, endpoint: str = server.endpoint) -> Storage:
        return connect(endpoint, tmp_path, bucket, keys)

    return make


@pytest.fixture
def storage(open_: Open) -> Storage:
    """A storage with an empty bucket of its own."""
    made = open_()
    made.ensure_bucket(create=True)
    return made
