"""`delete`: deletes backups and their artifacts, after a confirmation."""

from __future__ import annotations

import click

from dbbackup.api.metadata import FINALIZER, PIN
from dbbackup.api.objects import Raw
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import clean, paint, say_err
from dbbackup.cli.prompts import confirm
from dbbackup.cli.verbs.describe import events_about, run_named

PREPARE_SECONDS = 30.0


@click.command()
@click.argument("name", type=flags.RUN, nargs=-1, required=True)
@click.option("--keep-artifact", is_flag=True, help="Delete the object only; `import` brings it back.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. For scripts.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is gone.")
@click.option("--wait-timeout", type=flags.Seconds(), default="15m", metavar="DURATION", show_default=True, help="How long to wait.")
@connection
@click.pass_context
def delete(ctx: click.Context, /, name: tuple[str, ...], keep_artifact: bool, yes: bool, wait: bool, wait_timeout: float) -> int:
    """Delete backups together with their artifacts.

    It sets `deletionPolicy: Delete` and deletes the object; the operator then removes the artifact.
    Restores (restore/NAME) have no artifact: only the object is deleted.
    """
    kube = access(ctx)
    found = [run_named(kube, text) for text in name]
    for obj in found:
        _check(obj, keep_artifact)
    for obj in found:
        say_err(deletion_text(obj, keep_artifact))
        if not yes:
            confirm(f"Type {obj['metadata']['name']} to delete it", obj["metadata"]["name"])
    for obj in found:
        _delete(kube, obj, keep_artifact, wait_timeout if wait else None)
    return CliExit.OK


def _holds_artifact(obj: Raw) -> bool:
    status = obj.get("status") or {}
    return obj["kind"] == "DatabaseBackup" and status.get("phase") != "Expired" and "jobName" in status


def _check(obj: Raw, keep_artifact: bool) -> None:
    if not keep_artifact and (obj.get("spec") or {}).get("origin") == "Discovered":
        name = obj["metadata"]["name"]
        hint = "The operator removes the artifact when its time to live has passed. --keep-artifact deletes the object only."
        raise CliError(f"{name} was created by an import: the artifact cannot be deleted through it", CliExit.REFUSED, hint)


def deletion_text(obj: Raw, keep_artifact: bool) -> str:
    """What the deletion removes, shown before the question."""
    name, status = obj["metadata"]["name"], obj.get("status") or {}
    if obj["kind"] == "DatabaseRestore":
        return f"{name}: the record of this restore will be deleted; the database stays as it is"
    key = (status.get("artifact") or {}).get("key")
    if keep_artifact or not _holds_artifact(obj):
        return f"{name}: the object will be deleted" + (
            f"; the artifact {clean(key)} stays in the bucket" if key and keep_artifact else "; it has no artifact"
        )
    pinned = " It is pinned." if PIN in (obj["metadata"].get("annotations") or {}) else ""
    what = f"the artifact {clean(key)} ({status.get('size', 'size unknown')})" if key else "everything it has stored"
    return f"{name}: the object and {paint(what, 'red', bold=True, err=True)} will be deleted for good.{pinned}"


def _delete(kube: Kubectl, obj: Raw, keep_artifact: bool, timeout: float | None) -> None:
    kind, name, uid = obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"]
    if _holds_artifact(obj):
        _policy(kube, obj, keep_artifact)
    kube.delete(kind, name, uid)
    if timeout is None:
        say_err(f"{name}: its deletion has started")
        return
    for seen in kube.watch(kind, name, timeout):
        if seen is None or seen["metadata"]["uid"] != uid:
            break
    else:
        raise CliError(f"{name} still exists after {timeout:.0f} s; its deletion continues", CliExit.TIMEOUT)
    for event in events_about(kube, uid):
        if event.get("reason") == "ArtifactRetained":
            raise CliError(f"{name} is deleted, but {event.get('message')}", CliExit.FAILED)
    gone = "" if keep_artifact or not _holds_artifact(obj) else ", its artifact too"
    say_err(f"{name} is deleted{gone}")


def _policy(kube: Kubectl, obj: Raw, keep_artifact: bool) -> None:
    """Sets the object's policy and waits until the operator has followed with its finalizer:
    without the finalizer the artifact would stay."""
    name, policy = obj["metadata"]["name"], "Retain" if keep_artifact else "Delete"
    if obj["spec"].get("deletionPolicy", "Retain") != policy:
        kube.patch("DatabaseBackup", name, {"spec": {"deletionPolicy": policy}})
    elif (FINALIZER in (obj["metadata"].get("finalizers") or ())) == (not keep_artifact):
        return
    for seen in kube.watch("DatabaseBackup", name, PREPARE_SECONDS):
        if seen is None or (FINALIZER in (seen["metadata"].get("finalizers") or ())) == (not keep_artifact):
            return
    hint = "Is the operator running? `kubectl dbbackup doctor` shows it."
    raise CliError(f"{name}: the operator has not reacted within {PREPARE_SECONDS:.0f} s; nothing has been deleted", CliExit.TIMEOUT, hint)
