"""What is shipped says what it is: the image's labels, the chart's metadata, the locks."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.root import CRDS, ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
CHART: dict[str, Any] = yaml.safe_load((ROOT / "charts" / "database-backup-operator" / "Chart.yaml").read_text())


@pytest.mark.parametrize("lock", ["image.txt", "dev.txt"])
def test_each_locked_package_has_hashes(lock: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^( *#|-r ).*\n", "", (ROOT / "requirements" / lock).read_text(), flags=re.MULTILINE).strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+( ;.*)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_image_installs_what_is_locked_and_nothing_else() -> None:
    commands = [command for command in DOCKERFILE.replace("\\\n", " ").splitlines() if "pip" in command and command.startswith("RUN")]
    installs = [part for command in commands for part in command.split("&&") if re.search(r"pip\S* .*(install|wheel)", part)]
    assert len(installs) == 4
    tools, locked, wheel, own = installs
    assert re.findall(r'"(\w+)==[\d.]+"', tools) == ["setuptools", "wheel"], "what builds the wheel is pinned, and is not in the image"
    assert "--require-hashes" in locked
    assert "-r /image.txt" in locked
    for part in (wheel, own):
        assert "--no-index" in part
        assert "--no-deps" in part


def test_the_image_says_what_it_is() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', DOCKERFILE))
    assert labels["title"] == PROJECT["name"] == CHART["name"]
    assert labels["description"] == PROJECT["description"] == CHART["description"]
    assert labels["licenses"] == PROJECT["license"] == CHART["annotations"]["artifacthub.io/license"]
    assert {name: labels[name] for name in ("version", "revision", "created", "source")} == {
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "created": "${CREATED}",
        "source": "${SOURCE}",
    }
    declared = DOCKERFILE.index("ARG REVISION")
    assert "\nRUN" not in DOCKERFILE[declared:], "a label that changes must not build a layer anew"
    assert "\nCOPY" not in DOCKERFILE[declared:]


def test_the_chart_names_each_kind() -> None:
    told = yaml.safe_load(CHART["annotations"]["artifacthub.io/crds"])
    found = {path.stem for path in CRDS.glob("*.yaml")}
    assert {entry["name"] for entry in told} == {f"{plural}.dbbackup.io" for plural in found}
    for entry in told:
        assert set(entry) == {"kind", "version", "name", "displayName", "description"}


def test_the_plugin_needs_nothing_of_the_operator() -> None:
    """Who installs the wheel gets no Kubernetes client, no operator framework, no S3, no PostgreSQL
    driver."""
    base = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    operator = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["operator"]}
    assert operator >= {"boto3", "kopf", "kubernetes", "psycopg"}
    assert not base & operator
