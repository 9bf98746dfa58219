"""Sends notifications. What is sent, to whom and when is decided in `plan.notify` and `plan.sinks`.

Each sink has a queue and a worker of its own, so that a receiver that is down delays no other. A
URL is never logged: it may be a secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socket import AddressFamily

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from dbbackup import __version__
from dbbackup.api.objects import Raw
from dbbackup.handlers.cache import Key, key_of
from dbbackup.handlers.observers import Observer
from dbbackup.kube import ApiError
from dbbackup.plan import notify, sinks
from dbbackup.plan.facts import Note
from dbbackup.plan.notify import Notification
from dbbackup.plan.sinks import Sink

log = logging.getLogger("dbbackup.notify")

DIRECTORY = Path("/etc/dbbackup/notifications")
"""Where the chart mounts the Secrets of the sinks."""
QUEUE = 1000
"""Most messages that wait for one sink; a further one drops the oldest."""
SEND_SECONDS = 10
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
GIVE_UP_SECONDS = 3600.0
"""After so long, a message that its receiver does not take is given up."""
SETTLE_TRIES = 5
BEAT_TRIES = 3


class Refused(Exception):
    """The receiver must not be called, or will never take the message. The text says why, without
    the URL."""


class NotTaken(Exception):
    """The receiver has not taken the message, but may take it later."""


class Guard(AbstractResolver):
    """Resolves a name to addresses that may be connected to, or raises Refused. The connection then
    uses exactly these addresses, even if the name points elsewhere a moment later.
    """

    def __init__(self, *, allow_private: bool, resolver: AbstractResolver) -> None:
        self._allow_private, self._resolver = allow_private, resolver

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_UNSPEC) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for entry in found:
            self.check(entry["host"])
        return found

    def check(self, address: str) -> None:
        if (why := sinks.forbidden_address(address, allow_private=self._allow_private)) is not None:
            raise Refused(f"its host has an address that must not be called: {why}")

    async def close(self) -> None:
        await self._resolver.close()


class Sender:
    """Calls one sink. `directory` contains its files; they are read each time, as Secrets
    change."""

    def __init__(self, sink: Sink, directory: Path, resolver: Callable[[], AbstractResolver] = ThreadedResolver) -> None:
        self._sink = sink
        self._directory = directory / sink.name
        self._resolver = resolver

    def _file(self, name: str) -> str:
        try:
            text = (self._directory / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            text = ""
        if not text:
            raise NotTaken(f"the {name} cannot be read from its Secret: is the Secret in the operator's namespace, with that key?")
        return text

    async def send(self, message: notify.Payload) -> None:
        """Raises Refused or NotTaken if it was not taken."""
        if self._sink.type == "slack":
            await self._call(json.dumps(notify.slack(message)).encode(), {})
            return
        body = message.to_json().encode()
        headers = {"X-Dbbackup-Event": message.event, "X-Dbbackup-Id": message.id}
        if self._sink.secret_ref is not None:
            headers[sinks.SIGNATURE_HEADER] = sinks.signature(self._file(sinks.KEY_FILE).encode(), body, int(time.time()))
        await self._call(body, headers)

    async def beat(self) -> None:
        """Raises Refused or NotTaken if it was not taken."""
        await self._call(None, {})

    async def _call(self, body: bytes | None, headers: Mapping[str, str]) -> None:
        url = self._sink.url or self._file(sinks.URL_FILE)
        if (why := sinks.forbidden_url(url, allow_private=self._sink.allow_private)) is not None:
            raise Refused(why)
        guard = Guard(allow_private=self._sink.allow_private, resolver=self._resolver())
        connector = aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, force_close=True)
        all_headers = {
            "User-Agent": f"database-backup-operator/{__version__}",
            **({"Content-Type": "application/json"} if body is not None else {}),
            **headers,
        }
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=SEND_SECONDS), trust_env=False) as session:
                host = URL(url).host or ""
                if aiohttp.helpers.is_ip_address(host):
                    guard.check(host)  # aiohttp does not resolve an IP address
                async with session.request(
                    "POST" if body is not None else "GET", url, data=body, headers=all_headers, allow_redirects=False
                ) as answer:
                    status = answer.status
        except (aiohttp.InvalidURL, ValueError):
            raise Refused("the URL cannot be read") from None
        except TimeoutError:
            raise NotTaken(f"no answer within {SEND_SECONDS} s") from None
        except aiohttp.ClientConnectorDNSError:
            raise NotTaken("its host's name cannot be resolved") from None
        except aiohttp.ClientSSLError as error:
            raise NotTaken(f"its certificate is not trusted, or TLS failed ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NotTaken(f"the connection failed ({type(error).__name__})") from None
        if 300 <= status < 400:
            raise Refused(f"HTTP {status}: redirects are not followed")
        if status >= 400:
            raise (NotTaken if sinks.retryable(status) else Refused)(f"HTTP {status}")


@dataclass(slots=True)
class Item:
    """A notification, and the sinks that have not taken it yet. `given_up`: sink -> why."""

    key: Key
    obj: Raw
    notification: Notification
    id: str
    open: set[str]
    sinks: tuple[str, ...]
    given_up: dict[str, str] = field(default_factory=dict)


class Notifier(Observer):
    """`settle(key, obj, status)` writes a status; `fetch(key)` reads an object; `peers(obj)` are
    the objects of the same kind and namespace."""

    def __init__(
        self,
        wanted: Sequence[Sink],
        now: Callable[[], datetime],
        settle: Callable[[Key, Raw, Raw], Awaitable[Raw]],
        fetch: Callable[[Key], Awaitable[Raw | None]],
        peers: Callable[[Raw], Iterable[Raw]],
        senders: Mapping[str, Sender] | None = None,
    ) -> None:
        self.sinks = tuple(wanted)
        self._now = now
        self._settle = settle
        self._fetch = fetch
        self._peers = peers
        self._senders = senders if senders is not None else {sink.name: Sender(sink, DIRECTORY) for sink in wanted}
        self._queues: dict[str, deque[tuple[float, Item]]] = {sink.name: deque() for sink in wanted if sink.type != "heartbeat"}
        self._filled = {name: asyncio.Event() for name in self._queues}
        self._known: set[str] = set()
        self._finished: asyncio.Queue[Item] = asyncio.Queue()

    # What objects owe

    def amend(self, obj: Raw, status: Raw, notes: Sequence[Note]) -> Raw:
        """The status, with a condition that a notification is owed if some sink wants the step from
        `obj` to it."""
        if not self._queues:
            return status
        kind, namespace = obj["kind"], obj["metadata"]["namespace"]
        if not any(sink.wants(event, kind, namespace) for sink in self.sinks for event in sink.events):
            return status
        what = notify.notification(obj, status, notes, lambda: self._peers(obj))
        if what is None or not self._takers(what, obj):
            return status
        return notify.with_owed(status, what, obj, self._now())

    def _takers(self, what: Notification, obj: Raw) -> tuple[str, ...]:
        return tuple(sink.name for sink in self.sinks if sink.wants(what.event, obj["kind"], obj["metadata"]["namespace"]))

    def listed(self, objects: Sequence[Raw]) -> None:
        for obj in objects:
            self.take(obj)

    def status_written(self, before: Raw, after: Raw) -> None:  # noqa: ARG002
        self.take(after)

    def take(self, obj: Raw) -> None:
        """Queues the notification that the object owes, once."""
        what = notify.owed(obj)
        if what is None:
            return
        key, identity, takers = key_of(obj), notify.event_id(obj, what), self._takers(what, obj)
        if identity in self._known or not takers:
            return
        self._known.add(identity)
        item = Item(key, obj, what, identity, set(takers), takers)
        for name in takers:
            queue = self._queues[name]
            queue.append((asyncio.get_running_loop().time(), item))
            self._filled[name].set()
            if len(queue) > QUEUE:
                _, oldest = queue.popleft()
                log.error("notification dropped: too many wait", extra={"sink": name, "object": str(oldest.key), "event": oldest.notification.event})
                self._done(oldest, name, f"dropped, as {QUEUE} later ones wait")

    def _done(self, item: Item, name: str, given_up: str | None) -> None:
        item.open.discard(name)
        if given_up is not None:
            item.given_up[name] = given_up
        if not item.open:
            self._finished.put_nowait(item)

    # Sending

    async def run(self, schedules: Callable[[], Iterable[Raw]], well: Callable[[], str | None]) -> None:
        """Sends until cancelled. `well()` is None, or says why no heartbeat must be sent."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settling(), name="notifications that are done")
            for sink in self.sinks:
                work = self._beat(sink, schedules, well) if sink.type == "heartbeat" else self._work(sink)
                group.create_task(work, name=f"notifications to {sink.name}")

    async def _work(self, sink: Sink) -> None:
        queue, filled = self._queues[sink.name], self._filled[sink.name]
        while True:
            while not queue:
                filled.clear()
                await filled.wait()
            since, item = queue.popleft()
            self._done(item, sink.name, await self._deliver(sink, item, since))

    async def _deliver(self, sink: Sink, item: Item, since: float) -> str | None:
        """None once the sink has taken it, else why it was given up."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        about = {"sink": sink.name, "object": str(item.key), "event": item.notification.event, "id": item.id}
        while True:
            again = False
            try:
                await self._senders[sink.name].send(notify.payload(item.obj, item.notification, sink.name))
                log.info("notified", extra=about)
                return None
            except NotTaken as error:
                why, again = str(error), loop.time() + pause - since <= GIVE_UP_SECONDS
            except Refused as error:
                why = str(error)
            except Exception as error:
                # A defect with one message must stop neither backups nor other messages.
                log.exception("a defect of the operator, please report it: the notification cannot be sent", extra=about)
                why = type(error).__name__
            if not again:
                log.error("notification given up", extra={**about, "error": why})
                return why
            log.warning("notification not taken, trying again", extra={**about, "delay": pause, "error": why})
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _settling(self) -> None:
        while True:
            item = await self._finished.get()
            for attempt in range(SETTLE_TRIES):
                try:
                    await self._settled(item)
                    self._known.discard(item.id)
                    break
                except ApiError as error:
                    # If it keeps failing, the item stays known: it is sent again after a restart,
                    # not before.
                    about = {"object": str(item.key), "id": item.id, "error": str(error)}
                    log.log(
                        logging.INFO if error.conflict else logging.WARNING,
                        "the object does not record yet that its notification was sent",
                        extra=about,
                    )
                await asyncio.sleep(FIRST_PAUSE * 2**attempt)

    async def _settled(self, item: Item) -> None:
        """Records on the object that nothing is owed any more, unless it owes something newer."""
        obj = await self._fetch(item.key)
        if obj is None or obj["metadata"]["uid"] != item.obj["metadata"]["uid"]:
            return
        what = notify.owed(obj)
        if what is not None and notify.event_id(obj, what) == item.id:
            await self._settle(item.key, obj, notify.settled(obj, what, item.given_up, item.sinks, self._now()))

    async def _beat(self, sink: Sink, schedules: Callable[[], Iterable[Raw]], well: Callable[[], str | None]) -> None:
        reported: str | None = None
        while True:
            why = well() or notify.missing_beat(schedules(), sink, self._now())
            if why is not None and why != reported:
                log.warning("no heartbeat is sent", extra={"sink": sink.name, "reason": why})
            elif why is None and reported is not None:
                log.info("heartbeats are sent again", extra={"sink": sink.name})
            reported = why
            if why is None:
                await self._beaten(sink)
            await asyncio.sleep(sink.interval.total_seconds())

    async def _beaten(self, sink: Sink) -> None:
        for attempt in range(BEAT_TRIES):
            try:
                await self._senders[sink.name].beat()
                return
            except (Refused, NotTaken) as error:
                log.warning("heartbeat not taken", extra={"sink": sink.name, "error": str(error)})
                if isinstance(error, Refused):
                    return
            await asyncio.sleep(FIRST_PAUSE * 2**attempt)
