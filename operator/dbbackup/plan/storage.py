"""BackupStorage: only its conditions. Whether the bucket can be reached is seen by the runs, which hold the credentials."""

from __future__ import annotations

from typing import Any

from dbbackup.api import conditions
from dbbackup.api.specs import SpecError, parse_storage
from dbbackup.plan.facts import Decision, Facts


def decide(facts: Facts) -> Decision:
    """The conditions of a BackupStorage."""
    if facts.obj["metadata"].get("deletionTimestamp"):
        return Decision()
    state: conditions.State = "done"
    reason, message = "SpecAccepted", "the spec is accepted; the first run that uses it finds out whether the bucket can be reached"
    try:
        parse_storage(facts.obj)
    except SpecError as error:
        state, reason, message = "failed", error.reason.name, error.message
    status = facts.status
    generation = facts.obj["metadata"].get("generation", 1)
    built = conditions.build(status.get("conditions") or (), state, reason, message, generation=generation, now=facts.now, finishes=False)
    wanted: dict[str, Any] = {**status, "observedGeneration": generation, "conditions": built}
    return Decision(status=wanted)
