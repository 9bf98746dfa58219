"""`doctor`: checks everything that a backup needs, from the person's rights to the database as a
Job reaches it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from dbbackup import __version__
from dbbackup.api.objects import Raw
from dbbackup.cli import checks, flags, pods
from dbbackup.cli.app import access, connection
from dbbackup.cli.checks import Finding
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import COLOURS, clean, count, document, paint, say
from dbbackup.cli.verbs.list import newest_first
from dbbackup.cli.verbs.storage import checked_now

OPERATOR = "app.kubernetes.io/name=database-backup-operator,app.kubernetes.io/component=operator"
MOST_DATABASES = 5
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗", "skipped": "-"}


@click.command()
@click.option("--secret", multiple=True, metavar="NAME", help="Check the database of this Secret, instead of those that schedules and backups name.")
@click.option("--database", metavar="NAME", help="With --secret: the database, if the Secret has another or none.")
@click.option("--no-pods", is_flag=True, help="Start no pods: databases are not checked.")
@click.option(
    "--check-timeout", type=flags.Seconds(), default="2m", metavar="DURATION", show_default=True, help="How long to wait for a storage's check."
)
@click.option("--image", metavar="IMAGE", help="Image for the pods, instead of the operator's.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the findings as a document.")
@connection
@click.pass_context
def doctor(ctx: click.Context, /, **values: Any) -> int:
    """Find what is wrong, and say what to do.

    It checks your rights, the cluster and the operator; and in the namespace the storages (with a
    new check, if you may request one), the schedules, and the databases, from a short-lived pod.
    The exit code is 1 if there is a problem.
    """
    kube = access(ctx)
    found: list[Finding] = []
    for finding in examine(kube, values):
        found.append(finding)
        if not values["output"]:
            _print(finding)
    problems = sum(finding.state == "problem" for finding in found)
    if values["output"]:
        say(document([asdict(finding) for finding in found], values["output"]))
    else:
        warnings = sum(finding.state == "warning" for finding in found)
        say()
        say(
            paint(
                f"{problems or 'no'} problem{'' if problems == 1 else 's'}, {count(warnings, 'warning')}", "red" if problems else "green", bold=True
            )
        )
    return CliExit.FAILED if problems else CliExit.OK


def _print(finding: Finding) -> None:
    say(f"{paint(_MARKS[finding.state], COLOURS[finding.state])} {finding.about}: {clean(finding.message)}")
    if finding.hint and finding.state != "ok":
        say(f"    {clean(finding.hint)}")


def examine(kube: Kubectl, values: Raw) -> Iterator[Finding]:
    """Yields findings as they come. A failed check is a finding too, and the other checks continue.
    CliError if the cluster cannot be reached."""
    yield checks.kubernetes(kube.raw("/version"))
    yield Finding("ok", "you", f"{kube.user or 'unknown to the cluster'}, namespace {kube.namespace}")
    try:
        kube.raw("/apis/dbbackup.io/v1")
    except CliError as error:
        if error.code not in (CliExit.NOT_FOUND, CliExit.REFUSED):
            raise
        yield Finding("problem", "operator", "this cluster does not know the kinds of dbbackup.io", "Install the chart: docs/getting-started.md.")
        return
    allowed = _rights(kube)
    yield from checks.capabilities(allowed)
    may = {capability.what: all(answers) for capability, answers in zip(checks.CAPABILITIES, allowed, strict=True)}
    yield from _guarded("operator", lambda: _operator(kube))
    storages = yield from _storages(kube, values["check_timeout"], check_now=may["storage check, import"])
    schedules: list[Raw] = []
    yield from _guarded("schedules", lambda: _schedules(kube, schedules))
    yield from _databases(kube, values, storages, schedules, may_start=may["download"])


def _rights(kube: Kubectl) -> list[list[bool]]:
    reviews = [capability.access_reviews(kube.namespace) for capability in checks.CAPABILITIES]
    answers = iter(kube.may([right for group in reviews for right in group]))
    return [list(islice(answers, len(group))) for group in reviews]


def _guarded(about: str, action: Callable[[], list[Finding]]) -> Iterator[Finding]:
    try:
        yield from action()
    except CliError as error:
        yield Finding("skipped" if error.code is CliExit.REFUSED else "problem", about, error.message, error.hint)


def _operator(kube: Kubectl) -> list[Finding]:
    try:
        return checks.operator(kube.objects("Deployment", everywhere=True, selector=OPERATOR), __version__)
    except CliError as error:
        if error.code is not CliExit.REFUSED:
            raise
        return [Finding("skipped", "operator", "you may not read Deployments; the checks below show whether it works")]


def _storages(kube: Kubectl, timeout: float, *, check_now: bool) -> Generator[Finding, None, list[Raw]]:
    """Returns the storages as they are after the check."""
    try:
        found = kube.objects("BackupStorage")
    except CliError as error:
        yield Finding("skipped" if error.code is CliExit.REFUSED else "problem", "storages", error.message, error.hint)
        return []
    if not found:
        hint = "See examples/storage.yaml. A backup without `storageRef` goes to the storage named default."
        yield Finding("problem", "storages", f"there is no BackupStorage in namespace {kube.namespace}", hint)
    seen = []
    for obj in found:
        name, looked_at, tried = obj["metadata"]["name"], obj, False
        if check_now:
            try:
                looked_at, tried = checked_now(kube, name, timeout), True
            except CliError as error:
                yield Finding("problem", f"storage {name}", error.message, error.hint)
        yield from checks.storage(looked_at, datetime.now(UTC), tried=tried)
        yield from checks.skew(str((looked_at.get("status") or {}).get("operatorVersion", "")), __version__)
        seen.append(looked_at)
    return seen


def _schedules(kube: Kubectl, into: list[Raw]) -> list[Finding]:
    into += kube.objects("DatabaseBackupSchedule")
    if not into:
        hint = 'kubectl dbbackup schedule create NAME "0 3 * * *" --secret NAME --keep-daily 7'
        return [Finding("warning", "schedules", f"no schedule backs up anything in namespace {kube.namespace}", hint)]
    return [finding for obj in into for finding in checks.schedule(obj, datetime.now(UTC))]


def _databases(kube: Kubectl, values: Raw, storages: list[Raw], schedules: list[Raw], *, may_start: bool) -> Iterator[Finding]:
    if values["secret"]:
        more = {"name": values["database"]} if values["database"] else {}
        wanted = [(f"database of Secret {name}", {"secretRef": {"name": name}, **more}) for name in values["secret"]]
    else:
        try:
            wanted = checks.targets([*schedules, *newest_first(kube.objects("DatabaseBackup"))])
        except CliError:
            wanted = checks.targets(schedules)
    usable = next((obj for obj in storages if (obj.get("status") or {}).get("podTemplate")), None)
    if not wanted:
        yield Finding("skipped", "databases", "no schedule and no backup names a database", "--secret NAME checks one.")
    elif values["no_pods"] or not may_start or usable is None:
        why = "--no-pods" if values["no_pods"] else "no storage has a `status.podTemplate` yet" if may_start else "you may not start pods"
        yield Finding("skipped", "databases", f"not checked from inside the cluster: {why}")
    else:
        for about, target in wanted[:MOST_DATABASES]:
            yield from _guarded(about, lambda about=about, target=target: checks.database(about, pods.reach(kube, usable, target, values["image"])))  # type: ignore[misc]
        if len(wanted) > MOST_DATABASES:
            yield Finding("skipped", "databases", f"{len(wanted) - MOST_DATABASES} more were not checked", "--secret NAME checks one.")
