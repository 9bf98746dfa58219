"""For every suite: no example of hypothesis has a deadline, as a busy machine is no fault, and
failures are told as they come."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

_TOLD = 4000
"""Characters of a failure that are told at once."""


class _FailuresAtOnce:
    """A run of half an hour that is cut off has said what failed."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\nfailed in {report.when}: {report.nodeid}\n{report.longreprtext[-_TOLD:]}")


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_FailuresAtOnce(terminal))
