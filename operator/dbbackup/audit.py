"""The audit line: who did what to which object, and how it went. One shape for the operator, the
console and whatever else acts for people."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("dbbackup.audit")
log.setLevel(logging.INFO)  # also where the process itself logs warnings only: an audit with holes is none

UNKNOWN = "unknown"
"""`who`, where nobody can tell."""
REFUSED = "refused"
"""`outcome` of what was not allowed: such a line is a security warning."""
VALUE_LIMIT = 1024
"""Characters of one value: whoever writes a name must not be able to push a line over what a log
collector takes."""


def record(
    action: str,
    *,
    who: str,
    via: str,
    outcome: str,
    kind: str = "",
    namespace: str = "",
    name: str = "",
    target: str = "",
    source: str = "",
    reason: str = "",
    **more: str,
) -> None:
    """Logs one audit line on logger `dbbackup.audit`: level INFO, or WARNING with `security` true
    where `outcome` is "refused".

    `who` is a person as Kubernetes names them, or UNKNOWN; `via` what they used (console, cli, or a
    field manager); `outcome` is allowed, refused, succeeded or failed; `source` an address or a
    manager. No value may hold a secret. Empty ones are left out.
    """
    told = {
        **more,
        "action": action,
        "who": who,
        "via": via,
        "outcome": outcome,
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "target": target,
        "source": source,
        "reason": reason,
    }
    fields: dict[str, Any] = {"audit": True}
    if outcome == REFUSED:
        fields["security"] = True
    fields.update({key: cut(value) for key, value in told.items() if value})
    what = " ".join(part for part in (kind, f"{namespace}/{name}".strip("/")) if part)
    message = f"{cut(who)}: {action} {cut(what)}".rstrip() + f": {outcome}"
    # In one attribute, as a LogRecord has a `name` of its own; JsonFormatter spreads it.
    log.log(logging.WARNING if outcome == REFUSED else logging.INFO, "%s", message, extra={"audited": fields})


def cut(text: str) -> str:
    """The text, at most VALUE_LIMIT characters of it."""
    return text if len(text) <= VALUE_LIMIT else text[: VALUE_LIMIT - 1] + "…"
