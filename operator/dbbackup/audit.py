"""The audit line: who did what to which object, and with what outcome. The operator, the console
and a pod that hands out artifacts write it in this one shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dbbackup.text import cut

log = logging.getLogger("dbbackup.audit")
# Also where the process itself logs warnings only: an audit log must have no gaps.
log.setLevel(logging.INFO)

UNKNOWN = "unknown"
"""`who` or `via`, where it is not known."""
VALUE_LIMIT = 1024
"""Characters of one value. Users choose names and addresses: they must not be able to make a line
longer than a log collector accepts."""

Outcome = Literal["allowed", "refused", "succeeded", "failed"]
"""A line with "refused" is a security warning."""


@dataclass(frozen=True, slots=True)
class Line:
    """One action on one object. Empty fields are left out of the log; no field may hold a
    secret."""

    action: str
    who: str
    """A person as Kubernetes names them, or UNKNOWN."""
    via: str
    """What they used: console, cli, or a field manager."""
    outcome: Outcome = "allowed"
    kind: str = ""
    namespace: str = ""
    name: str = ""
    target: str = ""
    """What the object is about: a database, a bucket, an artifact."""
    source: str = ""
    """Where the action came from: an address, or a field manager."""
    reason: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further fields, by their names in the log."""


def record(line: Line) -> None:
    """Logs the line on logger `dbbackup.audit`: level INFO, or WARNING with `security` true where
    the outcome is "refused"."""
    values = {
        **line.extra,
        "action": line.action,
        "who": line.who,
        "via": line.via,
        "outcome": line.outcome,
        "kind": line.kind,
        "namespace": line.namespace,
        "name": line.name,
        "target": line.target,
        "source": line.source,
        "reason": line.reason,
    }
    refused = line.outcome == "refused"
    fields: dict[str, Any] = {"audit": True}
    if refused:
        fields["security"] = True
    fields.update({key: cut(value, VALUE_LIMIT) for key, value in values.items() if value})
    what = " ".join(part for part in (line.kind, f"{line.namespace}/{line.name}".strip("/")) if part)
    message = f"{cut(line.who, VALUE_LIMIT)}: {line.action} {cut(what, VALUE_LIMIT)}".rstrip() + f": {line.outcome}"
    # In one attribute, as a LogRecord has a `name` of its own; JsonFormatter spreads it.
    log.log(logging.WARNING if refused else logging.INFO, "%s", message, extra={"audited": fields})
