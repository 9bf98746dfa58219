"""One Job's run: `main()` reads the spec, runs it and writes the report. The only place that writes
the termination message.

The exit code follows from the report's reason; the operator's retries follow from the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from dbbackup.contract.errors import REASONS, ExitCode, Failure
from dbbackup.contract.mounts import ENVIRONMENT
from dbbackup.contract.report import FailureReport, Report
from dbbackup.contract.run import RunSpec
from dbbackup.dataplane.context import Facts, Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths

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
_OVER_STOP = frozenset({"DatabaseBusy", "OutcomeUnknown"})
"""Reasons that say more than that the run was stopped."""
TIMEOUT_GRACE = 90.0
"""Seconds that a run has for clearing up after its timeout; within the Job's own deadline."""
SIGTERM_GRACE = 20.0
"""Seconds after SIGTERM; the kubelet's SIGKILL comes after 30."""


def main() -> int:
    """The exit code of the run that the environment asks for."""
    text = os.environ.get(ENVIRONMENT, "")
    try:
        spec = RunSpec.model_validate_json(text)
    except ValueError as error:
        sys.stderr.write(f"{ENVIRONMENT} does not hold a run spec: {error}\n")
        return _report_unreadable_spec(text, Paths().termination_log)
    return run(spec)


def run(spec: RunSpec, paths: Paths | None = None, reporter: Reporter | None = None) -> int:
    """Runs `spec` and writes its report; returns the exit code. Never raises."""
    context = Run(spec, paths or Paths(), reporter or Reporter(), Stop())
    failure: Failure | None = None
    try:
        with _bounded(context):
            failure = _attempt(context)
    except BaseException as error:  # noqa: BLE001 - whatever happens, a report is left
        failure = failure or _defect(context, error)
    with suppress(Exception):
        if failure and context.facts.restored:  # committed: what broke afterwards cannot change that
            warning = f"the restore was committed; afterwards this failed: {failure}"
            failure = None
            context.warn(warning)
    if failure and context.committing:
        with suppress(Exception):
            context.reporter.error(f"the outcome is not known; the next attempt or a check Job will find it out: {failure}")
        return ExitCode.TRANSIENT
    return _report(context, failure)


def _attempt(context: Run) -> Failure | None:
    """How the run failed, or None. A run that was stopped fails for the reason of the stop, not for
    what broke because of it."""
    try:
        part = import_module(f"dbbackup.dataplane.{_PARTS[context.spec.run]}")
        part.execute(context)
    except Failure as failure:
        decided = failure.reason.name in _OVER_STOP or context.facts.finding is not None
        return failure if decided else context.stop.failure or failure
    except BaseException as error:  # noqa: BLE001 - whatever happens, a report is left
        return context.stop.failure or _defect(context, error)
    return None


def _defect(context: Run, error: BaseException) -> Failure:
    with suppress(Exception):
        context.reporter.error("the run ended with an exception", traceback="".join(traceback.format_exception(error)))
    return Failure("InternalError", f"{type(error).__name__}; the log of the Job's pod has the traceback")


def _report(context: Run, failure: Failure | None) -> int:
    """Writes the report to the log and to the termination message; returns the exit code."""
    try:
        report = _build_report(context, failure)
    except Exception as error:  # noqa: BLE001 - what cannot be said must not hide how the run ended
        failure = failure or _defect(context, error)
        report = _least_report(context, failure)
    code = failure.reason.exit_code if failure else ExitCode.OK
    try:
        context.paths.termination_log.write_text(report.fit())
    except Exception as error:  # noqa: BLE001
        code = code or ExitCode.INTERNAL
        with suppress(Exception):
            context.reporter.error(f"the termination message could not be written: {error}")
    # The last line, and not before the report: a reader of the log that hangs must not hold it up.
    with suppress(Exception):
        context.reporter.report(report, context.reporter.redact(str(failure)) if failure else "Succeeded")
    return code


def _build_report(context: Run, failure: Failure | None) -> Report:
    redact, reason = context.reporter.redact, failure.reason if failure else None
    return Report(
        run=context.spec.run,
        uid=context.spec.owner.uid,
        outcome="Failed" if failure else "Succeeded",
        started_at=context.started_at,
        finished_at=datetime.now(UTC),
        failure=FailureReport(reason=reason.name, message=redact(failure.message), hint=redact(failure.hint), retryable=reason.retryable)
        if failure and reason
        else None,
        warnings=tuple(redact(warning) for warning in context.warnings),
        uncleared=True if failure is not None and context.uncleared else None,
        **{field.name: getattr(context.facts, field.name) for field in fields(Facts)},
    )


def _least_report(context: Run, failure: Failure) -> Report:
    """Without anything that the run has found or said: a check Job looks at what it has left."""
    now = datetime.now(UTC)
    reason = failure.reason
    return Report(
        run=context.spec.run,
        uid=context.spec.owner.uid,
        outcome="Failed",
        started_at=now,
        finished_at=now,
        failure=FailureReport(
            reason=reason.name,
            message="the run's report could not be made; the log of the Job's pod says more",
            hint=reason.hint,
            retryable=reason.retryable,
        ),
        uncleared=True,
    )


def _report_unreadable_spec(text: str, termination_log: Path) -> int:
    """Leaves a report also where this version cannot read the spec, but finds its owner."""
    now = datetime.now(UTC)
    reason = REASONS["InternalError"]
    message = "this version of the image cannot read the run's spec; operator and image must be of the same version"
    with suppress(Exception):
        spec = json.loads(text)
        report = Report(
            run=spec["run"],
            uid=spec["owner"]["uid"],
            outcome="Failed",
            started_at=now,
            finished_at=now,
            failure=FailureReport(reason=reason.name, message=message, hint=reason.hint, retryable=reason.retryable),
        )
        termination_log.write_text(report.fit())
    return ExitCode.INTERNAL


@contextmanager
def _bounded(context: Run) -> Iterator[None]:
    """Stops the run at its timeout and at SIGTERM; ends the process where a stopped run does not
    end by itself."""
    stop = context.stop
    seconds = context.spec.timeout_seconds
    timeout = _timer(seconds, lambda: stop.set(Failure("Timeout", f"the run did not finish within its timeout of {seconds} s")))
    timers = [timeout]
    ended = threading.Event()

    def limit_clearing_up() -> None:
        terminated = stop.failure is not None and stop.failure.reason.name == "Terminated"
        timers.append(_timer(SIGTERM_GRACE if terminated else TIMEOUT_GRACE, lambda: _give_up(context)))
        if ended.is_set():  # the run noticed the stop, and was over, before this was called
            timers[-1].cancel()

    stop.on_stop(limit_clearing_up)
    with _on_sigterm(lambda: stop.set(Failure("Terminated", "the run was stopped (SIGTERM)"))):
        try:
            yield
        finally:
            ended.set()
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
    """The run was stopped and has not ended: report what is known and leave, without a report where
    a COMMIT or a seal may have taken effect."""
    committing = context.committing  # before what a COMMIT that ends meanwhile sets
    if context.facts.restored:  # committed: what is still under way can't change that
        os._exit(_report(context, None))
    failure = context.stop.failure or Failure("Timeout", "the run did not end")
    code: int = failure.reason.exit_code
    if not committing:
        left = f": {'; '.join(sorted(context.uncleared))}" if context.uncleared else ""
        code = _report(
            context, Failure(failure.reason.name, f"{failure.message}; what it had stored could not be removed in time{left}", failure.hint)
        )
    os._exit(code)
