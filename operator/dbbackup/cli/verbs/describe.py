"""`describe`: what happened to a backup or restore."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from dbbackup.api.objects import Raw
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import COLOURS, clean, document, moment_text, paint, say, slim
from dbbackup.cli.timeline import summary_fields, timeline
from dbbackup.contract.errors import REASONS

ALIASES = {
    **dict.fromkeys(("backup", "dbb", "databasebackup", "databasebackups"), "DatabaseBackup"),
    **dict.fromkeys(("restore", "dbr", "databaserestore", "databaserestores"), "DatabaseRestore"),
}
TAIL = 15
_MARKS = {"own": ("●", "cyan"), "event": ("·", None), "warning": ("!", "yellow"), "future": ("○", "bright_black")}


def run_named(kube: Kubectl, text: str) -> Raw:
    """A backup or restore by its name, or by `restore/NAME`. A bare name is looked for among
    backups first."""
    kind, _, name = text.rpartition("/")
    if kind:
        alias = kind.split(".", maxsplit=1)[0].lower()
        if alias not in ALIASES:
            raise CliError(f"{text}: write backup/NAME or restore/NAME", CliExit.USAGE)
        return {**kube.get(ALIASES[alias], name), "kind": ALIASES[alias]}
    with suppress(CliError):
        if (found := kube.find("DatabaseBackup", name)) is not None:
            return {**found, "kind": "DatabaseBackup"}
    if (found := kube.find("DatabaseRestore", name)) is not None:
        return {**found, "kind": "DatabaseRestore"}
    hint = f"`kubectl dbbackup list -n {kube.namespace}` and `list --restores` list what exists."
    raise CliError(f"there is no backup and no restore {name} in namespace {kube.namespace}", CliExit.NOT_FOUND, hint)


def events_about(kube: Kubectl, uid: str) -> list[Raw]:
    """The object's Events; none if the person may not read them: Events are optional detail."""
    try:
        return kube.objects("Event", fields=f"involvedObject.uid={uid}")
    except CliError:
        return []


@click.command()
@click.argument("name", type=flags.RUN)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the object itself.")
@connection
@click.pass_context
def describe(ctx: click.Context, /, name: str, output: str | None) -> int:
    """Show what happened to a backup or restore.

    NAME is the name of a backup or restore; write backup/NAME or restore/NAME if both have it.
    """
    kube = access(ctx)
    obj = run_named(kube, name)
    if output:
        say(document(slim(obj), output))
        return CliExit.OK
    status = obj.get("status") or {}
    say(paint(f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}", bold=True))
    for field, value in summary_fields(obj):
        say(f"  {field + ':':<15}{paint(clean(value), COLOURS.get(value) if field == 'Phase' else None)}")
    say()
    say(paint("What happened", bold=True))
    for moment in timeline(obj, events_about(kube, obj["metadata"]["uid"])):
        mark, colour = _MARKS[moment.kind]
        say(f"  {paint(mark, colour)} {moment_text(moment.at)}  {clean(moment.text)}")
    _failure(status)
    if warnings := status.get("warnings"):
        say()
        say(paint("Warnings", bold=True))
        for warning in warnings:
            say(f"  {paint('!', 'yellow')} {clean(warning)}")
    say()
    say(paint("Conditions", bold=True))
    for condition in status.get("conditions") or ():
        state = f"{condition['type']}={condition['status']}"
        say(f"  {state:<20} {condition.get('reason', '')}: {clean(condition.get('message', ''))}")
    return CliExit.OK


def _failure(status: Raw) -> None:
    failure = status.get("failure")
    if not failure:
        return
    known = REASONS.get(failure.get("reason", ""))
    say()
    say(paint(f"Why it failed: {clean(failure.get('reason', ''))}", "red", bold=True))
    say(f"  {clean(failure.get('message', ''))}")
    if known:
        say(f"  What it means: {known.meaning}")
    if failure.get("hint"):
        say(f"  What to do:    {clean(failure['hint'])}")
    if tail := failure.get("logTail"):
        say()
        say(paint("The end of its log", bold=True))
        for line in tail.splitlines()[-TAIL:]:
            say(f"  {log_line(line)}")


def log_line(line: str) -> str:
    """A line of a run's log for people; a line that is not our JSON stays as it is."""
    try:
        entry = json.loads(line)
        at, message = str(entry["ts"])[11:19], str(entry.get("message", ""))
    except (ValueError, KeyError, TypeError):
        return clean(line)
    if entry.get("event") == "progress":
        progress = entry.get("progress") or {}
        share = f", {progress['percent']} %" if progress.get("percent") is not None else ""
        message = f"{progress.get('phase', '')}: {progress.get('tablesDone', 0)} of {progress.get('tablesTotal', 0)} tables{share}"
    if entry.get("event") == "page":
        message = f"page {entry.get('page')}"
    level = str(entry.get("level", "info"))
    colour = {"warning": "yellow", "error": "red"}.get(level)
    return f"{at} {paint(f'{level:<7}', colour)} {clean(message)}"
