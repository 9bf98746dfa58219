"""The API's table, its OpenAPI document and its reference are one."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from starlette.routing import Route
from tests.root import ROOT
from tests.unit.support.console_world import FakeKube, World, backup, obj, signed_in

from dbbackup.console.api import Api
from dbbackup.console.endpoints import ENDPOINTS
from dbbackup.console.openapi import document
from dbbackup.console.web import Gate

DOCS = ROOT / "docs"
AUTH: dict[str, Any] = {"authorization": "Bearer token-anna"}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): operation for path, methods in document()["paths"].items() for method, operation in methods.items()}


def test_every_route_is_in_the_document() -> None:
    world = World(FakeKube())
    routes: list[Route] = Api(world.service, Gate(world.people, world.sessions), world.downloads).routes()
    served = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert served == set(operations()) == {(endpoint.method, endpoint.full_path) for endpoint in ENDPOINTS}
    assert len({operation["operationId"] for operation in operations().values()}) == len(ENDPOINTS)


def test_every_path_and_parameter_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text()
    for (method, path), operation in operations().items():
        assert f"`{method} {path}`" in text
        for parameter in operation["parameters"]:
            assert f"`{parameter['name']}`" in text
        assert operation["description"].removeprefix("Right in Kubernetes: ").rstrip(".") in text
    for name, schema in document()["components"]["schemas"].items():
        if name != "Problem":
            assert f"### {name}" in text
            assert [field for field in schema["properties"] if f"| `{field}` |" not in text] == []


def test_every_reference_in_the_document_leads_somewhere() -> None:
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == set(schemas)
    assert all(operation["responses"] for operation in operations().values())


OBJECTS = [
    backup("one"),
    backup("bad", phase="Failed"),
    obj("DatabaseRestore", "one", status={"phase": "Completed", "restored": {"rows": 7}}),
    obj("DatabaseBackupSchedule", "one", spec={"schedule": "@daily"}),
    obj("BackupStorage", "one", spec={"s3": {"bucket": "b"}, "capacity": "1Gi"}),
]


@pytest.mark.parametrize("plural", ["backups", "restores", "schedules", "storages"])
async def test_answers_are_as_the_document_says(plural: str) -> None:
    components = {"components": document()["components"]}
    async with signed_in(*OBJECTS) as world:
        answer = json.loads((await world.request("GET", f"/api/v1/{plural}", **AUTH)).body)
        listed = operations()["GET", f"/api/v1/{plural}"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, {**listed, **components})
        assert answer["total"] == len(answer["items"]) >= 1
        one = json.loads((await world.request("GET", f"/api/v1/namespaces/shop/{plural}/one", **AUTH)).body)
        single = operations()["GET", f"/api/v1/namespaces/{{namespace}}/{plural}/{{name}}"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        jsonschema.validate(one, {**single, **components})
        assert one["object"]["metadata"]["name"] == "one"


async def test_filters_of_the_api() -> None:
    async with signed_in(*OBJECTS) as world:
        answer = json.loads((await world.request("GET", "/api/v1/backups?state=Failed&namespace=shop&q=bad", **AUTH)).body)
        assert [item["name"] for item in answer["items"]] == ["bad"]
        assert answer["items"][0]["badges"] == ["Failed"]


async def test_a_backup_is_made_with_a_token_alone() -> None:
    """No cookie goes along, so no other site can ride on it."""
    async with signed_in() as world:
        world.cookie = ""
        body = json.dumps({"secret": "app-db", "name": "two"}).encode()
        answer = await world.request("POST", "/api/v1/namespaces/shop/backups", body=body, content_type="application/json", **AUTH)
        assert answer.status == 201
        assert json.loads(answer.body)["name"] == "two"
        assert world.kube.writes[0][3]["metadata"]["annotations"] == {"dbbackup.io/requested-by": "anna"}


async def test_a_dry_run_is_yaml() -> None:
    async with signed_in(*OBJECTS) as world:
        answer = await world.request("DELETE", "/api/v1/namespaces/shop/backups/one?dryRun=true", **AUTH)
        assert answer.headers["content-type"].startswith("application/yaml")
        assert "deletionPolicy: Delete" in answer.text
        assert world.kube.writes == []


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status"),
    [
        ("POST", "/namespaces/shop/backups", b"{", "application/json", 422),
        ("POST", "/namespaces/shop/backups", b"[]", "application/json", 422),
        ("POST", "/namespaces/shop/backups", b"[" * 50_000, "application/json", 422),
        ("POST", "/namespaces/shop/backups", b"secret=a", "application/x-www-form-urlencoded", 415),
        ("POST", "/namespaces/shop/backups", b'{"secret": "a", "owner": "root"}', "application/json", 422),
        ("POST", "/namespaces/Shop/backups", b'{"secret": "a"}', "application/json", 404),
        ("POST", "/namespaces/shop/restores", b'{"backup": "one", "secret": "a", "database": "b", "confirm": "c"}', "application/json", 422),
        ("DELETE", "/namespaces/shop/backups/one", b"", "", 422),
        ("DELETE", "/namespaces/shop/backups/one?confirm=one&force=1", b"", "", 422),
        ("DELETE", "/namespaces/shop/backups/none?confirm=none", b"", "", 404),
        ("PUT", "/namespaces/shop/backups/..%2F..%2Fsecrets/pin", b"", "", 404),
        ("GET", "/backups?namespace=A%0d%0aB", b"", "", 422),
        ("PATCH", "/namespaces/shop/backups/one", b"", "", 405),
    ],
)
async def test_what_is_wrong_is_told(method: str, path: str, body: bytes, content_type: str, status: int) -> None:
    async with signed_in(*OBJECTS) as world:
        answer = await world.request(method, f"/api/v1{path}", body=body, content_type=content_type or "-", **AUTH)
        assert answer.status == status, answer.text
        assert set(json.loads(answer.body)["error"]) == {"reason", "message", "hint"}
        assert world.kube.writes == []


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "token-anna", "Bearer token-anna extra"])
async def test_other_ways_to_sign_in_are_none(header: str) -> None:
    world = World(FakeKube())
    assert (await world.request("GET", "/api/v1/me", authorization=header)).status == 401
