"""`schedule`: creates, shows and controls schedules."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from dbbackup.api.conditions import find
from dbbackup.api.metadata import RUN_NOW, SCHEDULE, SUSPEND
from dbbackup.api.objects import Raw
from dbbackup.cli import flags, specs
from dbbackup.cli.app import access, connection
from dbbackup.cli.creating import create_object
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.lists import say_all
from dbbackup.cli.output import NONE, age, clean, moment_text, say, say_err
from dbbackup.cli.waiting import wait_for

KIND = "DatabaseBackupSchedule"
REACTION_SECONDS = 60.0


@click.group()
@connection
def schedule() -> None:
    """Create, inspect and control schedules."""


_KEEPS = [
    click.option(f"--keep-{period}", type=click.IntRange(1), metavar="N", help=f"Keep {text}.")
    for period, text in (
        ("last", "the newest N"),
        ("hourly", "the newest of each of N hours"),
        ("daily", "the newest of each of N days"),
        ("weekly", "the newest of each of N weeks"),
        ("monthly", "the newest of each of N months"),
        ("yearly", "the newest of each of N years"),
    )
]


@schedule.command("create")
@click.argument("name")
@click.argument("cron", metavar="SCHEDULE")
@click.option("--time-zone", metavar="ZONE", help="IANA name such as Europe/Berlin.  [default: Etc/UTC]")
@flags.database
@flags.backup
@click.option("--include", multiple=True, metavar="PATTERN", help="Databases of the server to back up, by name or pattern; each gets its own backup.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Databases of the server to leave out.")
@flags.stacked(*_KEEPS)
@click.option("--min-keep", type=click.IntRange(1), metavar="N", help="Never remove one of the newest N.")
@click.option("--jitter", metavar="DURATION", help="Start up to this much later; the delay is the same for every run.")
@click.option("--immediate", is_flag=True, help="Start a first backup at once.")
@click.option("--concurrency", type=click.Choice(["Forbid", "Allow", "Replace"]), help="What to do if the previous run has not ended.")
@click.option("--starting-deadline", metavar="DURATION", help="Skip a run that would start later than this.")
@flags.labels
@flags.dry
@connection
@click.pass_context
def create(ctx: click.Context, /, name: str, **values: Any) -> int:
    """Create a schedule: NAME, and when it runs, as "0 3 * * *" or @daily."""
    from dbbackup.plan import cron  # noqa: PLC0415

    kube = access(ctx)
    try:
        clock = cron.parse(values["cron"], values["time_zone"] or "Etc/UTC")
    except cron.CronError as error:
        raise CliError(str(error), CliExit.USAGE) from None
    labels, annotations = specs.pairs(values["label"], "--label"), specs.pairs(values["annotation"], "--annotation")
    code = create_object(kube, specs.obj(KIND, name, kube.namespace, specs.schedule(values), labels=labels, annotations=annotations), values)
    if not values["dry_run"]:
        say_err(f"the next run is at {moment_text(clock.next(datetime.now(UTC)).isoformat())}")
    return code


@schedule.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]), help="Whole objects, or names only.")
@connection
@click.pass_context
def list_(ctx: click.Context, /, all_namespaces: bool, output: str | None) -> int:
    """List schedules: next and last runs, failures."""
    now = datetime.now(UTC)
    head = ["NAME", "SCHEDULE", "STATE", "NEXT", "LAST GOOD", "FAILED IN A ROW", "GOOD"]
    say_all(access(ctx), KIND, "schedules", head, lambda obj: _row(obj, now), everywhere=all_namespaces, form=output)
    return CliExit.OK


def _row(obj: Raw, now: datetime) -> list[str]:
    status, spec = obj.get("status") or {}, obj["spec"]
    ready = find(status.get("conditions") or (), "Ready") or {}
    state = "suspended" if status.get("suspended") else str(ready.get("reason") or "Pending")
    zone = f" ({spec['timeZone']})" if spec.get("timeZone", "Etc/UTC") != "Etc/UTC" else ""
    last = status.get("lastSuccessfulTime")
    good = (status.get("retention") or {}).get("good")
    return [
        obj["metadata"]["name"],
        spec["schedule"] + zone,
        state,
        moment_text(status.get("nextScheduleTime")),
        f"{age(last, now)} ago" if last else "never",
        str(status.get("consecutiveFailures") or 0),
        NONE if good is None else str(good),
    ]


@schedule.command()
@click.argument("name", type=flags.SCHEDULE)
@connection
@click.pass_context
def suspend(ctx: click.Context, /, name: str) -> int:
    """Start no more runs until it is resumed.

    It sets the annotation dbbackup.io/suspend, which GitOps tools that own the spec leave alone.
    """
    access(ctx).annotate(KIND, name, {SUSPEND: "true"})
    say_err(f"schedule {name} is suspended; runs that come due meanwhile are skipped")
    return CliExit.OK


@schedule.command()
@click.argument("name", type=flags.SCHEDULE)
@connection
@click.pass_context
def resume(ctx: click.Context, /, name: str) -> int:
    """Start runs again."""
    obj = access(ctx).annotate(KIND, name, {SUSPEND: None})
    if obj["spec"].get("suspend"):
        raise CliError(f"schedule {name} stays suspended: its spec says `suspend: true`", CliExit.REFUSED, "Change the spec at its source.")
    say_err(f"schedule {name} runs again")
    return CliExit.OK


@schedule.command("run-now")
@click.argument("name", type=flags.SCHEDULE)
@flags.wait
@connection
@click.pass_context
def run_now(ctx: click.Context, /, name: str, wait: bool, wait_timeout: float) -> int:
    """Start a backup from the schedule's template now."""
    kube = access(ctx)
    before = {obj["metadata"]["uid"] for obj in _backups_of(kube, name)}
    token = str(time.time_ns())
    kube.annotate(KIND, name, {RUN_NOW: token})
    for seen in kube.watch(KIND, name, REACTION_SECONDS):
        if seen is None:
            raise CliError(f"schedule {name} was deleted")
        if (seen.get("status") or {}).get("lastRunNow") == token:
            break
        ready = find((seen.get("status") or {}).get("conditions") or (), "Ready") or {}
        if ready.get("reason") == "WaitingForPreviousRun":
            raise CliError(f"the run has not started yet: {ready['message']}", CliExit.TIMEOUT, "It starts as soon as that run has ended.")
    else:
        hint = "Is the operator running? `kubectl dbbackup doctor` shows it."
        raise CliError(f"the operator has not started the run within {REACTION_SECONDS:.0f} s; it will when it can", CliExit.TIMEOUT, hint)
    created = [obj for obj in _backups_of(kube, name) if obj["metadata"]["uid"] not in before]
    if not created:
        raise CliError(f"the run of {name} created no backup", CliExit.FAILED, f"kubectl describe dbs {name} -n {kube.namespace} shows its Events.")
    for obj in created:
        say(obj["metadata"]["name"])
    return max((wait_for(kube, obj, wait_timeout) for obj in created), default=CliExit.OK) if wait else CliExit.OK


def _backups_of(kube: Kubectl, name: str) -> list[Raw]:
    return kube.objects("DatabaseBackup", selector=f"{SCHEDULE}={name}")


@schedule.command("next")
@click.argument("name", type=flags.SCHEDULE, required=False)
@click.option("--cron", metavar="SCHEDULE", help='A schedule to evaluate, such as "0 3 * * *", instead of an existing one.')
@click.option("--time-zone", metavar="ZONE", default="Etc/UTC", show_default=True, help="With --cron: IANA name such as Europe/Berlin.")
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="How many runs to show.")
@connection
@click.pass_context
def next_(ctx: click.Context, /, name: str | None, cron: str | None, time_zone: str, count: int) -> int:
    """Show when a schedule runs next."""
    from dbbackup.plan import cron as crons  # noqa: PLC0415

    if (name is None) == (cron is None):
        raise click.UsageError("name a schedule, or give one with --cron")
    offset = timedelta()
    if name is not None:
        kube = access(ctx)
        obj = kube.get(KIND, name)
        spec, status = obj["spec"], obj.get("status") or {}
        cron, time_zone = spec["schedule"], spec.get("timeZone", "Etc/UTC")
        if spec.get("jitter"):
            from dbbackup.api.units import parse_duration  # noqa: PLC0415

            offset = crons.jitter(obj["metadata"]["namespace"], name, parse_duration(spec["jitter"], least=0))
        if status.get("suspended"):
            say_err(f"schedule {name} is suspended; without that it would run at")
    try:
        clock = crons.parse(str(cron), time_zone)
    except crons.CronError as error:
        raise CliError(str(error), CliExit.USAGE) from None
    at = datetime.now(UTC) - offset
    for _ in range(count):
        at = clock.next(at)
        local = (at + offset).astimezone(clock.zone)
        say(f"{moment_text((at + offset).isoformat())}" + (f"   {local:%a %Y-%m-%d %H:%M:%S} {clean(time_zone)}" if time_zone != "Etc/UTC" else ""))
    return CliExit.OK
