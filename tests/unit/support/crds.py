"""The CRDs as tests read them: each file is parsed once, each schema is compiled once.

What these functions return is shared by all tests and must not be changed in place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from tests.root import CRDS

Schema = dict[str, Any]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one where PyYAML has it."""
PLURALS = {
    "BackupStorage": "backupstorages",
    "DatabaseBackup": "databasebackups",
    "DatabaseBackupSchedule": "databasebackupschedules",
    "DatabaseRestore": "databaserestores",
}


def load(path: Path) -> Schema:
    return dict(yaml.load(path.read_text(), Loader=LOADER))


@functools.cache
def crd(plural: str) -> Schema:
    return load(CRDS / f"{plural}.yaml")


def version_of(crd: Schema) -> Schema:
    """The one version, v1."""
    [found] = crd["spec"]["versions"]
    assert found["name"] == "v1"
    return dict(found)


def schema_of(crd: Schema) -> Schema:
    """The schema of whole objects."""
    schema: Schema = version_of(crd)["schema"]["openAPIV3Schema"]
    return schema


def root_schema(plural: str) -> Schema:
    return schema_of(crd(plural))


def closed(schema: Mapping[str, Any]) -> Schema:
    """The schema, in which a field that is not listed is an error."""
    result = dict(schema)
    if "properties" in result:
        result["properties"] = {name: closed(child) for name, child in result["properties"].items()}
        result["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(result.get(inner), Mapping):
            result[inner] = closed(result[inner])
    return result


def compiled(schema: Mapping[str, Any]) -> jsonschema.Draft7Validator:
    """Checks the schema itself, which takes longer than most validations: keep the result. A CRD
    uses only keywords that all drafts share; this draft's own check takes a fifth of the time."""
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@functools.cache
def validator(kind: str, part: str) -> jsonschema.Draft7Validator:
    """For `spec` or `status` of that kind; a field that is not listed is an error."""
    return compiled(closed(root_schema(PLURALS[kind])["properties"][part]))


def problems(kind: str, status: Mapping[str, Any]) -> list[str]:
    """What the API server would drop or refuse of a status of that kind; empty where it fits. It
    drops unknown fields without a word, and refuses a patch that breaks a limit."""
    return [f"{error.json_path}: {error.message}" for error in validator(kind, "status").iter_errors(dict(status))]
