"""The audit line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from dbbackup import audit
from dbbackup.audit import Line
from dbbackup.process import JsonFormatter

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The audit lines of the log, as the operator writes them."""
    return lambda: [json.loads(JsonFormatter().format(item)) for item in caplog.records if item.name == "dbbackup.audit"]


def test_a_line_says_who_did_what_to_which_object(lines: Lines) -> None:
    audit.record(
        Line(
            "download",
            who="alice",
            via="console",
            kind="DatabaseBackup",
            namespace="shop",
            name="nightly",
            source="192.0.2.7",
            extra={"request": "42"},
        )
    )
    [line] = lines()
    line.pop("ts")
    assert line == {
        "level": "info",
        "logger": "dbbackup.audit",
        "message": "alice: download DatabaseBackup shop/nightly: allowed",
        "audit": True,
        "action": "download",
        "who": "alice",
        "via": "console",
        "outcome": "allowed",
        "kind": "DatabaseBackup",
        "namespace": "shop",
        "name": "nightly",
        "source": "192.0.2.7",
        "request": "42",
    }


def test_a_refusal_is_a_security_warning(lines: Lines) -> None:
    audit.record(Line("restore", who="mallory", via="console", outcome="refused", reason="Forbidden"))
    [line] = lines()
    assert (line["level"], line["security"], line["message"]) == ("warning", True, "mallory: restore: refused")


def test_it_is_logged_where_the_rest_logs_warnings_only(lines: Lines) -> None:
    assert logging.getLogger().level == logging.WARNING
    audit.record(Line("list", who="alice", via="console"))
    assert len(lines()) == 1


def test_a_name_neither_forges_a_line_nor_fills_the_log(caplog: pytest.LogCaptureFixture) -> None:
    audit.record(Line("create", who='eve\n{"audit": true, "who": "alice"}', via="x" * 100_000))
    text = JsonFormatter().format(caplog.records[-1])
    assert "\n" not in text
    assert json.loads(text)["who"].startswith("eve\n")
    assert len(text) < 4000
