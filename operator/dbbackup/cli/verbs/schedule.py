"""`schedule`: make, look at and steer schedules."""

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
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.lists import say_all
from dbbackup.cli.making import make
from dbbackup.cli.output import NONE, age, clean, moment_text, say, say_err
from dbbackup.cli.waiting import wait_for

KIND = "DatabaseBackupSchedule"
TAKE_NOTE_SECONDS = 60.0


@click.group()
@connection
def schedule() -> None:
    """Make, look at and steer schedules."""


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
@click.option("--include", multiple=True, metavar="PATTERN", help="Databases of the server to back up, by name or pattern; one backup each.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Databases of the server to leave out.")
@flags.stacked(*_KEEPS)
@click.option("--min-keep", type=click.IntRange(1), metavar="N", help="Never remove one of the newest N.")
@click.option("--jitter", metavar="DURATION", help="Start later by up to this, always the same for this schedule.")
@click.option("--immediate", is_flag=True, help="Make a first backup at once.")
@click.option("--concurrency", type=click.Choice(["Forbid", "Allow", "Replace"]), help="What to do while the previous run goes on.")
@click.option("--starting-deadline", metavar="DURATION", help="Make no run that would start later than this.")
@flags.labels
@flags.dry
@connection
@click.pass_context
def create(ctx: click.Context, /, name: str, **values: Any) -> int:
    """Make a schedule: NAME, and when, as "0 3 * * *" or @daily."""
    from dbbackup.plan import cron  # noqa: PLC0415

    kube = access(ctx)
    try:
        clock = cron.parse(values["cron"], values["time_zone"] or "Etc/UTC")
    except cron.CronError as error:
        raise CliError(str(error), ExitCode.USAGE) from None
    labels, annotations = specs.pairs(values["label"], "--label"), specs.pairs(values["annotation"], "--annotation")
    code = make(kube, specs.obj(KIND, name, kube.namespace, specs.schedule(values), labels=labels, annotations=annotations), values)
    if not values["dry_run"]:
        say_err(f"it runs next at {moment_text(clock.next(datetime.now(UTC)).isoformat())}")
    return code


@schedule.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]), help="Whole objects, or names alone.")
@connection
@click.pass_context
def list_(ctx: click.Context, /, all_namespaces: bool, output: str | None) -> int:
    """List schedules: next and last runs, failures."""
    now = datetime.now(UTC)
    head = ["NAME", "SCHEDULE", "STATE", "NEXT", "LAST GOOD", "FAILED IN A ROW", "GOOD"]
    say_all(access(ctx), KIND, "schedules", head, lambda obj: _row(obj, now), everywhere=all_namespaces, form=output)
    return ExitCode.OK


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

    It sets the annotation dbbackup.io/suspend, which no tool that keeps the spec in Git undoes.
    """
    access(ctx).annotate(KIND, name, {SUSPEND: "true"})
    say_err(f"schedule {name} is suspended; what comes due meanwhile is not made up for")
    return ExitCode.OK


@schedule.command()
@click.argument("name", type=flags.SCHEDULE)
@connection
@click.pass_context
def resume(ctx: click.Context, /, name: str) -> int:
    """Start runs again."""
    obj = access(ctx).annotate(KIND, name, {SUSPEND: None})
    if obj["spec"].get("suspend"):
        raise CliError(f"schedule {name} stays suspended: its spec says `suspend: true`", ExitCode.REFUSED, "Change the spec, where it is kept.")
    say_err(f"schedule {name} runs again")
    return ExitCode.OK


@schedule.command("run-now")
@click.argument("name", type=flags.SCHEDULE)
@flags.wait
@connection
@click.pass_context
def run_now(ctx: click.Context, /, name: str, wait: bool, wait_timeout: float) -> int:
    """Make a backup by the schedule's template now."""
    kube = access(ctx)
    before = {obj["metadata"]["uid"] for obj in _made(kube, name)}
    token = str(time.time_ns())
    kube.annotate(KIND, name, {RUN_NOW: token})
    for seen in kube.watch(KIND, name, TAKE_NOTE_SECONDS):
        if seen is None:
            raise CliError(f"schedule {name} was deleted")
        if (seen.get("status") or {}).get("lastRunNow") == token:
            break
        ready = find((seen.get("status") or {}).get("conditions") or (), "Ready") or {}
        if ready.get("reason") == "WaitingForPreviousRun":
            raise CliError(f"it is not made yet: {ready['message']}", ExitCode.TIMEOUT, "It is made as soon as that has ended.")
    else:
        hint = "Is the operator running? `kubectl dbbackup doctor` tells."
        raise CliError(f"the operator has not made the run within {TAKE_NOTE_SECONDS:.0f} s; it does when it can", ExitCode.TIMEOUT, hint)
    made = [obj for obj in _made(kube, name) if obj["metadata"]["uid"] not in before]
    if not made:
        raise CliError(f"the run of {name} made no backup", ExitCode.FAILED, f"kubectl describe dbs {name} -n {kube.namespace} shows its Events.")
    for obj in made:
        say(obj["metadata"]["name"])
    return max((wait_for(kube, obj, wait_timeout) for obj in made), default=ExitCode.OK) if wait else ExitCode.OK


def _made(kube: Kubectl, name: str) -> list[Raw]:
    return kube.objects("DatabaseBackup", selector=f"{SCHEDULE}={name}")


@schedule.command("next")
@click.argument("name", type=flags.SCHEDULE, required=False)
@click.option("--cron", metavar="SCHEDULE", help='A schedule to try, such as "0 3 * * *", instead of one that is there.')
@click.option("--time-zone", metavar="ZONE", default="Etc/UTC", show_default=True, help="With --cron: IANA name such as Europe/Berlin.")
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="How many.")
@connection
@click.pass_context
def next_(ctx: click.Context, /, name: str | None, cron: str | None, time_zone: str, count: int) -> int:
    """Tell when a schedule runs next."""
    from dbbackup.plan import cron as crons  # noqa: PLC0415

    if (name is None) == (cron is None):
        raise click.UsageError("name a schedule, or try one by --cron")
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
            say_err(f"schedule {name} is suspended: it would run at")
    try:
        clock = crons.parse(str(cron), time_zone)
    except crons.CronError as error:
        raise CliError(str(error), ExitCode.USAGE) from None
    at = datetime.now(UTC) - offset
    for _ in range(count):
        at = clock.next(at)
        local = (at + offset).astimezone(clock.zone)
        say(f"{moment_text((at + offset).isoformat())}" + (f"   {local:%a %Y-%m-%d %H:%M:%S} {clean(time_zone)}" if time_zone != "Etc/UTC" else ""))
    return ExitCode.OK
