"""The data plane beside what it must not be much slower than (`pg_dump` into nothing) and what it
replaces (`pg_dump | gzip | upload_fileobj`)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import shapes
from tests.bench.cgroup import BenchError, measure
from tests.bench.samples import Sample, Series, alternate
from tests.bench.servers import BUCKET, S3, USER, Postgres
from tests.root import ROOT

FLOOR, SIMPLE, BACKUP = "pg_dump > /dev/null", "pg_dump | gzip | upload_fileobj", "backup, plain"
CUSTOM = "backup, custom"
STOCK, RESTORE = "zstd -dc | psql", "restore, plain"
RESTORE_CUSTOM = "restore, custom"
MEMORY_TARGET = 200 << 20

Tell = Callable[[str], None]


class Bench:
    def __init__(self, directory: Path, postgres: Postgres, s3: S3, tell: Tell) -> None:
        self.directory, self.postgres, self.s3, self.tell = directory, postgres, s3, tell
        self.servers = (postgres.group, s3.group)

    # --- databases

    def fill(self, shape: str, megabytes: int) -> str:
        """The name of a new database of that shape."""
        name = "bench_" + shape.replace(" ", "_")
        self.tell(f"making a database of {megabytes} MB ({shape})")
        self.postgres.sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        self.postgres.sql(shapes.render(shape, megabytes), name)
        self.postgres.sql("CHECKPOINT")
        return name

    def rows(self, database: str) -> int:
        """Exact, of all user tables."""
        tables = self.postgres.sql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'", database).split()
        return sum(int(self.postgres.sql(f"SELECT count(*) FROM {table}", database)) for table in tables)

    # --- backups

    def backups(self, title: str, database: str, rounds: int, *, simple: bool = False, custom: bool = False) -> Series:
        expected = self.rows(database)
        contenders: dict[str, Callable[[], Sample]] = {FLOOR: lambda: self.floor(database)}
        if simple:
            contenders[SIMPLE] = lambda: self.simple(database)
        contenders[BACKUP] = lambda: self.backup(database, expected)[0]
        if custom:
            contenders[CUSTOM] = lambda: self.backup(database, expected, format="custom")[0]
        self.floor(database)  # warms PostgreSQL's and the system's caches
        return alternate(Series(title), contenders, rounds, self.tell)

    def floor(self, database: str) -> Sample:
        return measure(["sh", "-c", "exec pg_dump -Fp > /dev/null"], self.postgres.environment(database), self.servers)

    def simple(self, database: str) -> Sample:
        key = f"simple-{secrets.token_hex(4)}.sql.gz"
        environment = self.postgres.environment(database) | {"AWS_ACCESS_KEY_ID": self.s3.key, "AWS_SECRET_ACCESS_KEY": self.s3.secret}
        upload = f"{sys.executable} {ROOT}/tests/bench/simple_upload.py {self.s3.endpoint} {BUCKET} {key}"
        sample = measure(["bash", "-o", "pipefail", "-c", f"pg_dump -Fp | gzip | {upload}"], environment, self.servers)
        stored = self.s3.directory / BUCKET / key
        size = stored.stat().st_size
        stored.unlink()
        return replace(sample, facts={**sample.facts, "stored": size})

    def backup(self, database: str, expected: int, *, keep: bool = False, **options: object) -> tuple[Sample, dict[str, Any]]:
        """A DatabaseBackup's run with its defaults, checked: Succeeded, exact rows, stored
        bytes."""
        sample, report = self._run(database, "backup", {"backup": options})
        artifact, rows = report["artifact"], report["database"].get("rows")
        if rows != expected:
            raise BenchError(f"the backup counted {rows} rows, the database has {expected}")
        directory = self.s3.directory / BUCKET / artifact["key"]
        stored = sum(path.stat().st_size for path in directory.glob("dump.*"))
        if stored != artifact["sizeBytes"]:
            raise BenchError(f"{artifact['key']} has {stored} bytes, the report says {artifact['sizeBytes']}")
        if not keep:
            shutil.rmtree(directory)
        return replace(sample, facts={**sample.facts, "stored": stored, "read": report["bytesRead"]}), report

    def _run(self, database: str, kind: str, parts: dict[str, object]) -> tuple[Sample, dict[str, Any]]:
        job = self.directory / f"job-{secrets.token_hex(4)}"
        values = {
            "database": {"host": "127.0.0.1", "port": str(self.postgres.port), "dbname": database, "username": USER,
                         "password": self.postgres.password},
            "storage": {"accessKeyId": self.s3.key, "secretAccessKey": self.s3.secret},
        }  # fmt: skip
        for name, keys in values.items():
            (job / name).mkdir(parents=True)
            for key, value in keys.items():
                (job / name / key).write_text(value)
        (job / "scratch").mkdir()
        owner = {"kind": "DatabaseBackup" if kind == "backup" else "DatabaseRestore", "namespace": "bench", "name": job.name}
        spec = {
            "run": kind,
            "owner": owner | {"uid": str(uuid.uuid4()), "createdAt": datetime.now(UTC).isoformat()},
            "storage": {"name": "bench", "bucket": BUCKET, "endpoint": self.s3.endpoint, "credentialsSecret": "s3"},
            "database": {"secret": "db", "sslMode": "disable"},
            **parts,
        }
        (job / "spec.json").write_text(json.dumps(spec))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}", "LC_ALL": "C.UTF-8"}
        sample = measure([sys.executable, "-m", "tests.bench.job", str(job)], environment, self.servers)
        report = json.loads((job / "report.json").read_text())
        shutil.rmtree(job)
        if report["outcome"] != "Succeeded":
            raise BenchError(f"the {kind} failed: {report}")
        return sample, report

    # --- restores

    def restores(self, title: str, database: str, rounds: int) -> Series:
        """Into new databases: stock tools with the artifact on the local disk, the data plane with
        it in the bucket."""
        expected = self.rows(database)
        plain = self.backup(database, expected, keep=True)[1]["artifact"]["key"]
        custom = self.backup(database, expected, keep=True, format="custom")[1]["artifact"]["key"]
        dump = self.directory / "dump.sql.zst"
        shutil.copyfile(self.s3.directory / BUCKET / plain / dump.name, dump)

        def into(restore: Callable[[str], Sample]) -> Callable[[], Sample]:
            return lambda: self._into_new(restore, expected)

        contenders = {
            STOCK: into(lambda target: self.stock(dump, target)),
            RESTORE: into(lambda target: self._run(target, "restore", {"restore": {"key": plain}})[0]),
            RESTORE_CUSTOM: into(lambda target: self._run(target, "restore", {"restore": {"key": custom}})[0]),
        }
        series = alternate(Series(title), contenders, rounds, self.tell)
        for key in (plain, custom):
            shutil.rmtree(self.s3.directory / BUCKET / key)
        dump.unlink()
        return series

    def stock(self, dump: Path, target: str) -> Sample:
        psql = f"zstd -q -dc {dump} | psql -X -q -v ON_ERROR_STOP=1 --single-transaction -f - > /dev/null"
        return measure(["bash", "-o", "pipefail", "-c", psql], self.postgres.environment(target), self.servers)

    def _into_new(self, restore: Callable[[str], Sample], expected: int) -> Sample:
        target = f"target_{secrets.token_hex(4)}"
        self.postgres.sql(f"CREATE DATABASE {target} TEMPLATE template0")
        self.postgres.sql("CHECKPOINT")
        try:
            sample = restore(target)
            if (rows := self.rows(target)) != expected:
                raise BenchError(f"{rows} rows were restored, the source has {expected}")
        finally:
            self.postgres.sql(f"DROP DATABASE {target} WITH (FORCE)")
        return sample
