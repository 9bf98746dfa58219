"""Why a run has not started yet: from its pod's status, and from the Events about Job and pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbbackup.api.objects import DELETED, Raw
from dbbackup.contract.errors import ReasonName

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"})
_ORDINARY = frozenset({"ContainerCreating", "PodInitializing"})
_USEFUL = frozenset({"FailedCreate", "FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Failed", "NetworkNotReady"})


@dataclass(frozen=True, slots=True)
class PendingReason:
    """`reason` becomes the failure's reason if the start deadline passes now; `detail` is what
    Kubernetes says, None if it says nothing."""

    reason: ReasonName
    detail: str | None = None


def from_pod(pods: Sequence[Raw]) -> PendingReason | None:
    """What the status of the youngest pod says."""
    live = [pod for pod in pods if not pod.get(DELETED)]
    for pod in sorted(live, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True)[:1]:
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
            if reason in _IMAGE:
                return PendingReason("ImagePullFailed", f"{reason}: {message}" if message else reason)
            if reason and reason not in _ORDINARY:
                return PendingReason("StartDeadlineExceeded", f"{reason}: {message}" if message else reason)
        for item in status.get("conditions") or ():
            if item.get("type") == "PodScheduled" and item.get("status") == "False":
                return PendingReason("StartDeadlineExceeded", f"{item.get('reason')}: {item.get('message')}")
    return None


def from_events(events: Sequence[Raw]) -> PendingReason:
    """What the newest Event with a useful reason says. `events` are oldest first."""
    for event in reversed(events):
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "")
        if reason in _USEFUL:
            text = f"{reason}: {message}"
            return PendingReason("PodRefused" if reason == "FailedCreate" else "StartDeadlineExceeded", text)
    return PendingReason("StartDeadlineExceeded")
