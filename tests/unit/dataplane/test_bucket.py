from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import Owner, RunSpec, StorageTarget
from dbbackup.dataplane.bucket import open_bucket
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.storage import mounted_secret, s3

if TYPE_CHECKING:
    from collections.abc import Sequence

OWNER = Owner(kind="BackupStorage", namespace="team-a", name="default", uid="4f6f3b1e", created_at=datetime(2026, 1, 2, tzinfo=UTC))


class Bucket:
    def __init__(self) -> None:
        self.created: list[bool] = []

    def ensure_bucket(self, create: bool) -> None:
        self.created.append(create)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[str] | None, str | None]]:
    """Access keys and file of CAs of each client that was made; no server is asked."""
    calls: list[tuple[Sequence[str] | None, str | None]] = []

    def connect(_target: StorageTarget, keys: Sequence[str] | None, ca_file: str | None) -> Any:
        calls.append((keys, ca_file))
        return Bucket()

    monkeypatch.setattr(s3, "connect_storage", connect)
    monkeypatch.setattr(mounted_secret, "_POLL_SECONDS", 0.001)
    return calls


def run(tmp_path: Path, grace: float, **target: Any) -> Run:
    storage = StorageTarget(name="default", bucket="b", **target)
    paths = Paths(storage_secret=tmp_path / "secret", storage_ca=tmp_path / "ca", secret_grace=grace)
    return Run(RunSpec(run="inventory", owner=OWNER, storage=storage), paths, Reporter(io.StringIO()), Stop())


def test_credentials_that_are_mounted_late_are_waited_for(
    tmp_path: Path, opened: list[tuple[Sequence[str] | None, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real = mounted_secret.read_key

    def read_key(directory: str, secret: str, key: str) -> str:
        reads.append(key)
        if len(reads) == 3:
            (tmp_path / "secret").mkdir()
            for name in ("accessKeyId", "secretAccessKey"):
                (tmp_path / "secret" / name).write_text(f"{name} value\n")
        return real(directory, secret, key)

    monkeypatch.setattr(s3, "read_key", read_key)
    storage = cast("Bucket", open_bucket(run(tmp_path, 10, credentials_secret="s3")))
    assert opened == [(("accessKeyId value", "secretAccessKey value"), None)]
    assert storage.created == [False]


def test_credentials_that_never_come(tmp_path: Path, opened: list[tuple[Sequence[str] | None, str | None]]) -> None:
    with pytest.raises(Failure) as caught:
        open_bucket(run(tmp_path, 0.01, credentials_secret="s3"))
    assert caught.value.reason.name == "SecretMissing"
    assert opened == []


def test_without_a_secret_nothing_is_waited_for(tmp_path: Path, opened: list[tuple[Sequence[str] | None, str | None]]) -> None:
    assert cast("Bucket", open_bucket(run(tmp_path, 600), create=True)).created == [True]
    assert opened == [(None, None)]
