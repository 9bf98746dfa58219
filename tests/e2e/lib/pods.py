"""Pods of test servers, fit for the restricted pod-security standard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.e2e.lib.kube import Kube, Raw

PULL = "IfNotPresent"


def server(
    name: str,
    image: str,
    port: int,
    *,
    user: int,
    probe: Raw,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    command: Sequence[str] = (),
    volumes: Mapping[str, Raw] | None = None,
) -> list[Raw]:
    """A pod that answers on `port`, and a Service of the same name. `volumes`: mount path to volume
    source; an emptyDir where it is `{}`."""
    mounts = dict(volumes or {})
    container: Raw = {
        "name": "main",
        "image": image,
        "imagePullPolicy": PULL,
        "args": list(args),
        **({"command": list(command)} if command else {}),
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "ports": [{"containerPort": port}],
        # Asked each second until it holds once, cheaply after that: an `exec` probe costs as much
        # as a small query workload.
        "startupProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": f"v{index}", "mountPath": path} for index, path in enumerate(mounts)],
    }
    pod: Raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"server": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": f"v{index}", **(source or {"emptyDir": {}})} for index, source in enumerate(mounts.values())],
        },
    }
    service: Raw = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"server": name}, "ports": [{"name": "main", "port": port}]},
    }
    return [pod, service]


def start(kube: Kube, name: str, objects: Sequence[Raw], timeout: float = 120) -> None:
    """Applies the server's objects and waits until it answers; a pod of that name that has ended is
    replaced."""
    found = kube.find("pod", name)
    if found and found.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        kube.run("delete", "pod", name, "--grace-period=0", "--force")
        found = None
    if not found:
        kube.apply(*objects)
    kube.wait_ready("pod", name, timeout)
