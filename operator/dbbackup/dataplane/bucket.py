"""The run's bucket, and the artifacts that a run finds in it."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from dbbackup.contract.catalog import CATALOG_LIMIT, Catalog, unpack_catalog
from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import MANIFEST, leaf, root, split_key
from dbbackup.contract.manifest import MANIFEST_LIMIT, Manifest, parse_manifest, sha256_hex
from dbbackup.contract.report import ArtifactReport, DatabaseReport
from dbbackup.contract.run import Owner
from dbbackup.dataplane.context import Run
from dbbackup.storage.base import Storage
from dbbackup.storage.mounted_secret import await_secret, read_key

_LARGE = 1 << 20
"""Larger manifests are read one at a time across all threads: the Job's memory is small, and some
manifests have a hundred thousand tables."""
_one_large = threading.Lock()


@dataclass(frozen=True, slots=True)
class SealedArtifact:
    """A sealed artifact. `key` is its directory."""

    key: str
    manifest: Manifest
    manifest_sha256: str

    def report(self) -> ArtifactReport:
        return ArtifactReport(
            key=self.key,
            sha256=self.manifest.artifact.sha256,
            manifest_sha256=self.manifest_sha256,
            size_bytes=self.manifest.artifact.size,
            format=self.manifest.format,
            compression=self.manifest.compression,
            encrypted=self.manifest.encrypted,
        )

    def database_report(self) -> DatabaseReport:
        database = self.manifest.database
        return DatabaseReport(
            identity=database.identity,
            name=database.name,
            server_version=database.server_version,
            size_bytes=database.size_bytes,
            tables=len(self.manifest.contents.tables),
            rows=self.manifest.rows,
            tls=database.tls,
        )


def open_bucket(run: Run, *, create: bool | None = None) -> Storage:
    """The storage of the run's spec, with its bucket. Waits `secret_grace` seconds for credentials
    that the kubelet has not mounted yet."""
    from dbbackup.storage.s3 import open_storage  # noqa: PLC0415 - what imports botocore comes late

    target, paths = run.spec.storage, run.paths

    def connect() -> Storage:
        return open_storage(target, secret_dir=str(paths.storage_secret), ca_dir=str(paths.storage_ca))

    storage = await_secret(connect, paths.secret_grace)
    if target.credentials_secret:
        with suppress(Failure):  # what cannot be read any more was good a moment ago
            run.reporter.secret(read_key(str(paths.storage_secret), target.credentials_secret, target.secret_access_key_key))
    storage.ensure_bucket(target.create_bucket if create is None else create)
    return storage


def read_manifest(storage: Storage, directory: str, size: int, pinned: str | None = None) -> tuple[Manifest, str]:
    """The manifest in `directory`, and its SHA-256. `size` in bytes, 0 where it is unknown.

    Failure ArtifactMissing, ArtifactCorrupt (too large), ManifestDigestMismatch, FormatUnsupported,
    ManifestInvalid.
    """
    key = f"{directory}/{MANIFEST}"
    with _one_large if size > _LARGE else nullcontext():
        data = storage.get(key, MANIFEST_LIMIT)
        return parse_manifest(data, key, pinned), sha256_hex(data)


def refuse_unsupported(directory: str, manifest: Manifest) -> None:
    """Failure FormatUnsupported where this operator could not restore the artifact."""
    if manifest.encrypted:
        raise Failure("FormatUnsupported", f"{directory}/{MANIFEST}: the artifact is encrypted; this operator cannot read it")
    if len(manifest.objects) != 1:
        raise Failure("FormatUnsupported", f"{directory}/{MANIFEST}: the artifact has {len(manifest.objects)} objects; this operator reads one")


def find_artifact(storage: Storage, key: str, owner: Owner) -> tuple[Manifest, str] | None:
    """The sealed artifact of `owner` at `key` with its manifest's SHA-256, or None where it is
    missing or incomplete.

    Failure ManifestInvalid where the manifest belongs to another object.
    """
    manifest_key = f"{key}/{MANIFEST}"
    found_manifest = storage.head(manifest_key)
    if found_manifest is None:
        return None
    manifest, digest = read_manifest(storage, key, found_manifest.size)
    if manifest.owner.uid != owner.uid:
        raise Failure("ManifestInvalid", f"{manifest_key} belongs to {manifest.owner.kind} {manifest.owner.namespace}/{manifest.owner.name}")
    for stored in manifest.stored:
        found = storage.head(f"{key}/{stored.name}")
        if found is None or found.size != stored.size:
            return None
    return manifest, digest


def find_directories(storage: Storage, prefix: str, owner: Owner, suffix: str = "") -> list[str]:
    """Directories `<root>/<server>/<database>/<leaf>` of `owner` in the bucket, for any server and
    database. A directory with only unfinished uploads counts.
    """
    below, own = root(prefix, owner.namespace), leaf(owner, suffix)
    keys = [item.key for item in storage.list(below)] + [upload.key for upload in storage.list_uploads(below)]
    split_keys = (split_key(below, key) for key in keys)
    return sorted({directory for directory, _ in filter(None, split_keys) if directory.rpartition("/")[2] == own})


def load_manifest(storage: Storage, directory: str, pinned: str | None) -> tuple[Manifest, str]:
    """The manifest and its SHA-256; Failure ArtifactMissing, ManifestDigestMismatch,
    FormatUnsupported, ManifestInvalid."""
    manifest, digest = read_manifest(storage, directory, 0, pinned)
    refuse_unsupported(directory, manifest)
    return manifest, digest


def load_catalog(storage: Storage, directory: str, manifest: Manifest) -> Catalog | None:
    """The artifact's catalog; None where it has none, as those of 0.1.

    Failure ArtifactMissing, ArtifactCorrupt, ManifestInvalid, FormatUnsupported.
    """
    if manifest.catalog is None:
        return None
    key = f"{directory}/{manifest.catalog.name}"
    data = storage.get(key, CATALOG_LIMIT)
    digest = sha256_hex(data)
    if digest != manifest.catalog.sha256:
        raise Failure("ArtifactCorrupt", f"{key}: its SHA-256 is {digest}, its manifest says {manifest.catalog.sha256}")
    return unpack_catalog(data, key)
