"""Where a Job's container finds its run, its Secrets and its report. It imports no models: the
plugin reads it too."""

from __future__ import annotations

CONTAINER = "main"
ENVIRONMENT = "DBBACKUP_RUN"
"""The variable that holds the run spec, as JSON."""
TERMINATION_LOG = "/dev/termination-log"

# What the Job mounts (all read-only but SCRATCH, a small memory volume).
SCRATCH = "/tmp"
DATABASE_SECRET = "/run/dbbackup/database"
DATABASE_CA = "/run/dbbackup/database-ca"
STORAGE_SECRET = "/run/dbbackup/storage"
STORAGE_CA = "/run/dbbackup/storage-ca"
