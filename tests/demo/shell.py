"""The demo's commands: run on the cluster, shown on the screen as a person would type them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.demo.screen import Screen
from tests.e2e.lib.cluster import Cluster, CommandFailed
from tests.root import ROOT


class DemoError(Exception):
    """What went wrong, in a sentence for the person at the terminal; more lines may follow it."""


@dataclass(slots=True)
class Shell:
    """Each command raises DemoError, with its output, where it fails."""

    screen: Screen
    cluster: Cluster

    def kubectl(self, *arguments: str, stdin: str | None = None, show: bool = True, output: bool = True, timeout: float = 300) -> str:
        """stdout. `show`: the command is shown, and with `output` what it printed."""
        if show:
            self.screen.command("kubectl " + shlex.join(arguments))
        try:
            text = self.cluster.kubectl(*arguments, stdin=stdin, timeout=timeout)
        except (CommandFailed, FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise DemoError(f"kubectl {error}") from None
        if show and output:
            self.screen.output(text)
        return text

    def helm(self, *arguments: str) -> None:
        self.screen.command("helm " + shlex.join(arguments))
        try:
            self.cluster.helm(*arguments)
        except (CommandFailed, FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise DemoError(f"helm {error}") from None

    def plugin(self, *arguments: str) -> None:
        """`kubectl dbbackup`, from the single file that `make cli` makes; where kubectl is not in
        the PATH, the rig's."""
        self.screen.command("kubectl dbbackup " + shlex.join(arguments))
        kubectl, *context = self.cluster.kubectl_argv
        environment = self.cluster.environment() | {"PATH": f"{Path(kubectl).parent}:{os.environ['PATH']}"}
        argv = [str(ROOT / "build" / "cli" / "kubectl-dbbackup"), *arguments, *context]
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        self.screen.output(done.stdout or done.stderr)
        if done.returncode:
            raise DemoError(f"kubectl dbbackup {arguments[0]}: exit code {done.returncode}: {done.stderr.strip()}")

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json", show=False))

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Unaligned rows, as the superuser, within the server's pod."""
        psql = ("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database)
        return self.kubectl("-n", "demo", "exec", "-i", "deploy/postgres", "--", *psql, stdin=sql, show=False)

    def make(self, target: str) -> None:
        """Runs a make target and shows its output as it comes: the first time takes minutes."""
        self.screen.command(f"make {target}")
        # Not part of the make that runs the demo: its flags and job server mean nothing here.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        argv = ["make", "--no-print-directory", target]
        with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout or ():
                self.screen.output(line)
        if process.returncode:
            raise DemoError(f"`make {target}` failed with exit code {process.returncode}")

    @contextmanager
    def port_forward(self, namespace: str, service: str, port: int) -> Iterator[int]:
        """A local port that leads to the service while the block runs."""
        with self.cluster.popen("-n", namespace, "port-forward", f"service/{service}", f":{port}") as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                if not match:
                    process.terminate()
                    raise DemoError(f"kubectl port-forward to {service}: {line}{process.stderr.read() if process.stderr else ''}")
                yield int(match[1])
            finally:
                process.terminate()
