"""Versions that meet: during an upgrade or its way back, an operator reads what a Job of another
version has written, and a Job what another operator has ordered; a bucket outlives both.

Two other versions are played. The next one writes fields that this version does not know, at every
depth of everything. The first one, 0.1, is the real one, out of this repository's history.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.root import ROOT
from tests.unit.support.models import UNKNOWN, example, with_unknown
from tests.unit.support.plan_world import RUNNING, T0, UID, backup_obj, decide, facts, job, job_of, pod, report, restore_obj, storage_obj
from tests.unit.support.simulation import World

from dbbackup import contract
from dbbackup.api import specs
from dbbackup.cli import fetch
from dbbackup.contract.manifest import Manifest, parse_manifest
from dbbackup.contract.model import Model
from dbbackup.contract.records import CreationRecord, Tombstone, TransactionRecord, parse_transaction
from dbbackup.contract.report import LogEvent, Report
from dbbackup.contract.run import BackupOptions, Owner, RunKind, RunSpec
from dbbackup.dataplane import main
from dbbackup.handlers.follow import after_line
from dbbackup.plan.facts import Decision, LogView
from dbbackup.plan.lifecycle import spec_of
from dbbackup.plan.observe import parse_report
from dbbackup.plan.status import readable

KINDS: tuple[RunKind, ...] = get_args(RunKind)
EVENTS = get_args(LogEvent.model_fields["event"].annotation)
PROMISED = {"backup": {"artifact"}, "restore": {"restored"}, "inventory": {"inventory", "pages"}, "prune": {"pages"}, "discover": {"pages"}}
"""Without these a success of that kind of run is none."""


def newer(text: str) -> str:
    """As the next version would write it."""
    return json.dumps(with_unknown(json.loads(text)))


def all_models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from all_models(model)


for module in pkgutil.iter_modules(contract.__path__):
    importlib.import_module(f"{contract.__name__}.{module.name}")
CONTRACT = sorted(
    (model for model in all_models(Model) if model.__module__.startswith(f"{contract.__name__}.")), key=lambda model: model.__qualname__
)
"""Every model that one process writes and another reads."""


def spec(kind: RunKind) -> RunSpec:
    whole: RunSpec = example(RunSpec)
    return whole.model_copy(update={"run": kind})


def reports(kind: RunKind) -> list[Report]:
    """With everything that a report may say: a success and a failure; and the least of both."""
    whole: Report = example(Report)
    least: Report = example(Report, only_required=True)
    failed = {"run": kind, "uid": UID, "outcome": "Failed"}
    succeeded = {"run": kind, "uid": UID, "outcome": "Succeeded", "failure": None}
    return [
        whole.model_copy(update=failed),
        whole.model_copy(update=succeeded),
        least.model_copy(update={**failed, "failure": whole.failure}),
        least.model_copy(update={**succeeded, **{name: getattr(whole, name) for name in PROMISED.get(kind, ())}}),
    ]


def line(event: str) -> str:
    """Of a Job's log."""
    return str(example(LogEvent).model_copy(update={"event": event}).model_dump_json(by_alias=True, exclude_none=True))


# The next version


@pytest.mark.parametrize("model", CONTRACT, ids=lambda model: model.__name__)
def test_every_model_is_read_in_spite_of_fields_that_it_does_not_know(model: type[Model]) -> None:
    known = example(model)
    document = known.model_dump_json(by_alias=True)
    read = model.model_validate_json(newer(document))
    assert {name: getattr(read, name) for name in model.model_fields} == {name: getattr(known, name) for name in model.model_fields}


def test_all_models_are_looked_at() -> None:
    assert {RunSpec, Report, LogEvent, Manifest, TransactionRecord, CreationRecord, Tombstone} <= set(CONTRACT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_carries_out_what_the_next_operator_orders(kind: RunKind, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered: list[RunSpec] = []

    def run(found: RunSpec) -> int:
        ordered.append(found)
        return 0

    monkeypatch.setattr(main, "run", run)
    monkeypatch.setenv("DBBACKUP_RUN", newer(spec(kind).to_json()))
    assert main.main() == 0
    assert ordered == [spec(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_the_next_job_says_the_same(kind: RunKind) -> None:
    for said in reports(kind):
        assert parse_report(newer(said.to_json()), UID, kind) == said


@pytest.mark.parametrize("event", EVENTS)
def test_a_log_line_of_the_next_job_says_the_same(event: str) -> None:
    assert readable(newer(line(event))) == readable(line(event))
    assert after_line(LogView(), newer(line(event))) == after_line(LogView(), line(event))


def test_what_lies_in_a_bucket_of_the_next_version_is_read() -> None:
    manifest: Manifest = example(Manifest)
    data = newer(manifest.to_bytes().decode()).encode()
    assert parse_manifest(data, "key") == manifest
    plain = manifest.model_copy(update={"encrypted": False}).to_bytes()
    assert fetch.parse(newer(plain.decode()).encode(), "key") == fetch.parse(plain, "key")
    for record in (example(TransactionRecord), example(Tombstone)):
        assert parse_transaction(newer(record.to_json()).encode()) == record


def versions(obj: Any, run: str, jobs: list[Any], pods: Callable[[Callable[[str], str]], list[Any]], **more: Any) -> tuple[Decision, Decision]:
    """The decisions on reports and specs as this version's, and as the next version's Jobs and
    operator write them."""
    return decide(facts(obj, jobs=jobs, pods=pods(str), **more)), decide(facts(obj, jobs=[by_next(held) for held in jobs], pods=pods(newer), **more))


def by_next(held: Any) -> Any:
    """The Job as the next operator would have made it, with its own run spec."""
    changed = json.loads(json.dumps(held))
    [container] = changed["spec"]["template"]["spec"]["containers"]
    [ordered] = [variable for variable in container["env"] if variable["name"] == "DBBACKUP_RUN"]
    ordered["value"] = newer(ordered["value"])
    assert UNKNOWN.items() <= json.loads(ordered["value"]).items()
    return changed


RUN = {"jobName": "backup-nightly-0123456789", "phase": "Running", "startTime": "2026-11-23T01:00:00Z", "observedGeneration": 1}
SAID = [
    report("backup"),
    report("backup", "Failed", failure=("AuthenticationFailed", False)),
    report("backup", "Failed", failure=("StorageUnavailable", True)),
    report("backup", "Failed", failure=("StorageUnavailable", True), uncleared=True),
]


@pytest.mark.parametrize("kind", ["backup", "restore"])
@pytest.mark.parametrize("message", SAID)
def test_a_run_ends_the_same_with_a_job_of_the_next_version(kind: str, message: str) -> None:
    obj = backup_obj(RUN, retries=1) if kind == "backup" else restore_obj(RUN)
    said = json.loads(message)
    text = report(kind, said["outcome"], **{name: said[name] for name in ("failure", "uncleared") if name in said and name != "failure"})
    if "failure" in said:
        text = json.dumps({**json.loads(text), "failure": said["failure"]})
    held = job_of(backup_obj(retries=1) if kind == "backup" else restore_obj())
    code = 0 if said["outcome"] == "Succeeded" else 10
    ours, theirs = versions(obj, kind, [held], lambda write: [pod(kind, code=code, message=write(text))], after=9, tail=[])
    assert by_this(theirs) == by_this(ours)
    assert ours.status


@pytest.mark.parametrize("finding", ["TookEffect", "NoEffect", "Unknown", None])
def test_a_check_of_the_next_version_settles_the_same(finding: str | None) -> None:
    over = job_of(backup_obj(), conditions={"Failed": "BackoffLimitExceeded"})
    lost = decide(facts(backup_obj(RUN), after=10, jobs=[over], pods=[pod(code=137)]))
    check = job(dict(lost.create or {}), conditions={"Failed": "BackoffLimitExceeded"})
    outcome = "Succeeded" if finding == "TookEffect" else "Failed"
    text = report("check", outcome, failure=("OutOfMemory", True) if outcome == "Failed" else None, **({"finding": finding} if finding else {}))
    code = 0 if outcome == "Succeeded" else 10

    def pods(write: Callable[[str], str]) -> list[Any]:
        return [pod(code=137), pod("check", code=code, message=write(text))]

    ours, theirs = versions(backup_obj(RUN), "check", [over, check], pods, after=99, tail=[])
    assert by_this(theirs) == by_this(ours)
    assert (ours.status or {})["phase"] == ("Completed" if finding == "TookEffect" else "Failed")


def by_this(decision: Decision) -> Decision:
    """To compare: of Jobs that are deleted only the names, as their specs differ."""
    return replace(decision, delete=tuple({"metadata": {"name": held["metadata"]["name"]}} for held in decision.delete))


def everything(world: World) -> None:
    """Backups, restores, cleanups, inventories with imports, discoveries and prunes."""
    world.databases = ["app", "shop"]
    for day in range(1, 4):
        world.orphan(f"old-{day}", T0 - timedelta(days=10 - day), database="app", schedule="nightly", expires=T0 + timedelta(hours=day))
    world.storage()
    world.schedule(databases={}, retention={"keepLast": 1, "maxPruneShare": 100})
    world.apply("DatabaseBackup", "mine", {"database": {"secretRef": {"name": "app-db"}}, "deletionPolicy": "Delete"})
    world.run(timedelta(minutes=10))
    world.restore("back", {"backupRef": {"name": "mine"}})
    world.run(timedelta(minutes=10))
    world.server.delete(("DatabaseBackup", "mine"))
    world.run(timedelta(days=3))


def test_a_world_whose_jobs_are_of_the_next_version_goes_the_same_way() -> None:
    ours, theirs = World(), World(written=with_unknown)
    for world in (ours, theirs):
        everything(world)
    assert {found.run for found in theirs.jobs} == {"backup", "restore", "cleanup", "inventory", "discover", "prune"}
    assert theirs.jobs == ours.jobs
    assert theirs.server.objects == ours.server.objects
    assert theirs.bucket == ours.bucket
    assert theirs.deleted == ours.deleted
    assert ours.deleted
    assert len(ours.names(phase="Completed")) >= 2


@pytest.mark.parametrize(
    "obj", [backup_obj(RUN), restore_obj(RUN), backup_obj({**RUN, "phase": "Completed"})], ids=["backup", "restore", "completed"]
)
def test_an_object_with_the_next_versions_fields_is_decided_the_same(obj: Any) -> None:
    """Where the CRDs were upgraded first, they keep fields that this operator does not know."""
    held = job_of(backup_obj() if obj["kind"] == "DatabaseBackup" else restore_obj())
    kind = "backup" if obj["kind"] == "DatabaseBackup" else "restore"
    running = [pod(kind, state=RUNNING)]
    theirs = {**obj, "spec": with_unknown(obj["spec"]), "status": with_unknown(obj["status"])}
    storage = {**storage_obj(), "spec": with_unknown(storage_obj()["spec"])}
    found = decide(facts(theirs, storage=storage, jobs=[held], pods=running, after=3))
    assert without_unknown(found.status) == decide(facts(obj, jobs=[held], pods=running, after=3)).status


def without_unknown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_unknown(item) for name, item in value.items() if name not in UNKNOWN}
    return [without_unknown(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("model", list(all_models(specs.Spec)), ids=str)
def test_no_spec_refuses_what_it_does_not_know(model: type[BaseModel]) -> None:
    assert model.model_config["extra"] == "ignore"


# The first version

FIRST_KINDS: tuple[RunKind, ...] = ("backup", "restore", "check", "cleanup")


def first_readable(kind: RunKind) -> list[Report]:
    """Without what came after the first version."""
    later = {"inventory": None, "pages": None, "finding": None, "uncleared": Report.model_fields["uncleared"].default}
    return [said.model_copy(update=later) for said in reports(kind)]


OWNER: Owner = example(Owner).model_copy(update={"kind": "DatabaseRestore"})
FIRST_OPTIONS = example(BackupOptions).model_copy(update={"exclude_schemas": None, "exclude_extensions": None})
FIRST_SPECS = [
    spec(kind).model_copy(update={"owner": OWNER, "lifetime": None, "inventory": None, "prune": None, "serve": None, "backup": FIRST_OPTIONS})
    for kind in FIRST_KINDS
]
WITHOUT_NEWS = [said.fit() for kind in FIRST_KINDS for said in first_readable(kind)]
WITH_NEWS = [text for kind in FIRST_KINDS if (text := reports(kind)[0].fit()) not in WITHOUT_NEWS]
OBJECTS = [backup_obj(), restore_obj()]
First = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    """What 0.1 writes, and what of this version's it refuses."""
    tree = subprocess.run([ROOT / "tests" / "upgrade" / "first-tree.sh"], check=True, capture_output=True, text=True).stdout.strip()
    source = subprocess.run(["git", "-C", ROOT, "archive", tree, "operator/dbbackup"], check=True, capture_output=True).stdout
    folder = tmp_path_factory.mktemp("first")
    subprocess.run(["tar", "-x", "-C", folder], input=source, check=True)
    whole: Manifest = example(Manifest)
    news = {"expires_at": None, "schedule": None, "catalog": None}
    options = whole.options.model_copy(update={"exclude_schemas": None, "exclude_extensions": None})
    contents = whole.contents.model_copy(update={"configuration": None})
    database = whole.database.model_copy(update={"search_path": None})
    manifest = whole.model_copy(update={"owner": OWNER, **news, "database": database, "options": options, "contents": contents})
    records = [example(model).model_copy(update={"owner": OWNER}) for model in (TransactionRecord, Tombstone)]
    ours = {
        "reports": WITHOUT_NEWS + WITH_NEWS,
        "specs": [ordered.to_json() for ordered in FIRST_SPECS],
        "lines": [line(event) for event in EVENTS if event != "page"],
        "manifests": [manifest.to_bytes().decode()],
        "transactions": [record.to_json() for record in records],
        "objects": [json.dumps([obj, storage_obj()]) for obj in OBJECTS],
    }
    script = ROOT / "tests" / "unit" / "support" / "first_version.py"
    environment = {**os.environ, "PYTHONPATH": str(folder / "operator")}
    answer = subprocess.run([sys.executable, script], input=json.dumps(ours), env=environment, check=True, capture_output=True, text=True)
    result: First = json.loads(answer.stdout)
    return result


def test_reports_of_the_first_version_are_read(first: First) -> None:
    assert len(first["writes"]["reports"]) == 4 * len(FIRST_KINDS)
    for text in first["writes"]["reports"]:
        read = parse_report(text, UID, json.loads(text)["run"])
        assert read is not None
        assert json.loads(read.to_json()) == json.loads(text)


def test_orders_of_the_first_version_are_carried_out(first: First) -> None:
    assert {json.loads(text)["run"] for text in first["writes"]["specs"]} == set(FIRST_KINDS)
    for text in first["writes"]["specs"]:
        assert json.loads(RunSpec.model_validate_json(text).to_json()) == json.loads(text)


def test_log_lines_of_the_first_version_are_read(first: First) -> None:
    events = {json.loads(text)["event"]: text for text in first["writes"]["lines"]}
    assert set(events) == set(EVENTS) - {"page"}
    assert all(readable(text).endswith(" debug text") or readable(text).endswith(" text") for text in events.values())
    views = {event: after_line(LogView(), text) for event, text in events.items()}
    assert (views["key"].key, views["transaction"].xid, views["waiting"].waiting) == ("text", "text", "text")
    assert views["progress"].progress is not None


def test_what_the_first_version_left_in_a_bucket_is_read(first: First) -> None:
    for text in first["writes"]["manifests"]:
        assert json.loads(parse_manifest(text.encode(), "key").to_bytes()) == json.loads(text)
    record, tombstone = (parse_transaction(text.encode()) for text in first["writes"]["transactions"])
    assert (type(record), type(tombstone)) == (TransactionRecord, Tombstone)


@pytest.mark.parametrize("number", range(len(OBJECTS)), ids=["backup", "restore"])
def test_a_run_that_the_first_version_began_is_followed_to_its_end(first: First, number: int) -> None:
    obj, begun = OBJECTS[number], json.loads(first["writes"]["begun"][number])
    kind = ("backup", "restore")[number]
    obj, held = {**obj, "status": begun["status"]}, job(begun["job"])
    ordered = spec_of([held])
    assert ordered is not None
    assert ordered.run == kind
    running = decide(facts(obj, jobs=[held], pods=[pod(kind, state=RUNNING)], after=2))
    assert (running.status or {})["phase"] == "Running"
    [said, *_] = [text for text in first["writes"]["reports"] if json.loads(text)["run"] == kind and json.loads(text)["outcome"] == "Succeeded"]
    ended = decide(facts(obj, jobs=[held], pods=[pod(kind, code=0, message=said)], after=9))
    assert ((ended.status or {})["phase"], [found["metadata"]["name"] for found in ended.delete]) == ("Completed", [held["metadata"]["name"]])


def test_the_first_version_reads_what_has_no_news_in_it(first: First) -> None:
    """On the way back from an upgrade. It refuses fields that it does not know, as no later version
    does: such a report is none to it, and a check settles the run."""
    assert first["refuses"] == {"reports": WITH_NEWS, "specs": [], "lines": [], "manifests": [], "transactions": []}
    assert WITH_NEWS
