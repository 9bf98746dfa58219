"""The data plane beside what it must not be much slower than (`pg_dump` into nothing, `zstd -dc |
psql`) and what people do without it: the same tools with the AWS CLI."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import shapes
from tests.bench.cgroup import BenchError, measure
from tests.bench.samples import Sample, Series, alternate
from tests.bench.servers import BUCKET, S3, USER, ZSTD_CLIENT, Postgres
from tests.root import ROOT

FLOOR, BACKUP, CUSTOM = "pg_dump > /dev/null", "backup, plain", "backup, custom"
PIPELINE, ARCHIVE = "pg_dump | zstd -1 | aws s3 cp", "pg_dump -Fc -Z zstd:1 | aws s3 cp"
STOCK, RESTORE, RESTORE_CUSTOM = "zstd -dc | psql", "restore, plain", "restore, custom"
DOWNLOAD = "aws s3 cp | zstd -dc | psql"
BACKUP_TARGETS, PIPELINE_TARGET, RESTORE_TARGET = {BACKUP: 1.4, CUSTOM: 1.6}, 1.25, 1.1
"""Times pg_dump alone, the shell's pipeline and psql: what holds on two processors. A backup takes
0.9 s for its start and its end, whatever its size."""
MEMORY_TARGET = 200 << 20
_ANALYZED = re.compile(rb"ANALYZE took ([\d.]+) s")

Tell = Callable[[str], None]


class Bench:
    def __init__(self, directory: Path, postgres: Postgres, s3: S3, tell: Tell) -> None:
        self.directory, self.postgres, self.s3, self.tell = directory, postgres, s3, tell
        self.servers = (postgres.group, s3.group)
        self._sizes: dict[str, int] = {}

    # --- databases

    def fill(self, shape: str, megabytes: int) -> str:
        """The name of a new database of that shape."""
        name = "bench_" + shape.replace(" ", "_")
        self.tell(f"making a database of {megabytes} MB ({shape})")
        self.postgres.sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        self.postgres.sql(shapes.render(shape, megabytes), name)
        self.postgres.sql("CHECKPOINT")
        self._sizes[name] = megabytes * 1_000_000
        return name

    def rows(self, database: str) -> int:
        """Exact, of all user tables."""
        tables = self.postgres.sql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'", database).split()
        return sum(int(self.postgres.sql(f"SELECT count(*) FROM {table}", database)) for table in tables)

    # --- backups

    def backups(self, title: str, database: str, rounds: int, *, pipelines: bool = False, custom: bool = False) -> Series:
        expected = self.rows(database)
        contenders: dict[str, Callable[[], Sample]] = {FLOOR: lambda: self.floor(database)}
        if pipelines:
            contenders[PIPELINE] = lambda: self.pipeline(database, "pg_dump -Fp | zstd -q -1")
            if client := self.postgres.client(ZSTD_CLIENT):
                contenders[ARCHIVE] = lambda: self.pipeline(database, f"{client} -Fc -Z zstd:1")
            else:
                self.tell(f"no {ARCHIVE}: no pg_dump {ZSTD_CLIENT} or newer is installed")
        contenders[BACKUP] = lambda: self.backup(database, expected)[0]
        if custom:
            contenders[CUSTOM] = lambda: self.backup(database, expected, format="custom")[0]
        self.floor(database)  # warms PostgreSQL's and the system's caches
        return alternate(Series(title, self._sizes[database]), contenders, rounds, self.tell)

    def floor(self, database: str) -> Sample:
        return measure(["sh", "-c", "exec pg_dump -Fp > /dev/null"], self.postgres.environment(database), self.servers)

    def pipeline(self, database: str, dump: str) -> Sample:
        key = f"pipeline-{secrets.token_hex(4)}"
        sample = self._shell(f"{dump} | {self._aws()} cp --only-show-errors - s3://{BUCKET}/{key}", database)
        stored = self.s3.directory / BUCKET / key
        size = stored.stat().st_size
        stored.unlink()
        return replace(sample, facts={**sample.facts, "stored": size})

    def _shell(self, script: str, database: str) -> Sample:
        keys = {"AWS_ACCESS_KEY_ID": self.s3.key, "AWS_SECRET_ACCESS_KEY": self.s3.secret, "AWS_DEFAULT_REGION": "us-east-1"}
        return measure(["bash", "-o", "pipefail", "-c", script], self.postgres.environment(database) | keys, self.servers)

    def _aws(self) -> str:
        if not (aws := shutil.which("aws")):
            raise BenchError("the AWS CLI is not there: install one, such as Debian's awscli")
        return f"{aws} --endpoint-url {self.s3.endpoint} s3"

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
        sample = measure([sys.executable, "-m", "tests.bench.job", str(job)], environment, self.servers, _analyzed)
        report = json.loads((job / "report.json").read_text())
        shutil.rmtree(job)
        if report["outcome"] != "Succeeded":
            raise BenchError(f"the {kind} failed: {report}")
        return sample, report

    # --- restores

    def restores(self, title: str, database: str, rounds: int) -> Series:
        """Into new databases: stock tools with the artifact on the local disk and in the bucket,
        the data plane with it in the bucket. Each in one transaction."""
        expected = self.rows(database)
        plain = self.backup(database, expected, keep=True)[1]["artifact"]["key"]
        custom = self.backup(database, expected, keep=True, format="custom")[1]["artifact"]["key"]
        dump = self.directory / "dump.sql.zst"
        shutil.copyfile(self.s3.directory / BUCKET / plain / dump.name, dump)

        def into(restore: Callable[[str], Sample]) -> Callable[[], Sample]:
            return lambda: self._into_new(restore, expected)

        contenders = {
            STOCK: into(lambda target: self.stock(f"zstd -q -dc {dump}", target)),
            DOWNLOAD: into(lambda target: self.stock(f"{self._aws()} cp s3://{BUCKET}/{plain}/{dump.name} - | zstd -q -dc", target)),
            RESTORE: into(lambda target: self._run(target, "restore", {"restore": {"key": plain}})[0]),
            RESTORE_CUSTOM: into(lambda target: self._run(target, "restore", {"restore": {"key": custom}})[0]),
        }
        series = alternate(Series(title, self._sizes[database]), contenders, rounds, self.tell)
        for key in (plain, custom):
            shutil.rmtree(self.s3.directory / BUCKET / key)
        dump.unlink()
        return series

    def stock(self, dump: str, target: str) -> Sample:
        return self._shell(f"{dump} | psql -X -q -v ON_ERROR_STOP=1 --single-transaction -f - > /dev/null", target)

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


def _analyzed(output: bytes) -> Mapping[str, float]:
    """Apart: stock tools leave ANALYZE to the user."""
    found = _ANALYZED.search(output)
    return {"apart": float(found[1])} if found else {}
