"""What create, restore and schedule create have in common: the object is shown, or made, and
perhaps waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbbackup.api.objects import Raw
from dbbackup.cli.errors import ExitCode
from dbbackup.cli.kubectl import PATHS, Kubectl
from dbbackup.cli.output import document, say, say_err, slim
from dbbackup.cli.waiting import wait_for


def make(kube: Kubectl, obj: Raw, flags: Mapping[str, Any]) -> int:
    """Makes it as the flags `dry_run`, `output` and, for a run, `wait` want it; the exit code."""
    if flags["dry_run"]:
        kube.create(obj, server_dry_run=True)
        show(obj, flags["output"] or "yaml")
        return ExitCode.OK
    made = kube.create({**obj, "metadata": kube.requested(obj["metadata"])})
    if flags["output"]:
        show(slim(made), flags["output"])
    else:
        say_err(f"{obj['kind']} {made['metadata']['name']} created in namespace {kube.namespace}")
        if not flags.get("wait"):
            say(made["metadata"]["name"])
    return wait_for(kube, made, flags["wait_timeout"]) if flags.get("wait") else ExitCode.OK


def show(obj: Raw, form: str) -> None:
    say(name_of(obj) if form == "name" else document(obj, form))


def name_of(obj: Mapping[str, Any]) -> str:
    """As kubectl's `-o name` says it."""
    singular = PATHS[obj["kind"]][1].removesuffix("s")
    return f"{singular}.dbbackup.io/{obj['metadata']['name']}"
