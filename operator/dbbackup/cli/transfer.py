"""A connection to a pod that serves what lies in a storage. A port-forward may break, or lose
bytes, without a word: everything is asked again."""

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
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.kubectl import Forward, Kubectl

T = TypeVar("T")

PORT = 8765
TRIES = 6
"""In a row that bring nothing, each after a longer pause."""
SILENCE = {"/v1/artifact": 20.0, "/v1/sql": 120.0}
"""Seconds without a byte after which a connection counts as broken: that of a pod that was killed
does not always end. The pod sends a MiB at a time, and decompresses what is skipped before it
sends."""
LONGEST_SILENCE = 600.0
"""While the pod reads the manifests of thousands of artifacts."""
CONNECT_SECONDS = 30.0
CHUNK = 1 << 20
_CODES = {"ArtifactMissing": ExitCode.NOT_FOUND, "ArtifactCorrupt": ExitCode.CORRUPT, "InvalidSpec": ExitCode.USAGE}


class BrokenError(Exception):
    """The connection broke off; asking again may help."""


class Transfer:
    """Answers of one pod after another: of a new one where the last has gone. Made by `opened`."""

    def __init__(self, kube: Kubectl, storage: Mapping[str, Any], image: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._kube, self._storage, self._image, self._sleep = kube, storage, image, sleep
        self._token = secrets.token_urlsafe(32)
        self._pod_stack, self._forward_stack = ExitStack(), ExitStack()
        self._pod: Raw | None = None
        self._port: int | None = None
        self.on_retry: Callable[[str], None] = lambda _: None

    # Answers

    def whole(self, path: str, **query: str) -> bytes:
        """A body that carries its digest."""

        def ask() -> bytes:
            with self._request(path, query, {}) as response:
                body = response.read()
                if hashlib.sha256(body).hexdigest() != response.headers.get("X-SHA256"):
                    raise BrokenError("the answer arrived damaged")
                return body

        return self.retried(ask)

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[Callable[[int], bytes]]:
        """One answer, tried once: a function that reads at most so many bytes. BrokenError where
        the connection ends before the answer does."""
        with self._request(path, query, headers) as response:

            def read(most: int) -> bytes:
                try:
                    return response.read1(min(most, CHUNK))
                except (OSError, http.client.HTTPException) as error:
                    raise BrokenError(str(error) or type(error).__name__) from None

            yield read

    def retried(self, action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """The action's result. It is tried again after BrokenError: see `Patience`."""
        patience = Patience(self, progress())
        while True:
            try:
                return action()
            except BrokenError as error:
                patience.broken(error, progress())

    def again(self, why: str, failures: int) -> None:
        """Before another try: whatever connection there is, is no good."""
        self.on_retry(why)
        self._hang_up()
        self._sleep(min(0.25 * 2**failures, 5.0))

    @contextmanager
    def _request(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._reach(), timeout=SILENCE.get(path, LONGEST_SILENCE))) as connection:
            try:
                target = f"{path}?{urlencode(query)}" if query else path
                connection.request("GET", target, headers={"Authorization": f"Bearer {self._token}", **headers})
                response = connection.getresponse()
                if response.status >= 400:
                    raise _refusal(response.status, response.read())
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(str(error) or type(error).__name__) from None

    # Pod and port-forward

    def _reach(self) -> int:
        """The local port behind which the pod answers."""
        if self._port is not None:
            return self._port
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            made = self._ensure_pod()
            self._hang_up()
            try:
                port = self._forward_stack.enter_context(self._forward(made)).port
                self._hello(port)
            except (CliError, OSError, http.client.HTTPException) as error:
                if isinstance(error, CliError) and error.code is ExitCode.REFUSED:
                    raise
                if time.monotonic() > deadline:
                    raise BrokenError(f"pod {made['metadata']['name']} does not answer: {error}") from None
                self._sleep(0.2)
                continue
            self._port = port
            return port

    def _forward(self, made: Raw) -> AbstractContextManager[Forward]:
        return self._kube.forward(f"pod/{made['metadata']['name']}", PORT, namespace=made["metadata"]["namespace"])

    def _hello(self, port: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/v1/hello", headers={"Authorization": f"Bearer {self._token}"})
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
        serve = {"tokenSha256": hashlib.sha256(self._token.encode()).hexdigest(), "port": PORT}
        manifest = pods.pod(self._storage, "serve", image=self._image, user=self._kube.user, serve=serve)
        self._pod = self._pod_stack.enter_context(pods.running(self._kube, manifest))
        pods.started(self._kube, self._pod)
        return self._pod

    def _hang_up(self) -> None:
        self._port = None
        self._forward_stack.close()

    def close(self) -> None:
        self._hang_up()
        self._pod_stack.close()


class Patience:
    """How often something is tried again: TRIES times in a row that bring nothing. `reached` counts
    what has come."""

    def __init__(self, transfer: Transfer, reached: int) -> None:
        self._transfer, self._reached, self._failures = transfer, reached, 0

    def broken(self, error: BrokenError, reached: int) -> None:
        """Pauses; or CliError INTERRUPTED."""
        self._failures = 1 if reached > self._reached else self._failures + 1
        self._reached = reached
        if self._failures >= TRIES:
            hint = "Run the same command again: it goes on from where it was."
            raise CliError(f"the transfer broke off {self._failures} times in a row: {error}", ExitCode.INTERRUPTED, hint) from None
        self._transfer.again(str(error), self._failures)


@contextmanager
def opened(kube: Kubectl, storage: Mapping[str, Any], image: str | None = None) -> Iterator[Transfer]:
    """A transfer from that BackupStorage. Its pod is there from the first answer to the end."""
    transfer = Transfer(kube, storage, image)
    try:
        yield transfer
    finally:
        transfer.close()


def _refusal(status: int, body: bytes) -> CliError | BrokenError:
    try:
        told = json.loads(body)
    except ValueError:
        return BrokenError(f"HTTP {status}")
    return pods.failure_of(told, _CODES.get(told.get("reason"), ExitCode.FAILED))
