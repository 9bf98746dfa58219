"""Whether a status that was decided fits its CRD: the API server drops unknown fields without a
word, and refuses a patch that breaks a limit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jsonschema
import yaml
from tests.root import CRDS


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    closed = dict(schema)
    if "properties" in closed:
        closed["properties"] = {name: _closed(child) for name, child in closed["properties"].items()}
        closed["additionalProperties"] = False
    if "items" in closed:
        closed["items"] = _closed(closed["items"])
    return closed


@functools.cache
def _validators() -> dict[str, jsonschema.Draft202012Validator]:
    found = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        status = spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        found[spec["names"]["kind"]] = jsonschema.Draft202012Validator(_closed(status))
    return found


def problems(kind: str, status: Mapping[str, Any]) -> list[str]:
    """What the API server would drop or refuse of a status of that kind; empty where it fits."""
    return [f"{error.json_path}: {error.message}" for error in _validators()[kind].iter_errors(dict(status))]
