"""The entry point of the image: `python -m dbbackup operator`, `run` (inside a Job) or
`console`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    # Imports stay inside: a Job must not load kopf, nor the operator boto3.
    if command == "run":
        from dbbackup.dataplane.main import main as run_main  # noqa: PLC0415

        leave(run_main())
    if command == "operator":
        from dbbackup.handlers.main import main as operator_main  # noqa: PLC0415

        raise SystemExit(operator_main())
    if command == "console":
        from dbbackup.console.main import main as console_main  # noqa: PLC0415

        raise SystemExit(console_main())
    sys.stderr.write("usage: python -m dbbackup operator | run | console\n")
    raise SystemExit(2)


def leave(code: int) -> NoReturn:
    """Ends a Job's process: taking the interpreter down would cost 0.1 s, with the work done."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
