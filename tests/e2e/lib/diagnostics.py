"""What a person would look at first when an end-to-end test has failed."""

from __future__ import annotations

import subprocess

from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, Cluster
from tests.e2e.lib.kube import Kube


def report(kube: Kube) -> str:
    """Objects, Events, logs of the namespace's Jobs, and the operator's log lines about it. Never
    fails."""
    sections = [
        ("objects", kube.run("get", "dbb,dbr,bst,jobs,pods", "-o", "wide", check=False)),
        ("status", kube.run("get", "dbb,dbr", "-o", "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.status}{'\\n'}{end}", check=False)),
        ("events", kube.run("get", "events", "--sort-by=.metadata.creationTimestamp", check=False)),
    ]
    names = kube.run("get", "pods", "-l", "batch.kubernetes.io/job-name", "-o", "name", check=False).split()
    sections += [(name, kube.run("logs", name, "--all-containers", "--tail=40", check=False)) for name in names if name.startswith("pod/")]
    sections.append((f"operator's log about {kube.name}", operator_log(kube.cluster, kube.name)))
    return "\n".join(f"--- {title}\n{text.strip()}" for title, text in sections)


def operator_log(cluster: Cluster, about: str = "", lines: int = 80) -> str:
    argv = ("-n", OPERATOR_NAMESPACE, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=4000")
    try:
        text = cluster.kubectl(*argv, check=False)
    except subprocess.TimeoutExpired:
        return "kubectl logs did not answer"
    found = [line for line in text.splitlines() if about in line]
    return "\n".join(line[:500] for line in found[-lines:])
