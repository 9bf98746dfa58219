"""The run's bucket, and what a run finds or leaves in an artifact's directory."""

from __future__ import annotations

from dbbackup.artifact import MANIFEST, MANIFEST_LIMIT, Manifest, clean_prefix, key_component, leaf, parse_manifest, sha256_hex
from dbbackup.dataplane.context import Run
from dbbackup.errors import Failure
from dbbackup.run import Owner
from dbbackup.storage.base import Storage


def open_bucket(run: Run, *, create: bool | None = None) -> Storage:
    """The storage of the run's spec; its bucket is there. Waits a short grace for credentials that the kubelet has not mounted yet."""
    from dbbackup.storage.mounts import await_keys  # noqa: PLC0415 - what imports botocore comes late
    from dbbackup.storage.s3 import open_storage  # noqa: PLC0415

    target = run.spec.storage
    if target.credentials_secret:
        await_keys(str(run.paths.storage_secret), (target.access_key_id_key, target.secret_access_key_key), run.paths.secret_grace)
    if target.ca_secret:
        await_keys(str(run.paths.storage_ca), (target.ca_key,), run.paths.secret_grace)
    storage = open_storage(target, secret_dir=str(run.paths.storage_secret), ca_dir=str(run.paths.storage_ca))
    storage.ensure_bucket(target.create_bucket if create is None else create)
    return storage


def find_artifact(storage: Storage, key: str, owner: Owner) -> tuple[Manifest, str] | None:
    """The sealed artifact of `owner` at `key` with its manifest's SHA-256, or None where it is not there or not whole.

    Failure ManifestInvalid where somebody else's manifest stands there.
    """
    manifest_key = f"{key}/{MANIFEST}"
    if storage.head(manifest_key) is None:
        return None
    data = storage.get(manifest_key, MANIFEST_LIMIT)
    manifest = parse_manifest(data, manifest_key)
    if manifest.owner.uid != owner.uid:
        raise Failure("ManifestInvalid", f"{manifest_key} belongs to {manifest.owner.kind} {manifest.owner.namespace}/{manifest.owner.name}")
    for stored in manifest.objects:
        found = storage.head(f"{key}/{stored.name}")
        if found is None or found.size != stored.size:
            return None
    return manifest, sha256_hex(data)


def find_directories(storage: Storage, prefix: str, owner: Owner, suffix: str = "") -> list[str]:
    """Directories `<root>/<server>/<database>/<leaf>` in the bucket that are `owner`'s: objects and unfinished uploads, whatever server and database
    were called.
    """
    root = "/".join(part for part in (clean_prefix(prefix), key_component(owner.namespace)) if part) + "/"
    own = leaf(owner, suffix)
    keys = [item.key for item in storage.list(root)] + [upload.key for upload in storage.list_uploads(root)]
    below = (key.removeprefix(root).split("/") for key in keys if key.startswith(root))
    return sorted({root + "/".join(parts[:3]) for parts in below if len(parts) > 3 and parts[2] == own})
