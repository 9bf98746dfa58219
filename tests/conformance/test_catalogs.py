"""Every input of tests/data/cases: the artifact's catalog holds exactly what the dump holds."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.cases import CASES, Case, filled
from tests.conformance.ways import World
from tests.integration.test_catalog import assert_same, dump

OPTIONS: list[dict[str, Any]] = [{}, {"schemas": ("public",)}, {"exclude_tables": ("*.t*",)}]


@pytest.mark.parametrize("case", [case for case in CASES if not case.extensions], ids=lambda case: case.name)
def test_the_catalog_holds_what_the_dump_holds(world: World, case: Case) -> None:
    with filled(world, case) as source:
        for options in OPTIONS:
            assert_same(dump(world.postgres, source.name, **options))
