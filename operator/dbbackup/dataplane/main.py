"""One Job's run: `main()` reads the spec, runs it and writes the report. The only place that writes
the termination message.

The exit code follows from the report's reason; the operator's retries follow from the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module

from dbbackup.contract.errors import ExitCode, Failure
from dbbackup.contract.mounts import ENVIRONMENT
from dbbackup.contract.report import FailureReport, Report
from dbbackup.contract.run import RunSpec
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths

__all__ = ["Run", "Stop", "main", "run"]

_PARTS = {
    "backup": "backup.run",
    "restore": "restore.run",
    "check": "upkeep.settle",
    "cleanup": "upkeep.settle",
    "inventory": "upkeep.inventory",
    "prune": "upkeep.prune",
    "discover": "upkeep.discover",
    "serve": "tools.serve",
    "reach": "tools.reach",
}
"""The module that carries out each kind of run."""
_OWN_WORD = frozenset({"DatabaseBusy", "OutcomeUnknown"})
"""Reasons that say more than that the run was told to stop."""
TIMEOUT_GRACE = 90.0
"""Seconds that a run has for clearing up after its timeout; within the Job's own deadline."""
SIGTERM_GRACE = 20.0
"""Seconds after SIGTERM; the kubelet's SIGKILL comes after 30."""


def main() -> int:
    """The exit code of the run that the environment asks for."""
    try:
        spec = RunSpec.model_validate_json(os.environ.get(ENVIRONMENT, ""))
    except ValueError as error:
        sys.stderr.write(f"{ENVIRONMENT} does not hold a run: {error}\n")
        return ExitCode.INTERNAL
    return run(spec)


def run(spec: RunSpec, paths: Paths | None = None, reporter: Reporter | None = None) -> int:
    """Runs `spec` and writes its report; returns the exit code. Never raises."""
    context = Run(spec, paths or Paths(), reporter or Reporter(), Stop())
    with _bounded(context):
        failure = _attempt(context)
    if failure and context.committing:
        context.reporter.error(f"nobody knows whether it took effect, so the next attempt or a check looks: {failure}")
        return ExitCode.TRANSIENT
    return _report(context, failure)


def _attempt(context: Run) -> Failure | None:
    """How the run failed, or None. A run that was told to stop fails by what the stop says, not by
    what broke for it."""
    try:
        part = import_module(f"dbbackup.dataplane.{_PARTS[context.spec.run]}")
        part.execute(context)
    except Failure as failure:
        stopped = None if failure.reason.name in _OWN_WORD else context.stop.failure
        return stopped or failure
    except BaseException as error:  # noqa: BLE001 - whatever happens, there is a report
        context.reporter.error("the run ended with an exception", traceback=traceback.format_exc())
        return context.stop.failure or Failure("InternalError", f"{type(error).__name__}; the log of the Job's pod has the traceback")
    return None


def _report(context: Run, failure: Failure | None) -> int:
    """Writes the report to the log and, whole, to the termination message."""
    redact = context.reporter.redact
    told = (
        FailureReport(reason=failure.reason.name, message=redact(failure.message), hint=redact(failure.hint), retryable=failure.reason.retryable)
        if failure
        else None
    )
    report = Report(
        run=context.spec.run,
        uid=context.spec.owner.uid,
        outcome="Failed" if failure else "Succeeded",
        started_at=context.started_at,
        finished_at=datetime.now(UTC),
        failure=told,
        warnings=tuple(redact(warning) for warning in context.warnings),
        uncleared=failure is not None and bool(context.uncleared),
        **context.facts,
    )
    code = failure.reason.exit_code if failure else ExitCode.OK
    context.reporter.report(report, redact(str(failure)) if failure else "Succeeded")
    try:
        context.paths.termination_log.write_text(report.fit())
    except OSError as error:
        context.reporter.error(f"the termination message could not be written: {error}")
        return code or ExitCode.INTERNAL
    return code


@contextmanager
def _bounded(context: Run) -> Iterator[None]:
    """Stops the run at its timeout and at SIGTERM; ends the process where a stopped run does not
    end by itself."""
    stop = context.stop
    seconds = context.spec.timeout_seconds
    timeout = _timer(seconds, lambda: stop.set(Failure("Timeout", f"the run was not done after {seconds} seconds")))
    timers = [timeout]

    def limit_clearing_up() -> None:
        terminated = stop.failure is not None and stop.failure.reason.name == "Terminated"
        timers.append(_timer(SIGTERM_GRACE if terminated else TIMEOUT_GRACE, lambda: _give_up(context)))

    stop.on_stop(limit_clearing_up)
    with _on_sigterm(lambda: stop.set(Failure("Terminated", "the run was told to stop (SIGTERM)"))):
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()


def _timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """In the main thread only, where Python runs signal handlers. The action has a thread of its
    own: the one interrupted may hold its locks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=action, name="sigterm", daemon=True).start())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _give_up(context: Run) -> None:
    """The run was stopped and has not ended: report what is known and leave. Without a report where
    a COMMIT or a seal may have taken effect."""
    if "restored" in context.facts:  # committed: what is still under way can't change that
        os._exit(_report(context, None))
    failure = context.stop.failure or Failure("Timeout", "the run did not end")
    code: int = failure.reason.exit_code
    if not context.committing:
        left = f": {'; '.join(sorted(context.uncleared))}" if context.uncleared else ""
        code = _report(context, Failure(failure.reason.name, f"{failure.message}; clearing up was not done in time{left}", failure.hint))
    os._exit(code)
