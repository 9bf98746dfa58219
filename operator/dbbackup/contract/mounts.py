"""Where a Job finds what it is given. Plain values, for those too who must start fast and so import no models."""

from __future__ import annotations

ENVIRONMENT = "DBBACKUP_RUN"
"""The variable that holds the run, as JSON."""
TERMINATION_LOG = "/dev/termination-log"

# What the Job mounts (all read-only but SCRATCH, a small memory volume).
SCRATCH = "/tmp"
DATABASE_SECRET = "/run/dbbackup/database"
DATABASE_CA = "/run/dbbackup/database-ca"
STORAGE_SECRET = "/run/dbbackup/storage"
STORAGE_CA = "/run/dbbackup/storage-ca"
