"""Completion for kubectl: `kubectl_complete-dbbackup` gets the words after `kubectl dbbackup`, the
last of them unfinished. It prints one candidate per line (a tab before its description), then a
directive."""

from __future__ import annotations

import sys
from collections.abc import Sequence

NO_FILES = 4
"""Directive of cobra: the shell offers no files of its own."""
DEFAULT = 0


def complete(words: Sequence[str]) -> int:
    from click.shell_completion import ShellComplete  # noqa: PLC0415

    from dbbackup.cli.app import PROGRAM, cli  # noqa: PLC0415

    *before, incomplete = words or [""]
    directive = NO_FILES
    try:
        found = ShellComplete(cli, {}, PROGRAM, "").get_completions(before, incomplete)
    except Exception:  # noqa: BLE001 - a completion never disturbs the person who types
        found = []
    for item in found:
        if item.type in ("file", "dir"):
            directive = DEFAULT
        else:
            sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write(f":{directive}\n")
    return 0


def entry() -> None:
    """The console script that kubectl looks for."""
    sys.exit(complete(sys.argv[1:]))
