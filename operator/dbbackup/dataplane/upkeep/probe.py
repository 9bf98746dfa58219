"""Tests whether a storage does what a backup needs: an object is written, read and deleted."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import PROBE
from dbbackup.dataplane.context import Stop
from dbbackup.storage.base import Storage

_TYPE = "text/plain"
_HINT = "docs/bucket.md lists what the server must support: use another server, or report the fault to its maintainers."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`now` is the storage's clock; `conditional_writes` says whether the storage lets only the
    first of two writers of one key win."""

    now: datetime
    conditional_writes: bool


def probe(storage: Storage, below: str, stop: Stop) -> ProbeResult:
    """Tests the storage below the root `below`, under a random name, and leaves nothing behind.

    Failure with the storage's reason and the step that failed.
    """
    key = f"{below}{PROBE}/{secrets.token_hex(16)}"
    try:
        return _try(storage, key, stop)
    except BaseException:
        with suppress(Failure):
            storage.delete([key])
        raise


def _try(storage: Storage, key: str, stop: Stop) -> ProbeResult:
    first, second = f"first {key}\n".encode(), f"second {key}\n".encode()
    _step(stop, "writing an object", lambda: storage.put(key, first, _TYPE, if_absent=True))
    conditional = _step(stop, "writing it again only if it does not exist", lambda: _refused(storage, key, second))
    if _step(stop, "reading it", lambda: storage.get(key, len(second))) != (first if conditional else second):
        raise Failure("ArtifactCorrupt", f"the storage was tested: {key} was read back with other bytes than were written", _HINT)
    found = _step(stop, "looking for it", lambda: storage.head(key))
    if found is None:
        raise Failure("StorageRefused", f"the storage was tested: {key} was written and does not exist", _HINT)
    _step(stop, "deleting it", lambda: storage.delete([key]))
    if _step(stop, "checking that it is gone", lambda: storage.head(key)) is not None:
        raise Failure("StorageRefused", f"the storage was tested: {key} still exists after it was deleted", _HINT)
    return ProbeResult(found.modified, conditional)


def _step(stop: Stop, name: str, call: Callable[[], T]) -> T:
    """`name` says what `call` does, for the message of its failure."""
    stop.check()
    try:
        return call()
    except Failure as failure:
        raise Failure(failure.reason.name, f"the storage was tested, and {name} failed: {failure.message}", failure.hint) from None


def _refused(storage: Storage, key: str, body: bytes) -> bool:
    """Whether the storage refuses a second writer of `key`. It writes another body: the same body
    could be its own, after a lost reply."""
    try:
        storage.put(key, body, _TYPE, if_absent=True)
    except Failure as failure:
        if failure.reason.name != "ArtifactExists":
            raise
        return True
    return False
