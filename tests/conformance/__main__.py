"""What is too slow for `make test`, each part by itself or all of them:

    python -m tests.conformance cases       every input of tests/data/cases by every way
    python -m tests.conformance generated   random databases
    python -m tests.conformance regression  the databases of PostgreSQL's own suites

Each part keeps what it saw below tests/conformance/results and writes docs/conformance.md anew.
The exit code is the number of surprises, at most 100.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conformance import page, regression
from tests.conformance.cases import CASES, filled, install_extensions
from tests.conformance.explore import Result, explore, make_roles, run_plan, serving, shrink, temporary, write_down
from tests.conformance.generator import draw
from tests.conformance.servers import headers_of, root_of, serving_major, source_of
from tests.conformance.ways import Outcome, Source, Way, World
from tests.root import ROOT

RESULTS = Path(__file__).parent / "results"
FAILURES = ROOT / "build/conformance/failures"
FOUR_WAYS = [Way("plain", "new"), Way("custom", "create"), Way("plain", "replace"), Way("custom", "replace")]


def revision() -> str:
    """Of the operator's source, which is what is tried."""
    command = ["git", "log", "-1", "--format=%h", "--abbrev=9", "--", "operator"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def keep(part: str, found: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"revision": revision(), **found}, indent=1, ensure_ascii=False)
    (RESULTS / f"{part}.json").write_text(text + "\n")
    page.write(RESULTS, ROOT / "docs/conformance.md")


def version(world: World) -> str:
    return str(world.postgres.execute("SHOW server_version")[0][0]).split()[0]


def say(name: str, way: Way, outcome: Outcome) -> None:
    print(f"{name} {way}: {outcome} {outcome.detail}"[:1500], flush=True)


def cases(arguments: argparse.Namespace) -> int:
    """On a server of the packages' own root, where every extension is."""
    ends: dict[str, dict[str, str]] = {}
    wrong = 0
    with serving_major(arguments.major) as world:
        install_extensions(root_of(arguments.major) / f"usr/share/postgresql/{arguments.major}")
        there = {row[0] for row in world.postgres.execute("SELECT name FROM pg_available_extensions")}
        for case in CASES:
            if not set(case.extensions) <= there or arguments.only not in case.name:
                continue
            ends[case.name] = {}
            with filled(world, case) as source:
                for way in case.ways(every=not arguments.quick):
                    outcome = world.run(source, way)
                    ends[case.name][str(way)] = str(outcome)
                    if not case.right(way, outcome):
                        wrong += 1
                        say(case.name, way, outcome)
        if not arguments.only:
            keep("cases", {"server": version(world), "ends": ends})
    return wrong


def _some(seed: int, indexes: list[int], seen: Path) -> None:
    """One process's share of the generated databases, on a server of its own. A line for each."""

    def each(index: int, result: Result) -> None:
        bad = [(way, str(outcome), outcome.detail) for way, outcome in result.bad()]
        if bad:
            print(write_down(FAILURES / f"{seed}-{index}.sql", result), [(way, outcome) for way, outcome, _ in bad], flush=True)
        script = result.script
        line = {"index": index, "new": str(result.new), "replace": str(result.replaced), "statements": len(script.makes) + len(script.changes)}
        with seen.open("a") as file:
            file.write(json.dumps({**line, "bad": bad}) + "\n")

    with serving(temporary()) as world:
        explore(world, seed, indexes, each)


def generated(arguments: argparse.Namespace) -> int:
    """What was run already at this revision is not run again, so that a run may be cut short."""
    seen = ROOT / f"build/conformance/generated-{arguments.seed}-{revision()}.jsonl"
    seen.parent.mkdir(parents=True, exist_ok=True)
    done = _seen(seen)
    left = [index for index in range(arguments.schemas) if index not in done]
    with multiprocessing.Pool(arguments.jobs) as pool:
        pool.starmap(_some, [(arguments.seed, left[job :: arguments.jobs], seen) for job in range(arguments.jobs)], chunksize=1)
    done = {index: line for index, line in _seen(seen).items() if index < arguments.schemas}
    ends: dict[str, Counter[str]] = {}
    for way in ("new", "replace"):
        for line in done.values():
            ends.setdefault(line[way], Counter(new=0, replace=0))[way] += 1
    ordered = dict(sorted(ends.items(), key=lambda item: -sum(item[1].values())))
    statements = sum(line["statements"] for line in done.values())
    with serving(temporary()) as world:
        keep("generated", {"server": version(world), "seed": arguments.seed, "count": len(done), "statements": statements, "ends": ordered})
        _make_small(world, arguments.seed, done, arguments.shrink)
    return sum(bool(line["bad"]) for line in done.values())


def _seen(path: Path) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["index"]: line for line in lines}


def _make_small(world: World, seed: int, done: dict[int, dict[str, Any]], most: int) -> None:
    """One small script for each sort of failure: the same way, outcome and last words."""
    sorts = {(way, outcome, detail[-160:]): index for index, line in done.items() for way, outcome, detail in line["bad"]}
    make_roles(world)
    for number, (sort, index) in enumerate(list(sorts.items())[:most]):
        result = run_plan(world, draw(seed, index))
        if result.bad():
            print(f"{sort}\n{write_down(FAILURES / f'small-{number}.sql', shrink(world, result))}", flush=True)


def regress(arguments: argparse.Namespace) -> int:
    """PostgreSQL's regression database, and those of its contributed modules."""
    major = arguments.major
    root, source = root_of(major), source_of(major)
    inside = root / "suite"
    shutil.rmtree(inside, ignore_errors=True)
    for part in ("src/test/regress", "contrib"):
        shutil.copytree(source / part, inside / part, symlinks=True)
    libraries = root / regression.LIBRARIES.lstrip("/")
    regression.build_library(source, headers_of(major), libraries)
    for name in ("autoinc", "refint"):
        shutil.copy(root / f"usr/lib/postgresql/{major}/lib/{name}.so", libraries)
    (inside / "dump/sql").mkdir(parents=True)
    (inside / "dump/sql/objects.sql").write_bytes(regression.dump_objects(source))
    subprocess.run(["chmod", "-R", "a+rwX", inside], check=True)
    ends: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    wrong = 0
    with serving_major(major) as world:
        suites = {"regression": ("/suite/src/test/regress", regression.schedule(source))}
        suites |= {f"contrib_regression_{name}": (f"/suite/contrib/{name}", scripts) for name, scripts in regression.contrib(source).items()}
        suites |= {"pg_dump_objects": ("/suite/dump", ["objects"])}
        for name, (directory, scripts) in suites.items():
            if arguments.only not in name:
                continue
            with regression.made(world, name) as database:
                late = regression.run_scripts(world.postgres, database, root, directory, scripts)
                notes += [f"{name}: {', '.join(late)} did not end in time."] if late else []
                made = Source(database)
                ends[name] = {}
                for way in FOUR_WAYS:
                    outcome = world.run(made, way)
                    ends[name][str(way)] = str(outcome)
                    if outcome.verdict != "equal":
                        wrong += 1
                        say(name, way, outcome)
        if not arguments.only:
            keep(f"regression-{major}", {"server": version(world), "ends": ends, "notes": notes})
    return wrong


PARTS = {"cases": cases, "generated": generated, "regression": regress}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--major", type=int, default=15, help="of the server: 15, 17 or 18")
    parser.add_argument("--schemas", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with a server of its own")
    parser.add_argument("--shrink", type=int, default=10, help="how many sorts of failure are made small")
    parser.add_argument("--quick", action="store_true", help="of the inputs' ways, those of `make test` alone")
    parser.add_argument("--only", default="", help="those inputs or regression databases whose names hold this; nothing is kept")
    arguments = parser.parse_args()
    return min(100, sum(PARTS[part](arguments) for part in arguments.part or PARTS))


if __name__ == "__main__":
    sys.exit(main())
