"""Artifacts restore without the operator: the commands in the bucket's RESTORE.md, to the letter,
with stock tools of PostgreSQL 15 and 17."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.lib.compare import BARE, assert_same, everything, portable
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

TOOLS = ("sh", "cat", "cp", "sha256sum", "zstd", "gzip")

AWS = """#!/bin/sh
[ "$*" = 's3 cp --recursive {url}/ .' ] || { echo "aws $* is not the artifact's address" >&2; exit 1; }
exec cp -r {stage}/. .
"""
"""Stands for an S3 client: it knows one address."""

CLIENT = """#!/bin/sh
set -e
trap '{kubectl} exec {pod} -- rm -rf {work}' EXIT
for argument in "$@"; do
  [ ! -f "$argument" ] || {kubectl} exec -i {pod} -- sh -c 'mkdir -p {work} && cat > {work}/"$1"' sh "$argument" < "$argument"
done
{kubectl} exec {pod} -- sh -c 'cd {work} && exec "$@"' sh {program} "$@"
"""
"""A PostgreSQL client of the server's own version: the server's pod has it, and is given the files
that the command names."""


def commands(note: str) -> str:
    """The shell blocks of the note, one after the other."""
    return "\n".join(block.split("```")[0] for block in note.split("```sh\n")[1:])


class Machine:
    """A machine of somebody who has stock tools and the bucket, and no operator."""

    def __init__(self, directory: Path, bucket: Bucket, artifact: Raw) -> None:
        self.directory = directory
        self.stage, self.bin = directory / "bucket", directory / "bin"
        for path in (self.stage, self.bin):
            path.mkdir(parents=True)
        key = artifact["key"]
        for name in bucket.keys(f"{key}/"):
            (self.stage / name.removeprefix(f"{key}/")).write_bytes(bucket.get(name))
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is not installed"
            (self.bin / tool).symlink_to(found)
        self._script("aws", AWS.replace("{url}", f"s3://{bucket.name}/{key}").replace("{stage}", str(self.stage)))
        self.script = commands((self.stage / "RESTORE.md").read_text())

    def _script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def follow(self, target: Database) -> subprocess.CompletedProcess[str]:
        """Goes on only as each command ends well, as the note says."""
        server = target.server
        kubectl = [*server.kube.cluster.kubectl_argv, "-n", server.kube.name]
        kubectl[0] = str(shutil.which(kubectl[0]))
        for program in ("psql", "pg_restore"):
            values = {"kubectl": shlex.join(kubectl), "pod": server.pod, "work": f"/tmp/{target.name}", "program": program}
            text = CLIENT
            for key, value in values.items():
                text = text.replace(f"{{{key}}}", value)
            self._script(program, text)
        work = self.directory / target.name
        work.mkdir()
        inherited = {key: value for key, value in server.kube.cluster.environment().items() if key in ("KUBECONFIG", "HOME")}
        environment = {**inherited, "PATH": str(self.bin), "TARGET": f"postgresql://{target.owner}:{target.password}@127.0.0.1:5432/{target.name}"}
        try:
            return subprocess.run(
                [self.bin / "sh", "-euc", self.script], cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
        finally:
            shutil.rmtree(work)


@pytest.fixture
def lend_roles(shared_postgres: Callable[[int], Postgres]) -> Iterator[Callable[[int, list[str]], None]]:
    """Makes roles that an artifact names on another server; they go when the test's databases are
    gone."""
    made: list[tuple[int, str]] = []

    def lend(major: int, roles: list[str]) -> None:
        with shared_postgres(major).connect() as connection:
            for role in roles:
                connection.execute(f'CREATE ROLE "{role}"')
                made.append((major, role))

    yield lend
    for major, role in made:
        with shared_postgres(major).connect() as connection:
            connection.execute(f'DROP ROLE IF EXISTS "{role}"')


@pytest.mark.parametrize(("form", "algorithms"), [("plain", ["zstd", "gzip", "none"]), ("custom", ["zstd", "gzip", "none"])])
def test_the_note_in_the_bucket_restores_the_artifact(
    form: str,
    algorithms: list[str],
    lend_roles: Callable[[int, list[str]], None],
    tenant: Tenant,
    database: Callable[..., Database],
    bucket: Bucket,
    tmp_path: Path,
) -> None:
    source = database(15, inventory=True)
    tenant.add_storage(bucket)
    tenant.add_database(source)
    made = {name: tenant.backup(f"b-{name}", format=form, compression={"algorithm": name}) for name in algorithms}
    machines = {name: Machine(tmp_path / name, bucket, tenant.completed(obj)["status"]["artifact"]) for name, obj in made.items()}
    lend_roles(17, bucket.manifest(tenant.get("dbb", "b-zstd")["status"]["artifact"]["key"])["contents"]["roles"])
    for name, machine in machines.items():
        for major in (15, 17):
            target = database(major)
            done = machine.follow(target)
            assert done.returncode == 0, f"{name} into {major}: {machine.script}\n{done.stdout}{done.stderr}"
            assert_same(portable(source, target.server), portable(target, target.server))
            if major == 15:
                assert_same(everything(source, *BARE), everything(target, *BARE))
    if form == "plain":
        target.execute("DELETE FROM servers")  # it drops and makes anew what it holds
        assert machine.follow(target).returncode == 0
        assert_same(portable(source, target.server), portable(target, target.server))

    untouched, machine = database(17), machines["zstd"]
    (stored,) = machine.stage.glob("dump.*")
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    assert machine.follow(untouched).returncode != 0
    assert untouched.contents() == {}
