"""The databases that PostgreSQL's own test suites leave behind, made from its source at test time.

pg_regress itself is not needed: its schedule is a list of scripts for psql, and whether their
output is what it should be is no question here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.ways import World
from tests.integration.conftest import Postgres

SECONDS = 600
"""For one script. Some wait for others that are not there."""
LIBRARIES = "/suite/lib"
"""Of the suite, in the server's root."""
_UNFIT = ("sepgsql", "tablespace")
_LEFT_OUT = ("postgres_fdw", "dblink", "test_decoding", "basic_archive")
"""Contrib modules that talk to a server of their own, or need settings at its start, or wait for
its archiver."""


def schedule(source: Path) -> list[str]:
    """The names of the scripts, in order."""
    text = (source / "src/test/regress/parallel_schedule").read_text()
    names = [name for line in re.findall(r"^test: (.*)$", text, re.MULTILINE) for name in line.split()]
    return [name for name in names if name not in _UNFIT]


def contrib(source: Path) -> dict[str, list[str]]:
    """Module -> its scripts, for the modules that have some."""
    found = {}
    for makefile in sorted((source / "contrib").glob("*/Makefile")):
        text = makefile.read_text().replace("\\\n", " ")
        names = [name for line in re.findall(r"^REGRESS\s*\+?=(.*)$", text, re.MULTILINE) for name in line.split() if "$" not in name]
        if names and makefile.parent.name not in (*_LEFT_OUT, *_UNFIT):
            found[makefile.parent.name] = names
    return found


def dump_objects(source: Path) -> bytes:
    """The SQL with which pg_dump's own tests make their objects."""
    reader = Path(__file__).parent / "dump_objects.pl"
    return subprocess.run(["perl", reader, source / "src/bin/pg_dump/t/002_pg_dump.pl"], check=True, capture_output=True).stdout


def build_library(source: Path, headers: Path, into: Path) -> None:
    """regress.so, with which many of the scripts make their functions."""
    into.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{headers}", f"-I{source}/src/test/regress"]
    subprocess.run([*command, "-o", into / "regress.so", source / "src/test/regress/regress.c"], check=True, capture_output=True)


@contextmanager
def made(world: World, name: str) -> Iterator[str]:
    """A database with the settings that pg_regress gives it."""
    name = name.replace("-", "_")
    world.postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    for setting in ("lc_messages", "lc_monetary", "lc_numeric", "lc_time"):
        world.postgres.execute(f"ALTER DATABASE {name} SET {setting} TO 'C'")
    try:
        yield name
    finally:
        world.drop(name)


def run_scripts(postgres: Postgres, database: str, root: Path, directory: str, names: list[str]) -> list[str]:
    """Runs the scripts through psql, one after the other, in the root where server and suite are.
    The scripts that did not end in time."""
    environment = {
        **postgres.environment(database),
        "PGTZ": "PST8PDT",
        "PGDATESTYLE": "Postgres, MDY",
        "PGOPTIONS": "-c intervalstyle=postgres_verbose",
        "LC_MESSAGES": "C",
        "PG_ABS_SRCDIR": directory,
        "PG_ABS_BUILDDIR": LIBRARIES,
        "PG_LIBDIR": LIBRARIES,
        "PG_DLSUFFIX": ".so",
    }
    psql = f"cd {directory} && exec /usr/lib/postgresql/{postgres.major}/bin/psql -Xaq -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on"
    late = []
    for name in names:
        with (root / directory.lstrip("/") / f"sql/{name}.sql").open("rb") as script:
            try:
                command = ["chroot", str(root), "sh", "-c", psql]
                subprocess.run(command, env=environment, stdin=script, capture_output=True, check=False, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                late.append(name)
    return late
