"""What `doctor` concludes from what it found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from dbbackup.api.conditions import find, instant, is_true
from dbbackup.api.objects import Raw
from dbbackup.api.units import size_text
from dbbackup.cli.output import age, count
from dbbackup.contract.errors import REASONS

State = Literal["ok", "warning", "problem", "skipped"]

OLDEST_KUBERNETES = (1, 31)
STALE_DAYS = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` names what was checked; `hint` says what to do."""

    state: State
    about: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a person wants to do, and the rights needed, as (verb, group, resource/subresource)."""

    what: str
    rights: tuple[tuple[str, str, str], ...]

    def access_reviews(self, namespace: str) -> list[dict[str, str]]:
        """As `resourceAttributes` of SelfSubjectAccessReviews."""
        reviews = []
        for verb, group, resource in self.rights:
            name, _, subresource = resource.partition("/")
            reviews.append(
                {"namespace": namespace, "verb": verb, "group": group, "resource": name} | ({"subresource": subresource} if subresource else {})
            )
        return reviews


_OWN = "dbbackup.io"


def _can(what: str, *rights: str) -> Capability:
    """Rights as `verb resource`. Resources belong to dbbackup.io unless they are listed here."""
    groups = {"pods": "", "pods/log": "", "pods/portforward": "", "events": "", "jobs": "batch"}
    parsed = tuple((verb, groups.get(resource, _OWN), resource) for verb, resource in (right.split() for right in rights))
    return Capability(what, parsed)


CAPABILITIES = (
    _can("list and describe", "list databasebackups", "get databasebackups", "list databaserestores", "get databaserestores", "list events"),
    _can("wait for runs", "watch databasebackups", "watch databaserestores"),
    _can("create", "create databasebackups"),
    _can("logs", "get jobs", "list pods", "get pods", "get pods/log"),
    _can("download", "get databasebackups", "get backupstorages", "create pods", "list pods", "watch pods", "create pods/portforward", "delete pods"),
    _can("restore", "create databaserestores", "get databasebackups"),
    _can("delete", "delete databasebackups", "patch databasebackups", "watch databasebackups"),
    _can("schedule create", "create databasebackupschedules"),
    _can("schedule suspend, resume, run-now", "patch databasebackupschedules", "watch databasebackupschedules"),
    _can("storage check, import", "get backupstorages", "patch backupstorages", "watch backupstorages"),
)


def capabilities(allowed: Sequence[Sequence[bool]]) -> list[Finding]:
    """What the person may do, and what they may not, with the missing rights. A missing right is no
    problem in itself."""
    able, unable = [], []
    for capability, answers in zip(CAPABILITIES, allowed, strict=True):
        missing = [f"{verb} {resource}" for (verb, _, resource), answer in zip(capability.rights, answers, strict=True) if not answer]
        if missing:
            unable.append(f"{capability.what} (lacks {', '.join(missing)})")
        else:
            able.append(capability.what)
    found = [Finding("ok" if able else "problem", "your rights", f"you may: {'; '.join(able) or 'nothing'}")]
    if unable:
        found.append(
            Finding("warning", "your rights", f"you may not: {'; '.join(unable)}", "Ask for the chart's roles if you need them: docs/cli.md.")
        )
    return found


def kubernetes(version: Raw) -> Finding:
    digits = [int("".join(char for char in str(version.get(part, "0")) if char.isdigit()) or 0) for part in ("major", "minor")]
    name = str(version.get("gitVersion", "unknown"))
    if tuple(digits) < OLDEST_KUBERNETES:
        return Finding("problem", "Kubernetes", f"{name} is older than 1.31", "Upgrade the cluster: the CRDs' validation rules need 1.31.")
    return Finding("ok", "Kubernetes", name)


def operator(deployments: Sequence[Raw], own_version: str) -> list[Finding]:
    """`deployments`: those with the operator's labels."""
    if not deployments:
        return [Finding("problem", "operator", "this cluster has no Deployment of the operator", "Install the chart: docs/getting-started.md.")]
    found = []
    for deployment in deployments:
        name = f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"
        ready = (deployment.get("status") or {}).get("readyReplicas") or 0
        version = str((deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", ""))
        if not ready:
            hint = f"kubectl -n {deployment['metadata']['namespace']} describe deployment {deployment['metadata']['name']}; its pod's log says more."
            found.append(Finding("problem", "operator", f"{name} is not ready", hint))
        else:
            found.append(Finding("ok", "operator", f"{name} is ready, version {version or 'unknown'}"))
        found += skew(version, own_version)
    if len(deployments) > 1:
        found.append(
            Finding(
                "warning",
                "operator",
                f"{len(deployments)} operators run in this cluster",
                "Give each its own list in the chart's value `namespaces`.",
            )
        )
    return found


def skew(version: str, own_version: str) -> list[Finding]:
    """A warning if plugin and operator differ in their minor version."""
    if not version or version.split(".")[:2] == own_version.split(".")[:2]:
        return []
    hint = "Install the plugin of the operator's version: pipx install database-backup-operator==" + version
    return [Finding("warning", "versions", f"the plugin is {own_version}, the operator {version}", hint)]


def storage(obj: Raw, now: datetime, *, tried: bool) -> list[Finding]:
    """`tried`: the operator has just checked it at our request."""
    about, status = f"storage {obj['metadata']['name']}", obj.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = find(conditions, "Ready")
    if ready is None:
        return [Finding("problem", about, "no operator has processed it yet", "Does an operator run that watches this namespace?")]
    if ready.get("status") != "True":
        known = REASONS.get(str(ready.get("reason")))
        waiting = "warning" if is_true(conditions, "Reconciling") and not known else "problem"
        return [
            Finding(
                "warning" if waiting == "warning" else "problem", about, f"{ready.get('reason')}: {ready.get('message')}", known.hint if known else ""
            )
        ]
    checked = instant(status.get("checkedAt"))
    when = "checked just now" if tried else f"checked {age(status.get('checkedAt'), now)} ago"
    usage = status.get("usage") or {}
    found = [Finding("ok", about, f"{when}: a write, a read and a delete succeeded; {size_text(usage.get('bytes', 0))} used")]
    if not tried and (checked is None or now - checked > timedelta(days=STALE_DAYS)):
        found.append(
            Finding(
                "warning",
                about,
                f"it has not been checked since {status.get('checkedAt')}",
                f"kubectl dbbackup storage check {obj['metadata']['name']}",
            )
        )
    if is_true(conditions, "NearCapacity"):
        found.append(
            Finding(
                "warning",
                about,
                str((find(conditions, "NearCapacity") or {}).get("message")),
                "Free some space, shorten the retention, or raise the capacity.",
            )
        )
    if is_true(conditions, "PruneHeld"):
        found.append(_held(about, conditions))
    if usage.get("orphans"):
        hint = f"kubectl dbbackup import {obj['metadata']['name']} creates objects for them; they expire on their own dates."
        found.append(Finding("warning", about, f"{count(usage['orphans'], 'artifact')} without an object", hint))
    return found


def _held(about: str, conditions: Iterable[Raw]) -> Finding:
    hint = "Check whether it is intended; the annotation dbbackup.io/approve-prune approves it: docs/retention.md."
    return Finding("warning", about, f"the removal of backups waits for approval: {(find(conditions, 'PruneHeld') or {}).get('message')}", hint)


def schedule(obj: Raw, now: datetime) -> list[Finding]:
    name, status = obj["metadata"]["name"], obj.get("status") or {}
    about, conditions = f"schedule {name}", status.get("conditions") or ()
    ready = find(conditions, "Ready")
    if ready is None:
        return [Finding("problem", about, "no operator has processed it yet", "Does an operator run that watches this namespace?")]
    found = []
    if ready.get("status") != "True":
        found.append(Finding("problem", about, f"{ready.get('reason')}: {ready.get('message')}", "Correct its spec."))
    last = status.get("lastSuccessfulTime")
    since = f"the last good backup is {age(last, now)} old" if last else "there is no good backup yet"
    failures = status.get("consecutiveFailures") or 0
    if failures:
        hint = f"kubectl dbbackup list --schedule {name} shows them, `describe` says why."
        found.append(Finding("problem", about, f"its last {count(failures, 'run')} failed; {since}", hint))
    if status.get("suspended"):
        found.append(Finding("warning", about, f"it is suspended; {since}", f"kubectl dbbackup schedule resume {name}"))
    if is_true(conditions, "PruneHeld"):
        found.append(_held(about, conditions))
    return found or [Finding("ok", about, since)]


def database(about: str, report: Raw) -> list[Finding]:
    """From the report of a run that connected to the database from inside the cluster."""
    seen, failure = report.get("database"), report.get("failure")
    found = []
    if seen:
        tls = "TLS" if seen.get("tls") else "no TLS"
        message = (
            f"{seen['identity']} answers: PostgreSQL {seen['serverVersion']}, {size_text(seen['sizeBytes'])}, {count(seen['tables'], 'table')}, {tls}"
        )
        found.append(Finding("ok", about, message))
    if failure:
        found.append(Finding("problem", about, f"{failure['reason']}: {failure['message']}", failure.get("hint", "")))
    found += [Finding("warning", about, warning) for warning in report.get("warnings") or ()]
    return found


def targets(objects: Iterable[Raw]) -> list[tuple[str, dict[str, Any]]]:
    """The distinct databases that schedules and backups name, as (title, spec.database), those of
    the first objects first."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for obj in objects:
        spec = obj.get("spec") or {}
        database = ((spec.get("template") or {}).get("spec") or {}).get("database") or spec.get("database")
        if database:
            parts = [database["secretRef"]["name"], *(str(database[key]) for key in ("host", "port", "name", "user") if database.get(key))]
            parts += [f"sslMode {database['sslMode']}"] if database.get("sslMode") else []
            found.setdefault(str(sorted(database.items(), key=str)), (f"database of Secret {' '.join(parts)}", dict(database)))
    return list(found.values())
