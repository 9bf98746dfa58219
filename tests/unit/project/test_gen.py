"""Generated files are what the generator writes now, and say what they should."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import yaml
from tests.root import CRDS, ROOT

from dbbackup.contract.errors import REASONS


@pytest.fixture(scope="module")
def gen() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen", ROOT / "tools" / "gen.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen"] = module
    spec.loader.exec_module(module)
    return module


def test_nothing_generated_is_stale(gen: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in gen.outputs().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run `make gen`: {stale}"


def test_nothing_else_lies_beside_the_generated_crds(gen: ModuleType) -> None:
    assert {path.stem for path in CRDS.iterdir()} == set(gen.KINDS)


def test_a_fragment_is_expanded_with_overrides(gen: ModuleType) -> None:
    shared = {"name": {"type": "string", "maxLength": 5}, "ref": {"properties": {"name": {"$use": "name"}}}}
    assert gen.expand({"x": {"$use": "ref", "description": "D"}}, shared) == {
        "x": {"description": "D", "properties": {"name": {"type": "string", "maxLength": 5}}}
    }


def test_an_immutable_field_becomes_a_rule_of_its_parent(gen: ModuleType) -> None:
    schema = {"properties": {"a": {"type": "string", "$immutable": True}, "b": {}}, "x-kubernetes-validations": [{"rule": "own"}]}
    done = gen.freeze(schema, "DatabaseBackup")
    assert done["properties"] == {"a": {"type": "string"}, "b": {}}
    own, rule = done["x-kubernetes-validations"]
    assert own == {"rule": "own"}
    assert rule["rule"] == "has(self.a) == has(oldSelf.a) && (!has(self.a) || self.a == oldSelf.a)"
    assert rule["fieldPath"] == ".a"


def test_a_template_may_change(gen: ModuleType) -> None:
    fields = {"a": {"type": "string", "$immutable": True}}
    schema = {"properties": {"spec": {"$mutable": True, "properties": fields}}}
    assert gen.freeze(schema, "DatabaseBackupSchedule") == {"properties": {"spec": {"properties": {"a": {"type": "string"}}}}}


def test_fields_are_shared_and_added_to(gen: ModuleType) -> None:
    shared = {"fields": {"a": {"type": "string"}, "b": {"type": "string"}}}
    assert gen.expand({"properties": {"$use": "fields", "b": {"type": "integer"}, "c": {}}}, shared) == {
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {}}
    }


def test_no_marker_is_left(gen: ModuleType) -> None:
    assert [plural for plural in gen.KINDS if "$" in gen.crd_text(plural).replace("$'", "").replace("$|^", "").replace("|$)", "")] == []


def test_the_reference_has_every_field(gen: ModuleType) -> None:
    text = gen.reference()
    for field in (
        "spec.database.secretRef.name",
        "spec.s3.bucket",
        "spec.source.artifact.key",
        "status.failure.reason",
        "spec.excludeTableData",
        "spec.retention.keepDaily",
    ):
        assert f"| `{field}` |" in text
    assert "default `1h`" in text
    assert "spec.template.spec.timeout" not in text, "a template's fields are a backup's: they stand there"


def test_every_reason_is_documented(gen: ModuleType) -> None:
    text = gen.reasons()
    for reason in REASONS.values():
        assert f"### {reason.name}\n{reason.meaning} **Cure:** {reason.hint}\n" in text


def test_every_chart_value_is_documented(gen: ModuleType) -> None:
    """Every leaf of values.yaml stands in the table, or something above it does."""
    text = (gen.CHART / "values.yaml").read_text()
    documented = {row.split("`")[1] for row in gen.value_rows(text)}

    def check(values: dict[str, object], path: str) -> None:
        for key, value in values.items():
            here = f"{path}{key}"
            if here in documented:
                continue
            assert isinstance(value, dict) and value, here  # noqa: PT018
            check(value, f"{here}.")

    check(yaml.safe_load(text), "")
