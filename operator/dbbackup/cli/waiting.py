"""Waits for the end of a run, with a moving bar on a terminal, else with a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dbbackup.api.conditions import find, is_true
from dbbackup.api.objects import Raw
from dbbackup.api.units import size_text
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import clean, count, interactive, paint, say_err, size
from dbbackup.cli.progress import LINE_SECONDS, bar, clock_text, redrawn, spinner

TAIL_LINES = 20


def finished(obj: Raw) -> bool:
    return is_true((obj.get("status") or {}).get("conditions") or (), "Finished")


def wait_for(kube: Kubectl, obj: Raw, timeout: float) -> int:
    """Waits until the backup or restore has ended, prints the result, returns the exit code."""
    kind, name, uid = obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"]
    with showing(name) as show:
        for seen in kube.watch(kind, name, timeout):
            if seen is None or seen["metadata"]["uid"] != uid:
                raise CliError(f"{kind} {name} was deleted", CliExit.FAILED)
            show(seen)
            if finished(seen):
                obj = seen
                break
        else:
            hint = f"The run continues: `kubectl dbbackup describe {name} -n {kube.namespace}` shows it."
            raise CliError(f"{kind} {name} has not ended within {timeout:.0f} s", CliExit.TIMEOUT, hint)
    return print_end({**obj, "kind": kind})


def print_end(obj: Raw) -> int:
    """One line for success; for a failure its message, its hint and the end of the log."""
    name, status = obj["metadata"]["name"], obj["status"]
    phase = status.get("phase", "Failed")
    for warning in status.get("warnings") or ():
        say_err(f"{paint('warning:', 'yellow', err=True)} {clean(warning)}")
    if phase == "Completed":
        say_err(f"{paint('Completed', 'green', bold=True, err=True)} {name}: {clean(summary(obj))}")
        return CliExit.OK
    failure = status.get("failure") or {}
    say_err(f"{paint(phase, 'red', bold=True, err=True)} {name}: {clean(failure.get('reason', ''))}: {clean(failure.get('message', ''))}")
    if failure.get("hint"):
        say_err(clean(failure["hint"]))
    for line in str(failure.get("logTail") or "").splitlines()[-TAIL_LINES:]:
        say_err(f"  | {clean(line)}")
    return CliExit.FAILED


def summary(obj: Raw) -> str:
    """The result of a Completed run."""
    status = obj["status"]
    database = (status.get("database") or {}).get("identity") or (status.get("database") or {}).get("name") or ""
    took = f"in {status['duration']}" if status.get("duration") else ""
    if obj["kind"] == "DatabaseRestore":
        restored = status.get("restored") or {}
        parts = [database, count(restored.get("tables", 0), "table")]
        if "rows" in restored:
            parts.append(count(restored["rows"], "row"))
        safety = f"; the previous content is in {status['safetyBackup']['key']}" if status.get("safetyBackup") else ""
        return " ".join((", ".join(parts), took)).strip() + safety
    parts = [database, status.get("size") or size(status.get("sizeBytes"))]
    return " ".join((", ".join(part for part in parts if part), took)).strip()


def progress_text(obj: Raw) -> tuple[str, float | None]:
    """What the run is doing, for one line, and the percentage done, or None if it is unknown."""
    status = obj.get("status") or {}
    phase = status.get("phase") or "Pending"
    progress = status.get("progress") or {}
    if phase != "Running" or not progress:
        ready = find(status.get("conditions") or (), "Ready")
        return (phase if phase != "Pending" or ready is None else f"Pending: {ready.get('message', '')}"), None
    parts = [progress.get("phase") or "running"]
    if progress.get("tablesTotal"):
        parts.append(f"{progress.get('tablesDone', 0)} of {count(progress['tablesTotal'], 'table')}")
    if progress.get("bytesRead"):
        stored = progress.get("bytesStored")
        parts.append(size_text(progress["bytesRead"]) + (f" read, {size_text(stored)} stored" if stored else " read"))
    percent = progress.get("percent")
    return ", ".join(parts), None if percent is None else float(percent)


@contextmanager
def showing(name: str) -> Iterator[Callable[[Raw], None]]:
    """Yields a function that is called with the object each time it has changed."""
    if not interactive():
        yield _lines(name)
        return
    began, text, percent = time.monotonic(), "", None

    def show(obj: Raw) -> None:
        nonlocal text, percent
        text, percent = progress_text(obj)

    def line() -> str:
        seconds = time.monotonic() - began
        share = None if percent is None else percent / 100
        return f"{spinner(seconds)} {name} {bar(share, seconds)} {clean(text)} {clock_text(seconds)}"

    with redrawn(line):
        yield show


def _lines(name: str, clock: Callable[[], float] = time.monotonic) -> Callable[[Raw], None]:
    last, at = "", -LINE_SECONDS

    def show(obj: Raw) -> None:
        nonlocal last, at
        text, percent = progress_text(obj)
        changed = text.split(",")[0] != last.split(",", maxsplit=1)[0]
        if not finished(obj) and text != last and (changed or clock() - at >= LINE_SECONDS):
            say_err(f"{name}: {clean(text)}" + (f" ({percent:.0f} %)" if percent is not None else ""))
            last, at = text, clock()

    return show
