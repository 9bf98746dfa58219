"""A name of a public class means one thing in the whole operator."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.root import ROOT

SOURCE = ROOT / "operator" / "dbbackup"
MAY_BE_TWO = {
    "ArtifactSource": "the field of a spec, and what the Job makes of it",
    "Facts": "what a decision is made from, and what a run has found out for its report: the two planes never meet",
    "Retries": "of requests to a storage, and of a download to a person's machine",
    "Sink": "where notifications go, and where the bytes of an artifact go",
}


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert len(places) > 200
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in MAY_BE_TWO} == {}, "give one of them another name"
