"""tests/COVERAGE.md names tests and files that exist."""

from __future__ import annotations

import re

from tests.root import ROOT

TESTS = ROOT / "tests"
TEXT = (TESTS / "COVERAGE.md").read_text()


def test_every_file_and_every_test_is_there() -> None:
    paths = set(re.findall(r"\b(?:unit|contract|integration|conformance|chart|e2e|faults|disaster)/(?:\w+/)*test_\w+", TEXT))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (TESTS / f"{path}.py").exists()] == []
    functions = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^(?:async )?def test_(\w+)", path.read_text(), re.MULTILINE)}
    named = set(re.findall(r"`([a-z0-9]\w*_\w+)`", TEXT)) - {"search_path", "nothing_runs"}
    assert len(named) > 50
    assert sorted(named - functions) == []
