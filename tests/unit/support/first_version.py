"""The first version's models and parsers, in a process of their own: what it writes, and whether it
reads what this version writes.

Run by its path with the first version's source first in PYTHONPATH. Stdin holds what this version
writes, as {sort: [text, ...]}; stdout gets {"writes": {sort: [text, ...]}, "refuses": {sort: [text,
...]}}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

# This file's own folder is first in the path, and tests.* must not be: it imports today's dbbackup.
from models import MOMENT, example  # type: ignore[import-not-found]

from dbbackup import artifact, run  # type: ignore[attr-defined]
from dbbackup.plan import backup, restore
from dbbackup.plan.facts import Facts, Slot
from dbbackup.plan.observe import parse_report
from dbbackup.plan.settings import Settings

UID = "0b1c2d3e-0000-4000-8000-000000000001"


def reports() -> list[str]:
    found = []
    for kind in get_args(run.RunKind):
        whole = example(run.Report).model_copy(update={"run": kind, "uid": UID})
        succeeded = whole.model_copy(update={"outcome": "Succeeded", "failure": None})
        least = example(run.Report, only_required=True).model_copy(update={"run": kind, "uid": UID, "outcome": "Succeeded"})
        facts = {"backup": {"artifact": whole.artifact}, "restore": {"restored": whole.restored}}.get(kind, {})
        failed = whole.model_copy(update={"outcome": "Failed"})
        found += [succeeded, failed, least.model_copy(update=facts), least.model_copy(update={"outcome": "Failed", "failure": whole.failure})]
    return [report.fit() for report in found]


def specs() -> list[str]:
    whole, least = example(run.RunSpec), example(run.RunSpec, only_required=True)
    return [spec.model_copy(update={"run": kind}).to_json() for kind in get_args(run.RunKind) for spec in (whole, least)]


def lines() -> list[str]:
    events = get_args(run.LogEvent.model_fields["event"].annotation)
    return [example(run.LogEvent).model_copy(update={"event": event}).model_dump_json(by_alias=True, exclude_none=True) for event in events]


def begun(text: str) -> str:
    """An object -> its status and its Job once the first version has started its run."""
    obj, storage = json.loads(text)
    module = backup if obj["kind"] == "DatabaseBackup" else restore
    settings = Settings(image="registry/operator@sha256:0", started_at=MOMENT - timedelta(hours=1))
    decision = module.decide(Facts(obj=obj, now=MOMENT, settings=settings, storage=storage, slot=Slot(granted=True)))
    return json.dumps({"job": decision.create, "status": decision.status})


def main() -> None:
    given: dict[str, list[str]] = json.load(sys.stdin)
    writes = {
        "reports": reports(),
        "specs": specs(),
        "lines": lines(),
        "manifests": [example(artifact.Manifest, only_required=least).to_bytes().decode() for least in (False, True)],
        "transactions": [example(artifact.TransactionRecord).to_json(), example(artifact.Tombstone).to_json()],
        "begun": [begun(text) for text in given.pop("objects")],
    }

    def report(text: str) -> object:
        said = json.loads(text)
        return parse_report(text, said["uid"], said["run"])

    readers: dict[str, Callable[[str], Any]] = {
        "reports": report,
        "specs": run.RunSpec.model_validate_json,
        "lines": run.LogEvent.model_validate_json,
        "manifests": lambda text: artifact.parse_manifest(text.encode(), "key"),
        "transactions": lambda text: artifact.parse_transaction(text.encode()),
    }
    refuses: dict[str, list[str]] = {sort: [] for sort in readers}
    for sort, texts in given.items():
        for text in texts:
            try:
                if readers[sort](text) is None:
                    refuses[sort].append(text)
            except Exception:  # noqa: BLE001 - a Failure, or pydantic's error
                refuses[sort].append(text)
    json.dump({"writes": writes, "refuses": refuses}, sys.stdout)


if __name__ == "__main__":
    main()
