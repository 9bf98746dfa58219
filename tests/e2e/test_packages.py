"""The image as it was built: its labels, and that it holds what the lock names and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import datetime

import pytest
from packaging.markers import Marker, default_environment
from packaging.utils import canonicalize_name
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.tenant import Tenant
from tests.root import ROOT

from dbbackup import __version__

LIST = """
import importlib.metadata as m, json, platform
print(json.dumps({"python": platform.python_version(), "packages": {d.metadata["Name"]: d.version for d in m.distributions()}}))
"""


def test_the_image_has_its_labels(cluster: Cluster) -> None:
    if cluster.existing:
        pytest.skip("the labels are read where the image is built")
    text = subprocess.run(["buildah", "inspect", "--type", "image", cluster.image], capture_output=True, text=True, timeout=60, check=True).stdout
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in json.loads(text)["OCIv1"]["config"]["Labels"].items() if name.startswith(prefix)}
    assert set(labels) == {"title", "description", "licenses", "base.name", "version", "revision", "created", "source"}
    assert labels["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    assert datetime.fromisoformat(labels["created"]).utcoffset() is not None
    assert labels["licenses"] == "Apache-2.0"


def locked(python: str) -> dict[str, str]:
    """The versions that requirements/image.txt installs on that Python."""
    environment: dict[str, str] = {
        **{key: str(value) for key, value in default_environment().items()},
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)(?: ; (.*?))? \\$", (ROOT / "requirements" / "image.txt").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version, marker in lines if not marker or Marker(marker).evaluate(environment)}


def test_the_image_holds_what_is_locked(tenant: Tenant) -> None:
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "main", "image": tenant.cluster.image, "command": ["python", "-c", LIST], "securityContext": confined}
    profile = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": profile, "containers": [container]}
    tenant.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "packages"}, "spec": spec})
    tenant.wait_until("pod", "packages", lambda pod: pod.get("status", {}).get("phase") in ("Succeeded", "Failed"), 90, "its end")
    told = json.loads(tenant.run("logs", "packages").splitlines()[-1])
    found: dict[str, str] = {canonicalize_name(name): version for name, version in told["packages"].items()}
    assert found.pop("database-backup-operator") == __version__
    assert found == locked(told["python"])
