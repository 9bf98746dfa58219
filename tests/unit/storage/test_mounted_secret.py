from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.support.passing import FakeTime

from dbbackup.contract.errors import Failure
from dbbackup.storage import mounted_secret
from dbbackup.storage.mounted_secret import await_keys, read_key


def refused(directory: Path, key: str = "accessKeyId") -> Failure:
    with pytest.raises(Failure) as caught:
        read_key(str(directory), "s3", key)
    assert "s3" in caught.value.message
    assert key in caught.value.message
    return caught.value


def mounted(directory: Path, **keys: str) -> Path:
    """As the kubelet lays a Secret out: links through ..data."""
    data = directory / "..2026_11_23"
    data.mkdir(parents=True)
    (directory / "..data").symlink_to(data.name)
    for key, value in keys.items():
        (data / key).write_text(value)
        (directory / key).symlink_to(f"..data/{key}")
    return directory


def test_value_without_its_line_end(tmp_path: Path) -> None:
    directory = mounted(tmp_path / "secret", accessKeyId="AKIA\n", secretAccessKey=" kept as it is \r\n")
    assert read_key(str(directory), "s3", "accessKeyId") == "AKIA"
    assert read_key(str(directory), "s3", "secretAccessKey") == " kept as it is "


def test_secret_that_is_not_there(tmp_path: Path) -> None:
    """An optional volume of a missing Secret is an empty directory to the container."""
    assert refused(mounted(tmp_path / "empty")).reason.name == "SecretMissing"
    assert refused(tmp_path / "nowhere").reason.name == "SecretMissing"


def test_key_that_is_not_there_or_no_use(tmp_path: Path) -> None:
    directory = mounted(tmp_path / "secret", other="x", empty="\n")
    assert refused(directory).reason.name == "KeyMissing"
    assert refused(directory, "empty").reason.name == "KeyMissing"
    (directory / "binary").write_bytes(b"\xff\xfe")
    failure = refused(directory, "binary")
    assert failure.reason.name == "KeyMissing"
    assert "xff" not in failure.message


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(mounted_secret, "time", fake)
    return fake


def test_late_mounts_are_waited_for(tmp_path: Path, time: FakeTime) -> None:
    started = time.now
    time.after(7, lambda: mounted(tmp_path / "secret", a="1", b="2"))
    assert await_keys(str(tmp_path / "secret"), ("a", "b"), grace_seconds=10)
    assert 7 <= time.now - started < 8


def test_the_wait_is_bounded(tmp_path: Path, time: FakeTime) -> None:
    directory, started = mounted(tmp_path / "secret", a="1"), time.now
    assert not await_keys(str(directory), ("a", "b"), grace_seconds=10)
    assert time.now - started == 10
    assert await_keys(str(directory), ("a",), grace_seconds=0)
