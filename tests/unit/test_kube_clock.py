"""The operator's clock: the API server's time, whatever this machine's clock does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.kube import Clock

START = datetime(2026, 11, 23, 1, 0, 0, 250_000, tzinfo=UTC)


class Machine:
    """`true` is the API server's time; this machine's clock is `off` by so much."""

    def __init__(self, off: timedelta = timedelta()) -> None:
        self.true, self.off, self._up = START, off, 1000.0
        self.clock = Clock(self._shown, lambda: self._up)

    def _shown(self) -> float:
        return (self.true + self.off).timestamp()

    def wait(self, seconds: float) -> None:
        self.true += timedelta(seconds=seconds)
        self._up += seconds

    def hear(self, late: float = 0.0) -> None:
        """An answer; its header was written `late` seconds ago, to the whole second."""
        self.clock.heard(format_datetime((self.true - timedelta(seconds=late)).replace(microsecond=0), usegmt=True))

    @property
    def wrong(self) -> float:
        """Seconds by which the clock is ahead."""
        return (self.clock.now() - self.true).total_seconds()


def test_a_machine_that_agrees_is_believed_to_the_microsecond() -> None:
    machine = Machine()
    machine.hear()
    machine.wait(0.75)
    machine.hear()
    assert machine.wrong == pytest.approx(0, abs=1e-5)
    assert machine.clock.now().tzinfo is UTC


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=4000), timedelta(seconds=3), timedelta(seconds=-3)])
def test_a_machine_that_is_wrong_is_not_believed(off: timedelta) -> None:
    machine = Machine(off)
    assert machine.wrong == pytest.approx(off.total_seconds()), "no answer has corrected it yet"
    machine.hear()
    assert abs(machine.wrong) <= 0.5
    machine.wait(3600)
    assert abs(machine.wrong) <= 0.5, "and not between two answers either"


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.999])
def test_the_half_of_a_second_that_a_header_leaves_out_is_added(fraction: float) -> None:
    """A header says the second that has begun: half of it has passed, on an average."""
    machine = Machine(timedelta(hours=1))
    machine.true = START.replace(microsecond=0) + timedelta(seconds=fraction)
    machine.hear()
    assert machine.wrong == pytest.approx(0.5 - fraction, abs=1e-5)


def test_a_step_of_the_machines_clock_changes_nothing() -> None:
    machine = Machine()
    machine.hear()
    machine.off = timedelta(days=365)
    machine.wait(60)
    assert machine.wrong == pytest.approx(0, abs=1e-5)
    machine.hear()
    assert abs(machine.wrong) <= 0.5
    machine.off = timedelta()
    machine.wait(60)
    machine.hear()
    assert machine.wrong == pytest.approx(0, abs=1e-5), "it is right again"


@pytest.mark.parametrize("header", [None, "", "yesterday", "Mon, 99 Nov 2026 01:00:00 GMT"])
def test_a_header_without_a_date_is_ignored(header: str | None) -> None:
    machine = Machine(timedelta(hours=1))
    machine.hear()
    before = machine.clock.now()
    machine.clock.heard(header)
    assert machine.clock.now() == before


steps: st.SearchStrategy[list[Callable[[Machine], None]]] = st.lists(
    st.one_of(
        st.floats(0, 5000).map(lambda seconds: lambda machine: machine.wait(seconds)),
        st.floats(0, 1).map(lambda late: lambda machine: machine.hear(late)),
        st.floats(-1e6, 1e6).map(lambda off: lambda machine: setattr(machine, "off", timedelta(seconds=off))),
    ),
    max_size=12,
)


@given(steps)
def test_never_wrong_by_more_than_its_answers_are(done: list[Callable[[Machine], None]]) -> None:
    """The server's whole seconds, an answer that took a second, and the two in which the machine is
    believed."""
    machine = Machine()
    machine.hear()
    for step in done:
        step(machine)
        assert abs(machine.wrong) < 3.01
