"""The wheel: the same bytes twice, everything in it, and the plugin runs from it in an environment
of its own. Needs PyPI."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from tests.root import ROOT

from dbbackup import __version__

SOURCES = ("pyproject.toml", "README.md", "LICENSE")


def build(into: Path) -> Path:
    """As a person builds it: from a copy of the sources, with the build's own tools."""
    tree = into / "source"
    shutil.copytree(ROOT / "operator", tree / "operator", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in SOURCES:
        shutil.copy(ROOT / name, tree)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(into), str(tree)]
    subprocess.run(argv, env=environment, check=True, timeout=200)
    [wheel] = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("first"))


def test_one_source_makes_one_wheel(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.name == wheel.name == f"database_backup_operator-{__version__}-py3-none-any.whl"
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.endswith("/")}
        [metadata] = [name for name in held if name.endswith(".dist-info/METADATA")]
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    package = ROOT / "operator" / "dbbackup"
    files = {str(Path("dbbackup") / path.relative_to(package)) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in held if ".dist-info/" not in name} == files
    assert any(name.endswith("LICENSE") for name in held)
    assert (headers["Name"], headers["Version"], headers["License-Expression"]) == ("database-backup-operator", __version__, "Apache-2.0")


def test_the_plugin_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    # The locked versions without their hashes: pip would demand a hash of the wheel too.
    locks = "".join(path.read_text() for path in (ROOT / "requirements").glob("*.txt"))
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(==[^ ;]+)", locks, re.MULTILINE)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{name}{version}\n" for name, version in dict(pins).items()))
    argv = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(constraints), str(wheel)]
    subprocess.run(argv, check=True, timeout=200)

    plugin = home / "bin" / "kubectl-dbbackup"
    done = subprocess.run([plugin, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "create" in done.stdout
    assert "restore" in done.stdout
    assert (home / "bin" / "kubectl_complete-dbbackup").exists(), "kubectl's own completion asks it"
    listed = subprocess.run([argv[0], "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, timeout=60, check=True).stdout
    installed = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert not installed & {"kopf", "kubernetes", "boto3", "psycopg", "pydantic"}
