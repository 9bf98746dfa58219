"""The API server through `kubectl proxy`: thousands of objects in a minute, and the moments at
which a watch tells of new ones."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.bench.cgroup import BenchError
from tests.e2e.lib.cluster import Cluster

Raw = dict[str, Any]

WRITERS = 16
MERGE_PATCH = "application/merge-patch+json"
METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
LIST_METADATA_ALONE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class Arrival:
    """`at`: when a watch told of the object, by this machine's clock; `created`: its
    creationTimestamp, in whole seconds."""

    at: float
    created: float
    metadata: Raw


class Api:
    def __init__(self, address: str) -> None:
        self._address = address

    @classmethod
    @contextmanager
    def through(cls, cluster: Cluster) -> Iterator[Api]:
        with cluster.popen("proxy", "--port=0") as proxy:
            try:
                said = proxy.stdout.readline() if proxy.stdout else ""
                if "Starting to serve on " not in said:
                    raise BenchError(f"kubectl proxy does not start: {said}")
                yield cls("http://" + said.rpartition(" ")[2].strip())
            finally:
                proxy.terminate()

    def call(self, method: str, path: str, body: Raw | None = None, *, content_type: str = "application/json", accept: str = "*/*") -> Raw:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": content_type, "Accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                told: Raw = json.load(answer)
                return told
        except urllib.error.HTTPError as error:
            raise BenchError(f"{method} {path}: {error.read().decode('utf-8', 'replace')[:1000]}") from None
        except OSError as error:
            raise BenchError(f"{method} {path}: {error}") from None

    def names(self, path: str) -> list[str]:
        """Of all objects in that list, 500 at a time."""
        found, query = [], "?limit=500"
        while True:
            answer = self.call("GET", path + query, accept=LIST_METADATA_ALONE)
            found += [item["metadata"]["name"] for item in answer["items"]]
            if not (more := answer["metadata"].get("continue")):
                return found
            query = f"?limit=500&continue={more}"

    def create(self, path: str, objects: Sequence[tuple[Raw, Raw | None]]) -> None:
        """Objects with their statuses, several at a time."""

        def make(item: tuple[Raw, Raw | None]) -> None:
            obj, status = item
            self.call("POST", path, obj)
            if status is not None:
                self.call("PATCH", f"{path}/{obj['metadata']['name']}/status", {"status": status}, content_type=MERGE_PATCH)

        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(make, objects):
                pass

    def watch(self, path: str, seconds: int, wanted: Callable[[Raw], bool]) -> tuple[list[Arrival], threading.Thread]:
        """What is made from now on and `wanted` says of its metadata; the thread fills the list for
        so many seconds."""
        version = self.call("GET", path + "?limit=1", accept=LIST_METADATA_ALONE)["metadata"]["resourceVersion"]
        query = f"?watch=true&resourceVersion={version}&timeoutSeconds={seconds}"
        arrivals: list[Arrival] = []

        def follow() -> None:
            request = urllib.request.Request(self._address + path + query, headers={"Accept": METADATA_ALONE})
            with urllib.request.urlopen(request, timeout=seconds + 30) as lines:
                for line in lines:
                    now = time.time()
                    event = json.loads(line)
                    if event["type"] == "ADDED" and wanted(event["object"]["metadata"]):
                        metadata = event["object"]["metadata"]
                        arrivals.append(Arrival(now, datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(), metadata))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return arrivals, thread
