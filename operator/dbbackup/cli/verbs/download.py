"""`download`: an artifact to this machine, as SQL or as it is stored. An interrupted download can
be continued."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from dbbackup.api.objects import Raw
from dbbackup.api.units import size_text
from dbbackup.cli import decompress, fetch, flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.fetch import StoredArtifact
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import clean, paint, say_err
from dbbackup.cli.pod_client import PodClient, open_client
from dbbackup.cli.progress import downloading

STDOUT = "-"


@click.command()
@click.argument("name", type=flags.BACKUP, required=False)
@click.option("--key", metavar="KEY", help="The key of an artifact in the bucket, instead of a backup's name.")
@click.option(
    "--storage", type=flags.STORAGE, metavar="NAME", default="default", show_default=True, help="With --key: the BackupStorage with the artifact."
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="The file to write; - for stdout. [default: NAME.sql or NAME.dump]")
@click.option("--raw", is_flag=True, help="Download the artifact as it is stored, compressed.")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing file.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--image", metavar="IMAGE", help="Image for the pod, instead of the operator's.")
@connection
@click.pass_context
def download(ctx: click.Context, /, name: str | None, key: str | None, **values: Any) -> int:
    """Download a backup, checked, as SQL or as it is stored.

    A short-lived pod in the namespace reads the bucket: you need the right to create pods. Every
    part is compared with the SHA-256 in the manifest, and the manifest with the SHA-256 in the
    backup's status. After an interruption, the same command continues with FILE.part.
    """
    kube = access(ctx)
    if (name is None) == (key is None):
        raise click.UsageError("name a backup, or an artifact by --key")
    key, recorded_sha256, storage_name = _locate(kube, name, key, values["storage"])
    storage = kube.get("BackupStorage", storage_name)
    with open_client(kube, storage, values["image"]) as client:
        client.on_retry = lambda why: say_err(f"{paint('warning:', 'yellow', err=True)} {clean(why)}; trying again")
        artifact = fetch.manifest(client, key, recorded_sha256)
        if recorded_sha256 is None:
            say_err("warning: no backup's status records this artifact's manifest: it can be trusted only as far as the bucket")
        stem = name or key.rsplit("/", 1)[-1]
        if values["output"] == STDOUT:
            _to_stdout(client, artifact, values)
            return CliExit.OK
        target = Path(values["output"] or stem + (_stored_extension(artifact) if values["raw"] else artifact.extension))
        if target.is_dir():
            target /= stem + (_stored_extension(artifact) if values["raw"] else artifact.extension)
        if target.exists() and not values["force"]:
            raise CliError(f"{target} exists already", CliExit.USAGE, "--force overwrites it; -o names another file.")
        _to_target(client, artifact, target, values)
    say_err(f"{paint('done', 'green', err=True)} {target}: {size_text(target.stat().st_size)}, checked against the manifest")
    return CliExit.OK


def _locate(kube: Kubectl, name: str | None, key: str | None, storage: str) -> tuple[str, str | None, str]:
    """(key, SHA-256 of the manifest if a backup recorded it, name of the BackupStorage)."""
    if name is None:
        return str(key).strip("/"), None, storage
    obj = kube.get("DatabaseBackup", name)
    status = obj.get("status") or {}
    artifact, phase = status.get("artifact") or {}, status.get("phase") or "Pending"
    if phase != "Completed" or not artifact.get("key"):
        hint = f"`kubectl dbbackup describe {name} -n {kube.namespace}` says why."
        raise CliError(f"backup {name} is {phase}: there is nothing to download", CliExit.NOT_FOUND, hint)
    return artifact["key"], artifact.get("manifestSha256"), artifact.get("storage") or (obj["spec"].get("storageRef") or {}).get("name") or "default"


def _stored_extension(artifact: StoredArtifact) -> str:
    """`.sql.zst` for `dump.sql.zst`; `.dump` stands for a custom archive."""
    return artifact.name.removeprefix("dump").replace(".custom", ".dump")


# To a file


def _to_target(client: PodClient, artifact: StoredArtifact, target: Path, values: Raw) -> None:
    part = target.with_name(target.name + ".part")
    try:
        if not values["raw"] and not decompress.available(artifact.compression):
            _from_pod_decompressed(client, artifact, target.with_name(target.name + ".plain.part"), target, values)
            return
        if part.exists() and part.stat().st_size:
            say_err(f"continuing {part} at {size_text(part.stat().st_size)} of {size_text(artifact.size)}")
        with downloading(artifact.size, str(target), quiet=values["quiet"]) as on_bytes:
            fetch.to_file(client, artifact, part, on_bytes)
        if values["raw"] or artifact.compression == "none":
            part.replace(target)
            return
        unpacking = target.with_name(target.name + ".unpacking")
        try:
            with _private(unpacking) as file:
                _write(file, fetch.unpacked(artifact, decompress.chunks(part)))
            unpacking.replace(target)
        finally:
            unpacking.unlink(missing_ok=True)
        part.unlink()
    except OSError as error:
        raise CliError(
            f"{target} cannot be written: {error.strerror or error}", CliExit.FAILED, "Free some space, or choose another place with -o."
        ) from None


def _from_pod_decompressed(client: PodClient, artifact: StoredArtifact, part: Path, target: Path, values: Raw) -> None:
    say_err("this machine cannot decompress zstd: the pod does")
    part.touch(0o600)
    digest = hashlib.sha256()
    for data in decompress.chunks(part):
        digest.update(data)
    have = part.stat().st_size
    with downloading(artifact.dump_bytes, str(target), quiet=values["quiet"]) as on_bytes, part.open("ab") as file:
        on_bytes(have)
        try:
            _write(file, fetch.framed(client, artifact, digest, have, on_bytes))
        except CliError as error:
            if error.code is CliExit.CORRUPT:
                part.unlink()
            raise
    part.replace(target)


def _private(path: Path) -> IO[bytes]:
    """A new file that only its owner can read: a dump contains the whole database."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    return path.open("wb")


def _write(file: IO[bytes], chunks: Iterable[bytes]) -> None:
    for data in chunks:
        file.write(data)
    file.flush()
    os.fsync(file.fileno())


# To stdout


def _to_stdout(client: PodClient, artifact: StoredArtifact, values: Raw) -> None:
    if sys.stdout.isatty():
        raise CliError("a dump is not written to a terminal", CliExit.USAGE, "Redirect stdout, or write a file with -o FILE.")
    out = sys.stdout.buffer
    with downloading(artifact.size, "stdout", quiet=values["quiet"]) as on_bytes:
        chunks: Iterator[bytes] = fetch.stored_parts(client, artifact, on_bytes)
        if not values["raw"]:
            if decompress.available(artifact.compression):
                chunks = fetch.unpacked(artifact, chunks)
            else:
                chunks = fetch.framed(client, artifact, hashlib.sha256(), 0, lambda _: None)
        for data in chunks:
            out.write(data)
        out.flush()
