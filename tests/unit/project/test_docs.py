"""README, docs and examples: links resolve, YAML fits the CRDs, and what they name (files, make
targets, fields, reasons, values) exists."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.root import ROOT
from tests.unit.support.crds import LOADER, PLURALS, closed, compiled, root_schema

from dbbackup.contract.errors import REASONS
from dbbackup.contract.run import DatabaseTarget
from dbbackup.dataplane.postgres.conninfo import CONVENTIONS, resolve

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
OTHER_PAGES = sorted([*(ROOT / "tests").glob("**/*.md"), *(ROOT / "examples").glob("**/*.md"), *(ROOT / "charts").glob("*/README.md")])
HAND_WRITTEN = [page for page in PAGES if not page.read_text().startswith("<!-- Generated")]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CHART = ROOT / "charts" / "database-backup-operator"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HERE = re.compile(r"<<YAML\n(.*?)^YAML$", re.MULTILINE | re.DOTALL)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(page: Path, *languages: str) -> list[str]:
    return [
        body.replace("\n" + indent, "\n").removeprefix(indent) for indent, language, body in _FENCE.findall(page.read_text()) if language in languages
    ]


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def _schemas() -> Mapping[str, dict[str, Any]]:
    """Kind -> its schema, in which a field that is not listed is an error."""
    found = {kind: closed(root_schema(plural)) for kind, plural in PLURALS.items()}
    for schema in found.values():
        schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return found


@cache
def _validators() -> Mapping[str, jsonschema.Draft7Validator]:
    """Of whole objects by kind, and of the part of a backup's spec that names a database."""
    part = {**_schemas()["DatabaseBackup"]["properties"]["spec"], "required": ["database"]}
    return {kind: compiled(schema) for kind, schema in _schemas().items()} | {"database": compiled(part)}


def _documents(text: str) -> list[dict[str, Any]]:
    found = [document for document in yaml.load_all(text, Loader=LOADER) if document is not None]
    assert all(isinstance(document, dict) for document in found)
    return found


def _check(document: dict[str, Any]) -> bool:
    """Validates what is one of ours, or a part of one; False where it is neither."""
    if document.get("kind") in _schemas():
        assert document.get("apiVersion", "dbbackup.io/v1") == "dbbackup.io/v1"
        _validators()[document["kind"]].validate(document)
        return True
    if set(document) == {"database"}:
        _validators()["database"].validate(document)
        return True
    return False


def _yaml_of(page: Path) -> Iterator[dict[str, Any]]:
    for block in _blocks(page, "yaml"):
        yield from _documents(block)
    for block in _blocks(page, "sh"):
        for here in _HERE.findall(block):
            yield from _documents(re.sub(r"\$(?:\{[A-Z]+\}|[A-Z]+)", "x", here))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_name(page)}: {link} leads nowhere"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in _anchors(target), f"{_name(page)}: {link}: {_name(target)} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_yaml_fits_the_crds(page: Path) -> None:
    for document in _yaml_of(page):
        _check(document)


def test_the_yaml_check_sees_something() -> None:
    checked = [document for page in PAGES for document in _yaml_of(page) if _check(document)]
    assert {document.get("kind") for document in checked} >= set(_schemas()), "the pages show each kind"
    with pytest.raises(jsonschema.ValidationError, match="sotrageRef"):
        _check({"kind": "DatabaseBackup", "metadata": {"name": "a"}, "spec": {"database": {"secretRef": {"name": "x"}}, "sotrageRef": {}}})


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_examples_fit_the_crds(example: Path) -> None:
    documents = _documents(example.read_text())
    assert documents
    for document in documents:
        assert document["metadata"]["namespace"] == "demo"
        assert _check(document) or document["kind"] == "Secret"


def test_examples_refer_to_each_other() -> None:
    documents = [document for example in EXAMPLES for document in _documents(example.read_text())]
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    assert len(names) == len(documents), "no two examples make the same object"
    for document in documents:
        spec = document.get("spec", {})
        if reference := spec.get("source", {}).get("backupRef"):
            assert ("DatabaseBackup", reference["name"]) in names
        if database := spec.get("database"):
            assert ("Secret", database["secretRef"]["name"]) in names


def test_the_examples_secret_is_a_connection() -> None:
    secret = next(d for d in _documents((ROOT / "examples" / "secrets.yaml").read_text()) if d["metadata"]["name"] == "assetdex-db")
    values = {key: value.encode() for key, value in secret["stringData"].items()}
    assert resolve(DatabaseTarget(secret="assetdex-db"), values).identity == "postgres.demo.svc:5432/assetdex"


def test_connection_secrets_page_lists_the_keys() -> None:
    page = (ROOT / "docs" / "connection-secrets.md").read_text()
    for field, keys in CONVENTIONS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {'database' if field == 'name' else field} |"))
        assert re.findall(r"`([^`.]+)`", row.split("|")[2])[: len(keys)] == list(keys)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [*_CODE.findall(_prose(page)), *(line for block in _blocks(page, "sh") for line in block.splitlines())]
    for text in shown:
        if found := re.match(r"make ([a-z][a-z0-9-]*)", text.strip()):
            assert found[1] in targets, f"{_name(page)}: `make {found[1]}`: no such target"


def _walk(schema: dict[str, Any], path: str) -> bool:
    for step in path.split("."):
        while "items" in schema:
            schema = schema["items"]
        if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
            return True
        if step not in schema.get("properties", {}):
            return False
        schema = schema["properties"][step]
    return True


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_fields_exist(page: Path) -> None:
    text = " ".join(_CODE.findall(_prose(page))) + "\n".join(_blocks(page, "sh"))
    for path in re.findall(r"(?<!\w)(?:spec|status)(?:\.[a-zA-Z0-9]+)+", text):
        assert any(_walk(schema, path) for schema in _schemas().values()), f"{_name(page)}: no kind has {path}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_reasons_exist(page: Path) -> None:
    """A CamelCase word in code that is neither a reason nor one of these is a mistake, or a new
    word to list here."""
    known = {
        *REASONS, *_schemas(), "Pending", "Running", "Completed", "Failed", "Deleting", "Ready", "Reconciling", "Stalled", "Finished",
        "Fail", "Replace", "Retain", "Delete", "Exact", "Off", "Forbid", "Allow", "Run", "Discovered", "Expired", "Expiring",
        "NearCapacity", "PruneHeld", "Notified",
    }  # fmt: skip
    for word in _CODE.findall(_prose(page)):
        if page.name not in {"ARCHITECTURE.md", "CONTRIBUTING.md", "reference.md"} and re.fullmatch(r"(?:[A-Z][a-z]+)+", word):
            assert word in known, f"{_name(page)}: `{word}` is no failure reason"


@cache
def _values() -> Any:
    return yaml.load((CHART / "values.yaml").read_text(), Loader=LOADER)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_chart_values_exist(page: Path) -> None:
    values = _values()
    for block in _blocks(page, "sh"):
        for path in re.findall(r"--set ([a-zA-Z.]+)=", block):
            found = values
            for step in path.split("."):
                assert step in found, f"{_name(page)}: the chart has no value {path}"
                found = found[step]


ABSENT = {"operator/__init__.py"}
"""Files that a page names because they must not exist."""
PLACES = (ROOT, ROOT / "operator" / "dbbackup", ROOT / "tests")
ROOMS = {path.name for place in PLACES for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))} - {"build"}


def _there(name: str, page: Path) -> bool:
    """Whether a file, folder, module or a module's attribute of that name exists: below the root,
    the package, the tests, or beside the page."""
    for place in (*PLACES, page.parent):
        for path in (name, f"{name}.py"):
            if ("*" not in path and (place / path).exists()) or ("*" in path and any(place.glob(path))):
                return True
        module, _, attribute = name.rpartition(".")
        source = place / f"{module}.py"
        if (
            module
            and source.exists()
            and re.search(rf"^(?:class|def|async def) {attribute}\b|^{attribute}\b[^\n]* = ", source.read_text(), re.MULTILINE)
        ):
            return True
    return False


def _named(page: Path) -> set[str]:
    """What the page names that looks like a path within the project."""
    shown = [*_CODE.findall(_prose(page)), *_LINK.findall(_prose(page))]
    words = [word.partition("#")[0].partition("::")[0].rstrip(".,:;") for text in shown for word in text.split()]
    if page.name == "COVERAGE.md":
        words += re.findall(r"[\w-]+(?:/[\w-]+)+", _CODE.sub("", _prose(page)))
    paths = {word for word in words if re.fullmatch(r"[\w.*-]+(?:/[\w.*-]+)*/?", word)}
    return {word for word in paths if ("/" in word and word.split("/")[0] in ROOMS) or word.endswith((".py", ".sh", ".toml"))}


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in _named(page) - ABSENT:
        assert _there(name, page), f"{_name(page)}: {name}: no such file, module or attribute"


def test_the_check_of_files_sees_something() -> None:
    assert len(_named(ROOT / "ARCHITECTURE.md")) > 10
    assert len(_named(ROOT / "CONTRIBUTING.md")) > 30
    assert len(_named(ROOT / "tests" / "COVERAGE.md")) > 50
    assert not _there("plan/no_such_module.py", ROOT / "README.md")
    assert not _there("plan/facts.NoSuchClass", ROOT / "README.md")


@pytest.mark.parametrize("page", [*HAND_WRITTEN, *OTHER_PAGES], ids=_name)
def test_lines_are_short_or_hold_one_sentence(page: Path) -> None:
    """160 columns; tables and code are exempt, as they cannot be broken."""
    for line in _prose(page).splitlines():
        if len(line) > 160 and not line.startswith("|"):
            sentences = re.split(r"(?<=[.!?])[)*`]* +(?=[A-Z`*\[(])", _LINK.sub("", line).strip())
            assert len(sentences) == 1, f"{_name(page)}: more than one sentence in a line of {len(line)} columns: {line[:60]}"
