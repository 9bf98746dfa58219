"""Renders the chart with Helm, without a cluster."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from tests.root import ROOT

CHART = ROOT / "charts" / "database-backup-operator"
Object = dict[str, Any]


class Helm:
    """Runs helm; the rig's, else the one on PATH."""

    def __init__(self) -> None:
        built = ROOT / "build" / "rig" / "bin" / "helm"
        found = str(built) if built.exists() else shutil.which("helm")
        assert found, "helm is needed: `make cluster` builds it"
        self.path = found

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(dict(values or {}), file)
            file.flush()
            return subprocess.run([self.path, *arguments, "--values", file.name], capture_output=True, text=True, timeout=60, check=False)

    def template(self, values: Mapping[str, Any] | None = None, release: str = "backup", namespace: str = "dbbackup-system") -> list[Object]:
        done = self.run("template", release, str(CHART), "--namespace", namespace, values=values)
        assert done.returncode == 0, done.stderr
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return [document for document in yaml.load_all(done.stdout, Loader=loader) if document]

    def refused(self, values: Mapping[str, Any]) -> str:
        """What helm says against these values."""
        done = self.run("template", "backup", str(CHART), values=values)
        assert done.returncode != 0, f"helm took {values}"
        return done.stderr


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm()


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """The objects of that kind by name, with the namespace before it where there is one."""
    found = [item for item in objects if item["kind"] == kind]
    return {"/".join(filter(None, (item["metadata"].get("namespace"), item["metadata"]["name"]))): item for item in found}


def one(objects: list[Object], kind: str) -> Object:
    [found] = of_kind(objects, kind).values()
    return found
