from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from dbbackup.contract.report import LogEvent, Progress, Report
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.redaction import MASK


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_line_is_a_log_event(stream: io.StringIO) -> None:
    reporter = Reporter(stream)
    reporter.info("two\nlines", rows=3, table='public."a b"')
    reporter.warn("careful")
    reporter.error("broken")
    reporter.key("team-a/ns/db/x")
    reporter.waiting("another backup holds the database")
    reporter.transaction("4711")
    read = lines(stream)
    for line in stream.getvalue().splitlines():
        LogEvent.model_validate_json(line)
    assert [line["level"] for line in read] == ["info", "warning", "error", "info", "info", "info"]
    assert [line["event"] for line in read] == ["log", "log", "log", "key", "waiting", "transaction"]
    assert read[0] | {"ts": ""} == {"ts": "", "level": "info", "event": "log", "message": "two\nlines", "rows": 3, "table": 'public."a b"'}
    assert read[3]["key"] == "team-a/ns/db/x"
    assert read[5]["xid"] == "4711"
    assert abs(datetime.fromisoformat(read[0]["ts"]).timestamp() - datetime.now(UTC).timestamp()) < 10


def test_what_utf8_cannot_carry_is_written_all_the_same(stream: io.StringIO) -> None:
    Reporter(stream).info("name \udcff", table="\ud800")
    assert lines(stream)[0]["message"] == "name \ufffdff"


def test_progress_is_rare(stream: io.StringIO) -> None:
    clock = Clock()
    reporter = Reporter(stream, clock=clock)
    reporter.progress(Progress(phase="Dumping", bytes_read=1))
    clock.now += 0.75
    reporter.progress(Progress(phase="Dumping", bytes_read=2))
    reporter.progress(Progress(phase="Dumping", bytes_read=2), last=True)
    assert lines(stream) == []
    clock.now += 0.25
    for count in range(50):
        reporter.progress(Progress(phase="Dumping", bytes_read=count, percent=7))
        clock.now += 0.125
    assert [line["progress"]["bytesRead"] for line in lines(stream)] == [0, 8, 16, 24, 32, 40, 48]
    assert lines(stream)[0]["progress"]["percent"] == 7
    reporter.progress(Progress(phase="Dumping", bytes_read=99), last=True)
    assert lines(stream)[-1]["progress"]["bytesRead"] == 99


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("I/O operation on closed file")])
def test_a_log_that_cannot_be_written_never_fails_a_run(error: Exception) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    reporter = Reporter(Broken())
    reporter.info("x")
    reporter.key("k")
    reporter.transaction("1")


def test_lines_of_many_threads_stay_whole(stream: io.StringIO) -> None:
    reporter = Reporter(stream)

    def write() -> None:
        for _ in range(100):
            reporter.info("x" * 500)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 800


def test_secrets_are_masked_in_messages_and_fields(stream: io.StringIO) -> None:
    reporter = Reporter(stream)
    reporter.secret("hunter2!", None, "")
    reporter.info("password=hunter2!", detail="hunter2!")
    (line,) = lines(stream)
    assert (line["message"], line["detail"]) == (f"password={MASK}", MASK)


def test_the_key_is_written_as_it_is(stream: io.StringIO) -> None:
    """The operator needs it, and a password may be the database's name."""
    reporter = Reporter(stream)
    reporter.secret("inventory")
    reporter.key("team-a/inventory/x")
    assert lines(stream)[0]["key"] == "team-a/inventory/x"


def test_the_report_is_the_last_line(stream: io.StringIO) -> None:
    now = datetime.now(UTC)
    Reporter(stream).report(Report(run="backup", uid="u", outcome="Succeeded", started_at=now, finished_at=now), "Succeeded")
    (line,) = lines(stream)
    assert line["event"] == "report"
    assert Report.model_validate(line["report"]).outcome == "Succeeded"
