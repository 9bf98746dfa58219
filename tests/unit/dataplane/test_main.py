"""Whatever happens in a run, a report is left, and the exit code follows from it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dbbackup.contract.errors import ExitCode, Failure
from dbbackup.contract.mounts import ENVIRONMENT
from dbbackup.contract.report import REPORT_LIMIT, DatabaseReport, Report, RestoredReport
from dbbackup.contract.run import Owner, RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
SPEC = RunSpec(
    run="backup",
    owner=Owner(kind="DatabaseBackup", namespace="n", name="b", uid="u", created_at=NOW),
    storage=StorageTarget(name="default", bucket="b"),
)
DATABASE = DatabaseReport(identity="h:5432/d", name="d", server_version="17", size_bytes=1, tables=1, tls=True)


class Broken(io.StringIO):
    """A stdout that nobody reads any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Report]]:
    """Exit code and report of a run that does `execute`."""

    def run(execute: Callable[[Run], None], stream: io.StringIO | None = None) -> tuple[int, Report]:
        monkeypatch.setattr(main, "import_module", lambda _: SimpleNamespace(execute=execute))
        path = tmp_path / "report"
        code = main.run(SPEC, Paths(termination_log=path), Reporter(stream or io.StringIO()))
        assert path.stat().st_size <= REPORT_LIMIT
        report = Report.model_validate_json(path.read_text())
        assert (report.uid, report.run) == ("u", "backup")
        return code, report

    return run


def succeed(run: Run) -> None:
    run.facts.database = DATABASE


def fail(_run: Run) -> None:
    raise Failure("BucketNotFound", "no bucket\udcff")


def mistype_a_fact(run: Run) -> None:
    run.facts.database = cast("Any", {"identity": object()})


def mistype_a_fact_and_fail(run: Run) -> None:
    mistype_a_fact(run)
    fail(run)


def misname_a_fact(run: Run) -> None:
    run.facts.artefact = DATABASE  # type: ignore[attr-defined]


def warn_with_no_text(run: Run) -> None:
    run.warnings.append(cast("Any", None))


def lose_the_redactor(run: Run) -> None:
    run.reporter.redact = cast("Any", None)
    fail(run)


def lose_everything(run: Run) -> None:
    run.reporter = cast("Any", None)
    run.facts = cast("Any", None)
    run.warnings = cast("Any", None)
    run.uncleared = cast("Any", None)
    run.started_at = cast("Any", "yesterday")
    raise KeyboardInterrupt


def leave(_run: Run) -> None:
    raise SystemExit(0)


@pytest.mark.parametrize("stream", [io.StringIO, Broken])
@pytest.mark.parametrize(
    ("execute", "code", "reason"),
    [
        (succeed, 0, None),
        (fail, ExitCode.STORAGE, "BucketNotFound"),
        (mistype_a_fact, ExitCode.INTERNAL, "InternalError"),
        (mistype_a_fact_and_fail, ExitCode.STORAGE, "BucketNotFound"),
        (misname_a_fact, ExitCode.INTERNAL, "InternalError"),
        (warn_with_no_text, ExitCode.INTERNAL, "InternalError"),
        (lose_the_redactor, ExitCode.STORAGE, "BucketNotFound"),
        (lose_everything, ExitCode.INTERNAL, "InternalError"),
        (leave, ExitCode.INTERNAL, "InternalError"),
    ],
)
def test_a_run_whose_parts_misbehave_leaves_a_report(
    left: Callable[..., tuple[int, Report]], stream: type[io.StringIO], execute: Callable[[Run], None], code: int, reason: str | None
) -> None:
    found, report = left(execute, stream())
    assert (found, report.failure and report.failure.reason) == (code, reason)
    assert report.outcome == ("Failed" if reason else "Succeeded")


def crash(_run: Run) -> None:
    raise OSError(28, "No space left on device")


def stop(run: Run) -> None:
    run.stop.set(Failure("Terminated", "stopped"))
    run.stop.check()


@pytest.mark.parametrize("end", [fail, crash, stop, leave])
def test_what_breaks_after_the_commit_does_not_make_a_restore_failed(left: Callable[..., tuple[int, Report]], end: Callable[[Run], None]) -> None:
    def execute(run: Run) -> None:
        run.facts.restored = RestoredReport(tables=1, rows=2)
        end(run)

    code, report = left(execute)
    assert (code, report.outcome, report.failure) == (0, "Succeeded", None)
    assert report.warnings[0].startswith("the restore was committed; afterwards this failed: ")


def test_a_commit_whose_end_is_not_known_leaves_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(run: Run) -> None:
        run.committing = True
        crash(run)

    monkeypatch.setattr(main, "import_module", lambda _: SimpleNamespace(execute=execute))
    assert main.run(SPEC, Paths(termination_log=tmp_path / "report"), Reporter(io.StringIO())) == ExitCode.TRANSIENT
    assert not (tmp_path / "report").exists()


def test_every_stop_callback_is_called_though_one_raises() -> None:
    called: list[str] = []

    def broken() -> None:
        raise ValueError

    halt = Stop()
    halt.on_stop(broken)
    halt.on_stop(lambda: called.append("second"))
    halt.set(Failure("Terminated", "stopped"))
    assert called == ["second"]


def test_what_the_run_has_found_is_in_its_report(left: Callable[..., tuple[int, Report]]) -> None:
    def execute(run: Run) -> None:
        succeed(run)
        run.warn("careful")
        run.facts.finding = "NoEffect"
        fail(run)

    report = left(execute)[1]
    assert (report.database, report.warnings, report.finding) == (DATABASE, ("careful",), "NoEffect")


def test_a_report_that_could_not_be_made_lets_a_check_look(left: Callable[..., tuple[int, Report]]) -> None:
    assert left(mistype_a_fact)[1].uncleared


def test_a_finding_stands_though_the_run_was_stopped_meanwhile(left: Callable[..., tuple[int, Report]]) -> None:
    def execute(run: Run) -> None:
        run.stop.set(Failure("Timeout", "too late"))
        run.facts.finding = "NoEffect"
        raise Failure("RunLost", "nothing was changed")

    assert left(execute)[1].failure is not None
    report = left(execute)[1]
    assert (report.finding, report.failure and report.failure.reason) == ("NoEffect", "RunLost")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run": "backup"}'])
def test_a_spec_without_an_owner_is_said_to_be_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setattr(main, "Paths", lambda: Paths(termination_log=tmp_path / "report"))
    monkeypatch.setenv(ENVIRONMENT, text)
    assert main.main() == ExitCode.INTERNAL
    assert ENVIRONMENT in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_spec_of_another_version_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = json.loads(SPEC.to_json()) | {"storage": {"kind": "tape"}}
    monkeypatch.setattr(main, "Paths", lambda: Paths(termination_log=tmp_path / "report"))
    monkeypatch.setenv(ENVIRONMENT, json.dumps(spec))
    assert main.main() == ExitCode.INTERNAL
    report = Report.model_validate_json((tmp_path / "report").read_text())
    assert (report.uid, report.failure and report.failure.reason) == ("u", "InternalError")
