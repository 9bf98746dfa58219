from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.support.passing import FakeTime

from dbbackup.contract.errors import Failure
from dbbackup.storage import mounted_secret
from dbbackup.storage.mounted_secret import await_secret, read_key


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


def read_both(directory: Path) -> tuple[str, str]:
    return read_key(str(directory), "s3", "a"), read_key(str(directory), "s3", "b")


def test_a_late_mount_is_waited_for(tmp_path: Path, time: FakeTime) -> None:
    """First nothing is mounted, then one of two keys, then both."""
    started, directory = time.now, tmp_path / "secret"
    time.after(3, lambda: mounted(directory, a="1"))
    time.after(7, lambda: (directory / "b").write_text("2"))
    assert await_secret(lambda: read_both(directory), 10) == ("1", "2")
    assert 7 <= time.now - started < 8


def test_the_wait_is_bounded(tmp_path: Path, time: FakeTime) -> None:
    directory, started = mounted(tmp_path / "secret", a="1"), time.now
    with pytest.raises(Failure) as caught:
        await_secret(lambda: read_both(directory), 10)
    assert caught.value.reason.name == "KeyMissing"
    assert time.now - started == pytest.approx(10)


def test_without_a_grace_it_is_read_once(tmp_path: Path, time: FakeTime) -> None:
    started = time.now
    with pytest.raises(Failure):
        await_secret(lambda: read_both(tmp_path / "nowhere"), 0)
    assert await_secret(lambda: read_both(mounted(tmp_path / "secret", a="1", b="2")), 0) == ("1", "2")
    assert time.now == started


def test_a_failure_that_waiting_cannot_mend_is_raised_at_once(time: FakeTime) -> None:
    started = time.now

    def read() -> str:
        raise Failure("SecretInvalid", "several hosts")

    with pytest.raises(Failure, match="several hosts"):
        await_secret(read, 10)
    assert time.now == started
