"""Output: tables, colours, times. Plain text where there is no terminal, or NO_COLOR is set."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any

import click

from dbbackup.api.conditions import instant
from dbbackup.api.objects import Raw
from dbbackup.api.units import duration_text, size_text

COLOURS = {
    "Completed": "green",
    "Running": "cyan",
    "Pending": "yellow",
    "Failed": "red",
    "Deleting": "yellow",
    "Expired": "bright_black",
    "True": "green",
    "False": "red",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
    "skipped": "bright_black",
}
NONE = "-"
WRITING = threading.Lock()
"""Held while something is written to the terminal."""
clear_line: Callable[[], None] | None = None
"""Set while a line of progress is shown: removes it, so that another line can be written."""


def coloured(stream: IO[Any] | None = None) -> bool:
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """Whether progress may be redrawn in place on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def say(text: str = "", *, err: bool = False) -> None:
    """Writes a line to stdout. Names come from the cluster: control characters in them are shown,
    not obeyed."""
    stream = sys.stderr if err else sys.stdout
    with WRITING:
        if clear_line is not None:
            clear_line()
        stream.write(printable(text) + "\n")
        stream.flush()


def say_err(text: str) -> None:
    """Writes a line to stderr: everything that is not the output proper."""
    say(text, err=True)


def paint(text: str, colour: str | None = None, *, bold: bool = False, err: bool = False) -> str:
    return click.style(text, fg=colour, bold=bold or None) if coloured(sys.stderr if err else sys.stdout) and (colour or bold) else text


_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10, 27)}


def printable(text: str) -> str:
    """Control characters escaped, but for our own escape sequences: `clean` has escaped those in
    values from elsewhere."""
    return text.translate(_SHOWN).encode("utf-8", "backslashreplace").decode()


def clean(value: object) -> str:
    """A value of an object, safe to print on one line of a terminal."""
    return " ".join(str(value).replace("\x1b", "\\x1b").split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, headers: bool = True, colour_column: int | None = None) -> list[str]:
    """Aligned columns; the last is not padded."""
    cells = [[clean(cell) or NONE for cell in row] for row in rows]
    widths = [max([len(name) if headers else 0, *(len(row[at]) for row in cells)]) for at, name in enumerate(head)]
    pads = [*widths[:-1], 0]
    lines = ["   ".join(name.ljust(width) for name, width in zip(head, pads, strict=True)).rstrip()] if headers else []
    colours = coloured()
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, pads, strict=True)]
        if colours and colour_column is not None and (colour := COLOURS.get(row[colour_column])):
            padded[colour_column] = click.style(padded[colour_column], fg=colour)
        lines.append("   ".join(padded).rstrip())
    return lines


def age(text: object, now: datetime) -> str:
    """How long ago, in two units; `-` if there is no time."""
    moment = instant(text)
    return NONE if moment is None else duration_text(max(0.0, (now - moment).total_seconds())).replace(" ", "")


def moment_text(text: object) -> str:
    moment = instant(text)
    return NONE if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def size(value: object) -> str:
    return size_text(value) if isinstance(value, int) else NONE


def slim(obj: Raw) -> Raw:
    """The object without `managedFields`."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def document(value: Any, form: str) -> str:
    """As JSON or YAML, for people and for kubectl apply."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml  # noqa: PLC0415 - slow to import

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=140)).rstrip()


def listing(items: Sequence[Raw], form: str) -> str:
    return document({"apiVersion": "v1", "kind": "List", "items": [slim(item) for item in items]}, form)
