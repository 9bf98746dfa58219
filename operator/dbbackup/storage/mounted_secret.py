"""Reads Secrets that the Job mounts as files. The mounts are optional: so the run reports a missing
Secret, where otherwise the pod would never start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dbbackup.contract.errors import Failure

_POLL_SECONDS = 0.2

T = TypeVar("T")


def read_key(directory: str, secret: str, key: str) -> str:
    """The value of a Secret's key, mounted below `directory`, without a trailing line end.

    Failure SecretMissing where nothing is mounted (the kubelet mounts an empty directory for an
    optional Secret that does not exist), KeyMissing where only other keys are mounted, or the value
    is empty.
    """
    path = Path(directory) / key
    try:
        value = path.read_text("utf-8").rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        if not _has_keys(directory):
            raise Failure("SecretMissing", f"Secret {secret} does not exist, or holds none of the keys that are needed ({key})") from None
        raise Failure("KeyMissing", f"Secret {secret} has no key {key}") from None
    except UnicodeDecodeError:
        raise Failure("KeyMissing", f"Secret {secret}: the value of key {key} is not UTF-8 text") from None
    if not value:
        raise Failure("KeyMissing", f"Secret {secret}: the value of key {key} is empty")
    return value


def await_secret(read: Callable[[], T], grace_seconds: float) -> T:
    """The result of `read()`, which is called again while it fails with SecretMissing or
    KeyMissing, for at most `grace_seconds`: the kubelet mounts a Secret that was made just after
    the pod only when it syncs. Then that Failure is raised; any other Failure at once."""
    deadline = time.monotonic() + grace_seconds
    while True:
        try:
            return read()
        except Failure as failure:
            left = deadline - time.monotonic()
            if failure.reason.name not in {"SecretMissing", "KeyMissing"} or left <= 0:
                raise
        time.sleep(min(_POLL_SECONDS, left))


def _has_keys(directory: str) -> bool:
    """The kubelet's own entries begin with two dots."""
    try:
        return any(not entry.name.startswith("..") for entry in Path(directory).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
