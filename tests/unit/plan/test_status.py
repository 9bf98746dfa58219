"""A status keeps within the CRDs whatever a Job, its log or Kubernetes says: the API server refuses
one that does not, whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel
from tests.unit.support.crds import PLURALS, problems, root_schema
from tests.unit.support.models import example
from tests.unit.support.plan_world import T0, backup_obj, facts, job_of, restore_obj

from dbbackup.contract.report import Progress, Report
from dbbackup.contract.run import Owner, RestoreOptions, RunSpec, StorageTarget
from dbbackup.plan import status as statuses
from dbbackup.plan.facts import Facts, LogView
from dbbackup.plan.observe import RunState

LONG = "x" * 40_000
M = TypeVar("M", bound=BaseModel)


def longest(model: type[M]) -> M:
    """Filled in, with texts longer than the CRDs take."""
    filled: M = example(model, text=LONG, number=2**62, many=40)
    return filled


REPORT: Report = longest(Report)
LOG = LogView(key=LONG, xid=LONG, waiting=LONG, progress=longest(Progress))
STATE = RunState("Running", attempts=11, started=True, started_at=T0, pod="p" * 253)
STORAGE = StorageTarget(name="s" * 63, bucket="b" * 63, prefix="p" * 512, endpoint="http://" + "e" * 1017)


def every_status(kind: str) -> Iterator[dict[str, Any]]:
    obj = backup_obj() if kind == "DatabaseBackup" else restore_obj()
    obj["metadata"]["name"] = "n" * 253
    foreign = {"status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-11-23T01:00:00Z"}
    obj["status"]["conditions"] = [{"type": f"Foreign{number}", **foreign} for number in range(16)]
    owner = Owner(kind=kind, namespace="ns", name="n" * 253, uid="u", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    source = RestoreOptions(key="k" * 1024, manifest_sha256="a" * 64) if kind == "DatabaseRestore" else None
    spec = RunSpec(run="backup", owner=owner, storage=STORAGE, restore=source)

    jobs = [job_of(obj)]
    report = REPORT if kind == "DatabaseRestore" else REPORT.model_copy(update={"restored": None, "safety_backup": None})

    def at(seconds: float) -> Facts:
        return facts(obj, after=seconds, log=LOG, jobs=jobs)

    fields = {"source": "k" * 1024} if kind == "DatabaseRestore" else {}
    since = "2026-11-23T01:00:00Z"
    yield statuses.pending(at(0), "Waiting", LONG, waitingSince=since, artifact=statuses.artifact_fields(spec), **fields)
    obj["status"] = statuses.running(at(11), STATE, "Running", LONG)
    yield obj["status"]
    yield statuses.completed(at(10**9), STATE, report, spec)
    yield statuses.failed(at(10**9), STATE, statuses.failure(LONG, LONG, LONG, [LONG] * 50), report)
    yield statuses.failed(at(10), STATE, statuses.failure("", "", ""), None)
    if kind == "DatabaseBackup":
        yield statuses.deleting(at(10), LONG)


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, f"{path}[]")
    else:
        yield path


def bounded(schema: Any, path: str = "") -> Iterator[str]:
    """Paths of what the CRD bounds."""
    if {"maxLength", "maxItems"} & set(schema):
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from bounded(child, f"{path}.{name}")
    if "items" in schema:
        yield from bounded(schema["items"], f"{path}[]")


@pytest.mark.parametrize("kind", ["DatabaseBackup", "DatabaseRestore"])
def test_no_status_breaks_a_limit_of_its_crd(kind: str) -> None:
    schema = root_schema(PLURALS[kind])["properties"]["status"]
    emitted = set()
    for status in every_status(kind):
        assert [problem[:200] for problem in problems(kind, status)] == [], status["phase"]
        emitted |= {path for leaf in leaves(status) for path in (leaf, leaf.removesuffix("[]"))} | {".conditions"}
    left_out = {".artifact.key", ".artifact.sha256", ".artifact.manifestSha256", ".transactionID"}
    left_out |= {".safetyBackup.key", ".safetyBackup.sha256", ".safetyBackup.manifestSha256"}
    left_out |= {".artifact.ownerUid", ".expires"}  # of a discovered backup; a date or a word
    assert set(bounded(schema)) - emitted <= left_out, "each bounded field is among what was checked, or was too long and left out"


def test_keys_and_digests_are_kept_up_to_the_limit() -> None:
    limits = {path: len_ for path, len_ in statuses._OMITTED.items() if "." in path}
    for path, limit in limits.items():
        outer, inner = path.split(".")
        assert statuses.bounded({outer: {inner: "k" * limit}}) == {outer: {inner: "k" * limit}}
        assert statuses.bounded({outer: {inner: "k" * (limit + 1)}}) == {outer: {}}


@pytest.mark.parametrize(("count", "kept", "last"), [(16, 16, "w15"), (17, 16, "and 2 more"), (40, 16, "and 25 more")])
def test_warnings_beyond_the_limit_are_counted(count: int, kept: int, last: str) -> None:
    report = REPORT.model_copy(update={"warnings": tuple(f"w{number}" for number in range(count))})
    known = facts(backup_obj(), after=10)
    warnings = statuses.completed(known, RunState("Reported", started_at=T0 + timedelta(seconds=1)), report, None)["warnings"]
    assert (len(warnings), warnings[-1]) == (kept, last)
