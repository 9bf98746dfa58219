"""One namespace of the cluster, through kubectl: apply, get, wait by watch, exec, logs. Objects are
plain dicts."""

from __future__ import annotations

import atexit
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

from tests.e2e.lib.cluster import Cluster, CommandFailed

Raw = dict[str, Any]


@dataclass(slots=True)
class Kube:
    cluster: Cluster
    name: str
    _forwards: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, check=check, timeout=timeout)

    def apply(self, *objects: Raw) -> list[Raw]:
        """Applies, and returns the objects as the API server has them."""
        return self._send("apply", objects)

    def create(self, *objects: Raw) -> list[Raw]:
        """Creates; takes `metadata.generateName` too."""
        return self._send("create", objects)

    def _send(self, verb: str, objects: tuple[Raw, ...]) -> list[Raw]:
        text = self.run(verb, "-f", "-", "-o", "json", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        return list(documents(text))

    def refused(self, obj: Raw) -> str:
        """The API server's message when it refuses the object; an AssertionError where it takes
        it."""
        try:
            self.create(obj)
        except CommandFailed as refusal:
            return str(refusal)
        raise AssertionError(f"the API server took {obj['kind']} {obj['metadata']}")

    def find(self, kind: str, name: str) -> Raw | None:
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return next(documents(text)) if text.strip() else None

    def get(self, kind: str, name: str) -> Raw:
        found = self.find(kind, name)
        assert found is not None, f"{kind} {name} is not in namespace {self.name}"
        return found

    def objects(self, kind: str, selector: str = "") -> list[Raw]:
        text = self.run("get", kind, "-o", "json", *(("-l", selector) if selector else ()))
        items: list[Raw] = json.loads(text)["items"]
        return items

    def delete(self, kind: str, name: str, *options: str) -> None:
        self.run("delete", kind, name, "--ignore-not-found", "--wait=false", *options)

    def patch(self, kind: str, name: str, patch: Raw, *options: str) -> Raw:
        return next(documents(self.run("patch", kind, name, "--type=merge", "-p", json.dumps(patch), "-o", "json", *options)))

    def events(self, kind: str, name: str) -> list[Raw]:
        """Events of one object, oldest first."""
        text = self.run("get", "events", "-o", "json", "--field-selector", f"involvedObject.kind={kind},involvedObject.name={name}")
        items: list[Raw] = json.loads(text)["items"]
        return sorted(items, key=lambda event: event["metadata"]["creationTimestamp"])

    def exec(self, pod: str, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return self.run("exec", *(("-i",) if stdin is not None else ()), pod, "--", *argv, stdin=stdin, check=check, timeout=timeout)

    def wait_until(self, kind: str, name: str, condition: Callable[[Raw], bool], timeout: float = 120, what: str = "the condition") -> Raw:
        """The first state of the object, by watch, for which `condition` holds. The object need not
        exist yet. AssertionError with its last state."""
        deadline, last = time.monotonic() + timeout, None
        while (left := deadline - time.monotonic()) > 0:
            # The watch of a name that does not exist yet is one of the kind with a field selector.
            for last in self._watch(kind, name, left):
                if condition(last):
                    return last
        raise AssertionError(f"{kind} {name} did not reach {what} within {timeout:.0f} s; last seen:\n{json.dumps(last, indent=1)[:6000]}")

    def _watch(self, kind: str, name: str, seconds: float) -> Iterator[Raw]:
        process = self.cluster.popen("-n", self.name, "get", kind, "--field-selector", f"metadata.name={name}", "--watch", "-o", "json")
        stop = threading.Timer(seconds, process.kill)
        stop.start()
        try:
            assert process.stdout is not None
            yield from stream(iter(process.stdout.readline, ""))
        finally:
            stop.cancel()
            _end(process)

    def wait_gone(self, kind: str, name: str, timeout: float = 60) -> None:
        self.run("wait", "--for=delete", f"{kind}/{name}", f"--timeout={timeout:.0f}s", timeout=timeout + 10)

    def wait_ready(self, kind: str, name: str, timeout: float = 90) -> Raw:
        """A pod or anything else with a Ready condition."""
        return self.wait_until(kind, name, lambda obj: condition(obj, "Ready") == "True", timeout, "Ready")

    def reach(self, pod: str, port: int) -> tuple[str, int]:
        """An address at which this machine reaches the pod's port: its own address on the rig, a
        forwarded port elsewhere."""
        if not self.cluster.existing:
            return self.get("pod", pod)["status"]["podIP"], port
        if (pod, port) not in self._forwards:
            process = self.cluster.popen("-n", self.name, "port-forward", f"pod/{pod}", f":{port}")
            atexit.register(_end, process)
            assert process.stdout is not None
            match = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert match, f"port-forward to {pod}:{port} failed"
            self._forwards[pod, port] = ("127.0.0.1", int(match[1]))
        return self._forwards[pod, port]


def _end(process: Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def condition(obj: Raw, kind: str) -> str | None:
    """Status of one of the object's conditions."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((entry["status"] for entry in conditions if entry["type"] == kind), None)


def documents(text: str) -> Iterator[Raw]:
    """JSON documents, one after the other; the items of a List."""
    for document in stream(text.splitlines(keepends=True)):
        yield from document["items"] if document.get("kind") == "List" else (document,)


def stream(lines: Iterator[str] | list[str]) -> Iterator[Raw]:
    """Documents as kubectl writes them: indented, each ending with a line that is a closing brace
    alone."""
    buffer: list[str] = []
    for line in lines:
        buffer.append(line)
        if line.rstrip("\n") == "}":
            yield json.loads("".join(buffer))
            buffer.clear()
