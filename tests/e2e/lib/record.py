"""All that a namespace shows to who may look: every state of its Jobs, pods, Events and our
objects, and the logs of its pods."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.lib.kube import Kube, Raw, _end, stream

KINDS = ("pods", "jobs", "events", "databasebackups", "databaserestores", "backupstorages")


class Recording:
    """`states` of objects by kind, each as JSON; `logs` by pod."""

    def __init__(self, kube: Kube) -> None:
        self.states: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.logs: dict[str, str] = {}
        self._kube = kube
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        self._followers: list[threading.Thread] = []
        self._heard: set[str] = set()

    def start(self) -> None:
        for kind in KINDS:
            # The pods of Jobs: those of a test's own servers hold its secrets in clear.
            selector = ("-l", "batch.kubernetes.io/job-name") if kind == "pods" else ()
            process = self._kube.cluster.popen("-n", self._kube.name, "get", kind, *selector, "--watch", "-o", "json")
            self._processes.append(process)
            self._threads.append(threading.Thread(target=self._watch, args=(kind, process), daemon=True))
            self._threads[-1].start()

    def _watch(self, kind: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for obj in stream(iter(process.stdout.readline, "")):
            self.states[kind].append(json.dumps(obj))
            if kind == "pods":
                self._listen(obj)

    def _listen(self, pod: Raw) -> None:
        name, states = pod["metadata"]["name"], [entry["state"] for entry in pod["status"].get("containerStatuses", ())]
        if name not in self._heard and any({"running", "terminated"} & state.keys() for state in states):
            self._heard.add(name)
            self._followers.append(threading.Thread(target=self._follow, args=(name,), daemon=True))
            self._followers[-1].start()

    def _follow(self, name: str) -> None:
        text = self._kube.run("logs", name, "--all-containers", "--follow", check=False, timeout=600)
        if "NotFound" not in text:
            self.logs[name] = text

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for thread in self._threads:
            thread.join(10)
        for process in self._processes:
            _end(process)
        for thread in self._followers:
            thread.join(30)

    def places_of(self, secret: str) -> list[str]:
        """Where that text was to be seen."""
        places = [kind for kind, states in self.states.items() if any(secret in state for state in states)]
        return places + [f"log of {pod}" for pod, text in self.logs.items() if secret in text]


@contextmanager
def recording(kube: Kube) -> Iterator[Recording]:
    """From now to the block's end; read it afterwards. Logs of pods that are deleted as soon as
    they end may be missing."""
    found = Recording(kube)
    found.start()
    try:
        yield found
    finally:
        found.stop()
