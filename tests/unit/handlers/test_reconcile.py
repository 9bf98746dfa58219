"""A pass over an object, against an API server that refuses."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from tests.unit.support.plan_world import SETTINGS, Raw, backup_obj, job_of, pod, report

from dbbackup import kube as k
from dbbackup.handlers.cache import Cache, key_of
from dbbackup.handlers.observers import Observers
from dbbackup.handlers.reconcile import Reconciler


def refusal(*fields: str) -> k.ApiError:
    causes = [{"reason": "FieldValueTooMany", "message": "Too many: 17: must have at most 16 items", "field": field} for field in fields]
    body = {"kind": "Status", "reason": "Invalid", "message": f"{', '.join(fields)}: Too many", "details": {"causes": causes}, "code": 422}
    return k._error(422, json.dumps(body).encode())


class ApiServer:
    """Takes everything but those fields of a status."""

    def __init__(self, obj: Raw, *refused: str) -> None:
        self.obj, self.refused = obj, refused
        self.clock = k.Clock()
        self.created: list[Raw] = []
        self.deleted: list[str] = []

    async def patch(self, resource: k.Resource, namespace: str, name: str, version: str, patch: Raw) -> Raw:
        wrong = [f"status.{field}" for field in self.refused if patch["status"].get(field) is not None]
        if wrong:
            raise refusal(*wrong)
        status = {key: value for key, value in {**self.obj["status"], **patch["status"]}.items() if value is not None}
        metadata = {**self.obj["metadata"], "resourceVersion": str(int(version) + 1)}
        self.obj = {**self.obj, "metadata": metadata, "status": status}
        return self.obj

    async def create(self, resource: k.Resource, namespace: str, body: Raw) -> Raw:
        self.created.append(body)
        return body

    async def delete(self, resource: k.Resource, namespace: str, name: str, uid: str) -> None:
        self.deleted.append(name)


def world(*refused: str) -> tuple[ApiServer, Reconciler, Any]:
    obj = backup_obj({"phase": "Running", "jobName": "backup-nightly-x"})
    held = job_of(obj | {"status": {}})
    server, cache = ApiServer(obj, *refused), Cache()
    cache.put(obj)
    for child in (held, pod(code=0, message=report(warnings=["w"]), resourceVersion="8")):
        cache.put_child({"kind": "Job", **child})
    return server, Reconciler(cast("k.Kube", server), cache, SETTINGS, lambda _: None, "test", Observers()), key_of(obj)


async def test_a_field_that_the_api_server_refuses_does_not_hide_the_end_of_a_run() -> None:
    server, reconcile, key = world("warnings")
    assert await reconcile(key) is None
    status = server.obj["status"]
    assert (status["phase"], status["artifact"]["key"], "warnings" in status) == ("Completed", "team/ns/h/d/x", False)
    events = {event["reason"]: (event["type"], event["message"]) for event in server.created}
    assert events["StatusRefused"][0] == "Warning"
    assert "status.warnings: Too many" in events["StatusRefused"][1]
    assert "Completed" in events
    assert server.deleted


@pytest.mark.parametrize("refused", ["phase", "conditions"])
async def test_a_status_without_phase_or_conditions_is_not_an_end(refused: str) -> None:
    """It is reported in an Event, tried again, and the Job that holds the report stays."""
    server, reconcile, key = world(refused)
    with pytest.raises(k.ApiError, match="Too many"):
        await reconcile(key)
    assert [event["reason"] for event in server.created] == ["StatusRefused"]
    assert server.deleted == []
