"""`tests.bench.job` with its S3 requests counted by operation: `python -m tests.bench.counted_job
DIRECTORY` leaves them in calls.json."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench import job

from dbbackup.dataplane.bucket import open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep import inventory
from dbbackup.storage.base import Storage


def main() -> int:
    calls: Counter[str] = Counter()

    def opened(run: Run, *, create: bool | None = None) -> Storage:
        from botocore.client import BaseClient  # noqa: PLC0415 - as late as the run itself imports it

        send = vars(BaseClient)["_make_api_call"]

        def counted(client: Any, operation: str, parameters: Any) -> Any:
            calls[operation] += 1
            return send(client, operation, parameters)

        setattr(BaseClient, "_make_api_call", counted)  # noqa: B010 - the types do not tell of it
        return open_bucket(run, create=create)

    vars(inventory)["open_bucket"] = opened
    code = job.main()
    (Path(sys.argv[1]) / "calls.json").write_text(json.dumps(calls))
    return code


if __name__ == "__main__":
    sys.exit(main())
