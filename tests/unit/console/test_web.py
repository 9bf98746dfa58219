"""What the console answers: to people signed in and not, to other sites, to names that carry HTML,
to whoever may not."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.support.console_world import HOST, FakeKube, World, backup, obj, signed_in

from dbbackup.console import people as review
from dbbackup.console.app import HEADERS
from dbbackup.console.web import BODY_LIMIT

HTML = '"><img src=x onerror=alert(1)>'
PAGES = ["/backups", "/restores", "/schedules", "/storages", "/backups/new", "/namespaces/shop/backups/one", "/namespaces/shop/backups/one/delete"]


def hostile() -> list[dict[str, Any]]:
    """HTML wherever a field can hold it."""
    failure = {"reason": HTML, "message": HTML, "hint": HTML, "logTail": HTML}
    database = {"name": HTML, "serverVersion": HTML}
    annotations = {"dbbackup.io/requested-by": HTML, "note": HTML}
    held = {"held": {"message": HTML}, "next": [{"name": HTML, "reason": HTML}]}
    status = {"failure": failure, "database": database, "warnings": [HTML], "size": HTML, "expires": HTML, "artifact": {"key": HTML}}
    condition = [{"type": "Ready", "status": "False", "reason": HTML, "message": HTML}]
    return [
        backup("one", phase="Failed", annotations=annotations, status=status),
        backup("run", phase="Running", status={"progress": {"phase": HTML}}),
        obj("DatabaseRestore", "back", annotations=annotations, status={"phase": "Failed", "source": HTML, **status, "safetyBackup": {"key": HTML}}),
        obj("DatabaseBackupSchedule", "nightly", spec={"schedule": HTML, "timeZone": HTML}, status={"retention": held, "conditions": condition}),
        obj("BackupStorage", "default", spec={"s3": {"bucket": HTML, "endpoint": HTML, "prefix": HTML}}, status={"conditions": condition}),
    ]


async def test_no_name_is_reflected_unescaped() -> None:
    async with signed_in(*hostile(), rights={"anna": {"* * *"}}) as world:
        mark = quote(HTML)
        paths = [*PAGES, "/namespaces/shop/backups/run", "/namespaces/shop/restores/back", "/namespaces/shop/schedules/nightly"]
        paths += ["/namespaces/shop/storages/default", "/namespaces/shop/backups/one/restore", f"/backups?q={mark}&database={mark}&state={mark}"]
        paths += [f"/sign-in?next=/{mark}&why={mark}", f"/backups?namespace={mark}", f"/namespaces/{mark}/backups/one", f"/{mark}"]
        paths += [f"/backups/new?namespace={mark}"]
        for path in paths:
            for fragment in ({}, {"hx_request": "true"}):
                answer = await world.get(path, **fragment)
                assert "<img" not in answer.text.replace('<img src="/static/icon.svg"', ""), path
        posted = await world.post("/backups/new", {"namespace": HTML, "secret": HTML, "database": HTML, "name": HTML, "ttl": HTML})
        assert posted.status == 422
        assert "<img src=x" not in posted.text
        assert HTML.replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;") in posted.text, "what was typed is kept"


async def test_every_page_needs_a_sign_in() -> None:
    world = World(FakeKube())
    for path in PAGES:
        answer = await world.get(path)
        assert (answer.status, answer.headers["location"]) == (303, f"/sign-in?next={path}")
    assert (await world.get("/backups", hx_request="true")).headers["hx-redirect"] == "/sign-in?next=/backups"
    api = await world.get("/api/v1/backups")
    assert (api.status, api.headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(api.body)["error"]["reason"] == "NotSignedIn"


async def test_headers_of_every_answer() -> None:
    async with signed_in(backup("one")) as world:
        for path in [
            *PAGES,
            "/nothing",
            "/api/v1/backups",
            "/api/v1/nothing",
            "/healthz",
            "/static/console.css",
            "/sign-in",
            "/backups?namespace=no",
        ]:
            answer = await world.get(path)
            assert HEADERS.items() <= answer.headers.items(), path
            assert answer.headers["cache-control"] == ("max-age=3600" if path.startswith("/static") else "no-store"), path
        csp = HEADERS["content-security-policy"]
        assert "unsafe" not in csp
        assert "http" not in csp
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(csp.split("; "))


async def test_the_pages_keep_the_policy() -> None:
    """No script or style stands in the page, and nothing comes from elsewhere."""
    async with signed_in(*hostile(), rights={"anna": {"* * *"}}) as world:
        for path in [*PAGES, "/namespaces/shop/restores/back", "/namespaces/shop/schedules/nightly", "/namespaces/shop/storages/default"]:
            text = (await world.get(path)).text
            assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=\"|javascript:", text) == [], path
            assert all(url.startswith(("/", "#")) for url in re.findall(r'<[^>]+ (?:src|href|action)="([^"]*)"', text)), path


async def test_the_sessions_cookie() -> None:
    world = World(FakeKube())
    answer = await world.sign_in()
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("dbbackup-session=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    world.cookie = ""
    behind_tls = await world.post("/sign-in", {"token": "token-anna"}, x_forwarded_proto="https")
    assert behind_tls.headers["set-cookie"].startswith("__Host-dbbackup-session=")
    assert "Secure" in behind_tls.headers["set-cookie"]


@pytest.mark.parametrize("token", ["wrong", "", "a b", "t" * 20_000, "ünïcode"], ids=["wrong", "empty", "two words", "long", "no ASCII"])
async def test_a_wrong_token_is_refused_and_logged(token: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(FakeKube())
    with caplog.at_level(logging.INFO):
        answer = await world.sign_in(token)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    [record] = [record for record in caplog.records if record.name == "dbbackup.audit"]
    assert record.levelno == logging.WARNING
    fields: dict[str, Any] = vars(record)["audited"]
    assert (fields["security"], fields["action"], fields["outcome"], fields["source"]) == (True, "sign-in", "refused", "10.0.0.1")
    assert not token or token not in str(fields)


async def test_a_sign_in_leads_nowhere_else() -> None:
    world = World(FakeKube())
    for path in ("//evil.example", "https://evil.example", "/\\evil.example"):
        answer = await world.post(f"/sign-in?next={quote(path)}", {"token": "token-anna"})
        assert answer.headers["location"] == "/"
    answer = await world.post("/sign-in?next=/backups%3Fq%3D1%0d%0aX-Evil:1", {"token": "token-anna"})
    assert answer.headers["location"] == "/"
    assert "x-evil" not in answer.headers


async def test_an_expired_token_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with signed_in(backup("one")) as world:
        assert (await world.get("/backups")).status == 200
        world.kube.tokens.clear()
        assert (await world.get("/backups")).status == 200, "for a moment the answer is remembered"
        world.people._reviews._clock = lambda: 1e12
        answer = await world.get("/backups")
        assert (answer.status, answer.headers["location"]) == (303, "/sign-in?next=/backups&why=expired")
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert "Your token has expired" in (await world.get(answer.headers["location"])).text
        world.kube.tokens["token-anna"] = "anna"
        assert (await world.get("/backups")).status == 303, "the session is gone, not asleep"


async def test_signing_out_ends_the_session() -> None:
    async with signed_in() as world:
        before = world.cookie
        assert (await world.post("/sign-out")).status == 303
        world.cookie = before
        assert (await world.get("/backups")).status == 303


async def test_too_many_attempts_to_sign_in() -> None:
    world = World(FakeKube())
    answers = [await world.sign_in(f"wrong{n}") for n in range(22)]
    assert [answer.status for answer in answers[:20]] == [401] * 20
    assert answers[-1].status == 429
    assert (await world.get("/api/v1/me", authorization="Bearer other", source="10.0.0.1")).status == 429
    assert (await world.request("GET", "/api/v1/me", authorization="Bearer token-anna", source="10.0.0.2")).status == 200, "others are let in"


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "-"},
        {"sec_fetch_site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/namespaces/shop/backups/one/pin", "/namespaces/shop/backups/one/delete", "/backups/new", "/sign-out", "/sign-in"])
async def test_no_change_from_another_site(changed: dict[str, str], path: str) -> None:
    async with signed_in(backup("one")) as world:
        fields = {"confirm": "one", "namespace": "shop", "secret": "a", "token": "token-anna"}
        answer = await world.post(path, fields, **changed)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers
        assert world.kube.writes == []


@pytest.mark.parametrize("token", ["", "x", "other"])
async def test_no_change_without_the_pages_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    async with signed_in(backup("one")) as world:
        if token == "other":
            cookie = world.cookie
            await world.sign_in()
            token, world.cookie = world.csrf, cookie
        with caplog.at_level(logging.INFO):
            assert (await world.post("/namespaces/shop/backups/one/pin", {"csrf": token})).status == 403
        assert any(vars(record).get("audited", {}).get("security") for record in caplog.records)
        by_api = await world.request("PUT", "/api/v1/namespaces/shop/backups/one/pin", x_csrf_token=token)
        assert by_api.status == 403
        assert world.kube.writes == []
        good = await world.request("PUT", "/api/v1/namespaces/shop/backups/one/pin", x_csrf_token=world.csrf)
        assert good.status == 200
    assert world.kube.writes


async def test_a_get_changes_nothing() -> None:
    async with signed_in(backup("one")) as world:
        for action in ("pin", "unpin"):
            assert (await world.get(f"/namespaces/shop/backups/one/{action}")).status == 405
        assert (await world.get("/sign-out")).status == 405
        assert world.kube.writes == []


async def test_large_requests_are_refused() -> None:
    async with signed_in() as world:
        answer = await world.post("/backups/new", {"namespace": "x" * BODY_LIMIT})
        assert answer.status == 413
        assert (await world.post("/backups/new", {f"f{n}": "x" for n in range(99)})).status == 422


async def test_too_many_changes() -> None:
    async with signed_in(backup("one")) as world:
        answers = [await world.post("/namespaces/shop/backups/one/pin") for _ in range(62)]
        assert {answer.status for answer in answers[:60]} == {303}
        assert answers[-1].status == 429
        assert int(answers[-1].headers["retry-after"]) >= 1


READS = ["backups", "restores", "schedules", "storages"]


@pytest.mark.parametrize("name", ["one", "none"])
async def test_another_namespace_tells_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whether an object is there or not, the answer is the same."""
    others = [obj(kind, "one", "secret") for kind in ("BackupStorage", "DatabaseBackupSchedule", "DatabaseRestore")]
    async with signed_in(backup("one", "secret"), *others, backup("mine")) as world:
        paths = [f"/api/v1/namespaces/secret/{plural}/{name}" for plural in READS] + [f"/namespaces/secret/{plural}/{name}" for plural in READS]
        paths += [f"{prefix}/namespaces/secret/backups/{name}/download" for prefix in ("", "/api/v1")]
        paths += [f"/namespaces/secret/backups/{name}/{form}" for form in ("restore", "delete")]
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for path in paths:
                answer = await world.get(path)
                assert answer.status == 403, path
                assert "namespace secret" in answer.text
                assert (name == "none") or "uid-secret" not in answer.text
        refused = [vars(record)["audited"] for record in caplog.records if "audited" in vars(record)]
        assert len(refused) == len(paths)
        assert all(line["security"] and line["namespace"] == "secret" for line in refused)


async def test_no_change_in_another_namespace() -> None:
    async with signed_in(backup("one", "secret"), obj("DatabaseBackupSchedule", "one", "secret"), backup("mine")) as world:
        for action in ("pin", "unpin"):
            assert (await world.post(f"/namespaces/secret/backups/one/{action}")).status == 403
        for action in ("suspend", "resume", "run-now"):
            assert (await world.post(f"/namespaces/secret/schedules/one/{action}")).status == 403
        assert (await world.post("/namespaces/secret/backups/one/delete", {"confirm": "one"})).status == 403
        restore = {"confirm": "app", "secret": "a", "database": "app"}
        assert (await world.post("/namespaces/secret/backups/one/restore", restore)).status == 403
        assert (await world.post("/backups/new", {"namespace": "secret", "secret": "a"})).status == 403
        assert world.kube.writes == []


async def test_lists_show_what_may_be_listed() -> None:
    async with signed_in(backup("mine"), backup("theirs", "secret")) as world:
        listed = json.loads((await world.get("/api/v1/backups")).body)
        assert [item["name"] for item in listed["items"]] == ["mine"]
        page = await world.get("/backups")
        assert "mine" in page.text
        assert "theirs" not in page.text
        assert "secret<" not in page.text, "not even its namespace"
        assert (await world.get("/backups?namespace=secret")).status == (await world.get("/backups?namespace=nothere")).status == 403


async def test_who_may_do_nothing_is_told_so() -> None:
    async with signed_in(backup("one"), rights={}) as world:
        page = await world.get("/backups")
        assert page.status == 200
        assert "No backups yet" in page.text
        assert "ask an administrator" in page.text
        assert "one<" not in page.text


async def test_a_viewer_is_offered_no_action() -> None:
    async with signed_in(backup("one"), rights={"anna": {"get * shop", "list * shop"}}) as world:
        page = await world.get("/namespaces/shop/backups/one")
        # `get` on everything includes the subresource download
        assert "a-restore" not in page.text
        assert "a-pin" not in page.text
        assert "a-delete" not in page.text
        assert "a-download" in page.text
    async with signed_in(backup("one"), rights={"anna": {"get databasebackups shop"}}) as world:
        assert "You may view this backup" in (await world.get("/namespaces/shop/backups/one")).text


async def test_kubernetes_is_asked_about_the_whole_person() -> None:
    async with signed_in(backup("one")) as world:
        await world.get("/namespaces/shop/backups/one/download")
        asked = [spec for spec in world.kube.asked if spec["resourceAttributes"]["subresource"] == "download"]
        assert [spec["resourceAttributes"]["verb"] for spec in asked] == ["get"]
        assert (asked[0]["user"], asked[0]["uid"], asked[0]["groups"], asked[0]["extra"]) == ("anna", "1", ["all"], {"x": ["y"]})
        assert asked[0]["resourceAttributes"]["group"] == "dbbackup.io"
        await world.get("/namespaces/shop/backups/one/download")
        assert len([spec for spec in world.kube.asked if spec["resourceAttributes"]["subresource"]]) == 2, "a download is asked about each time"


async def test_answers_about_changes_are_not_remembered() -> None:
    async with signed_in(backup("one")) as world:
        await world.post("/namespaces/shop/backups/one/pin")
        world.kube.rights["anna"] = set()
        assert (await world.post("/namespaces/shop/backups/one/unpin")).status == 403
        assert len(world.kube.writes) == 1
        assert review.READ_SECONDS <= 30


async def test_what_is_done_is_audited(caplog: pytest.LogCaptureFixture) -> None:
    async with signed_in(backup("one")) as world:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            await world.post("/backups/new", {"namespace": "shop", "secret": "app-db", "name": "two"})
            await world.post("/namespaces/shop/backups/one/delete", {"confirm": "one", "uid": "uid-shop-one"})
        lines = [vars(record)["audited"] for record in caplog.records if "audited" in vars(record)]
        audited = [(line["action"], line["outcome"], line["who"], line["namespace"], line["name"], line["source"]) for line in lines]
        assert audited == [
            ("create", "succeeded", "anna", "shop", "two", "10.0.0.1"),
            ("delete", "succeeded", "anna", "shop", "one", "10.0.0.1"),
        ]


async def test_a_preview_does_nothing() -> None:
    async with signed_in(backup("one")) as world:
        for path in ("/backups/new", "/namespaces/shop/backups/one/restore", "/namespaces/shop/backups/one/delete"):
            answer = await world.post(path, {"namespace": "shop", "secret": "app-db", "database": "app", "preview": "1"})
            assert answer.status == 200
            assert "What would be applied" in answer.text
        assert world.kube.writes == []


async def test_a_form_keeps_what_was_typed() -> None:
    async with signed_in(backup("one")) as world:
        answer = await world.post("/namespaces/shop/backups/one/restore", {"secret": "other-db", "database": "copy", "onExisting": "Replace"})
        assert answer.status == 422
        assert 'value="other-db"' in answer.text
        assert re.search(r'value="Replace"[^>]* checked', answer.text)
        assert not re.search(r'name="safetyBackup"[^>]* checked', answer.text), "it was taken off"


async def test_only_what_changes_is_polled_quickly() -> None:
    async with signed_in(backup("one"), backup("run", phase="Running")) as world:
        assert 'hx-trigger="every 3s"' in (await world.get("/namespaces/shop/backups/run")).text
        assert "hx-trigger" not in (await world.get("/namespaces/shop/backups/one")).text
        assert 'hx-trigger="every 3s"' in (await world.get("/backups")).text
        assert 'hx-trigger="every 20s"' in (await world.get("/backups?state=Completed")).text
        fragment = await world.get("/backups", hx_request="true")
        assert "<html" not in fragment.text


async def test_faults_tell_no_secrets(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async with signed_in(backup("one")) as world:

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("password=hunter2")

        monkeypatch.setattr(world.service, "get", broken)
        with pytest.raises(RuntimeError), caplog.at_level(logging.CRITICAL):
            await world.get("/namespaces/shop/backups/one")


async def test_the_probes_need_nobody() -> None:
    world = World(FakeKube())
    assert (await world.get("/healthz")).status == 200
    assert (await world.get("/readyz")).status == 503
    world.cache._listed = {("DatabaseBackup", None): True}
    assert (await world.get("/readyz")).status == 200
    assert HOST
