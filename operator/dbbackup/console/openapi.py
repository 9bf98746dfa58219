"""The OpenAPI document, generated from the table of endpoints and their types."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from dbbackup import __version__
from dbbackup.console.endpoints import ADAPTERS, ENDPOINTS, Endpoint

Schema = dict[str, Any]
REF = "#/components/schemas/{model}"
_INTEGERS = ("page", "size")
_BOOLEANS = ("dryRun", "raw", "deleteArtifact")
PROBLEMS = {
    "401": "Not signed in, or the token has expired.",
    "403": "Kubernetes does not allow it, or the request comes from another site.",
    "404": "There is no such object.",
    "409": "The object has changed meanwhile, or exists already.",
    "413": "The body is too large.",
    "415": "The body has another type than the header says.",
    "422": "A field is invalid.",
    "429": "Too many requests; Retry-After says how long to wait.",
    "502": "The artifact cannot be read, or is not the one that the backup recorded.",
    "503": "The API server does not answer, or too many downloads are running.",
}
_ALWAYS = ("401", "403", "429", "503")


def _ref(name: str) -> Schema:
    return {"$ref": REF.format(model=name)}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


@functools.cache
def _schemas() -> Schema:
    bodies = [(endpoint.body, "validation") for endpoint in ENDPOINTS if endpoint.body is not None]
    _, schemas = models_json_schema(bodies, by_alias=True, ref_template=REF)  # type: ignore[arg-type]
    found: Schema = dict(schemas["$defs"])
    for kind, adapter in ADAPTERS.items():
        schema = adapter.json_schema(by_alias=True, mode="serialization", ref_template=REF)
        schema.pop("$defs", None)
        schema["title"] = kind
        schema["description"] = f"A {kind}, as lists show it."
        badges = {"type": "array", "items": {"type": "string"}, "description": "Its state, and further marks."}
        schema["properties"] = {**schema["properties"], "badges": badges}
        schema["required"] = [*schema["required"], "badges"]
        found[kind] = schema
    text: Schema = {"type": "string"}
    found["Problem"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["reason", "message", "hint"],
                "properties": {
                    "reason": {**text, "description": "One CamelCase word, stable."},
                    "message": {**text, "description": "What happened, to which object, and why."},
                    "hint": {**text, "description": "What to do about it; may be empty."},
                },
            }
        },
    }
    return found


def _answer(endpoint: Endpoint) -> Mapping[str, Any]:
    if endpoint.answer == "list":
        whole: Schema = {"type": "integer"}
        schema: Schema = {
            "type": "object",
            "required": ["items", "total", "page", "pages"],
            "properties": {"items": {"type": "array", "items": _ref(endpoint.kind)}, "total": whole, "page": whole, "pages": whole},
        }
        return {"200": {"description": "The objects that you may see.", "content": _json(schema)}}
    if endpoint.answer == "file":
        binary = {"schema": {"type": "string", "format": "binary"}}
        description = "The file, with its length. A download that fails ends before that length."
        return {"200": {"description": description, "content": {"application/sql": binary, "application/octet-stream": binary}}}
    if endpoint.answer == "me":
        groups = {"type": "array", "items": {"type": "string"}}
        schema = {"type": "object", "properties": {"name": {"type": "string"}, "groups": groups}}
        return {"200": {"description": "You.", "content": _json(schema)}}
    if endpoint.answer == "document":
        return {"200": {"description": "The document.", "content": _json({"type": "object"})}}
    whole_object = {"type": "object", "properties": {"object": {"type": "object", "description": "The object as stored in Kubernetes."}}}
    schema = {"type": "object"} if endpoint.answer == "deleted" else {"allOf": [_ref(endpoint.kind), whole_object]}
    content = _json(schema)
    if endpoint.query and "dryRun" in endpoint.query:
        content["application/yaml"] = {"schema": {"type": "string"}}
    status = "201" if endpoint.answer == "created" else "200"
    return {status: {"description": "Done." if endpoint.answer != "object" else "The object.", "content": content}}


def _problems(endpoint: Endpoint) -> Mapping[str, Any]:
    if endpoint.answer == "document":
        return {}
    codes = set(_ALWAYS)
    if "{name}" in endpoint.path:
        codes.add("404")
    if endpoint.answer in ("created", "changed", "deleted", "file"):
        codes.add("409")
    if endpoint.body is not None:
        codes |= {"413", "415", "422"}
    if endpoint.answer in ("list", "deleted"):
        codes.add("422")
    if endpoint.answer == "file":
        codes.add("502")
    return {code: {"description": PROBLEMS[code], "content": _json(_ref("Problem"))} for code in sorted(codes)}


def _parameter(name: str, place: str, description: str) -> Schema:
    kind = "integer" if name in _INTEGERS else "boolean" if name in _BOOLEANS else "string"
    required = place == "path" or name == "confirm"
    return {"name": name, "in": place, "required": required, "description": description, "schema": {"type": kind}}


_PATH = {"namespace": "Namespace.", "name": "Name of the object."}


def _operation(endpoint: Endpoint) -> Schema:
    parameters = [_parameter(name, "path", _PATH[name]) for name in re.findall(r"\{(\w+)\}", endpoint.path)]
    parameters += [_parameter(name, "query", description) for name, description in (endpoint.query or {}).items()]
    operation: Schema = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": f"Right in Kubernetes: {endpoint.right}.",
        "parameters": parameters,
        "responses": {**_answer(endpoint), **_problems(endpoint)},
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(_ref(endpoint.body.__name__))}
    if endpoint.answer == "document":
        operation["security"] = []
    return operation


@functools.cache
def document() -> Schema:
    """OpenAPI 3.1."""
    paths: dict[str, Schema] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.full_path, {})[endpoint.method.lower()] = _operation(endpoint)
    schemes = {
        "token": {"type": "http", "scheme": "bearer", "description": "A Kubernetes token."},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "dbbackup-session",
            "description": "The page's session; changes need its CSRF token too.",
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "database-backup-operator console",
            "version": __version__,
            "description": "Backups and restores of PostgreSQL. Kubernetes RBAC decides what you may do.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": schemes},
        "security": [{"token": []}, {"session": []}],
    }
