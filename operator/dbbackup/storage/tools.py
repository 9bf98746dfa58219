"""What backup, check and cleanup runs do to whole directories of the bucket."""

from __future__ import annotations

from dbbackup.artifact import MANIFEST, artifact_name
from dbbackup.storage.base import Storage


def abort_uploads(storage: Storage, directory: str) -> int:
    """Aborts every unfinished upload below `directory`; returns how many there were.

    Some servers (MinIO) list the uploads of one exact key only, so the artifact's possible keys are asked for as well.
    """
    uploads = {(upload.key, upload.upload_id): upload for upload in storage.list_uploads(directory + "/")}
    if not uploads:
        names = {artifact_name(fmt, algorithm) for fmt in ("plain", "custom") for algorithm in ("zstd", "gzip", "none")}
        uploads = {(u.key, u.upload_id): u for name in sorted(names) for u in storage.list_uploads(f"{directory}/{name}")}
    for upload in uploads.values():
        storage.abort_upload(upload)
    return len(uploads)


def delete_directory(storage: Storage, directory: str) -> int:
    """Deletes every object and unfinished upload below `directory`; returns how many objects there were beside the manifest.

    The manifest goes first: what is left of a deletion cut short is then never taken for a backup.
    """
    storage.delete([f"{directory}/{MANIFEST}"])
    abort_uploads(storage, directory)
    keys = [info.key for info in storage.list(directory + "/")]
    storage.delete(keys)
    return len(keys)
