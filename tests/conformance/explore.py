"""Runs generated databases, makes failures small, and writes them down as scripts."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg
from tests.conformance.generator import OWNER, ROLES, Maker, Plan, carry_out, draw, quote
from tests.conformance.ways import Format, Outcome, Source, Way, World
from tests.contract.servers import Versitygw
from tests.integration.conftest import PASSWORD, start_postgres

QUICK = {"full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off", "max_prepared_transactions": "5"}
"""Settings of a server whose data nobody will miss."""
BACKUP_HERE = "-- The backup is made here. What follows happens before the Replace."


@dataclass(frozen=True, slots=True)
class Script:
    """A generated database: the statements that the server took, and those of the change."""

    makes: tuple[str, ...]
    changes: tuple[str, ...]
    form: Format
    safety: bool
    user: str

    def text(self, *comments: str) -> str:
        head = [f"-- {line}" for comment in comments for line in comment.splitlines()]
        return "\n".join([*head, *(f"{s};" for s in self.makes), BACKUP_HERE, *(f"{s};" for s in self.changes), ""])


@dataclass(frozen=True, slots=True)
class Result:
    script: Script
    new: Outcome
    replaced: Outcome

    def bad(self) -> list[tuple[str, Outcome]]:
        named = (("new", self.new), ("replace", self.replaced))
        return [(way, outcome) for way, outcome in named if outcome.verdict in {"late", "unequal"}]


@contextmanager
def serving(directory: Path) -> Iterator[World]:
    """A world of its own, which is gone afterwards. Nothing in it is worth a disk's time."""
    (directory / "s3").mkdir(parents=True)
    s3 = Versitygw(directory / "s3")
    try:
        s3.start()
        for postgres in start_postgres(Path("/tmp") / f"dbbackup-world-{os.getpid()}", **QUICK):
            yield World(postgres, s3, directory / "job")
    finally:
        s3.kill()
        shutil.rmtree(directory, ignore_errors=True)


def make_roles(world: World) -> None:
    for role in ROLES:
        if not world.postgres.execute(f"SELECT FROM pg_roles WHERE rolname = '{role}'"):
            world.postgres.execute(f"CREATE ROLE {quote(role)}")
    password = PASSWORD.replace("'", "''")
    world.postgres.execute(f"ALTER ROLE {OWNER} LOGIN PASSWORD '{password}'")


def run_plan(world: World, plan: Plan) -> Result:
    """One drawn database, by both ways."""
    maker = Maker()

    def make(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
        return carry_out(connection, maker, plan.makes)

    def change(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
        return carry_out(connection, maker, plan.changes)

    return _run(world, make, change, plan)


def run_script(world: World, script: Script) -> Result:
    """The same from its statements; those that no longer work without others are left out."""
    return _run(world, partial(_say, script.makes), partial(_say, script.changes), script)


def _say(statements: Iterable[str], connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    taken = []
    for statement in statements:
        try:
            connection.execute(statement.encode())
        except psycopg.Error:
            continue
        taken.append(statement)
    return taken


Say = Callable[[psycopg.Connection[tuple[object, ...]]], list[str]]


def _run(world: World, make: Say, change: Say, how: Plan | Script) -> Result:
    changes: list[str] = []

    def later(target: str) -> None:
        with world.postgres.connect(target, how.user) as connection:
            changes.extend(change(connection))

    def script(makes: list[str]) -> Script:
        return Script(tuple(makes), tuple(changes), how.form, how.safety, how.user)

    with world.database() as name:
        world.let_in(name, how.user)
        with world.postgres.connect(name, how.user) as connection:
            makes = make(connection)
        source = Source(name, change=later, safety_backup=how.safety)
        world.read(source)
        backup = world.backup(source, how.form, how.user)
        if backup.code:
            failed = world.run(source, Way(how.form, "replace", how.user))
            return Result(script(makes), failed, failed)
        new = world.run(source, Way(how.form, "new", how.user))
        replaced = world.replace(source, backup, Way(how.form, "replace", how.user), name)
        world.forget(source)
        return Result(script(makes), new, replaced)


def shrink(world: World, result: Result, seconds: float = 240) -> Result:
    """A smaller script that ends the same way: statements go as long as the outcome stays."""
    wanted = [(way, str(outcome)) for way, outcome in result.bad()][:1]
    end = time.monotonic() + seconds
    best = result
    size = max(1, (len(best.script.makes) + len(best.script.changes)) // 2)
    while size:
        at, went = 0, False
        while at < len(best.script.makes) + len(best.script.changes) and time.monotonic() < end:
            tried = run_script(world, _without(best.script, at, size))
            if [(way, str(outcome)) for way, outcome in tried.bad()][:1] == wanted:
                best, went = tried, True
            else:
                at += size
        if not (went and size == 1):
            size //= 2
        if time.monotonic() > end:
            break
    return best


def _without(script: Script, at: int, size: int) -> Script:
    marked = [*((True, s) for s in script.makes), *((False, s) for s in script.changes)]
    left = marked[:at] + marked[at + size :]
    return replace(script, makes=tuple(s for made, s in left if made), changes=tuple(s for made, s in left if not made))


def explore(world: World, seed: int, indexes: Iterable[int], each: Callable[[int, Result], None]) -> None:
    """The databases with these numbers: always the same ones for a seed."""
    make_roles(world)
    for index in indexes:
        each(index, run_plan(world, draw(seed, index)))


def write_down(path: Path, result: Result) -> Path:
    """The failure as a script, in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [f"{way}: {outcome}\n{outcome.detail}" for way, outcome in result.bad()]
    path.write_text(result.script.text(f"format {result.script.form}, as {result.script.user}", *told))
    return path


def temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="dbbackup-conformance-"))
