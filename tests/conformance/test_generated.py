"""A few random databases, always the same ones; `make conformance` runs thousands."""

from __future__ import annotations

from tests.conformance.explore import Result, explore, shrink
from tests.conformance.ways import World

COUNT = 25


def test_generated_databases_come_back(world: World) -> None:
    results: list[Result] = []
    explore(world, 1, range(COUNT), lambda index, result: results.append(result))
    ends = [outcome.verdict for result in results for outcome in (result.new, result.replaced)]
    assert ends.count("equal") > COUNT, ends
    small = [shrink(world, result, seconds=60) for result in results if result.bad()][:3]
    assert not small, "\n\n".join(result.script.text(*(f"{way}: {outcome}\n{outcome.detail}" for way, outcome in result.bad())) for result in small)
