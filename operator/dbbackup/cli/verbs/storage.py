"""`storage`: shows storages and checks them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from dbbackup.api.conditions import find
from dbbackup.api.metadata import CHECK_NOW
from dbbackup.api.objects import Raw
from dbbackup.api.units import parse_quantity, size_text
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.lists import say_all
from dbbackup.cli.output import COLOURS, NONE, age, clean, document, moment_text, paint, say, say_err, slim
from dbbackup.cli.verbs.describe import events_about

KIND = "BackupStorage"


@click.group()
@connection
def storage() -> None:
    """Inspect storages and check them."""


@storage.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]), help="Whole objects, or names only.")
@connection
@click.pass_context
def list_(ctx: click.Context, /, all_namespaces: bool, output: str | None) -> int:
    """List storages: whether they work, what they contain."""
    now = datetime.now(UTC)
    head = ["NAME", "READY", "BUCKET", "PREFIX", "USED", "ARTIFACTS", "WITHOUT OBJECT", "CHECKED"]
    say_all(access(ctx), KIND, "storages", head, lambda obj: _row(obj, now), everywhere=all_namespaces, form=output, colour="READY")
    return CliExit.OK


def ready_of(obj: Raw) -> Raw:
    return dict(find((obj.get("status") or {}).get("conditions") or (), "Ready") or {})


def _row(obj: Raw, now: datetime) -> list[str]:
    status, s3 = obj.get("status") or {}, obj["spec"]["s3"]
    usage = status.get("usage") or {}
    checked = status.get("checkedAt")
    counted = [str(usage[key]) if key in usage else NONE for key in ("artifacts", "orphans")]
    used = usage_text(obj)
    return [
        obj["metadata"]["name"],
        ready_of(obj).get("status", NONE),
        s3["bucket"],
        s3.get("prefix", NONE),
        used,
        *counted,
        f"{age(checked, now)} ago" if checked else "never",
    ]


def usage_text(obj: Raw) -> str:
    """The bytes in use, and the share of the capacity if the spec sets one."""
    used = ((obj.get("status") or {}).get("usage") or {}).get("bytes")
    capacity = obj["spec"].get("capacity")
    if used is None:
        return NONE
    if capacity is None:
        return size_text(used)
    whole = parse_quantity(capacity)
    return f"{size_text(used)} of {size_text(whole)} ({100 * used // max(whole, 1)} %)"


@storage.command()
@click.argument("name", type=flags.STORAGE, default="default")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the object itself.")
@connection
@click.pass_context
def describe(ctx: click.Context, /, name: str, output: str | None) -> int:
    """Show what a storage contains and its state. NAME is `default` if it is not given."""
    kube = access(ctx)
    obj = kube.get(KIND, name)
    if output:
        say(document(slim({**obj, "kind": KIND}), output))
        return CliExit.OK
    status, s3 = obj.get("status") or {}, obj["spec"]["s3"]
    usage, ready = status.get("usage") or {}, ready_of(obj)
    say(paint(f"{KIND} {obj['metadata']['namespace']}/{name}", bold=True))
    fields = [
        ("Ready", ready.get("status", "Unknown")),
        ("Because", f"{ready.get('reason', '')}: {ready.get('message', '')}" if ready else ""),
        ("Bucket", "/".join(part for part in (s3["bucket"], s3.get("prefix", "")) if part)),
        ("Endpoint", s3.get("endpoint", "AWS")),
        ("Used", usage_text(obj)),
        ("Artifacts", f"{usage['artifacts']}, {usage.get('orphans', 0)} without an object" if "artifacts" in usage else ""),
        ("Oldest", moment_text(usage["oldest"]) if "oldest" in usage else ""),
        ("Newest", moment_text(usage["newest"]) if "newest" in usage else ""),
        ("Left behind", _left(usage)),
        ("Default TTL", obj["spec"].get("defaultTTL", "")),
        ("Checked", moment_text(status.get("checkedAt")) if status.get("checkedAt") else "never with success"),
        ("Operator", status.get("operatorVersion", "")),
    ]
    for field, value in fields:
        if value:
            say(f"  {field + ':':<13}{paint(clean(value), COLOURS.get(value) if field == 'Ready' else None)}")
    events = events_about(kube, obj["metadata"]["uid"])
    if events:
        say()
        say(paint("Events", bold=True))
        for event in sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime"))):
            at = event.get("lastTimestamp") or event.get("eventTime")
            say(f"  {moment_text(at)}  {clean(event.get('reason'))}: {clean(event.get('message'))}")
    return CliExit.OK


def _left(usage: Raw) -> str:
    parts = [
        f"{usage[key]} {text}"
        for key, text in (("debris", "unsealed directories"), ("uploads", "unfinished uploads"), ("foreign", "foreign objects"))
        if usage.get(key)
    ]
    return ", ".join(parts)


@storage.command()
@click.argument("name", type=flags.STORAGE, default="default")
@click.option("--wait-timeout", type=flags.Seconds(), default="5m", metavar="DURATION", show_default=True, help="How long to wait.")
@connection
@click.pass_context
def check(ctx: click.Context, /, name: str, wait_timeout: float) -> int:
    """Write, read and delete an object in the bucket now, and count the artifacts."""
    obj = checked_now(access(ctx), name, wait_timeout)
    ready = ready_of(obj)
    good = ready.get("status") == "True"
    say_err(f"{paint('ok' if good else 'problem', 'green' if good else 'red', bold=True, err=True)} {name}: {clean(ready.get('message', ''))}")
    if good:
        say_err(f"used: {usage_text(obj)}")
    return CliExit.OK if good else CliExit.FAILED


def requested(kube: Kubectl, name: str, annotation: str, timeout: float) -> Iterator[tuple[Raw, str, bool]]:
    """Requests what the annotation stands for, with a new token. Then yields each version of the
    storage that arrives within `timeout` seconds, the token, and whether the operator has tried the
    bucket since.
    """
    token = str(time.time_ns())
    tried = (kube.get(KIND, name).get("status") or {}).get("checkTriedAt")
    kube.annotate(KIND, name, {annotation: token})
    for seen in kube.watch(KIND, name, timeout):
        if seen is None:
            raise CliError(f"{KIND} {name} was deleted")
        yield seen, token, ((seen.get("status") or {}).get("checkTriedAt") or tried) != tried


def checked_now(kube: Kubectl, name: str, timeout: float) -> Raw:
    """The storage after the operator has tried it at our request, with either outcome."""
    for seen, token, tried in requested(kube, name, CHECK_NOW, timeout):
        if tried or (seen.get("status") or {}).get("lastCheck") == token:
            return seen
    hint = "Is the operator running? `kubectl dbbackup doctor` shows it."
    raise CliError(f"the operator has not tried {KIND} {name} within {timeout:.0f} s", CliExit.TIMEOUT, hint)
