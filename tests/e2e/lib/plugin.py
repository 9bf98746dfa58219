"""The kubectl plugin as a person runs it: as a process, with pipes or at a terminal."""

from __future__ import annotations

import base64
import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.lib.kube import Kube, Raw
from tests.root import ROOT

INTERRUPTIBLE = ("env", "--default-signal=INT")
"""Tests that run in the background of a shell inherit that ^C is ignored."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


@dataclass(slots=True)
class Plugin:
    """In one namespace. `kubeconfig` is another person's, where it is given; `program` the plugin's
    argv."""

    kube: Kube
    kubeconfig: Path | None = None
    program: Sequence[str] = (sys.executable, "-m", "dbbackup.cli")
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        cluster = self.kube.cluster
        kubectl = shutil.which(cluster.kubectl_argv[0]) or cluster.kubectl_argv[0]
        own = {"PYTHONPATH": str(ROOT / "operator"), "KUBECTL": kubectl, "COLUMNS": "120", "TERM": "xterm"}
        config = {"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}
        environment = {**cluster.environment(), **own, **config, **self.variables}
        environment.pop("NO_COLOR", None)
        return environment | self.variables

    def argv(self, *arguments: str) -> list[str]:
        context = self.kube.cluster.kubectl_argv[1:] if not self.kubeconfig else ()
        return [*self.program, "-n", self.kube.name, *context, *arguments]

    def __call__(self, *arguments: str, code: int | None = 0, timeout: float = 120, cwd: Path | None = None) -> Done:
        """Runs it without a terminal; an AssertionError where the exit code is another. A traceback
        is one always."""
        ended = subprocess.run(self.argv(*arguments), env=self.environment(), capture_output=True, timeout=timeout, check=False, cwd=cwd)
        done = Done(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))
        assert "Traceback" not in done.both, done.both
        assert "\x1b" not in done.both, "escape sequences without a terminal"
        if code is not None:
            assert done.code == code, f"{arguments}: {done.both}"
        return done

    def json(self, *arguments: str) -> Raw:
        answer: Raw = json.loads(self(*arguments, "-o", "json").out)
        return answer

    def popen(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*INTERRUPTIBLE, *self.argv(*arguments)],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        )

    def terminal(self, *arguments: str, answers: Sequence[tuple[str, str]] = (), timeout: float = 120, cwd: Path | None = None) -> Done:
        """At a terminal of its own; each answer is typed once its question has appeared. `out` is
        all that was shown, escape sequences and all."""
        session = self.session(*arguments, cwd=cwd)
        for question, answer in answers:
            session.until(lambda shown, question=question: question in shown, timeout)  # type: ignore[misc]
            session.type(answer + "\n")
        return session.end(timeout)

    def session(self, *arguments: str, cwd: Path | None = None) -> Terminal:
        return Terminal([*INTERRUPTIBLE, *self.argv(*arguments)], self.environment(), cwd)


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], cwd: Path | None = None) -> None:
        self.shown = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd or ".")
                os.execvpe(argv[0], list(argv), environment)
            finally:
                os._exit(127)

    @property
    def plain(self) -> str:
        return ESCAPES.sub("", self.shown)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """^C, as the terminal sends it: to the whole foreground group."""
        self.type("\x03")

    def until(self, condition: Callable[[str], bool], timeout: float = 60) -> None:
        """Until what is shown, without escape sequences, fulfils the condition."""
        deadline = time.monotonic() + timeout
        while not condition(self.plain):
            assert time.monotonic() < deadline, f"not shown within {timeout} s:\n{self.plain}"
            assert self._read(0.5), f"it ended:\n{self.plain}"

    def end(self, timeout: float = 60) -> Done:
        deadline = time.monotonic() + timeout
        while self._read(0.5):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it does not end:\n{self.plain}")
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        assert "Traceback" not in self.shown, self.plain
        return Done(os.waitstatus_to_exitcode(status), self.shown, "")

    def _read(self, seconds: float) -> bool:
        """Whether it still runs."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # the other side has closed it
                return False
            raise
        self.shown += data.decode(errors="replace")
        return bool(data)


def children(pid: int, name: str) -> list[int]:
    """Processes whose parent is `pid` and whose command line holds `name`."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if name in line]


def person(kube: Kube, name: str, *roles: str, where: Path) -> Path:
    """A kubeconfig for a ServiceAccount of the namespace that these ClusterRoles are bound to
    there."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{name}-{role}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": kube.name}],
        }
        for role in roles
    ]
    kube.apply(account, *bindings)
    token = kube.run("create", "token", name, "--duration=1h").strip()
    view = json.loads(kube.run("config", "view", "--minify", "--raw", "-o", "json"))
    cluster = view["clusters"][0]["cluster"]
    if "certificate-authority" in cluster:
        data = Path(cluster.pop("certificate-authority")).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(data).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": name}}],
        "current-context": "c",
    }
    path = where / f"{name}.kubeconfig"
    path.write_text(json.dumps(config))
    return path
