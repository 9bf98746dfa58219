"""Progress on stderr: at a terminal one line that is redrawn in place, elsewhere a line every ten
seconds. stdout contains only the result."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from dbbackup.api.units import size_text
from dbbackup.cli import output
from dbbackup.cli.output import clean, say_err

LINE_SECONDS = 10.0
"""Between two lines where stderr is not a terminal."""
REDRAW_SECONDS = 0.1
RATE_SECONDS = 10.0
"""The rate of a download is the average over the last so many seconds."""
BAR_WIDTH = 30
_CLEAR = "\r\x1b[2K"
_SPINNER = "|/-\\"


@contextmanager
def redrawn(text: Callable[[], str]) -> Iterator[None]:
    """Shows `text()` as the last line of the terminal until the end, and then clears it. Lines
    written by `output.say` meanwhile appear above it."""
    stopped = threading.Event()

    def draw() -> None:
        while not stopped.wait(REDRAW_SECONDS):
            with output.WRITING:
                _write(_CLEAR + text()[: _columns() - 1])

    thread = threading.Thread(target=draw, daemon=True)
    output.clear_line = partial(_write, _CLEAR)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        output.clear_line = None
        _write(_CLEAR)


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal has gone
        sys.stderr.write(text)
        sys.stderr.flush()


def _columns() -> int:
    """The width of the terminal behind stderr: stdout may be a pipe."""
    with suppress(OSError, ValueError):
        return int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


def bar(share: float | None, seconds: float) -> str:
    """`[=====>    ]` for a share from 0 to 1; a mark that moves with time if it is unknown."""
    if share is None:
        at = int(seconds * 10) % (2 * (BAR_WIDTH - 3))
        at = min(at, 2 * (BAR_WIDTH - 3) - at)
        return f"[{' ' * at}<=>{' ' * (BAR_WIDTH - 3 - at)}]"
    full = int(min(max(share, 0.0), 1.0) * BAR_WIDTH)
    return f"[{('=' * full + '>')[:BAR_WIDTH]:<{BAR_WIDTH}}]"


def clock_text(seconds: float) -> str:
    """0:01:05."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def spinner(seconds: float) -> str:
    return _SPINNER[int(seconds * 8) % len(_SPINNER)]


class ByteCounter:
    """How many of `total` bytes have arrived, as text. Called with the number of new bytes; a
    negative number takes bytes back."""

    def __init__(self, total: int, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._what, self._clock = total, clean(what), clock
        self._done, self._said = 0, clock()
        self._samples = deque([(self._said, 0)])

    def add(self, more: int) -> None:
        self._done += more
        now = self._clock()
        if now - self._samples[-1][0] >= REDRAW_SECONDS:
            self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()

    def line(self) -> str:
        """For a terminal: bar, bytes, rate, time left."""
        now = self._clock()
        since, before = self._samples[0]
        rate = max(self._done - before, 0) / max(now - since, REDRAW_SECONDS)
        left = clock_text((self._total - self._done) / rate) if rate else "-:--:--"
        share = self._done / max(self._total, 1)
        return f"{self._what} {bar(share, now)} {size_text(self._done)} of {size_text(self._total)}, {size_text(int(rate))}/s, {left}"

    def add_and_say(self, more: int) -> None:
        """For a pipe: counts, and writes a line when the last is old enough."""
        self._done += more
        if self._clock() - self._said >= LINE_SECONDS:
            self._said = self._clock()
            percent = 100 * self._done // max(self._total, 1)
            say_err(f"{self._what}: {size_text(self._done)} of {size_text(self._total)} ({percent} %)")


@contextmanager
def downloading(total: int, what: str, *, quiet: bool = False) -> Iterator[Callable[[int], object]]:
    """Yields a function that is called with the number of bytes that have arrived."""
    counter = ByteCounter(total, what)
    if quiet:
        yield lambda _: None
    elif output.interactive():
        with redrawn(counter.line):
            yield counter.add
    else:
        yield counter.add_and_say
