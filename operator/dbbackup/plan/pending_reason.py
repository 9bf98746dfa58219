"""Why a run has not started yet, from its pod's status and the Events about the Job and the pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbbackup.api.objects import DELETED, Raw
from dbbackup.contract.errors import ReasonName

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"})
_ORDINARY = frozenset({"ContainerCreating", "PodInitializing"})
_TELLING = frozenset({"FailedCreate", "FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Failed", "NetworkNotReady"})


@dataclass(frozen=True, slots=True)
class Hindrance:
    """`reason` is the failure's if the start deadline passes with it; `detail` what Kubernetes
    says, None where it says nothing."""

    reason: ReasonName
    detail: str | None = None


def from_pod(pods: Sequence[Raw]) -> Hindrance | None:
    """What the youngest pod's own status says."""
    live = [pod for pod in pods if not pod.get(DELETED)]
    for pod in sorted(live, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True)[:1]:
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
            if reason in _IMAGE:
                return Hindrance("ImagePullFailed", f"{reason}: {message}" if message else reason)
            if reason and reason not in _ORDINARY:
                return Hindrance("StartDeadlineExceeded", f"{reason}: {message}" if message else reason)
        for item in status.get("conditions") or ():
            if item.get("type") == "PodScheduled" and item.get("status") == "False":
                return Hindrance("StartDeadlineExceeded", f"{item.get('reason')}: {item.get('message')}")
    return None


def from_events(events: Sequence[Raw]) -> Hindrance:
    """What the newest telling Event says. `events` are oldest first."""
    for event in reversed(events):
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "")
        if reason in _TELLING:
            text = f"{reason}: {message}"
            return Hindrance("PodRefused" if reason == "FailedCreate" else "StartDeadlineExceeded", text)
    return Hindrance("StartDeadlineExceeded")
