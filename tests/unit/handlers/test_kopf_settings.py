"""Kopf is a watcher and nothing else: it writes nothing to any object, and stays small whatever the
number of objects."""

from __future__ import annotations

import ast
from pathlib import Path

from dbbackup.handlers import main
from dbbackup.handlers.watch import CHILDREN, LABEL_SELECTOR, WATCHED

HANDLERS = Path(main.__file__).parent


def test_it_writes_nothing_and_lists_in_pages_and_looks_at_no_namespaces() -> None:
    settings = main.kopf_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.watching.chunk_size == 500
    assert settings.queueing.idle_timeout <= 0.1


def test_jobs_and_pods_are_filtered_by_the_server() -> None:
    selectors = main.kopf_settings().watching.label_selectors
    resources = {(resource.group, resource.version, resource.plural) for kind, resource in WATCHED.items() if kind in CHILDREN}
    assert {key: selectors[key] for key in resources} == dict.fromkeys(resources, LABEL_SELECTOR)


def test_no_handler_of_kopf_but_events_and_those_of_the_process() -> None:
    """`on.create` loses work where a status write fails, indexes and daemons cost memory and time:
    nobody may add one unawares."""
    used = {
        node.attr
        for path in HANDLERS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"kopf.on", "kopf"}
    }
    assert used & {"create", "update", "delete", "field", "resume", "timer", "daemon", "index", "validate", "mutate"} == set()
    assert "event" in used
