"""Whether a storage does what a backup needs of it: an object is written, read and deleted."""

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
_HINT = "docs/bucket.md lists what the server must be able to do: use another one, or tell its maintainers."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`now` is the storage's clock; `conditional_writes` whether of two writers of one key only the
    first wins."""

    now: datetime
    conditional_writes: bool


def probe(storage: Storage, below: str, stop: Stop) -> ProbeResult:
    """Tries the storage below the root `below`, under a name that nobody else uses, and leaves
    nothing behind.

    Failure with the storage's reason, and which step it was.
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
    conditional = _step(stop, "writing it again only if it is not there", lambda: _refused(storage, key, second))
    if _step(stop, "reading it", lambda: storage.get(key, len(second))) != (first if conditional else second):
        raise Failure("ArtifactCorrupt", f"the storage was tried: {key} was read otherwise than it was written", _HINT)
    found = _step(stop, "looking for it", lambda: storage.head(key))
    if found is None:
        raise Failure("StorageRefused", f"the storage was tried: {key} was written, and is not there", _HINT)
    _step(stop, "deleting it", lambda: storage.delete([key]))
    if _step(stop, "looking whether it is gone", lambda: storage.head(key)) is not None:
        raise Failure("StorageRefused", f"the storage was tried: {key} is still there after it was deleted", _HINT)
    return ProbeResult(found.modified, conditional)


def _step(stop: Stop, name: str, call: Callable[[], T]) -> T:
    """`name` says what is done, for the message of its failure."""
    stop.check()
    try:
        return call()
    except Failure as failure:
        raise Failure(failure.reason.name, f"the storage was tried, and {name} failed: {failure.message}", failure.hint) from None


def _refused(storage: Storage, key: str, body: bytes) -> bool:
    """Whether a second writer of `key` is told of the first. Its body is another, since the same
    one may be its own of a lost reply."""
    try:
        storage.put(key, body, _TYPE, if_absent=True)
    except Failure as failure:
        if failure.reason.name != "ArtifactExists":
            raise
        return True
    return False
