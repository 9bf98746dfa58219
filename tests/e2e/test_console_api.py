"""The console on a real cluster, as curl and as another site's page would speak to it: rights,
downloads, audit."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.conftest import SHARED, Operator
from tests.e2e.lib import console as consoles
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.console import account
from tests.e2e.lib.console_world import World, world_of
from tests.e2e.lib.postgres import Postgres
from tests.e2e.lib.s3 import S3

pytestmark = pytest.mark.xdist_group("console")


@pytest.fixture(scope="module")
def world(cluster: Cluster, operator: Operator, shared_postgres: Callable[[int], Postgres], shared_s3: S3) -> Iterator[World]:
    with world_of(cluster, shared_postgres, shared_s3) as found:
        yield found


def artifact_of(world: World, name: str = "first") -> str:
    return str(world.shop.get("databasebackup", name)["status"]["artifact"]["key"])


def test_who_they_are(world: World) -> None:
    person = world.client("admin").get("/api/v1/me").json
    assert person["name"] == f"system:serviceaccount:{world.shop.name}:anna"
    assert "system:authenticated" in person["groups"]


@pytest.mark.parametrize("who", ["admin", "editor", "viewer"])
def test_lists_end_at_the_namespace(world: World, who: str) -> None:
    client = world.client(who)
    names = {(item["namespace"], item["name"]) for item in client.get("/api/v1/backups?size=500").json["items"]}
    assert (world.shop.name, "first") in names
    assert {space for space, _ in names} == {world.shop.name}
    assert client.get(f"/api/v1/backups?namespace={world.other.name}").status == 403


def test_whoever_has_no_right_sees_nothing(world: World) -> None:
    client = world.client("nobody")
    assert client.get("/api/v1/backups").json["items"] == []
    assert client.get(f"{world.api}/backups/first").status == 403


@pytest.mark.parametrize("name", ["theirs", "no-such"])
def test_no_way_into_another_namespace(world: World, name: str) -> None:
    """Whatever is there or not: the answer is the same, and nothing is done."""
    client, there = world.client("admin"), f"/api/v1/namespaces/{world.other.name}"
    asked = [
        client.get(f"{there}/backups/{name}"),
        client.get(f"{there}/backups/{name}/download"),
        client.get(f"{there}/restores/{name}"),
        client.get(f"{there}/schedules/{name}"),
        client.get(f"{there}/storages/{name}"),
        client.send("PUT", f"{there}/backups/{name}/pin"),
        client.send("DELETE", f"{there}/backups/{name}/pin"),
        client.send("DELETE", f"{there}/backups/{name}?confirm={name}"),
        client.send("POST", f"{there}/backups", {"secret": "db"}),
        client.send("POST", f"{there}/restores", {"backup": name, "secret": "db", "database": "x", "confirm": "x"}),
        client.send("POST", f"{there}/schedules/{name}/run-now"),
    ]
    assert [answer.status for answer in asked] == [403] * len(asked)
    assert {answer.json["error"]["reason"] for answer in asked} == {"Forbidden"}
    assert len(world.other.objects("databasebackups")) == 1
    assert "dbbackup.io/pin" not in str(world.other.objects("databasebackups"))


@pytest.mark.parametrize(
    ("who", "may"),
    [("admin", {"create", "restore", "pin", "download"}), ("editor", {"create", "pin"}), ("viewer", set()), ("nobody", set())],
)
def test_rights_are_those_of_kubernetes(world: World, who: str, may: set[str]) -> None:
    client = world.client(who)
    nothing = {"backup": "first", "secret": "absent", "database": "absent", "confirm": "absent"}
    done = {
        "create": client.send("POST", f"{world.api}/backups", {"secret": "absent", "storage": "absent", "name": f"by-{who}"}).status,
        "restore": client.send("POST", f"{world.api}/restores", nothing).status,
        "pin": client.send("PUT", f"{world.api}/backups/first/pin").status,
        "download": client.request("HEAD", f"{world.api}/backups/first/download").status,
    }
    assert {action for action, status in done.items() if status in (200, 201)} == may, done
    assert {status for action, status in done.items() if action not in may} <= {403}


def test_who_asked_is_told(world: World) -> None:
    answer = world.client("admin").send("POST", f"{world.api}/backups", {"secret": "absent", "storage": "absent", "name": "asked"})
    assert answer.status == 201, answer.text
    assert world.shop.get("databasebackup", "asked")["metadata"]["annotations"]["dbbackup.io/requested-by"].endswith(":anna")
    managers = {entry["manager"] for entry in world.shop.get("databasebackup", "asked")["metadata"].get("managedFields", ())}
    assert not managers or "dbbackup-console" in managers


def test_sql_comes_as_it_was_dumped(world: World) -> None:
    answer = world.client("admin").get(f"{world.api}/backups/first/download")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/sql"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="first.sql"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers["Content-Length"]) == len(answer.body) == world.bucket.manifest(artifact_of(world))["dumpBytes"]
    assert answer.body.count(b"\n") > 300_000
    assert b"COPY public.t" in answer.body


def test_the_artifact_comes_as_it_is_stored(world: World) -> None:
    answer = world.client("admin").get(f"{world.api}/backups/first/download?raw=1")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="first.sql.zst"'
    assert hashlib.sha256(answer.body).hexdigest() == world.first["status"]["artifact"]["sha256"]


def test_an_artifact_that_is_damaged_or_gone(world: World) -> None:
    made = world.client("admin").send("POST", f"{world.api}/backups", {"secret": "db", "name": "harmed"})
    assert made.status == 201
    world.shop.completed(made.json["object"])
    client, key = world.client("admin"), artifact_of(world, "harmed") + "/dump.sql.zst"
    body = world.bucket.get(key)
    parts = [part["size"] for part in world.bucket.manifest(artifact_of(world, "harmed"))["objects"][0]["parts"]]
    assert len(parts) > 1, "the artifact must have a second part to be harmed in"
    world.bucket.put(key, body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(http.client.IncompleteRead) as broken:
        client.get(f"{world.api}/backups/harmed/download?raw=1")
    assert body.startswith(broken.value.partial)
    assert len(broken.value.partial) <= sum(parts[:-1])
    with pytest.raises(http.client.IncompleteRead):
        client.get(f"{world.api}/backups/harmed/download")
    world.bucket.put(key, bytes([body[0] ^ 1]) + body[1:])
    answer = client.get(f"{world.api}/backups/harmed/download")
    assert (answer.status, answer.json["error"]["reason"]) == (502, "ArtifactCorrupt")
    world.bucket.delete(key)
    answer = client.get(f"{world.api}/backups/harmed/download")
    assert (answer.status, answer.json["error"]["reason"]) == (404, "ArtifactMissing")
    assert "is not in the bucket" in answer.json["error"]["message"]


def test_secrets_of_other_namespaces_stay_closed(world: World) -> None:
    """The answer says what to set: the console has no right on the Secrets."""
    token = account(world.other, "otto", "admin")
    answer = world.console.person(token).get(f"/api/v1/namespaces/{world.other.name}/backups/theirs/download")
    assert (answer.status, answer.json["error"]["reason"]) == (403, "DownloadsNotEnabled")
    assert "console.downloadNamespaces" in answer.json["error"]["hint"]
    mine = f"system:serviceaccount:{world.console.kube.name}:{consoles.NAME}"
    for space, may in ((world.shop.name, "yes"), (world.other.name, "no"), (SHARED, "no")):
        allowed = world.shop.cluster.kubectl("auth", "can-i", "get", "secrets", "-n", space, "--as", mine, check=False).splitlines()[-1]
        assert allowed == may, space


def test_a_deletion_takes_the_artifact(world: World) -> None:
    client = world.client("editor")
    made = client.send("POST", f"{world.api}/backups", {"secret": "db", "name": "brief", "format": "custom"})
    world.shop.completed(made.json["object"])
    key = artifact_of(world, "brief")
    assert world.bucket.keys(key)
    assert client.send("DELETE", f"{world.api}/backups/brief?confirm=first").status == 422
    assert client.send("DELETE", f"{world.api}/backups/brief?confirm=brief").status == 200
    world.shop.wait_gone("databasebackup", "brief")
    assert world.bucket.keys(key) == []


def test_no_change_by_another_sites_page(world: World) -> None:
    client = world.client("admin").sign_in()
    path, csrf = f"/namespaces/{world.shop.name}/backups/first/unpin", client.csrf
    world.shop.run("annotate", "databasebackup", "first", "dbbackup.io/pin=true", "--overwrite")
    for fields, headers in [
        ({"csrf": csrf}, {"Origin": "https://evil.example"}),
        ({"csrf": csrf}, {"Origin": "null"}),
        ({"csrf": csrf}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": "x"}, {}),
        ({}, {}),
    ]:
        assert client.form(path, fields, **headers).status == 403
    assert client.send("DELETE", f"{world.api}/backups/first/pin").status == 403, "the API with a cookie wants the token too"
    assert world.shop.get("databasebackup", "first")["metadata"]["annotations"]["dbbackup.io/pin"] == "true"
    assert client.form(path, {"csrf": csrf}).status == 303
    assert "dbbackup.io/pin" not in world.shop.get("databasebackup", "first")["metadata"].get("annotations", {})


def test_headers_hold_nothing_that_was_sent(world: World) -> None:
    client = world.client("admin").sign_in()
    for path in ("/sign-in?next=/x%0d%0aSet-Cookie:a=b", "/backups?q=%0d%0aX-Evil:1", f"/namespaces/{world.shop.name}/backups/a%0d%0aX-Evil:1"):
        answer = client.get(path)
        assert "X-Evil" not in answer.headers
        assert "a=b" not in (answer.headers.get("Set-Cookie") or "")
    answer = client.form("/sign-in?next=//evil.example", {"token": world.tokens["admin"]})
    assert answer.headers["Location"] == "/"


def test_attempts_to_sign_in_are_limited(cluster: Cluster, world: World) -> None:
    with consoles.console(cluster) as own:
        guesses = [own.person(f"wrong-{n}").get("/api/v1/me").status for n in range(22)]
        assert guesses[:20] == [401] * 20
        assert guesses[-1] == 429
        refused = [line for line in own.audit() if line["action"] == "sign-in"]
        assert len(refused) == 22
        assert all(line["security"] and line["outcome"] == "refused" and line["source"] for line in refused)
        assert all(line["level"] == "warning" for line in refused)


def test_a_token_that_is_no_more(world: World) -> None:
    """The ServiceAccount is deleted: the API server does not know its token any more, and the
    console soon hears of it."""
    token = account(world.shop, "gone", "view")
    client = world.console.person(token)
    assert client.get("/api/v1/me").status == 200
    world.shop.run("delete", "serviceaccount", "gone")
    fresh = consoles.account(world.shop, "gone", "view")
    assert fresh != token
    assert world.console.person(fresh).get("/api/v1/me").status == 200
    assert world.console.person(token[:-8] + "AAAAAAAA").get("/api/v1/me").status == 401


def test_what_was_done_and_refused_is_in_the_log(world: World) -> None:
    client = world.client("viewer")
    client.send("DELETE", f"{world.api}/backups/first?confirm=first")
    client.get(f"{world.api}/backups/first/download")
    who = f"system:serviceaccount:{world.shop.name}"
    lines = world.console.audit()
    audited = {(line["action"], line["outcome"], line["who"]) for line in lines if line.get("namespace") == world.shop.name}
    assert {("delete", "refused", f"{who}:vi"), ("download", "refused", f"{who}:vi")} <= audited
    assert all(line["via"] == "console" and line["source"] for line in lines)
    assert all(line["level"] == "warning" and line["security"] for line in lines if line["outcome"] == "refused")
    assert not any(token in str(lines) for token in world.tokens.values())
