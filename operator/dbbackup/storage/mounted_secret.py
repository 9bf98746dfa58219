"""Secrets that the Job mounts as files. Volumes are optional mounts: a Secret that is missing is
told by the run, not by a pod that never starts."""

from __future__ import annotations

import time
from pathlib import Path

from dbbackup.contract.errors import Failure

_POLL_SECONDS = 0.5


def read_key(directory: str, secret: str, key: str) -> str:
    """The value of a Secret's key, mounted below `directory`, without a trailing line end.

    Failure SecretMissing where nothing is mounted (the kubelet mounts an empty directory for an
    optional Secret that is not there), KeyMissing where other keys are, or the value is empty.
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


def await_keys(directory: str, keys: tuple[str, ...], grace_seconds: float) -> bool:
    """Waits until all `keys` are mounted below `directory`, at most `grace_seconds`: a Secret made
    just after the pod appears late, when the kubelet syncs. Returns whether they are there;
    `read_key` then tells what is missing."""
    deadline = time.monotonic() + grace_seconds
    while not all((Path(directory) / key).is_file() for key in keys):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_POLL_SECONDS, left))
    return True


def _has_keys(directory: str) -> bool:
    """The kubelet's own entries begin with two dots."""
    try:
        return any(not entry.name.startswith("..") for entry in Path(directory).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
