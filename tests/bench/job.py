"""One run of the data plane as a Job would run it, with its mounts in a directory: `python -m
tests.bench.job DIRECTORY`.

The directory holds spec.json (a RunSpec), database/ and storage/ (Secrets), scratch/; the report is
left in report.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dbbackup.__main__ import leave
from dbbackup.contract.run import RunSpec
from dbbackup.dataplane.main import run
from dbbackup.dataplane.paths import Paths


def main() -> int:
    directory = Path(sys.argv[1])
    paths = Paths(
        database_secret=directory / "database",
        database_ca=directory / "database-ca",
        storage_secret=directory / "storage",
        storage_ca=directory / "storage-ca",
        scratch=directory / "scratch",
        termination_log=directory / "report.json",
    )
    return run(RunSpec.model_validate_json((directory / "spec.json").read_text()), paths)


if __name__ == "__main__":
    leave(main())
