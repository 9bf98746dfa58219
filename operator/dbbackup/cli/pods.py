"""Short-lived pods of the operator's image, made by the person's own rights: one serves what lies
in a storage, one looks at a database.

The pod is the one that the storage's status tells (`podTemplate`), so it starts wherever the
operator's Jobs do. It is deleted at the end, whatever that is; and ends by itself where nobody
could delete it.
"""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from dbbackup.api.metadata import REQUESTED_BY, RUN, TOOL
from dbbackup.api.objects import Raw
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.kubectl import Kubectl
from dbbackup.contract.errors import REASONS
from dbbackup.contract.mounts import DATABASE_CA, DATABASE_SECRET, ENVIRONMENT

VALUE = "kubectl"
START_SECONDS = 120.0
REACH_SECONDS = 60
_STUCK = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull")
_GRACE = 8.0
"""Seconds that such a state may last: some pass."""


def template(storage: Mapping[str, Any]) -> Raw:
    """The pod that the storage's status tells, or CliError."""
    told = (storage.get("status") or {}).get("podTemplate")
    if not told:
        name = storage["metadata"]["name"]
        hint = "Is the operator running, and as new as this plugin? `kubectl dbbackup doctor` tells."
        raise CliError(f"BackupStorage {name} does not tell yet which pod reads it (status.podTemplate)", ExitCode.FAILED, hint, "NoPodTemplate")
    return copy.deepcopy(dict(told))


def pod(storage: Mapping[str, Any], run: str, *, image: str | None = None, user: str = "", **fields: Any) -> Raw:
    """A pod that carries out `run`; `fields` go into the RunSpec, camelCase. A `database` among
    them mounts its Secrets."""
    made = template(storage)
    spec = made["spec"]
    container = spec["containers"][0]
    container["image"] = image or container["image"]
    variable = next(entry for entry in container["env"] if entry["name"] == ENVIRONMENT)
    told = json.loads(variable["value"])
    told.pop("serve", None)
    variable["value"] = json.dumps({**told, "run": run, **fields})
    if database := fields.get("database"):
        for name, secret, path in (("database", database["secret"], DATABASE_SECRET), ("database-ca", database.get("caSecret"), DATABASE_CA)):
            if secret:
                spec["volumes"].append({"name": name, "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}})
                container["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})
    metadata = made.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), "app.kubernetes.io/component": run, RUN: run, TOOL: VALUE}
    annotations = {**(metadata.get("annotations") or {}), **({REQUESTED_BY: user} if user else {})}
    owner = {"apiVersion": "dbbackup.io/v1", "kind": "BackupStorage", "name": storage["metadata"]["name"], "uid": storage["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"dbbackup-{run}-{secrets.token_hex(5)}",
            "namespace": storage["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def database_target(spec: Mapping[str, Any]) -> Raw:
    """`spec.database` of an object as a RunSpec tells it."""
    told = {"secret": spec["secretRef"]["name"], **{key: spec[key] for key in ("keys", "host", "port", "name", "user", "sslMode") if spec.get(key)}}
    if ca := spec.get("caSecretRef"):
        told |= {"caSecret": ca["name"], "caKey": ca.get("key", "ca.crt")}
    return told


@contextmanager
def running(kube: Kubectl, manifest: Raw) -> Iterator[Raw]:
    """The pod, made and, at the end, deleted, also on ^C and SIGTERM."""
    sweep(kube)
    made = kube.create(manifest)
    try:
        yield made
    finally:
        with suppress(CliError):
            kube.delete("Pod", made["metadata"]["name"], made["metadata"]["uid"], grace=1, shielded=True)


def sweep(kube: Kubectl) -> None:
    """Pods that have ended and that nobody deleted: whoever made them was killed."""
    with suppress(CliError):
        for found in kube.objects("Pod", selector=f"{TOOL}={VALUE}"):
            if (found.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                kube.delete("Pod", found["metadata"]["name"], found["metadata"]["uid"])


def started(kube: Kubectl, made: Raw, timeout: float = START_SECONDS) -> None:
    """Waits until its container runs; CliError that says why it does not."""
    for _ in states(kube, made, timeout):
        return


def ended(kube: Kubectl, made: Raw, timeout: float = START_SECONDS + REACH_SECONDS) -> Raw:
    """Waits until its container has ended: its report."""
    for seen in states(kube, made, timeout):
        if (terminated := _state(seen).get("terminated")) is not None:
            return report(terminated)
    raise CliError(f"pod {made['metadata']['name']} has not ended within {timeout:.0f} s", ExitCode.TIMEOUT)


def states(kube: Kubectl, made: Raw, timeout: float) -> Iterator[Raw]:
    """The pod whenever it changes once its container has started."""
    name, stuck_since = made["metadata"]["name"], None
    waiting: Raw = {}
    for seen in kube.watch("Pod", name, timeout):
        if seen is None:
            raise CliError(f"pod {name} was deleted by somebody else")
        state = _state(seen)
        if "running" in state or "terminated" in state:
            yield seen
            continue
        if (seen.get("status") or {}).get("phase") == "Failed":
            raise CliError(f"pod {name} failed: {seen['status'].get('reason', '')} {seen['status'].get('message', '')}".strip())
        waiting = state.get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            stuck_since = stuck_since or time.monotonic()
            if time.monotonic() - stuck_since > _GRACE:
                break
    why = ": ".join(text for text in (waiting.get("reason"), waiting.get("message")) if text) or "its Events tell why"
    hint = f"kubectl describe pod {name} -n {kube.namespace} tells more while it is there."
    raise CliError(f"pod {name} has not started within {timeout:.0f} s: {why}", ExitCode.TIMEOUT, hint)


def _state(seen: Mapping[str, Any]) -> Raw:
    statuses = (seen.get("status") or {}).get("containerStatuses") or [{}]
    state: Raw = next((status for status in statuses if status.get("name") == "main"), statuses[0]).get("state") or {}
    return state


def report(terminated: Mapping[str, Any]) -> Raw:
    """What a container's end tells; CliError where it tells nothing that can be read."""
    try:
        told = json.loads(terminated.get("message") or "")
        assert isinstance(told, dict)  # noqa: S101
    except (ValueError, AssertionError):
        why = f"{terminated.get('reason', 'Error')}, exit code {terminated.get('exitCode')}"
        raise CliError(f"the pod left no report: {why}", hint="Is the operator's image as new as this plugin?") from None
    return told


def failure_of(told: Mapping[str, Any], code: ExitCode = ExitCode.FAILED) -> CliError:
    """The failure that a report or an answer tells (reason, message, hint)."""
    reason = str(told.get("reason") or "InternalError")
    known = REASONS.get(reason)
    return CliError(f"{reason}: {told.get('message')}", code, str(told.get("hint") or (known.hint if known else "")), reason)


def reach(kube: Kubectl, storage: Mapping[str, Any], database: Mapping[str, Any], image: str | None = None) -> Raw:
    """The report of a run that looks whether the database of a `spec.database` can be reached and
    read."""
    manifest = pod(storage, "reach", image=image, user=kube.user, database=database_target(database), timeoutSeconds=REACH_SECONDS)
    manifest["spec"]["activeDeadlineSeconds"] = REACH_SECONDS + 300
    with running(kube, manifest) as made:
        return ended(kube, made)
