"""Removes whole directories of the bucket, for backup, check and cleanup runs."""

from __future__ import annotations

from collections.abc import Sequence

from dbbackup.contract.formats import DUMPS
from dbbackup.contract.keys import MANIFEST
from dbbackup.storage.base import Storage

_DUMP_NAMES = tuple(sorted(DUMPS))
_ROUNDS = 20


def abort_uploads(storage: Storage, directory: str, names: Sequence[str] = _DUMP_NAMES) -> int:
    """Aborts every unfinished upload below `directory`; returns how many there were.

    Lists them again until there are none, since a page of a server's listing may skip uploads of
    one key. Some servers (MinIO) list only the uploads of one exact key, so those of `names` are
    listed as well.
    """
    total = 0
    for _ in range(_ROUNDS):
        uploads = list(storage.list_uploads(directory + "/"))
        if not uploads and not total:
            uploads = [upload for name in names for upload in storage.list_uploads(f"{directory}/{name}")]
        if not uploads:
            break
        for upload in uploads:
            storage.abort_upload(upload)
        total += len(uploads)
    return total


def delete_directory(storage: Storage, directory: str, names: Sequence[str] = _DUMP_NAMES) -> int:
    """Deletes every object and unfinished upload below `directory`; returns how many objects there
    were. `names` as for `abort_uploads`.

    The manifest goes first: the rest of an interrupted deletion is then never taken for a backup.
    """
    manifest = f"{directory}/{MANIFEST}"
    sealed = storage.head(manifest) is not None
    if sealed:
        storage.delete([manifest])
    abort_uploads(storage, directory, names)
    keys = [info.key for info in storage.list(directory + "/") if info.key != manifest]
    storage.delete(keys)
    return len(keys) + sealed
