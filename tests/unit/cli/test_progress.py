"""Progress: bars and lines, and that they do not mix with what is printed."""

from __future__ import annotations

import io
import sys
import time
from types import SimpleNamespace

import pytest

from dbbackup.cli import output, progress
from dbbackup.cli.progress import BAR_WIDTH, ByteCounter, bar, clock_text, downloading, redrawn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    for module in (output, progress):  # pytest sets sys.stderr anew between a fixture and its test
        monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=made, stdout=sys.stdout))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.001)
    return made


@pytest.mark.parametrize("share", [None, -1.0, 0.0, 0.5, 0.999, 1.0, 7.0])
@pytest.mark.parametrize("seconds", [0.0, 2.65, 2.75, 5.39, 100.0])
def test_a_bar_has_one_width(share: float | None, seconds: float) -> None:
    assert len(bar(share, seconds)) == BAR_WIDTH + 2


def test_a_bar_grows() -> None:
    assert bar(0.0, 0) == f"[>{' ' * (BAR_WIDTH - 1)}]"
    assert bar(0.5, 0) == f"[{'=' * 15}>{' ' * 14}]"
    assert bar(1.0, 0) == f"[{'=' * BAR_WIDTH}]"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (65, "0:01:05"), (36_000, "10:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_a_downloads_line() -> None:
    now = 0.0
    counter = ByteCounter(100 << 20, "x.sql", lambda: now)
    assert counter.line().endswith("0 B of 100 MiB, 0 B/s, -:--:--")
    while now < 30:
        now += 1
        counter.add(1 << 20)
    assert counter.line().endswith("30 MiB of 100 MiB, 1 MiB/s, 0:01:10")
    counter.add(-(20 << 20))
    assert "10 MiB of 100 MiB, 0 B/s" in counter.line(), "bytes taken back are no negative rate"


def test_lines_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    counter = ByteCounter(4096, "x.sql", lambda: now)
    for now in (5.0, 9.9, 10.0, 12.0):  # noqa: B007 - the clock reads it
        counter.add_and_say(1024)
    assert capsys.readouterr().err == "x.sql: 3 KiB of 4 KiB (75 %)\n"


def test_nothing_moves_where_it_should_be_quiet(terminal: Terminal) -> None:
    with downloading(10, "x", quiet=True) as add:
        add(5)
    assert terminal.getvalue() == ""


def test_nothing_moves_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with downloading(10, "x") as add:
        add(5)
        time.sleep(2 * progress.REDRAW_SECONDS)
    assert capsys.readouterr() == ("", "")


def test_a_line_that_is_printed_meanwhile_stands_alone(terminal: Terminal) -> None:
    with downloading(10, "x.sql") as add:
        add(5)
        while "5 B of 10 B" not in terminal.getvalue():
            time.sleep(0.001)
        output.say_err("a warning")
    shown = terminal.getvalue()
    assert "\r\x1b[2Ka warning\n" in shown
    assert shown.endswith("\r\x1b[2K"), "nothing is left of it"
    assert output.clear_line is None


def test_it_never_wraps(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    with redrawn(lambda: "0123456789abcdef"):
        while "0" not in terminal.getvalue():
            time.sleep(0.001)
    assert set(terminal.getvalue().split("\r\x1b[2K")) == {"", "012345678"}
