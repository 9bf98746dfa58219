"""The project's labels, annotations and finalizer, each name once. It imports nothing, so that the kubectl plugin may use it too."""

from __future__ import annotations

FINALIZER = "dbbackup.io/artifact"

SCHEDULE = "dbbackup.io/schedule"
"""Label of a backup that a schedule made: the schedule's name."""
RUN = "dbbackup.io/run"
"""Label of Jobs and pods: the kind of run."""
TOOL = "dbbackup.io/tool"
"""Label of the pods that people make by `kubectl dbbackup`."""

SCHEDULED_AT = "dbbackup.io/scheduled-at"
PIN = "dbbackup.io/pin"
SUSPEND = "dbbackup.io/suspend"
RUN_NOW = "dbbackup.io/run-now"
APPROVE_PRUNE = "dbbackup.io/approve-prune"
IMPORT = "dbbackup.io/import"
CHECK_NOW = "dbbackup.io/check-now"
RPO = "dbbackup.io/rpo"
"""Of a schedule: how old the newest good backup of its databases may be, for the alert; `never` for no limit."""
REQUESTED_BY = "dbbackup.io/requested-by"
"""The person for whom an object was written. The chart's ValidatingAdmissionPolicy keeps it honest."""
