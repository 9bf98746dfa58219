"""Where the demo runs, and the commands that it runs there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.demo.screen import Screen

ROOT = Path(__file__).resolve().parents[2]
RIG = ROOT / "build" / "rig"


class DemoError(Exception):
    """What went wrong, in a sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster and the images. `existing`: a cluster of the person's own, on which nothing but the demo's objects is touched."""

    existing: bool
    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    environment: Mapping[str, str]
    operator_image: str
    postgres_image: str
    s3_image: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Target:
        """CLUSTER=existing takes KUBECONFIG, KUBE_CONTEXT and IMAGE (needed), POSTGRES_IMAGE and S3_IMAGE; else the cluster of `make cluster`."""
        if environment.get("CLUSTER", "rig") != "existing":
            tools = {name: str(RIG / "bin" / name) for name in ("kubectl", "helm")}
            return cls(
                existing=False,
                kubectl=(tools["kubectl"],),
                helm=(tools["helm"],),
                environment={**environment, "KUBECONFIG": str(RIG / "kubeconfig")},
                operator_image=environment.get("IMAGE") or "localhost/dbbackup/operator:dev",
                postgres_image="localhost/dbbackup/postgres:17",
                s3_image="localhost/dbbackup/versitygw:1",
            )
        if not environment.get("IMAGE"):
            raise DemoError("CLUSTER=existing needs IMAGE=: the operator's image, under a name that the cluster can pull or already has")
        for tool in ("kubectl", "helm"):
            if not shutil.which(tool):
                raise DemoError(f"CLUSTER=existing needs {tool} on the PATH")
        context = environment.get("KUBE_CONTEXT", "")
        return cls(
            existing=True,
            kubectl=("kubectl", *(("--context", context) if context else ())),
            helm=("helm", *(("--kube-context", context) if context else ())),
            environment=environment,
            operator_image=environment["IMAGE"],
            postgres_image=environment.get("POSTGRES_IMAGE") or "docker.io/library/postgres:17",
            s3_image=environment.get("S3_IMAGE") or "docker.io/versity/versitygw:latest",
        )


@dataclass(slots=True)
class Shell:
    screen: Screen
    target: Target

    def _run(self, argv: Sequence[str], shown: str | None, *, stdin: str | None = None, quiet: bool = False, timeout: float = 300) -> str:
        """stdout of the command; DemoError with its output where it fails."""
        if shown:
            self.screen.command(shown)
        try:
            done = subprocess.run(
                argv, input=stdin, env=dict(self.target.environment), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
            )
        except FileNotFoundError:
            raise DemoError(f"{argv[0]} is not there; `make cluster` makes it") from None
        except subprocess.TimeoutExpired:
            raise DemoError(f"{shlex.join(argv[:6])} was not done after {timeout:.0f} s") from None
        if done.returncode:
            raise DemoError(f"{shown or shlex.join(argv)} failed with exit code {done.returncode}:\n{(done.stdout + done.stderr).strip()[-4000:]}")
        if shown and not quiet:
            self.screen.output(done.stdout)
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, show: bool = True, quiet: bool = False, timeout: float = 300) -> str:
        shown = f"kubectl {shlex.join(arguments)}" if show else None
        return self._run([*self.target.kubectl, *arguments], shown, stdin=stdin, quiet=quiet, timeout=timeout)

    def helm(self, *arguments: str) -> str:
        return self._run([*self.target.helm, *arguments], f"helm {shlex.join(arguments)}", quiet=True)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json", show=False))

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Unaligned rows, as the superuser, within the server's pod."""
        psql = ("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database)
        return self.kubectl("-n", "demo", "exec", "-i", "deploy/postgres", "--", *psql, stdin=sql, show=False)

    def make(self, target: str) -> None:
        """Runs a make target and shows its output as it comes: the first time takes minutes."""
        self.screen.command(f"make {target}")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        with subprocess.Popen(
            ["make", "--no-print-directory", target], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                self.screen.output(line)
        if process.returncode:
            raise DemoError(f"`make {target}` failed with exit code {process.returncode}")

    @contextmanager
    def port_forward(self, namespace: str, service: str, port: int) -> Iterator[int]:
        """A local port that leads to the service while the block runs."""
        argv = [*self.target.kubectl, "-n", namespace, "port-forward", f"service/{service}", f":{port}"]
        with subprocess.Popen(argv, env=dict(self.target.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                if not match:
                    process.terminate()
                    raise DemoError(f"kubectl port-forward to {service}: {line}{process.stderr.read() if process.stderr else ''}")
                yield int(match[1])
            finally:
                process.terminate()
