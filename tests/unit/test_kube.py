"""The API client: its paths, its errors, and that it asks for nothing outside its own table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dbbackup import kube


def test_paths() -> None:
    assert kube.BACKUPS.path("ns", "a") == "/apis/dbbackup.io/v1/namespaces/ns/databasebackups/a"
    assert kube.BACKUPS_STATUS.path("ns", "a") == "/apis/dbbackup.io/v1/namespaces/ns/databasebackups/a/status"
    assert kube.PODS_LOG.path("ns", "p") == "/api/v1/namespaces/ns/pods/p/log"
    assert kube.PODS.path(None) == "/api/v1/pods"
    assert kube.JOBS.path("ns", "../secrets/x") == "/apis/batch/v1/namespaces/ns/jobs/..%2Fsecrets%2Fx"


def test_there_is_no_secret_and_no_change_of_pods_in_the_table() -> None:
    plurals = {resource.plural for resource in kube.RESOURCES}
    assert not any("secret" in plural or "configmap" in plural for plural in plurals)
    assert frozenset({"list", "watch"}) == kube.PODS.verbs
    assert all(resource.verbs <= {"get", "list", "watch", "create", "patch", "delete"} for resource in kube.RESOURCES)


async def test_a_call_outside_the_table_is_refused_before_it_is_made() -> None:
    client: Any = None
    with pytest.raises(ValueError, match="create on pods is not in RESOURCES"):
        await kube.Kube(client).create(kube.PODS, "ns", {})


@pytest.mark.parametrize("status", [0, 400, 403, 404, 500, 502])
async def test_the_end_of_a_log_that_cannot_be_had_holds_up_nothing(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(*_: object, **__: object) -> None:
        raise kube.ApiError(status, "InternalError", "dial tcp 10.0.0.7:10250: connect: no route to host")

    client: Any = None
    monkeypatch.setattr(kube.Kube, "_send", send)
    assert await kube.Kube(client).log_tail("ns", "p", "main", 10) == []


def answer(status: int, reason: str, message: str) -> kube.ApiError:
    return kube._error(status, json.dumps({"kind": "Status", "reason": reason, "message": message}).encode())


@pytest.mark.parametrize(
    ("error", "is_"),
    [
        (answer(404, "NotFound", "gone"), "not_found"),
        (answer(409, "Conflict", "the object has been modified"), "conflict"),
        (answer(409, "AlreadyExists", "exists"), "already_exists"),
        (answer(403, "Forbidden", "unable to create new content in namespace x because it is being terminated"), "namespace_terminating"),
        (answer(403, "Forbidden", "exceeded quota"), "refused"),
        (answer(422, "Invalid", "spec: Invalid value"), "invalid"),
        (answer(400, "BadRequest", "quantities must match"), "invalid"),
    ],
)
def test_errors_are_distinguished(error: kube.ApiError, is_: str) -> None:
    kinds = {"not_found", "conflict", "already_exists", "namespace_terminating", "refused", "invalid"}
    holds = {kind for kind in kinds if getattr(error, kind)}
    assert is_ in holds
    assert holds - {is_} <= {"refused"}


def test_an_answer_that_is_not_a_status_becomes_the_message() -> None:
    error = kube._error(502, b"<html>bad gateway</html>")
    assert (error.status, error.reason) == (502, "HTTP502")
    assert "bad gateway" in str(error)
