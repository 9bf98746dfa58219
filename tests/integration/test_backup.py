"""A backup, from the Job's entry point to the bucket; what it restores to by stock tools."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data import generate
from tests.integration.conftest import Job, Postgres

from dbbackup.run import Compression


@pytest.fixture
def inventory(postgres: Postgres, database: str) -> str:
    """The demo database, loaded."""
    postgres.load(generate.render(role_prefix=f"{database}_"), database)
    return database


@pytest.mark.parametrize("algorithm", ["zstd", "gzip", "none"])
def test_a_plain_backup_restores_by_its_own_note(
    job: Job, postgres: Postgres, inventory: str, new_database: Callable[..., str], tmp_path: Path, algorithm: str
) -> None:
    ended = job.backup(compression=Compression(algorithm=algorithm))
    assert ended.code == 0, ended.log
    assert ended.report.database
    assert ended.report.database.identity == f"127.0.0.1:{postgres.port}/{inventory}"
    manifest = job.manifest(ended)
    rows = {f"{table.schema_}.{table.name}": table.rows for table in manifest.contents.tables if table.kind == "table"}
    assert rows["public.servers"] == 276
    assert rows == {name: postgres.execute(f"SELECT count(*) FROM {name}", inventory)[0][0] for name in rows}
    directory = job.fetch(ended, tmp_path / "fetched")
    stored = directory / manifest.artifact.name
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == manifest.artifact.sha256
    target = new_database()
    follow_note(postgres, directory, target)
    assert postgres.dump(target, "-O", "-x") == postgres.dump(inventory, "-O", "-x")


def follow_note(postgres: Postgres, directory: Path, target: str, **replace: str) -> None:
    """The commands of RESTORE.md to the letter, but for the download."""
    note = (directory / "RESTORE.md").read_text()
    blocks = [block.split("```")[0] for block in note.split("```sh\n")[1:]]
    script = "".join(blocks).replace(next(line for line in note.splitlines() if line.startswith("aws ")), "")
    environment = {**postgres.environment(target), "TARGET": f"dbname={target}", "PATH": f"{postgres.bin}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-euc", script], cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, script + done.stdout + done.stderr
