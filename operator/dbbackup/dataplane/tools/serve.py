"""A pod that gives a person what is in the storage: artifacts as they are stored, or decompressed,
manifests, and the list of artifacts.

It listens on its own loopback only, so a port-forward reaches it and no other pod does. It asks for
a token that only the person who created the pod knows, gives nothing from outside the namespace's
directory, and ends by itself. A forwarded stream may lose bytes and report no error, so everything
sent can be checked at the other end: a stored artifact by its manifest, anything else by the digest
sent with it. `contract.wire` has the paths and the format.
"""

from __future__ import annotations

import hmac
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dbbackup import __version__
from dbbackup.contract import wire
from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import MANIFEST, parse_directory, root
from dbbackup.contract.manifest import MANIFEST_LIMIT, Manifest, parse_manifest, sha256_hex
from dbbackup.contract.run import ServeOptions
from dbbackup.dataplane.bucket import open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep.inventory import list_artifacts
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import decompress
from dbbackup.storage.read_ahead import ReadAhead
from dbbackup.storage.reader import ArtifactReader

HOST = "127.0.0.1"
PIECE = wire.CHUNK
"""Bytes read from the storage at a time: small, so that a client does not take the wait for a slow
storage for a broken connection."""
AHEAD = 4
"""Pieces read in parallel; each answer holds one more in memory."""
PREFETCH = 2
"""Parts read ahead when the artifact is decompressed here."""
_TICK = 0.25
_STATUS = {"ArtifactMissing": HTTPStatus.NOT_FOUND, "InvalidSpec": HTTPStatus.BAD_REQUEST}


def execute(run: Run) -> None:
    """Serves until no request has come for `idle_seconds`, or the run is stopped."""
    options = run.spec.serve
    if options is None or not options.token_sha256:
        raise Failure("InvalidSpec", "the run spec lacks `serve`, or its `tokenSha256` is empty")
    # It listens before it opens the bucket: a client need not wait for the storage, and receives
    # the storage's error as an answer.
    with Server((HOST, options.port), ServedStorage(run), options) as server:
        run.stop.on_stop(server.finish)
        run.reporter.info(f"serving on {HOST}:{server.server_address[1]}, for {run.spec.timeout_seconds} s at most")
        server.serve_until_idle()
        run.stop.check()


class ServedStorage:
    """What may be downloaded: the artifacts below the namespace's directory in the run's storage.
    Thread-safe."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._below = root(run.spec.storage.prefix, run.spec.owner.namespace)
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._manifests: dict[str, Manifest] = {}
        self._audited: set[str] = set()

    def audit(self, action: str, target: str = "") -> None:
        """One audit line for each artifact that is downloaded, however many requests that takes.
        The pod's annotation says who asks."""
        with self._lock:
            line = f"{action} {target}".rstrip()
            if line in self._audited:
                return
            self._audited.add(line)
        self._run.reporter.info(line, audit=True, action=action, outcome="allowed", target=target or None)

    @property
    def storage(self) -> Storage:
        with self._lock:
            if self._storage is None:
                self._storage = open_bucket(self._run, create=False)
            return self._storage

    def list(self) -> Iterator[str]:
        """One line of JSON for each artifact: an `InventoryItem` with the manifest's summary."""
        for item in list_artifacts(self._run, self.storage, self._below):
            yield item.to_json() + "\n"

    def manifest_bytes(self, key: str) -> bytes:
        data = self.storage.get(f"{self._checked(key)}/{MANIFEST}", MANIFEST_LIMIT)
        with self._lock:
            self._manifests[key] = parse_manifest(data, f"{key}/{MANIFEST}")
        return data

    def manifest(self, key: str) -> Manifest:
        if key not in self._manifests:
            self.manifest_bytes(key)
        return self._manifests[key]

    def stored(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes from `start` up to, not including, `end` of the stored artifact. They are not
        checked here: the client has the manifest's digests."""
        name, storage = f"{self._checked(key)}/{self.manifest(key).artifact.name}", self.storage
        reads = (partial(storage.get_range, name, at, min(PIECE, end - at)) for at in range(start, end, PIECE))
        yield from ReadAhead(reads, threads=AHEAD, ahead=AHEAD + 2, name="read")

    def decompressed(self, key: str) -> Iterator[bytes]:
        """The dump. Each part of the stored artifact is compared with its digest before a byte of
        it is passed on."""
        manifest = self.manifest(key)
        reader = ArtifactReader(self.storage, self._checked(key), manifest.artifact, prefetch=PREFETCH)
        try:
            yield from decompress(manifest.compression, reader, f"{key}/{manifest.artifact.name}")
        finally:
            reader.close()

    def _checked(self, key: str) -> str:
        if parse_directory(self._below, key) is None:
            raise Failure("InvalidSpec", f"{key!r} is not the key of an artifact below {self._below}")
        return key


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], storage: ServedStorage, options: ServeOptions) -> None:
        super().__init__(address, Handler)
        self.storage, self.options = storage, options
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
        """A client that disconnects is not reported."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def request_began(self) -> None:
        with self._lock:
            self._busy += 1

    def request_ended(self) -> None:
        with self._lock:
            self._busy -= 1
            self._last = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    """GET only: see `contract.wire`."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "dbbackup"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self.server.request_began()
        try:
            self._answer()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.server.request_ended()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        routes: dict[str, Callable[[Mapping[str, str]], None]] = {
            wire.HELLO: self._hello,
            wire.ARTIFACTS: self._artifacts,
            wire.MANIFEST: self._manifest,
            wire.ARTIFACT: self._artifact,
            wire.SQL: self._sql,
        }
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(wire.token_sha256(token), self.server.options.token_sha256):
            self._refuse(HTTPStatus.FORBIDDEN, "Forbidden", "the token is not the one that this pod was created with", "")
            return
        if (route := routes.get(url.path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND, "NoSuchPath", f"this pod does not serve {url.path}", "")
            return
        self._started = False
        try:
            route(query)
        except Failure as failure:
            if self._started:  # Too late for an error: the client sees that the promised length is not reached.
                self.close_connection = True
                return
            self._refuse(_STATUS.get(failure.reason.name, HTTPStatus.BAD_GATEWAY), failure.reason.name, failure.message, failure.hint)

    def _hello(self, _query: Mapping[str, str]) -> None:
        self._whole(json.dumps({"version": __version__}).encode(), "application/json")

    def _artifacts(self, _query: Mapping[str, str]) -> None:
        lines = "".join(self.server.storage.list())
        self.server.storage.audit("list")
        self._whole(lines.encode(), "application/x-ndjson")

    def _manifest(self, query: Mapping[str, str]) -> None:
        self._whole(self.server.storage.manifest_bytes(query.get(wire.KEY, "")), "application/json")

    def _artifact(self, query: Mapping[str, str]) -> None:
        storage, key = self.server.storage, query.get(wire.KEY, "")
        size = storage.manifest(key).artifact.size
        span = wire.parse_range(self.headers.get("Range", ""), size)
        start, end = span or (0, size)
        pieces = storage.stored(key, start, end)
        first = next(pieces, b"")  # Read before the status is sent, so that a failure can still be answered.
        storage.audit("download", key)
        headers = {"Content-Length": str(max(end - start, 0)), "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._begin(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK, "application/octet-stream", headers)
        self.wfile.write(first)
        for piece in pieces:
            self.wfile.write(piece)

    def _sql(self, query: Mapping[str, str]) -> None:
        start = query.get(wire.FROM, "0")
        if not start.isdigit():
            raise Failure("InvalidSpec", f"{wire.FROM}={start!r} is not a number of bytes")
        key = query.get(wire.KEY, "")
        frames = wire.frames(self.server.storage.decompressed(key), int(start))
        first = next(frames)
        self.server.storage.audit("download", key)
        self._begin(HTTPStatus.OK, "application/octet-stream", {"Connection": "close"})
        self.wfile.write(first)
        for frame in frames:
            self.wfile.write(frame)
        self.close_connection = True

    def _whole(self, body: bytes, content_type: str) -> None:
        self._begin(HTTPStatus.OK, content_type, {"Content-Length": str(len(body)), wire.DIGEST_HEADER: sha256_hex(body)})
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
        """Requests are not logged: the log says what the run does."""
