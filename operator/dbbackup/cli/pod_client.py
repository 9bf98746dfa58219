"""A client of the pod that serves a storage's content (`contract.wire`). A port-forward may break,
or lose bytes and report no error, so every request can be repeated."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

from dbbackup.api.objects import Raw
from dbbackup.cli import pods
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Forward, Kubectl
from dbbackup.contract import wire

T = TypeVar("T")

TRIES = 6
"""Failed tries in a row, without a new byte, before a transfer is given up; the pauses grow."""
SILENCE = {wire.ARTIFACT: 20.0, wire.SQL: 120.0}
"""Seconds without a byte after which a connection counts as broken: the connection to a killed pod
does not always end. The pod sends a MiB at a time, and decompresses what is skipped before it sends
anything."""
LONGEST_SILENCE = 600.0
"""For the list, while the pod reads the manifests of thousands of artifacts."""
CONNECT_SECONDS = 30.0
_CODES = {"ArtifactMissing": CliExit.NOT_FOUND, "ArtifactCorrupt": CliExit.CORRUPT, "InvalidSpec": CliExit.USAGE}


class BrokenError(Exception):
    """The connection broke, or bytes were lost; the same request may succeed."""


class PodClient:
    """Requests to a serving pod, and to a new one if the last has gone: see `open_client`."""

    def __init__(self, kube: Kubectl, storage: Mapping[str, Any], image: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._kube, self._storage, self._image, self._sleep = kube, storage, image, sleep
        self._token = secrets.token_urlsafe(32)
        self._pod_stack, self._forward_stack = ExitStack(), ExitStack()
        self._pod: Raw | None = None
        self._port: int | None = None
        self.on_retry: Callable[[str], None] = lambda _: None

    # Requests

    def whole(self, path: str, **query: str) -> bytes:
        """The body of an answer that carries its digest, requested until it arrives undamaged."""

        def request() -> bytes:
            with self._request(path, query, {}) as response:
                body = response.read()
                if hashlib.sha256(body).hexdigest() != response.headers.get(wire.DIGEST_HEADER):
                    raise BrokenError("the answer arrived damaged")
                return body

        return self.retried(request)

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[Callable[[int], bytes]]:
        """One request, tried once. Yields `read(n)`, which returns at most n bytes of the answer;
        BrokenError if the connection ends before the answer does."""
        with self._request(path, query, headers) as response:

            def read(most: int) -> bytes:
                try:
                    return response.read1(min(most, wire.CHUNK))
                except (OSError, http.client.HTTPException) as error:
                    raise BrokenError(str(error) or type(error).__name__) from None

            yield read

    def retried(self, action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """The action's result. After a BrokenError it is tried again: see `Retries`."""
        retries = Retries(self, progress())
        while True:
            try:
                return action()
            except BrokenError as error:
                retries.failed(error, progress())

    def reset(self, why: str, failures: int) -> None:
        """Drops the connection and pauses, before another try."""
        self.on_retry(why)
        self._disconnect()
        self._sleep(min(0.25 * 2**failures, 5.0))

    @contextmanager
    def _request(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._reach(), timeout=SILENCE.get(path, LONGEST_SILENCE))) as connection:
            try:
                target = f"{path}?{urlencode(query)}" if query else path
                connection.request("GET", target, headers={"Authorization": wire.bearer(self._token), **headers})
                response = connection.getresponse()
                if response.status >= 400:
                    raise _refusal(response.status, response.read())
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(str(error) or type(error).__name__) from None

    # Pod and port-forward

    def _reach(self) -> int:
        """The local port of a port-forward to a pod that answers."""
        if self._port is not None:
            return self._port
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            pod = self._ensure_pod()
            self._disconnect()
            try:
                port = self._forward_stack.enter_context(self._forward(pod)).port
                self._hello(port)
            except (CliError, OSError, http.client.HTTPException) as error:
                if isinstance(error, CliError) and error.code is CliExit.REFUSED:
                    raise
                if time.monotonic() > deadline:
                    raise BrokenError(f"pod {pod['metadata']['name']} does not answer: {error}") from None
                self._sleep(0.2)
                continue
            self._port = port
            return port

    def _forward(self, pod: Raw) -> AbstractContextManager[Forward]:
        return self._kube.forward(f"pod/{pod['metadata']['name']}", wire.PORT, namespace=pod["metadata"]["namespace"])

    def _hello(self, port: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", wire.HELLO, headers={"Authorization": wire.bearer(self._token)})
            answer = connection.getresponse()
            if answer.status != 200 or "version" not in json.loads(answer.read()):
                raise http.client.HTTPException(f"HTTP {answer.status}")

    def _ensure_pod(self) -> Raw:
        if self._pod is not None:
            seen = self._kube.find("Pod", self._pod["metadata"]["name"])
            over = seen is None or seen["metadata"].get("deletionTimestamp") or (seen.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if not over:
                return self._pod
            self._pod_stack.close()
        serve = {"tokenSha256": wire.token_sha256(self._token), "port": wire.PORT}
        manifest = pods.pod(self._storage, "serve", image=self._image, user=self._kube.user, serve=serve)
        self._pod = self._pod_stack.enter_context(pods.running(self._kube, manifest))
        pods.started(self._kube, self._pod)
        return self._pod

    def _disconnect(self) -> None:
        self._port = None
        self._forward_stack.close()

    def close(self) -> None:
        self._disconnect()
        self._pod_stack.close()


class Retries:
    """Gives up after TRIES failures in a row without progress. `reached` counts the bytes that have
    arrived."""

    def __init__(self, client: PodClient, reached: int) -> None:
        self._client, self._reached, self._failures = client, reached, 0

    def failed(self, error: Exception, reached: int) -> None:
        """Pauses before the next try; CliError INTERRUPTED if there is none."""
        self._failures = 1 if reached > self._reached else self._failures + 1
        self._reached = reached
        if self._failures >= TRIES:
            hint = "Run the same command again: it continues where it stopped."
            raise CliError(f"the transfer broke off {self._failures} times in a row: {error}", CliExit.INTERRUPTED, hint) from None
        self._client.reset(str(error), self._failures)


@contextmanager
def open_client(kube: Kubectl, storage: Mapping[str, Any], image: str | None = None) -> Iterator[PodClient]:
    """A client of that BackupStorage. The first request starts the pod; the end deletes it."""
    client = PodClient(kube, storage, image)
    try:
        yield client
    finally:
        client.close()


def _refusal(status: int, body: bytes) -> CliError | BrokenError:
    try:
        failure = json.loads(body)
    except ValueError:
        return BrokenError(f"HTTP {status}")
    return pods.failure_of(failure, _CODES.get(failure.get("reason"), CliExit.FAILED))
