"""docs/api.md: the console's HTTP API, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dbbackup.console.openapi import document

Schema = Mapping[str, Any]


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}s"
    return "time" if schema.get("format") == "date-time" else str(schema.get("type", "object"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield f"{operation['summary']} Right in Kubernetes: {operation['description'].removeprefix('Right in Kubernetes: ')}"
    for parameter in operation["parameters"]:
        required = ", required" if parameter["required"] and parameter["in"] != "path" else ""
        yield f"- `{parameter['name']}` ({parameter['in']}, {_type(parameter['schema'])}{required}): {parameter['description']}"
    if "requestBody" in operation:
        yield f"- body: {_type(operation['requestBody']['content']['application/json']['schema'])}"
    yield ""
    codes = ", ".join(f"{code}" for code in operation["responses"])
    yield f"Answers: {codes}."
    yield ""


def _object(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}"
    yield _cell(schema.get("description", ""))
    yield ""
    yield "| field | type | meaning |"
    yield "| --- | --- | --- |"
    for field, child in schema["properties"].items():
        meaning = [child.get("description", "")]
        if field in schema.get("required", ()) and name.endswith("Request"):
            meaning.append("Required.")
        elif child.get("default") is not None:
            meaning.append(f"Default `{str(child['default']).lower() if isinstance(child['default'], bool) else child['default']}`.")
        yield f"| `{field}` | {_cell(_type(child))} | {_cell(' '.join(filter(None, meaning)))} |"
    yield ""


def reference(notice: str) -> str:
    """The whole page. `notice` is the sentence that says that the file is generated."""
    api = document()
    lines = [
        f"<!-- {notice} Source: operator/dbbackup/console/api.py -->",
        "# The console's HTTP API",
        "The same as the [console](console.md), for programs. `/api/v1/openapi.json` is this page for machines (OpenAPI 3.1), served without a",
        "sign-in. Send a Kubernetes token as `Authorization: Bearer ...`; what it may do is what Kubernetes RBAC lets it do. What is refused comes",
        'as JSON, `{"error": {"reason", "message", "hint"}}`: `reason` is one stable word, 429 and 503 say in `Retry-After` when to come again.',
        "```sh",
        'curl -H "Authorization: Bearer $(kubectl create token ci -n shop)" https://backups.example.com/api/v1/backups?namespace=shop',
        "```",
        "",
        "## Paths",
    ]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            lines += _operation(method, path, operation)
    lines.append("## Objects")
    for name, schema in api["components"]["schemas"].items():
        if name != "Problem":
            lines += _object(name, schema)
    lines.append("## Answers")
    lines += ["| code | meaning |", "| --- | --- |"]
    known = {code: answer["description"] for methods in api["paths"].values() for op in methods.values() for code, answer in op["responses"].items()}
    lines += [f"| {code} | {text} |" for code, text in sorted(known.items()) if code not in ("200", "201")]
    return "\n".join(lines) + "\n"
