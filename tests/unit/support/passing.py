"""Time that passes at once: what waits is tested without waiting, and alike on a busy machine."""

from __future__ import annotations

import asyncio
import functools
import selectors
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any


class FakeTime:
    """In the place of the module `time` in another module: `sleep` moves the clock on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._later: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for entry in [entry for entry in self._later if entry[0] <= self.now]:
            self._later.remove(entry)
            entry[1]()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Calls `action` when so many seconds have been slept."""
        self._later.append((self.now + seconds, action))


class _NoWait(selectors.DefaultSelector):
    """Whoever would wait for a time is woken at once, and `passed` says how long that was."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        events = super().select(0)
        if not events:
            self.passed += max(timeout, 0.0)
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._no_wait = _NoWait()
        super().__init__(self._no_wait)

    def time(self) -> float:
        return self._no_wait.passed


def at_once(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a test of a coroutine, in whose event loop the clock jumps to the next timer."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test(*args, **fixtures))

    return run


def calls(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, the work calls: the same number on any machine,
    however busy it is."""
    count = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
