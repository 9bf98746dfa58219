"""Paths of everything that the Job mounts. The defaults are those of the image and the Job; tests
pass their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbbackup.contract import mounts

DEFAULT_GRACE = 10.0
"""Seconds to wait for a missing Secret: the kubelet fills an optional mount a little after the
Secret was created."""


@dataclass(frozen=True, slots=True)
class Paths:
    """`postgresql` holds one directory per major version, each with `bin/pg_dump` and
    `bin/pg_restore`."""

    database_secret: Path = Path(mounts.DATABASE_SECRET)
    database_ca: Path = Path(mounts.DATABASE_CA)
    storage_secret: Path = Path(mounts.STORAGE_SECRET)
    storage_ca: Path = Path(mounts.STORAGE_CA)
    scratch: Path = Path(mounts.SCRATCH)
    termination_log: Path = Path(mounts.TERMINATION_LOG)
    postgresql: Path = Path("/usr/lib/postgresql")
    secret_grace: float = DEFAULT_GRACE
