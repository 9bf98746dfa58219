"""A pod that hands a person what lies in the storage: artifacts as they are stored, or
decompressed, manifests, and what there is.

It listens on its own loopback only, so that a port-forward reaches it and no other pod; asks for a
token that only its maker knows; gives nothing from outside of the namespace's directory; and ends
by itself. What it sends can be checked at the other end: a stored artifact by its manifest,
anything else by the digest beside it, since a forwarded stream may lose bytes without a word.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dbbackup import __version__
from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import MANIFEST, parse_directory, root
from dbbackup.contract.manifest import MANIFEST_LIMIT, Manifest, parse_manifest, sha256_hex
from dbbackup.contract.run import ServeOptions
from dbbackup.dataplane.bucket import open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep.inventory import list_artifacts
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import decompress
from dbbackup.storage.reader import ArtifactReader

HOST = "127.0.0.1"
PIECE = 1 << 20
"""Bytes read from the storage at a time: with a slow one, a client must not take the time for the
next for silence."""
AHEAD = 4
"""Pieces read at a time; one more is held in memory for each answer."""
PREFETCH = 2
"""Parts read ahead where the artifact is decompressed here."""
DIGEST = "X-SHA256"
"""Header: SHA-256 of the body, in hexadecimal."""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)?")
_TICK = 0.25
_STATUS = {"ArtifactMissing": HTTPStatus.NOT_FOUND, "InvalidSpec": HTTPStatus.BAD_REQUEST}


def execute(run: Run) -> None:
    """Serves until nobody has asked for a while, or the run is told to stop."""
    options = run.spec.serve
    if options is None or not options.token_sha256:
        raise Failure("InvalidSpec", "a serving run tells no token")
    # It listens before it has opened the bucket, so that whoever waits for it need not wait for the
    # storage, and hears what is wrong with it.
    with Server((HOST, options.port), Shelf(run), options) as server:
        run.stop.on_stop(server.finish)
        run.reporter.info(f"serving on {HOST}:{server.server_address[1]}, for {run.spec.timeout_seconds} s at most")
        server.serve_until_idle()
        run.stop.check()


class Shelf:
    """What may be handed out: the artifacts below the namespace's directory of the run's storage.
    Thread-safe."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._below = root(run.spec.storage.prefix, run.spec.owner.namespace)
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._manifests: dict[str, Manifest] = {}
        self._told: set[str] = set()

    def tell(self, action: str, target: str = "") -> None:
        """One audit line for each artifact that is handed out, however many requests that takes.
        Who asks, the pod's annotation tells."""
        with self._lock:
            told = f"{action} {target}".rstrip()
            if told in self._told:
                return
            self._told.add(told)
        self._run.reporter.info(told, audit=True, action=action, outcome="allowed", target=target or None)

    @property
    def storage(self) -> Storage:
        with self._lock:
            if self._storage is None:
                self._storage = open_bucket(self._run, create=False)
            return self._storage

    def list(self) -> Iterator[str]:
        """Every artifact as a line of JSON: an `InventoryItem` each, with its manifest's
        summary."""
        for item in list_artifacts(self._run, self.storage, self._below):
            yield item.to_json() + "\n"

    def manifest_bytes(self, key: str) -> bytes:
        data = self.storage.get(f"{self._inside(key)}/{MANIFEST}", MANIFEST_LIMIT)
        with self._lock:
            self._manifests[key] = parse_manifest(data, f"{key}/{MANIFEST}")
        return data

    def manifest(self, key: str) -> Manifest:
        if key not in self._manifests:
            self.manifest_bytes(key)
        return self._manifests[key]

    def stored(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes from `start` up to and without `end` of the stored artifact, unchecked: whoever
        takes them has the manifest's digests."""
        name, storage = f"{self._inside(key)}/{self.manifest(key).artifact.name}", self.storage
        spans = [(at, min(PIECE, end - at)) for at in range(start, end, PIECE)]
        with ThreadPoolExecutor(AHEAD, "read") as pool:
            waiting = [pool.submit(storage.get_range, name, *span) for span in spans[: AHEAD + 1]]
            try:
                for index in range(len(spans)):
                    data = waiting.pop(0).result()
                    if index + AHEAD + 1 < len(spans):
                        waiting.append(pool.submit(storage.get_range, name, *spans[index + AHEAD + 1]))
                    yield data
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def decompressed(self, key: str) -> Iterator[bytes]:
        """The dump, each part of the stored artifact held to its digest before a byte of it is let
        through."""
        manifest = self.manifest(key)
        reader = ArtifactReader(self.storage, self._inside(key), manifest.artifact, prefetch=PREFETCH)
        try:
            yield from decompress(manifest.compression, reader, f"{key}/{manifest.artifact.name}")
        finally:
            reader.close()

    def _inside(self, key: str) -> str:
        if parse_directory(self._below, key) is None:
            raise Failure("InvalidSpec", f"{key!r} is not the key of an artifact below {self._below}")
        return key


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], shelf: Shelf, options: ServeOptions) -> None:
        super().__init__(address, Handler)
        self.shelf, self.options = shelf, options
        self._lock = threading.Lock()
        self._busy = 0
        self._last = time.monotonic()
        self._done = threading.Event()

    def finish(self) -> None:
        self._done.set()

    def serve_until_idle(self) -> None:
        thread = threading.Thread(target=partial(self.serve_forever, 0.1), name="serve", daemon=True)
        thread.start()
        while not self._done.wait(_TICK) and not self.idle():
            pass
        self.shutdown()
        thread.join()

    def idle(self) -> bool:
        with self._lock:
            return not self._busy and time.monotonic() - self._last >= self.options.idle_seconds

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def began(self) -> None:
        with self._lock:
            self._busy += 1

    def ended(self) -> None:
        with self._lock:
            self._busy -= 1
            self._last = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    """GET only. `key` in the query names an artifact's directory.

    /v1/hello; /v1/artifacts, lines of JSON; /v1/manifest?key=; /v1/artifact?key=, with Range;
    /v1/sql?key=&from=, frames: see `frames`. Failures are JSON: reason, message, hint.
    """

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "dbbackup"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self.server.began()
        try:
            self._answer()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.server.ended()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        routes: dict[str, Callable[[Mapping[str, str]], None]] = {
            "/v1/hello": self._hello,
            "/v1/artifacts": self._artifacts,
            "/v1/manifest": self._manifest,
            "/v1/artifact": self._artifact,
            "/v1/sql": self._sql,
        }
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), self.server.options.token_sha256):
            self._refuse(HTTPStatus.FORBIDDEN, "Forbidden", "the token is not that of this pod's maker", "")
            return
        if (route := routes.get(url.path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND, "NoSuchPath", f"{url.path} is nothing that this pod serves", "")
            return
        self._started = False
        try:
            route(query)
        except Failure as failure:
            if self._started:  # Too late for words: a length that is not reached tells.
                self.close_connection = True
                return
            self._refuse(_STATUS.get(failure.reason.name, HTTPStatus.BAD_GATEWAY), failure.reason.name, failure.message, failure.hint)

    def _hello(self, _query: Mapping[str, str]) -> None:
        self._whole(json.dumps({"version": __version__}).encode(), "application/json")

    def _artifacts(self, _query: Mapping[str, str]) -> None:
        found = "".join(self.server.shelf.list())
        self.server.shelf.tell("list")
        self._whole(found.encode(), "application/x-ndjson")

    def _manifest(self, query: Mapping[str, str]) -> None:
        self._whole(self.server.shelf.manifest_bytes(query.get("key", "")), "application/json")

    def _artifact(self, query: Mapping[str, str]) -> None:
        shelf, key = self.server.shelf, query.get("key", "")
        size = shelf.manifest(key).artifact.size
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(match[1]), min(int(match[2] or size) + 1, size)) if match else (0, size)
        pieces = shelf.stored(key, start, end)
        first = next(pieces, b"")  # What fails does so before anything is promised.
        shelf.tell("download", key)
        headers = {"Content-Length": str(max(end - start, 0)), "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._begin(HTTPStatus.PARTIAL_CONTENT if match else HTTPStatus.OK, "application/octet-stream", headers)
        self.wfile.write(first)
        for piece in pieces:
            self.wfile.write(piece)

    def _sql(self, query: Mapping[str, str]) -> None:
        start = query.get("from", "0")
        if not start.isdigit():
            raise Failure("InvalidSpec", f"from={start!r} is not a number of bytes")
        key = query.get("key", "")
        sent = frames(self.server.shelf.decompressed(key), int(start))
        first = next(sent)
        self.server.shelf.tell("download", key)
        self._begin(HTTPStatus.OK, "application/octet-stream", {"Connection": "close"})
        self.wfile.write(first)
        for frame in sent:
            self.wfile.write(frame)
        self.close_connection = True

    def _whole(self, body: bytes, content_type: str) -> None:
        self._begin(HTTPStatus.OK, content_type, {"Content-Length": str(len(body)), DIGEST: sha256_hex(body)})
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, content_type: str, headers: Mapping[str, str]) -> None:
        self._started = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: HTTPStatus, reason: str, message: str, hint: str) -> None:
        body = json.dumps({"reason": reason, "message": message, "hint": hint}).encode()
        self._begin(status, "application/json", {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Its log tells what the run does, not each request."""


def frames(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """A stream that can be checked as it comes and begun again anywhere: frames of a 4-byte length
    (big-endian), 32 bytes of SHA-256, the data. One of no length ends it: its digest is that of the
    whole stream, what was skipped included."""
    whole = hashlib.sha256()
    for chunk in chunks:
        whole.update(chunk)
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        data = chunk[skip:]
        skip = 0
        yield len(data).to_bytes(4, "big") + hashlib.sha256(data).digest() + data
    yield bytes(4) + whole.digest()
