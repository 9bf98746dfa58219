"""Carries a database through one way, from the source to the comparison."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tests.conformance.dumps import bare, difference, gone, lost_since
from tests.contract.servers import Versitygw
from tests.integration.conftest import Ended, Job, Postgres, make_job

from dbbackup.contract.run import BackupOptions, RestoreOptions

SECONDS = 1800
"""For one run. It is there against what never ends, and measures nothing."""
Format = Literal["plain", "custom"]
Into = Literal["new", "create", "replace"]


@dataclass(frozen=True, slots=True)
class Way:
    """`new`: an empty database that is there; `create`: createDatabase; `replace`: in place.
    `user` makes the backup and restores it."""

    format: Format
    into: Into
    user: str = "postgres"

    def __str__(self) -> str:
        return f"{self.format}-{self.into}" + ("" if self.user == "postgres" else "-owner")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`equal`: the target is as the source was. `refused`: before anything was touched, and the
    target is unchanged. `late`: an error in the transaction, rolled back, and the target is
    unchanged. `stock`: that too, but stock tools cannot restore such a dump either. `unequal`:
    anything else. `warnings` are the restore's."""

    verdict: Literal["equal", "refused", "late", "stock", "unequal"]
    reason: str = ""
    step: Literal["backup", "restore"] = "restore"
    detail: str = ""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict in {"equal", "unequal"}:
            return self.verdict
        return f"{self.verdict}{' at backup' if self.step == 'backup' else ''}: {self.reason}"


@dataclass(slots=True)
class Source:
    """A database to be backed up. `options` are those of CREATE DATABASE that it and its targets
    have. `change` changes a target between the backup and a Replace. `before` is what pg_dump says
    of it."""

    name: str
    options: str = ""
    target_sql: str = ""
    change: Callable[[str], None] | None = None
    undo: str = ""
    lock_timeout: int = 60
    safety_backup: bool = True
    before: str = ""
    backups: dict[tuple[Format, str], Ended] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """One server, one bucket, and databases in it."""

    postgres: Postgres
    s3: Versitygw
    directory: Path
    _job: Job | None = None
    _reloaded: dict[str, str] = field(default_factory=dict)
    _nothing: str = ""
    _forgotten: int = 0

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        name = f"c_{uuid.uuid4().hex[:12]}"
        self.postgres.execute(f"CREATE DATABASE {name} {options}")
        try:
            yield name
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        # A subscription, which would have to let go of its slot first, holds a database.
        self.postgres.execute(f"DELETE FROM pg_subscription USING pg_database d WHERE d.oid = subdbid AND datname = '{name}'")
        self.postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def job(self) -> Job:
        """Another object's Job, on the one bucket."""
        if self._job is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._job = make_job(self.postgres, self.s3, self.directory, "postgres")
            self._job.paths = replace(self._job.paths, secret_grace=0.0)
        return self._job.another(f"j-{uuid.uuid4().hex[:8]}")

    def dump(self, database: str) -> str:
        return self.postgres.dump(database, "--no-subscriptions")

    def backup(self, source: Source, form: Format, user: str) -> Ended:
        if (form, user) not in source.backups:
            job = self.job()
            job.connect_to(source.name, user)
            source.backups[form, user] = job.run(job.spec("backup", backup=BackupOptions(format=form), timeout_seconds=SECONDS))
        return source.backups[form, user]

    def read(self, source: Source) -> None:
        """What the source holds, before anything is done with it."""
        if not source.before:
            source.before = self.dump(source.name)

    def run(self, source: Source, way: Way) -> Outcome:
        """One way. A Replace is done in a copy of the source, so that every way finds it as it
        was."""
        self.read(source)
        backup = self.backup(source, way.format, way.user)
        if backup.code:
            return _failed(backup, "backup")
        match way.into:
            case "new":
                with self.database(source.options) as target:
                    self.let_in(target, way.user)
                    if source.target_sql:
                        self.postgres.load(source.target_sql, target)
                    return self.fill(source, backup, way, target)
            case "create":
                target = f"c_{uuid.uuid4().hex[:12]}"
                try:
                    return self.fill(source, backup, way, target)
                finally:
                    self.drop(target)
            case "replace":
                owner = self.postgres.execute(f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{source.name}'")[0][0]
                quoted = '"' + owner.replace('"', '""') + '"'
                with self.database(f"TEMPLATE {source.name} OWNER {quoted}") as target:
                    self._settings(source.name, target)
                    try:
                        return self.replace(source, backup, way, target)
                    finally:
                        if source.undo:
                            self.postgres.load(source.undo, target)

    def let_in(self, target: str, user: str) -> None:
        if user != "postgres":
            quoted = '"' + user.replace('"', '""') + '"'
            self.postgres.execute(f"ALTER DATABASE {target} OWNER TO {quoted}")
            self.postgres.execute(f"GRANT ALL ON SCHEMA public TO {quoted}", target)

    def _may_hold(self, source: Source) -> bool:
        """Whether an empty target of this source differs from any other empty database."""
        return bool(source.options or source.target_sql)

    def _empty(self) -> str:
        if not self._nothing:
            with self.database() as name:
                self._nothing = self.dump(name)
        return self._nothing

    def _settings(self, source: str, target: str) -> None:
        """Settings and privileges of the database, which a copy of it lacks."""
        self.postgres.execute(
            "INSERT INTO pg_db_role_setting SELECT t.oid, setrole, setconfig FROM pg_db_role_setting JOIN pg_database s ON s.oid = setdatabase,"
            f" pg_database t WHERE s.datname = '{source}' AND t.datname = '{target}';"
            f"UPDATE pg_database SET datacl = (SELECT datacl FROM pg_database WHERE datname = '{source}') WHERE datname = '{target}'"
        )

    def restore(self, source: Source, backup: Ended, target: str, way: Way) -> Ended:
        assert backup.report.artifact
        made = backup.report.artifact
        job = self.job()
        job.owner = job.owner.model_copy(update={"kind": "DatabaseRestore"})
        job.connect_to(target, way.user)
        options = RestoreOptions(
            key=made.key,
            manifest_sha256=made.manifest_sha256,
            create_database=way.into == "create",
            on_existing="Replace" if way.into == "replace" else "Fail",
            lock_timeout_seconds=source.lock_timeout,
            safety_backup=source.safety_backup,
        )
        return job.run(job.spec("restore", restore=options, timeout_seconds=SECONDS))

    def fill(self, source: Source, backup: Ended, way: Way, target: str) -> Outcome:
        """Restores into an empty database, or one that the restore makes."""
        empty = self.dump(target) if way.into == "new" and self._may_hold(source) else ""
        ended = self.restore(source, backup, target, way)
        if ended.code:
            there = self.postgres.execute(f"SELECT FROM pg_database WHERE datname = '{target}'")
            unchanged = not there if way.into == "create" else _holds_nothing(empty or self._empty(), self.dump(target))
            return self._late(source, _failed(ended, "restore", "" if unchanged else "the target has changed"))
        # Owners and privileges of a restore into a new database are those of whoever restores.
        wanted, found = bare(source.before), bare(self.dump(target))
        told = difference(wanted, found)
        if told and (reloaded := self.reloaded(source)):
            told = difference(bare(reloaded), found)
        return Outcome("unequal", detail=told) if told else Outcome("equal", warnings=ended.report.warnings)

    def replace(self, source: Source, backup: Ended, way: Way, target: str) -> Outcome:
        """Replaces in place, after the source's change."""
        drifted = source.before
        if source.change:
            source.change(target)
            drifted = self.dump(target)
        ended = self.restore(source, backup, target, way)
        after = self.dump(target)
        if ended.code:
            told = difference(drifted, after)
            return self._late(source, _failed(ended, "restore", told and f"the target has changed: {told}"))
        if not source.change:
            told = difference(source.before, after)
            if told and (reloaded := self.reloaded(source)):
                told = difference(reloaded, after)
            told = told or next((warning for warning in ended.report.warnings if warning.startswith("not in the artifact, so dropped")), "")
            return Outcome("unequal", detail=told) if told else Outcome("equal", warnings=ended.report.warnings)
        # A newer owner or privilege is the target's own.
        drifted, after = bare(drifted), bare(after)
        before = bare(source.before)
        told = lost_since(before, after, drifted)
        if told and (reloaded := self.reloaded(source)):
            before = bare(reloaded)
            told = lost_since(before, after, drifted)
        if told:
            return Outcome("unequal", detail=told)
        warned = " ".join(ended.report.warnings).replace('""', '"').replace("\n", " ")  # as pg_dump's comments spell names
        silent = [name for name in gone(before, after, drifted) if name not in warned]
        if silent and " more" not in warned:
            return Outcome("unequal", detail=f"gone without a word: {silent}; warned: {warned}")
        return Outcome("equal", warnings=ended.report.warnings)

    def _late(self, source: Source, outcome: Outcome) -> Outcome:
        return replace(outcome, verdict="stock") if outcome.verdict == "late" and not self.reloaded(source) else outcome

    def reloaded(self, source: Source) -> str:
        """What pg_dump says of the source once stock tools have restored it; empty where they
        cannot. Some definitions change their spelling on their first way through a dump."""
        if source.name not in self._reloaded:
            with self.database(source.options) as target:
                done = subprocess.run(
                    [self.postgres.bin / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
                    env=self.postgres.environment(target),
                    input=source.before.encode("utf-8", "surrogateescape"),
                    capture_output=True,
                    check=False,
                )
                self._reloaded[source.name] = "" if done.returncode else self.dump(target)
        return self._reloaded[source.name]

    def forget(self, source: Source) -> None:
        """The artifacts of a source that is done with, for a run of thousands."""
        self._reloaded.pop(source.name, None)
        self._forgotten += 1
        if self._forgotten % 50:
            return
        storage = self.job().storage
        storage.delete([item.key for item in storage.list("")])

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _holds_nothing(empty: str, after: str) -> bool:
    return not difference(bare(empty), bare(after))


def _failed(ended: Ended, step: Literal["backup", "restore"], changed: str = "") -> Outcome:
    failure = ended.report.failure
    assert failure, ended.log
    detail = f"{failure.reason}: {failure.message}"
    if changed:
        return Outcome("unequal", failure.reason, step, f"{detail}\n{changed}")
    began = any(event["event"] == "transaction" for event in ended.events)
    late = began or (step == "backup" and failure.reason in {"DumpFailed", "InternalError"})
    return Outcome("late" if late else "refused", failure.reason, step, detail)
