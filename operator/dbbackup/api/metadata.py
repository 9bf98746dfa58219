"""The project's labels, annotations and finalizer, each name once. It imports nothing, so that the
kubectl plugin may use it too."""

from __future__ import annotations

GROUP = "dbbackup.io"

FINALIZER = f"{GROUP}/artifact"

SCHEDULE = f"{GROUP}/schedule"
"""Label of a backup that a schedule made: the schedule's name."""
RUN = f"{GROUP}/run"
"""Label of Jobs and pods: the kind of run."""
OWNER_UID = f"{GROUP}/owner-uid"
OWNER_KIND = f"{GROUP}/owner-kind"
OWNER_NAME = f"{GROUP}/owner-name"
TOOL = f"{GROUP}/tool"
"""Label of the pods that people make by `kubectl dbbackup`."""

SCHEDULED_AT = f"{GROUP}/scheduled-at"
PIN = f"{GROUP}/pin"
SUSPEND = f"{GROUP}/suspend"
RUN_NOW = f"{GROUP}/run-now"
APPROVE_PRUNE = f"{GROUP}/approve-prune"
IMPORT = f"{GROUP}/import"
CHECK_NOW = f"{GROUP}/check-now"
RPO = f"{GROUP}/rpo"
"""Of a schedule: how old the newest good backup of its databases may be, for the alert; `never` for
no limit."""
REQUESTED_BY = f"{GROUP}/requested-by"
"""The person for whom an object was written. The chart's ValidatingAdmissionPolicy keeps it
honest."""
