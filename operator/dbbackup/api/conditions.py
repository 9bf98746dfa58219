"""Conditions as kstatus reads them: Helm, Flux and Argo CD wait for our objects and stop at
failures.

In progress: Reconciling=True, Ready=False. Done: Ready=True. Failed for good: Ready=False,
Stalled=True, with the failure's reason. Finished is True on either outcome: `kubectl wait
--for=condition=Ready` on a failed run would hang to its timeout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from dbbackup.text import cut

Condition = dict[str, Any]
State = Literal["progressing", "done", "failed"]

MESSAGE_LIMIT = 4096
"""Characters. The CRDs allow more, but a longer message is not read."""
CONDITIONS = 16
"""Most conditions that the CRDs allow."""

_STATUSES: dict[State, dict[str, str]] = {
    "progressing": {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"},
    "done": {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"},
    "failed": {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"},
}


def instant(text: object) -> datetime | None:
    """The time in a field of an object, in UTC if it names no zone; None if the text is not a
    time."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) and text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC to the second, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build(
    previous: Iterable[Mapping[str, Any]],
    state: State,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
    finishes: bool = True,
) -> list[Condition]:
    """The conditions of an object in `state`.

    A condition whose status does not change keeps its lastTransitionTime. Conditions of other types
    stay as they are, as far as CONDITIONS leaves room. `finishes` is False for kinds that never
    finish (BackupStorage): they have no Finished.
    """
    wanted = {kind: status for kind, status in _STATUSES[state].items() if finishes or kind != "Finished"}
    message = cut(message, MESSAGE_LIMIT)
    old = {str(condition.get("type")): condition for condition in previous}
    result: list[Condition] = []
    for kind, status in wanted.items():
        before = old.pop(kind, None)
        kept = before is not None and before.get("status") == status and before.get("lastTransitionTime")
        result.append(
            {
                "type": kind,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"] if before is not None and kept else timestamp(now),
                "reason": reason,
                "message": message,
            }
        )
    result.extend(dict(condition) for condition in old.values())
    return result[:CONDITIONS]


def find(conditions: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """The condition of that type."""
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def is_true(conditions: Iterable[Mapping[str, Any]], kind: str) -> bool:
    condition = find(conditions, kind)
    return condition is not None and condition.get("status") == "True"
