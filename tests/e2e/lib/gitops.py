"""What a GitOps tool does to a namespace, done with kubectl in its order: build, server-side apply
under its name, ask for health, wait, go on."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import yaml
from tests import health
from tests.e2e.lib import cluster as clusters
from tests.e2e.lib.cluster import RIG, Cluster
from tests.e2e.lib.kube import Kube, Raw, condition, documents, stream
from tests.root import ROOT

TREE = ROOT / "examples" / "gitops"
OURS = ("bst", "dbb", "dbs", "dbr")
Tool = Literal["kustomize-controller", "argocd-controller"]
"""Field managers, as Flux and Argo CD name themselves."""
Outcome = Literal["good", "failed"]


def build(cluster: Cluster, folder: str) -> list[Raw]:
    """What kustomize makes of a folder of the example repository."""
    return [document for document in yaml.safe_load_all(cluster.kubectl("kustomize", str(TREE / folder))) if document]


MERGE = ("kustomize.toolkit.fluxcd.io/ssa", "Merge")
"""Annotation of objects of which Flux leaves alone what others have added."""


def apply(kube: Kube, tool: Tool, *objects: Raw) -> list[Raw]:
    """As the tool applies: server-side, without force, so that a field that somebody else holds is
    an error here."""
    if tool == "kustomize-controller":
        _undo_kubectl(kube, tool, objects)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    argv = ("apply", "--server-side", f"--field-manager={tool}", "-f", "-", "-o", "json", "--show-managed-fields")
    return list(documents(kube.run(*argv, stdin=text)))


def _undo_kubectl(kube: Kube, tool: Tool, objects: Iterable[Raw]) -> None:
    """What Flux does before it applies: it takes over the fields of managers whose name begins with
    kubectl, and so removes what is not in Git."""
    kept = {(obj["kind"], obj["metadata"]["name"]) for obj in objects if MERGE in obj["metadata"].get("annotations", {}).items()}
    for obj in documents(kube.run("get", ",".join(OURS), "-o", "json", "--show-managed-fields")):
        key = obj["kind"], obj["metadata"]["name"]
        entries = obj["metadata"]["managedFields"]
        own = [entry for entry in entries if entry["manager"] == tool and entry["operation"] == "Apply"]
        foreign = [
            entry for entry in entries if entry["manager"].startswith("kubectl") and entry["operation"] == "Update" and "subresource" not in entry
        ]
        if not own or not foreign or key in kept:
            continue
        for entry in foreign:
            own[0]["fieldsV1"] = _union(own[0]["fieldsV1"], entry["fieldsV1"])
            entries.remove(entry)
        patch = [{"op": "replace", "path": "/metadata/managedFields", "value": entries}]
        kube.run("patch", key[0].lower(), key[1], "--type=json", "-p", json.dumps(patch))


def _union(one: Raw, other: Raw) -> Raw:
    return {**one, **{name: _union(one.get(name, {}), value) for name, value in other.items()}}


def drift(kube: Kube, tool: Tool, *objects: Raw) -> str:
    """What the tool would find to change; empty where there is nothing."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return kube.run("diff", "--server-side", f"--field-manager={tool}", "-f", "-", stdin=text, check=False)


def flux(obj: Raw) -> Outcome | None:
    """As a Kustomization waits for it; None while it waits."""
    if obj["kind"] == "Job":
        return _job(obj)
    told = health.flux(obj)
    return None if told == "InProgress" else "good" if told == "Current" else "failed"


def argo(obj: Raw) -> Outcome | None:
    """As a hook of a sync counts; None while it runs."""
    if obj["kind"] == "Job":
        return _job(obj)
    told = health.argo(obj).status
    return None if told in ("Progressing", "Suspended") else "good" if told == "Healthy" else "failed"


def _job(obj: Raw) -> Outcome | None:
    if condition(obj, "Complete") == "True":
        return "good"
    return "failed" if condition(obj, "Failed") == "True" else None


def wait(kube: Kube, obj: Raw, judge: Callable[[Raw], Outcome | None], timeout: float = 120) -> Outcome:
    name = obj["metadata"]["name"]
    seen = kube.wait_until(obj["kind"].lower(), name, lambda found: judge(found) is not None, timeout, "an outcome")
    told = judge(seen)
    assert told is not None
    return told


def argo_sync(kube: Kube, objects: Iterable[Raw]) -> Outcome:
    """PreSync hooks by wave, each deleted before it is created and waited for; then the rest, if
    none of them failed."""
    items = list(objects)
    hooks = [obj for obj in items if "argocd.argoproj.io/hook" in obj["metadata"].get("annotations", {})]
    assert {obj["metadata"]["annotations"]["argocd.argoproj.io/hook-delete-policy"] for obj in hooks} == {"BeforeHookCreation"}
    for hook in sorted(hooks, key=lambda obj: int(obj["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])):
        kube.run("delete", hook["kind"].lower(), hook["metadata"]["name"], "--ignore-not-found", "--wait", "--cascade=foreground")
        marked = {**hook, "metadata": {**hook["metadata"], "finalizers": ["argocd.argoproj.io/hook-finalizer"]}}
        apply(kube, "argocd-controller", marked)
        told = wait(kube, hook, argo)
        kube.patch(hook["kind"].lower(), hook["metadata"]["name"], {"metadata": {"finalizers": None}})
        if told == "failed":
            return told
    apply(kube, "argocd-controller", *(obj for obj in items if obj not in hooks))
    return "good"


def flux_reconcile(kube: Kube, *folders: Iterable[Raw]) -> Outcome:
    """Kustomizations with `wait` that depend on each other: the next is applied once all of the one
    before is well."""
    for folder in folders:
        for obj in apply(kube, "kustomize-controller", *folder):
            if wait(kube, obj, flux) == "failed":
                return "failed"
    return "good"


@contextmanager
def watched(kube: Kube) -> Iterator[Callable[[], list[Raw]]]:
    """Every state of our objects that the API server tells meanwhile; what is yielded gives those
    so far."""
    seen: queue.SimpleQueue[Raw] = queue.SimpleQueue()
    processes = [kube.cluster.popen("-n", kube.name, "get", kind, "--watch", "-o", "json") for kind in OURS]

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for obj in stream(iter(process.stdout.readline, "")):
            seen.put(obj)

    threads = [threading.Thread(target=read, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    found: list[Raw] = []

    def so_far() -> list[Raw]:
        while not seen.empty():
            found.append(seen.get())
        return found

    try:
        yield so_far
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for process in processes:
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def until(kube: Kube, finished: Callable[[], bool], tools: Iterable[Tool], what: str, timeout: float = 120) -> Iterator[Tool]:
    """One tool after the other, until it is finished: for what a test does all the while."""
    deadline = time.monotonic() + timeout
    for tool in tools:
        if finished():
            return
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s in {kube.name}: {what}"
        yield tool


def evaluator(run_id: str) -> Path:
    """The tools' own code, as a program: tests/rig/health."""
    binary = RIG / "bin" / "gitops-health"
    go = RIG / "go" / "bin"
    environment = {**os.environ, "CGO_ENABLED": "0", "PATH": f"{os.environ['PATH']}:/usr/local/go/bin:{go}"}
    with clusters.once("gitops-health", run_id) as first:
        if first:
            binary.parent.mkdir(parents=True, exist_ok=True)
            argv = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), "."]
            subprocess.run(argv, cwd=ROOT / "tests" / "rig" / "health", env=environment, check=True, timeout=500)
    return binary
