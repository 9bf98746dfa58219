from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dbbackup.contract.errors import Failure
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


def test_late_mounts_are_waited_for(tmp_path: Path) -> None:
    def appear() -> None:
        time.sleep(0.2)
        mounted(tmp_path / "secret", a="1", b="2")

    thread = threading.Thread(target=appear)
    thread.start()
    assert await_keys(str(tmp_path / "secret"), ("a", "b"), grace_seconds=10)
    thread.join()


def test_the_wait_is_bounded(tmp_path: Path) -> None:
    directory = mounted(tmp_path / "secret", a="1")
    started = time.monotonic()
    assert not await_keys(str(directory), ("a", "b"), grace_seconds=0.1)
    assert time.monotonic() - started < 2
    assert await_keys(str(directory), ("a",), grace_seconds=0)
