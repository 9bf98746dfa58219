from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.contract.report import LogEvent, Progress, Report
from dbbackup.dataplane.logs import MASK, Redactor, Reporter


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
    assert lines(stream)[0]["message"] == "name ?"


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


@pytest.mark.parametrize("secret", ["hunter2", "p@ss/w:rd%", 'quo"te\\d', "ünï cödé", "a$b'c", "multi\nline"])
def test_secrets_never_appear(stream: io.StringIO, secret: str) -> None:
    reporter = Reporter(stream)
    reporter.secret(secret, None, "")
    forms = [
        secret,
        f"postgresql://u:{quote(secret, safe='')}@h/d",
        f"host=h password={secret} x",
        repr(secret),
        json.dumps({"password": secret}),
        f"<{secret}{secret}>",
    ]
    for form in forms:
        reporter.info(form, detail=form)
    written = stream.getvalue()
    for line in lines(stream):
        for text in (line["message"], line["detail"]):
            assert secret not in text
            assert quote(secret, safe="") not in text
            assert MASK in text
    assert json.dumps(secret)[1:-1] not in written


@given(secret=st.text(min_size=4, max_size=30), before=st.text(max_size=20), after=st.text(max_size=20))
def test_any_secret_is_replaced(secret: str, before: str, after: str) -> None:
    redact = Redactor()
    redact.add(secret)
    redacted = redact(before + secret + after)
    assert secret not in redacted or secret in MASK * 3


def test_a_secret_within_another_leaves_no_rest() -> None:
    redact = Redactor()
    redact.add("secret", "secret-and-more")
    assert redact("it is secret-and-more, not secret") == f"it is {MASK}, not {MASK}"


def test_a_short_secret_tears_no_words_apart() -> None:
    redact = Redactor()
    redact.add("db", "a")
    assert redact("password db of dbbackup: a database") == f"password {MASK} of dbbackup: {MASK} database"


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
