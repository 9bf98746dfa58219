"""The locked requirements satisfy pyproject.toml: who adds a dependency runs `make lock`."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.root import ROOT


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return {canonicalize_name(found[1]): found[2] for found in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE)}


def left_out() -> set[str]:
    """What `make lock` leaves out of the image: the plugin's own."""
    found = re.search(r"^NO_PLUGIN := \$\(addprefix --no-emit-package ,(.+)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return set(found[1].split())


IMAGE = ("operator", "console")


@pytest.mark.parametrize(("name", "extras", "without"), [("requirements.txt", IMAGE, left_out()), ("requirements-dev.txt", (*IMAGE, "dev"), set())])
def test_locked_versions_satisfy_the_project(name: str, extras: tuple[str, ...], without: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    ]
    found = locked(name)
    missing = [
        str(r) for r in wanted if r.name not in without and not r.specifier.contains(found.get(canonicalize_name(r.name), "0.dev0"), prereleases=True)
    ]
    assert missing == []


def test_image_and_tests_run_the_same_versions() -> None:
    tests = locked("requirements-dev.txt")
    assert {name: tests.get(name) for name in locked("requirements.txt")} == locked("requirements.txt")
