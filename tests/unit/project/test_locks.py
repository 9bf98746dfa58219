"""The locked versions satisfy pyproject.toml: run `make lock` after a change of dependencies."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.root import ROOT


def locked(*names: str) -> dict[str, str]:
    text = "".join((ROOT / "requirements" / name).read_text() for name in names)
    return {canonicalize_name(found[1]): found[2] for found in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE)}


IMAGE = ("operator", "console")


@pytest.mark.parametrize(("names", "extras"), [(["image.txt"], IMAGE), (["image.txt", "dev.txt"], (*IMAGE, "dev"))])
def test_locked_versions_satisfy_the_project(names: list[str], extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    ]
    found = locked(*names)
    missing = [str(r) for r in wanted if not r.specifier.contains(found.get(canonicalize_name(r.name), "0.dev0"), prereleases=True)]
    assert missing == []


def test_image_and_tests_run_the_same_versions() -> None:
    assert (ROOT / "requirements" / "dev.txt").read_text().startswith("-r image.txt\n")
    assert not locked("image.txt").keys() & locked("dev.txt").keys(), "a package is locked once"
