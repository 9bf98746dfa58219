"""Short-lived pods of the operator's image, created with the person's own rights: one serves a
storage's content, one connects to a database and reports.

The pod comes from the storage's `status.podTemplate`, so it starts wherever the operator's Jobs
start. The plugin deletes it at the end, also after an error; if that fails, the pod ends by itself.
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
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.contract.errors import REASONS
from dbbackup.contract.mounts import DATABASE_CA, DATABASE_SECRET, ENVIRONMENT

TOOL_VALUE = "kubectl"
"""The value of the label TOOL on pods that this plugin has created."""
START_SECONDS = 120.0
REACH_SECONDS = 60
_STUCK = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull")
_GRACE = 8.0
"""Seconds that a state of _STUCK may last: some pass by themselves."""


def template(storage: Mapping[str, Any]) -> Raw:
    """The pod in the storage's `status.podTemplate`; CliError if there is none yet."""
    found = (storage.get("status") or {}).get("podTemplate")
    if not found:
        name = storage["metadata"]["name"]
        hint = "Is the operator running, and as new as this plugin? `kubectl dbbackup doctor` shows it."
        raise CliError(f"BackupStorage {name} has no `status.podTemplate` yet", CliExit.FAILED, hint, "NoPodTemplate")
    return copy.deepcopy(dict(found))


def pod(storage: Mapping[str, Any], run: str, *, image: str | None = None, user: str = "", **fields: Any) -> Raw:
    """The manifest of a pod that carries out `run`. `fields` go into the RunSpec, in camelCase;
    the Secrets of its `database` are mounted."""
    manifest = template(storage)
    spec = manifest["spec"]
    container = spec["containers"][0]
    container["image"] = image or container["image"]
    variable = next(entry for entry in container["env"] if entry["name"] == ENVIRONMENT)
    run_spec = json.loads(variable["value"])
    run_spec.pop("serve", None)
    variable["value"] = json.dumps({**run_spec, "run": run, **fields})
    if database := fields.get("database"):
        for name, secret, path in (("database", database["secret"], DATABASE_SECRET), ("database-ca", database.get("caSecret"), DATABASE_CA)):
            if secret:
                spec["volumes"].append({"name": name, "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}})
                container["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})
    metadata = manifest.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), "app.kubernetes.io/component": run, RUN: run, TOOL: TOOL_VALUE}
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
    """`spec.database` of an object as the RunSpec's `database`."""
    target = {"secret": spec["secretRef"]["name"], **{key: spec[key] for key in ("keys", "host", "port", "name", "user", "sslMode") if spec.get(key)}}
    if ca := spec.get("caSecretRef"):
        target |= {"caSecret": ca["name"], "caKey": ca.get("key", "ca.crt")}
    return target


@contextmanager
def running(kube: Kubectl, manifest: Raw) -> Iterator[Raw]:
    """Creates the pod, and deletes it at the end, also on ^C and SIGTERM."""
    delete_ended(kube)
    created = kube.create(manifest)
    try:
        yield created
    finally:
        with suppress(CliError):
            kube.delete("Pod", created["metadata"]["name"], created["metadata"]["uid"], grace=1, shielded=True)


def delete_ended(kube: Kubectl) -> None:
    """Deletes pods that have ended and are still there, because their plugin was killed."""
    with suppress(CliError):
        for found in kube.objects("Pod", selector=f"{TOOL}={TOOL_VALUE}"):
            if (found.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                kube.delete("Pod", found["metadata"]["name"], found["metadata"]["uid"])


def started(kube: Kubectl, created: Raw, timeout: float = START_SECONDS) -> None:
    """Waits until the pod's container runs; CliError that says why it does not."""
    for _ in states(kube, created, timeout):
        return


def ended(kube: Kubectl, created: Raw, timeout: float = START_SECONDS + REACH_SECONDS) -> Raw:
    """Waits until the pod's container has ended; returns its report."""
    for seen in states(kube, created, timeout):
        if (terminated := _state(seen).get("terminated")) is not None:
            return report(terminated)
    raise CliError(f"pod {created['metadata']['name']} has not ended within {timeout:.0f} s", CliExit.TIMEOUT)


def states(kube: Kubectl, created: Raw, timeout: float) -> Iterator[Raw]:
    """The pod once its container has started, and each time it changes after that."""
    name, stuck_since = created["metadata"]["name"], None
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
    why = ": ".join(text for text in (waiting.get("reason"), waiting.get("message")) if text) or "its Events say why"
    hint = f"kubectl describe pod {name} -n {kube.namespace} says more while the pod exists."
    raise CliError(f"pod {name} has not started within {timeout:.0f} s: {why}", CliExit.TIMEOUT, hint)


def _state(seen: Mapping[str, Any]) -> Raw:
    statuses = (seen.get("status") or {}).get("containerStatuses") or [{}]
    state: Raw = next((status for status in statuses if status.get("name") == "main"), statuses[0]).get("state") or {}
    return state


def report(terminated: Mapping[str, Any]) -> Raw:
    """The report in a container's termination message; CliError if there is none."""
    try:
        found = json.loads(terminated.get("message") or "")
        assert isinstance(found, dict)  # noqa: S101
    except (ValueError, AssertionError):
        why = f"{terminated.get('reason', 'Error')}, exit code {terminated.get('exitCode')}"
        raise CliError(f"the pod left no report: {why}", hint="Is the operator's image as new as this plugin?") from None
    return found


def failure_of(failure: Mapping[str, Any], code: CliExit = CliExit.FAILED) -> CliError:
    """The failure (reason, message, hint) of a report or of a pod's answer, as our error."""
    reason = str(failure.get("reason") or "InternalError")
    known = REASONS.get(reason)
    return CliError(f"{reason}: {failure.get('message')}", code, str(failure.get("hint") or (known.hint if known else "")), reason)


def reach(kube: Kubectl, storage: Mapping[str, Any], database: Mapping[str, Any], image: str | None = None) -> Raw:
    """The report of a run that checks whether the database of `spec.database` can be reached and
    read."""
    manifest = pod(storage, "reach", image=image, user=kube.user, database=database_target(database), timeoutSeconds=REACH_SECONDS)
    manifest["spec"]["activeDeadlineSeconds"] = REACH_SECONDS + 300
    with running(kube, manifest) as created:
        return ended(kube, created)
