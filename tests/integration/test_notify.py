"""Notifications to a real HTTP server: signed, tried again, told on the object; and what must not
be called is not."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AddressFamily
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from tests.root import ROOT
from tests.unit.support.plan_world import T0, backup_obj

from dbbackup.api.conditions import timestamp
from dbbackup.api.objects import Raw
from dbbackup.handlers import notify as handler
from dbbackup.handlers.cache import Key
from dbbackup.handlers.notify import Notifier, NotTaken, Refused, Sender
from dbbackup.kube import ApiError
from dbbackup.plan import notify, sinks
from dbbackup.plan.notify import Notification

SECRET_PATH = "/T0KEN-of-a-channel"
FAILED: Raw = {"phase": "Failed", "failure": {"reason": "DiskFull", "message": "no room", "hint": "make some"}, "conditions": []}
WHAT = Notification("failure", "DiskFull", "no room")


class Receiver:
    """A server on 127.0.0.1. `answers` are the HTTP statuses it gives, the last one for ever; 0:
    none within a second."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers) or [200]
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.arrived = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                receiver.requests.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                receiver.arrived.set()
                if status == 0:
                    time.sleep(1)
                    return
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = _take  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{SECRET_PATH}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, _, body in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*answers: int) -> Receiver:
        made.append(Receiver(*answers))
        return made[-1]

    yield make
    for found in made:
        found.close()


def sink(url: str = "", **more: Any) -> sinks.Sink:
    where: Raw = {"url": url} if url else {"urlSecretRef": {"name": "s", "key": "u"}}
    [found] = sinks.parse([{"name": "ops", "type": "webhook", "allowPrivate": True, **where, **more}])
    return found


def owing(name: str = "nightly", what: Notification = WHAT) -> Raw:
    obj = backup_obj({}, metadata={"name": name, "uid": f"uid-of-{name}"})
    return {**obj, "status": notify.with_owed(FAILED, what, obj, T0)}


def payload(obj: Raw | None = None) -> notify.Payload:
    return notify.payload(obj or owing(), WHAT, "ops")


# One call


async def test_a_webhook_is_signed_and_the_documented_receiver_believes_it(receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    server = receiver()
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "key").write_text("the signing key\n")
    await Sender(sink(server.url, secretRef={"name": "s", "key": "k"}), tmp_path).send(payload())
    [(method, path, headers, body)] = server.requests
    assert (method, path, headers["content-type"], headers["x-dbbackup-event"]) == ("POST", SECRET_PATH, "application/json", "failure")
    assert json.loads(body)["id"] == headers["x-dbbackup-id"]
    page = (ROOT / "docs" / "notifications.md").read_text()
    [snippet] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    documented: dict[str, Any] = {}
    exec(snippet, documented)
    genuine = documented["genuine"]
    header = headers["x-dbbackup-signature"]
    assert genuine(b"the signing key", header, body)
    assert not genuine(b"another key", header, body)
    assert not genuine(b"the signing key", header, body.replace(b"DiskFull", b"AllFine"))
    assert not genuine(b"the signing key", sinks.signature(b"the signing key", body, int(time.time()) - 3600), body)
    assert not genuine(b"the signing key", "nonsense", body)
    assert not genuine(b"the signing key", "", body)


async def test_slack_gets_its_own_form_and_no_signature(receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    server = receiver()
    await Sender(sink(server.url, type="slack"), tmp_path).send(payload())
    assert server.bodies == [{"text": ":x: *DatabaseBackup ns/nightly failed*: DiskFull\nno room\n_make some_"}]
    assert "x-dbbackup-signature" not in server.requests[0][2]


async def test_the_url_of_a_secret_is_read_each_time(receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    old, new = receiver(), receiver()
    sender = Sender(sink(), tmp_path)
    with pytest.raises(NotTaken, match="the url cannot be read from its Secret"):
        await sender.send(payload())
    (tmp_path / "ops").mkdir()
    for server in (old, new):
        (tmp_path / "ops" / "url").write_text(f"{server.url}\n")
        await sender.send(payload())
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Callable[..., Receiver], tmp_path: Path, status: int) -> None:
    server = receiver(status, 200)
    with pytest.raises(Refused, match="redirects are not followed"):
        await Sender(sink(server.url), tmp_path).send(payload())
    assert [path for _, path, _, _ in server.requests] == [SECRET_PATH]


@pytest.mark.parametrize(("status", "error"), [(400, Refused), (404, Refused), (410, Refused), (429, NotTaken), (500, NotTaken), (503, NotTaken)])
async def test_which_answers_are_final(receiver: Callable[..., Receiver], tmp_path: Path, status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"HTTP {status}"):
        await Sender(sink(receiver(status).url), tmp_path).send(payload())


async def test_no_answer_and_nobody_there_may_be_tried_again(
    receiver: Callable[..., Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SEND_SECONDS", 0.2)
    with pytest.raises(NotTaken, match=r"no answer within 0\.2 s"):
        await Sender(sink(receiver(0).url), tmp_path).send(payload())
    gone = receiver()
    gone.close()
    with pytest.raises(NotTaken, match="the connection failed"):
        await Sender(sink(gone.url), tmp_path).send(payload())


# What is not called


class Names(AbstractResolver):
    """What the DNS says, one answer after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC) -> list[ResolveResult]:
        found = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [ResolveResult(hostname=host, host=address, port=port, family=AddressFamily.AF_INET, proto=0, flags=0) for address in found]

    async def close(self) -> None:
        pass


async def test_a_name_that_leads_to_a_private_address_is_not_called(receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    server = receiver()
    for addresses in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], ["10.96.0.1"]):
        sender = Sender(sink(f"https://hooks.example.com:{server.port}/x", allowPrivate=False), tmp_path, lambda found=addresses: Names(found))  # type: ignore[misc]
        with pytest.raises(Refused, match="has an address that must not be called"):
            await sender.send(payload())
    assert server.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(receiver: Callable[..., Receiver], tmp_path: Path) -> None:
    """A second answer for the same name, as a rebinding DNS gives it, is not even asked for."""
    server = receiver()
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    await Sender(sink(f"http://hooks.example.com:{server.port}/x"), tmp_path, lambda: names).send(payload())
    assert (names.asked, len(server.requests)) == (1, 1)
    with pytest.raises(Refused, match="link-local"):
        await Sender(sink(f"http://hooks.example.com:{server.port}/x"), tmp_path, lambda: names).send(payload())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"])
async def test_no_spelling_of_this_machine_is_called(receiver: Callable[..., Receiver], tmp_path: Path, host: str) -> None:
    server = receiver()
    with pytest.raises((Refused, NotTaken)):
        await Sender(sink(f"https://{host}:{server.port}/", allowPrivate=False), tmp_path, ThreadedResolver).send(payload())
    assert server.requests == []


async def test_the_metadata_of_a_cloud_is_not_called_whatever_is_allowed(tmp_path: Path) -> None:
    for url in ("http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"):
        with pytest.raises(Refused, match="link-local"):
            await Sender(sink(url), tmp_path).send(payload())


async def test_a_proxy_of_the_environment_is_not_used(receiver: Callable[..., Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up itself, and nobody would have checked the address."""
    proxy, server = receiver(), receiver()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    await Sender(sink(server.url), tmp_path).send(payload())
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


# Many, and what stands on the object


class Objects:
    """The API server, as far as statuses are concerned."""

    def __init__(self, *objects: Raw) -> None:
        self.objects = {obj["metadata"]["name"]: obj for obj in objects}
        self.conflicts = 0
        self.settled = asyncio.Event()

    async def settle(self, key: Key, obj: Raw, status: Raw) -> Raw:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "Conflict", "changed meanwhile")
        self.objects[key.name] = {**obj, "status": status}
        self.settled.set()
        return self.objects[key.name]

    async def fetch(self, key: Key) -> Raw | None:
        return self.objects.get(key.name)

    def mark(self, name: str = "nightly") -> tuple[str, str]:
        found = self.objects[name]["status"]["conditions"][-1]
        return found["status"], found["message"]


@asynccontextmanager
async def running(objects: Objects, *wanted: sinks.Sink, schedules: list[Raw] | None = None, ill: str | None = None) -> AsyncIterator[Notifier]:
    senders = {found.name: Sender(found, Path("/nowhere")) for found in wanted}
    notifier = Notifier(wanted, lambda: datetime.now(UTC), objects.settle, objects.fetch, lambda _obj: (), senders)
    task = asyncio.create_task(notifier.run(lambda: schedules or [], lambda: ill))
    try:
        yield notifier
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - the server is a thread, which sets no event of this loop
            await asyncio.sleep(0.01)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(handler, "LAST_PAUSE", 0.05)


@pytest.mark.usefixtures("fast")
async def test_it_is_sent_until_it_is_taken_and_then_told_on_the_object(receiver: Callable[..., Receiver]) -> None:
    server, objects = receiver(500, 503, 429, 200), Objects(owing())
    objects.conflicts = 2
    async with running(objects, sink(server.url)) as notifier:
        notifier.take(owing())
        notifier.take(owing())
        await asyncio.wait_for(objects.settled.wait(), 5)
    assert len(server.requests) == 4
    assert len({body["id"] for body in server.bodies}) == 1
    assert objects.mark() == ("True", "delivered to ops")


async def test_an_operator_that_was_killed_sends_the_same_again(receiver: Callable[..., Receiver]) -> None:
    """Taken, but the object does not say so yet: the next operator finds it, and a receiver sees by
    the id that it is the same."""
    server, objects = receiver(), Objects(owing())
    for _ in range(2):
        async with running(Objects(), sink(server.url)) as killed:
            killed.take(objects.objects["nightly"])
            server.arrived.clear()
            await until(server.arrived.is_set)
    async with running(objects, sink(server.url)) as notifier:
        notifier.take(objects.objects["nightly"])
        await asyncio.wait_for(objects.settled.wait(), 5)
        notifier.take(objects.objects["nightly"])
    assert [body["id"] for body in server.bodies] == [payload().id] * 3
    assert objects.mark()[0] == "True"


@pytest.mark.usefixtures("fast")
async def test_what_is_never_taken_is_given_up_and_says_so(
    receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handler, "GIVE_UP_SECONDS", 0.2)
    away, gone, objects = receiver(500), receiver(404), Objects(owing())
    async with running(objects, sink(away.url, name="away"), sink(gone.url, name="gone")) as notifier:
        notifier.take(owing())
        await asyncio.wait_for(objects.settled.wait(), 5)
    assert len(away.requests) > 1
    assert len(gone.requests) == 1
    value, message = objects.mark()
    assert value == "False"
    assert sorted(message.removeprefix("not delivered to ").split("; ")) == ["away: HTTP 500", "gone: HTTP 404"]
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "given up" in logged
    assert SECRET_PATH not in logged


@pytest.mark.usefixtures("fast")
async def test_a_receiver_that_is_away_holds_up_no_other_and_order_is_kept(receiver: Callable[..., Receiver]) -> None:
    away, well = receiver(500), receiver()
    names = [f"n{number}" for number in range(5)]
    objects = Objects(*(owing(name) for name in names))
    async with running(objects, sink(away.url, name="away"), sink(well.url, name="well")) as notifier:
        for name in names:
            notifier.take(owing(name))
        await until(lambda: len(well.requests) == 5)
        assert [body["object"]["name"] for body in well.bodies] == names
        assert {body["object"]["name"] for body in away.bodies} <= {"n0"}
        away.answers = [200]
        await until(lambda: len({body["object"]["name"] for body in away.bodies}) == 5)
        await until(lambda: all(objects.mark(name)[0] == "True" for name in names))


@pytest.mark.usefixtures("fast")
async def test_too_many_are_dropped_from_the_oldest_and_told(
    receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handler, "QUEUE", 2)
    server = receiver(500)
    names = [f"n{number}" for number in range(5)]
    objects = Objects(*(owing(name) for name in names))
    async with running(objects, sink(server.url)) as notifier:
        for name in names:
            notifier.take(owing(name))
        server.answers = [200]
        await until(lambda: objects.mark("n4")[0] == "True")
        await until(lambda: objects.mark("n0")[0] == "False")
    assert [body["object"]["name"] for body in server.bodies if body["object"]["name"] in ("n3", "n4")] == ["n3", "n4"]
    assert [record.__dict__["object"] for record in caplog.records if "dropped" in record.message] == [
        f"DatabaseBackup ns/{name}" for name in ("n0", "n1", "n2")
    ]
    assert "dropped" in objects.mark("n0")[1]


async def test_something_newer_on_the_object_is_not_taken_for_told(receiver: Callable[..., Receiver]) -> None:
    server = receiver()
    back = Notification("recovery", "ArtifactFound", "back")
    newer = {**owing(), "status": notify.with_owed({**FAILED, "phase": "Completed"}, back, owing(), T0 + timedelta(minutes=1))}
    objects = Objects(newer)
    async with running(objects, sink(server.url)) as notifier:
        notifier.take(owing())
        await until(lambda: server.requests)
        notifier.take(newer)
        await asyncio.wait_for(objects.settled.wait(), 5)
    assert [body["event"] for body in server.bodies] == ["failure", "recovery"]
    assert objects.mark() == ("True", "delivered to ops")


async def test_only_those_who_asked_are_told(receiver: Callable[..., Receiver]) -> None:
    wanted, other = receiver(), receiver()
    objects = Objects(owing())
    async with running(objects, sink(wanted.url), sink(other.url, name="other", namespaces=["elsewhere"])) as notifier:
        notifier.take(owing())
        await asyncio.wait_for(objects.settled.wait(), 5)
    assert (len(wanted.requests), len(other.requests)) == (1, 0)


# Heartbeats


def schedule(**status: Any) -> Raw:
    return {**backup_obj(status), "kind": "DatabaseBackupSchedule", "spec": {"schedule": "@daily"}}


def heart(url: str) -> sinks.Sink:
    [found] = sinks.parse([{"name": "heart", "type": "heartbeat", "url": url, "every": "1s", "allowPrivate": True}])
    return found


@pytest.mark.usefixtures("fast")
async def test_a_heart_beats_again_and_again(receiver: Callable[..., Receiver]) -> None:
    server = receiver(500, 200)
    async with running(Objects(), heart(server.url), schedules=[schedule(lastSuccessfulTime=timestamp(datetime.now(UTC)))]):
        await until(lambda: len(server.requests) >= 3)
    assert {(method, body) for method, _, _, body in server.requests} == {("GET", b"")}


@pytest.mark.parametrize(("status", "ill"), [({"consecutiveFailures": 1}, None), ({}, "the queue has made no progress")])
async def test_it_stops_where_something_is_wrong(
    receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture, status: Raw, ill: str | None
) -> None:
    server = receiver()
    async with running(Objects(), heart(server.url), schedules=[schedule(**status)], ill=ill):
        await until(lambda: any("no heartbeat" in record.message for record in caplog.records))
    assert server.requests == []
