"""The CRDs against themselves and against the types that read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from tests.root import ROOT
from tests.unit.support.crds import Schema, crd, problems, root_schema, version_of

from dbbackup.api import specs, units
from dbbackup.contract import report

MODELS: dict[str, type[specs.Spec]] = {
    "backupstorages": specs.StorageSpec,
    "databasebackups": specs.BackupSpec,
    "databasebackupschedules": specs.ScheduleSpec,
    "databaserestores": specs.RestoreSpec,
}
KINDS = sorted(MODELS)
KEYWORDS = {
    "type", "description", "properties", "required", "items", "additionalProperties", "default", "enum", "format", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "anyOf", "x-kubernetes-validations",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below and including this one, `metadata` excepted, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if f"{path}.{name}" != ".metadata":
            yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("plural", KINDS)
def test_every_schema_is_well_formed(plural: str) -> None:
    for path, schema in walk(root_schema(plural)):
        assert set(schema) <= KEYWORDS, path


@pytest.mark.parametrize("plural", KINDS)
def test_every_field_is_described(plural: str) -> None:
    for path, schema in walk(root_schema(plural)):
        if path and not path.endswith(("[]", "{}")):
            assert re.match(r"[A-Z`].*[.)]$", schema.get("description", "")), path


@pytest.mark.parametrize("plural", KINDS)
def test_everything_is_bounded(plural: str) -> None:
    """An unbounded list, map or string exceeds the API server's budget for CEL."""
    for path, schema in walk(root_schema(plural)):
        match schema.get("type"):
            case "string" if path not in (".apiVersion", ".kind"):
                assert {"maxLength", "enum", "format"} & set(schema), path
            case "array":
                assert "maxItems" in schema, path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


@pytest.mark.parametrize("plural", KINDS)
def test_every_rule_has_a_message_for_people(plural: str) -> None:
    for path, schema in walk(root_schema(plural)):
        for rule in schema.get("x-kubernetes-validations", []):
            assert len(rule.get("message", "")) > 15, path
            assert "self" not in rule["message"], path
            assert "\\s" not in rule["rule"], f"{path}: is no escape that CEL knows"


@pytest.mark.parametrize("plural", KINDS)
def test_status_of_a_new_object(plural: str) -> None:
    status = root_schema(plural)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert version_of(crd(plural))["subresources"] == {"status": {}}
    assert {"observedGeneration", "conditions"} <= set(status["properties"])


def frozen(schema: Schema) -> set[str]:
    return {rule["fieldPath"].removeprefix(".") for rule in schema.get("x-kubernetes-validations", []) if "oldSelf" in rule["rule"]}


def test_a_run_is_immutable_except_its_deletion_policy() -> None:
    backup = root_schema("databasebackups")["properties"]["spec"]
    assert set(backup["properties"]) - frozen(backup) == {"deletionPolicy"}
    restore = root_schema("databaserestores")["properties"]["spec"]
    assert set(restore["properties"]) == frozen(restore)
    assert frozen(root_schema("backupstorages")["properties"]["spec"]["properties"]["s3"]) == {"bucket", "prefix", "endpoint"}
    assert [path for path, schema in walk(root_schema("databasebackupschedules")) if frozen(schema)] == []


def test_a_schedules_template_has_the_fields_of_a_backup() -> None:
    """The very same, with their defaults and limits, except what only a discovered one has."""
    backup = root_schema("databasebackups")["properties"]["spec"]["properties"]
    template = root_schema("databasebackupschedules")["properties"]["spec"]["properties"]["template"]["properties"]["spec"]["properties"]
    assert set(backup) - set(template) == {"origin", "artifactKey"}
    for name, schema in template.items():
        described = {key: value for key, value in backup[name].items() if name != "database" or key != "description"}
        assert described.items() <= schema.items(), name


@pytest.mark.parametrize("plural", KINDS)
def test_immutability_works_for_absent_fields(plural: str) -> None:
    for _, schema in walk(root_schema(plural)):
        for rule in schema.get("x-kubernetes-validations", []):
            if "oldSelf" in rule["rule"]:
                name = rule["fieldPath"].removeprefix(".")
                assert rule["rule"] == f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


@pytest.mark.parametrize("plural", KINDS)
def test_columns_show_fields_that_exist(plural: str) -> None:
    schema = root_schema(plural)
    for column in version_of(crd(plural))["additionalPrinterColumns"]:
        found: Schema = schema
        for step in re.sub(r"\[.*?\]", "[]", column["jsonPath"]).strip(".").split("."):
            if step == "metadata":
                break
            found = found["properties"][step.removesuffix("[]")]
            found = found["items"] if step.endswith("[]") else found
        if column["type"] == "date":
            past = {".metadata.creationTimestamp", ".status.lastSuccessfulTime"}
            assert column["jsonPath"] in past, "a date in the future prints <invalid>"


@pytest.mark.parametrize("plural", KINDS)
def test_short_names_and_category(plural: str) -> None:
    names = crd(plural)["spec"]["names"]
    assert names["categories"] == ["dbbackup"]
    short = {"backupstorages": "bst", "databasebackups": "dbb", "databasebackupschedules": "dbs", "databaserestores": "dbr"}
    assert names["shortNames"] == [short[plural]]


def nested(annotation: Any) -> type[BaseModel] | None:
    """The model inside Optional[Model], or the model."""
    if get_origin(annotation) in (Union, type(int | None)):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def same_default(schema: Schema, field: FieldInfo) -> bool:
    default = field.get_default(call_default_factory=True)
    if "default" not in schema:
        # Absent in the object: None, empty, or a model all of whose fields are.
        return default is PydanticUndefined or default is None or not default or isinstance(default, BaseModel)
    said = schema["default"]
    if isinstance(default, tuple):
        return bool(said == list(default))
    if isinstance(default, int) and isinstance(said, str):
        return units.parse_duration(said) == default
    return bool(said == default) or (said == {} and isinstance(default, BaseModel))


def compare(model: type[BaseModel], schema: Schema, path: str) -> None:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    template = path == "spec.template.spec"
    if template:
        # It is no discovered artifact, so it always has a database: the model's own check, since it
        # is that of every backup.
        fields = {name: field for name, field in fields.items() if name not in ("origin", "artifactKey")}
    assert set(fields) == set(schema["properties"]), path
    for name, field in fields.items():
        child = schema["properties"][name]
        assert field.is_required() == (name in schema.get("required", []) and not (template and name == "database")), f"{path}.{name}"
        assert same_default(child, field), f"{path}.{name}"
        if (inner := nested(field.annotation)) is not None:
            compare(inner, child, f"{path}.{name}")
        if "enum" in child:
            choices = set(get_args(next((a for a in get_args(field.annotation) if get_args(a)), field.annotation)))
            assert set(child["enum"]) == choices, f"{path}.{name}"


@pytest.mark.parametrize("plural", KINDS)
def test_types_and_crds_have_the_same_fields_defaults_and_choices(plural: str) -> None:
    compare(MODELS[plural], root_schema(plural)["properties"]["spec"], "spec")


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "data" / "refused").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_refused_sample_says_what_it_expects(path: Path) -> None:
    text = path.read_text()
    assert re.match(r"# expect: .{10,}\n", text)
    assert yaml.safe_load(text)["apiVersion"] == specs.API_VERSION


def test_what_a_report_says_has_its_place_in_the_status() -> None:
    """The API server prunes unknown fields without a word."""

    def names(model: type[BaseModel]) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    for plural in ("databasebackups", "databaserestores"):
        status = root_schema(plural)["properties"]["status"]["properties"]
        assert names(report.ArtifactReport) - {"sizeBytes"} <= set(status["artifact"]["properties"])
        assert names(report.DatabaseReport) == set(status["database"]["properties"])
        assert names(report.FailureReport) | {"logTail"} == set(status["failure"]["properties"])
        assert names(report.Progress) | {"updatedAt"} == set(status["progress"]["properties"])
    assert names(report.RestoredReport) == set(status["restored"]["properties"])
    assert names(report.SafetyBackupReport) | {"storage"} == set(status["safetyBackup"]["properties"])
    status = root_schema("backupstorages")["properties"]["status"]["properties"]
    assert names(report.InventoryReport) - {"now", "conditionalWrites", "swept"} <= set(status["usage"]["properties"])
    assert "conditionalWrites" in status["capabilities"]["properties"]
    phase = root_schema("databasebackups")["properties"]["status"]["properties"]["phase"]
    assert phase["enum"] == list(get_args(specs.Phase))


def test_what_does_not_fit_a_status_is_seen() -> None:
    fits = {"observedGeneration": 1, "retention": {"good": 3, "next": [{"name": "a", "reason": "no rule keeps it"}]}}
    assert problems("DatabaseBackupSchedule", fits) == []
    assert problems("DatabaseBackupSchedule", {"retention": {"next": [{"when": "soon"}]}})
    assert problems("DatabaseBackupSchedule", {"retention": {"next": [{"name": "a"}] * 6}})
    assert problems("DatabaseBackup", {"phase": "Done"})
    assert problems("BackupStorage", {"usage": {"artifacts": "3"}})
