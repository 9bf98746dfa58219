"""The names of the project's labels, annotations and finalizer. It imports nothing, so that the
kubectl plugin can use it too."""

from __future__ import annotations

GROUP = "dbbackup.io"

FINALIZER = f"{GROUP}/artifact"

SCHEDULE = f"{GROUP}/schedule"
"""Label of a backup that a schedule created: the schedule's name."""
RUN = f"{GROUP}/run"
"""Label of Jobs and pods: the kind of run."""
OWNER_UID = f"{GROUP}/owner-uid"
OWNER_KIND = f"{GROUP}/owner-kind"
OWNER_NAME = f"{GROUP}/owner-name"
TOOL = f"{GROUP}/tool"
"""Label of the pods that `kubectl dbbackup` creates for a person."""

SCHEDULED_AT = f"{GROUP}/scheduled-at"
PIN = f"{GROUP}/pin"
SUSPEND = f"{GROUP}/suspend"
RUN_NOW = f"{GROUP}/run-now"
APPROVE_PRUNE = f"{GROUP}/approve-prune"
IMPORT = f"{GROUP}/import"
CHECK_NOW = f"{GROUP}/check-now"
RPO = f"{GROUP}/rpo"
"""Annotation of a schedule, for the alert: how old the newest good backup of its databases may be;
`never` for no limit."""
REQUESTED_BY = f"{GROUP}/requested-by"
"""Annotation: the person for whom the object was written. The chart's ValidatingAdmissionPolicy
keeps it honest."""
