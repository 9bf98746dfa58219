"""Every input of tests/data/cases by several ways: each ends as the table of cases says."""

from __future__ import annotations

import pytest
from tests.conformance.cases import CASES, Case, filled
from tests.conformance.ways import World


@pytest.mark.parametrize("case", [case for case in CASES if not case.extensions], ids=lambda case: case.name)
def test_each_way_ends_as_it_should(world: World, case: Case) -> None:
    wrong = []
    with filled(world, case) as source:
        for way in case.ways():
            outcome = world.run(source, way)
            if not case.right(way, outcome):
                wrong.append(f"{way}: {outcome}, not {case.expected(way)}\n{outcome.detail}")
    assert not wrong, "\n\n".join(wrong)
