"""The cluster under test: the rig's, or one that the person has (CLUSTER=existing)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.root import ROOT

RIG = ROOT / "build" / "rig"
STATE = ROOT / "build" / "e2e"
CHART = ROOT / "charts" / "database-backup-operator"
OPERATOR_NAMESPACE = "dbbackup-system"
RELEASE = "dbbackup"


class CommandFailed(AssertionError):
    """A kubectl or helm command failed; the message holds all of its output."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`existing`: pods are reached through port-forward, and images come from registries."""

    existing: bool
    kubectl_argv: tuple[str, ...]
    helm_argv: tuple[str, ...]
    kubeconfig: str | None
    image: str

    @classmethod
    def from_environment(cls) -> Cluster:
        image = os.environ.get("IMAGE", "")
        if os.environ.get("CLUSTER", "rig") != "existing":
            kubeconfig = str(RIG / "kubeconfig")
            binaries = [str(RIG / "bin" / name) for name in ("kubectl", "helm")]
            return cls(False, (binaries[0],), (binaries[1],), kubeconfig, image or "localhost/dbbackup/operator:dev")
        if not image or not shutil.which("kubectl") or not shutil.which("helm"):
            raise RuntimeError("CLUSTER=existing needs IMAGE=, and kubectl and helm on the PATH")
        context = os.environ.get("KUBE_CONTEXT", "")
        return cls(
            True, ("kubectl", *(("--context", context) if context else ())), ("helm", *(("--kube-context", context) if context else ())), None, image
        )

    def postgres_image(self, major: int) -> str:
        """POSTGRES_IMAGE, S3_IMAGE, TOXIPROXY_IMAGE and KUBECTL_IMAGE say others where no registry
        is reached; `{major}` stands for the version."""
        if not self.existing:
            return f"localhost/dbbackup/postgres:{major}"
        return os.environ.get("POSTGRES_IMAGE", "docker.io/library/postgres:{major}").replace("{major}", str(major))

    @property
    def s3_image(self) -> str:
        return os.environ.get("S3_IMAGE", "docker.io/versity/versitygw:latest") if self.existing else "localhost/dbbackup/versitygw:1"

    @property
    def toxiproxy_image(self) -> str:
        return os.environ.get("TOXIPROXY_IMAGE", "ghcr.io/shopify/toxiproxy:2.12.0") if self.existing else "localhost/dbbackup/toxiproxy:1"

    @property
    def kubectl_image(self) -> str:
        """KUBECTL_IMAGE: one whose entry point is kubectl."""
        return os.environ.get("KUBECTL_IMAGE", "registry.k8s.io/kubectl:v1.35.4") if self.existing else "localhost/dbbackup/kubectl:1"

    def environment(self) -> dict[str, str]:
        return {**os.environ, **({"KUBECONFIG": self.kubeconfig} if self.kubeconfig else {})}

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """kubectl with both outputs in pipes; the caller ends it."""
        return subprocess.Popen([*self.kubectl_argv, *arguments], env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """stdout; CommandFailed where it fails, unless `check` is off: then stdout and stderr
        together."""
        return self._run([*self.kubectl_argv, *arguments], stdin, check, timeout)

    def helm(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        return self._run([*self.helm_argv, *arguments], None, check, timeout)

    def _run(self, argv: Sequence[str], stdin: str | None, check: bool, timeout: float) -> str:
        done = subprocess.run(argv, input=stdin, env=self.environment(), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode and check:
            raise CommandFailed(f"{' '.join(argv[1:])}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def image_identity(self) -> str:
        """Changes whenever the image under the tag does, so that an upgrade starts a new operator
        pod then and only then."""
        if self.existing:
            return self.image
        recorded = RIG / "run" / "imported" / self.image.replace("/", "_").replace(":", "_")
        return recorded.read_text().strip() if recorded.exists() else self.image


@contextmanager
def once(name: str, run: str) -> Iterator[bool]:
    """Across the workers of one pytest run: True for the first to come, which does the work while
    the others wait; False for the others."""
    STATE.mkdir(parents=True, exist_ok=True)
    done = STATE / f"{name}.done"
    with (STATE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = not done.exists() or done.read_text() != run
        yield first
        if first:
            done.write_text(run)


def install_operator(cluster: Cluster, *, values: Sequence[str] = (), json_values: Sequence[str] = ()) -> None:
    """Installs or upgrades the release and waits until it is ready."""
    repository, _, tag = cluster.image.rpartition(":")
    cluster.helm(
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "2m"),
        "--force-conflicts",  # a person may have applied the CRDs with kubectl before
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}", "--set", "maxConcurrent=30", "--set", "console.enabled=true"),
        *("--set-json", "podAnnotations=" + json.dumps({"dbbackup.io/test-image": cluster.image_identity()})),
        *(argument for value in values for argument in ("--set", value)),
        *(argument for value in json_values for argument in ("--set-json", value)),
    )
