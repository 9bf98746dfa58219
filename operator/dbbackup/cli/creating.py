"""The common end of `create`, `restore` and `schedule create`: show the object, or create it and
perhaps wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbbackup.api.objects import Raw
from dbbackup.cli.errors import CliExit
from dbbackup.cli.kubectl import PATHS, Kubectl
from dbbackup.cli.output import document, say, say_err, slim
from dbbackup.cli.waiting import wait_for


def create_object(kube: Kubectl, obj: Raw, flags: Mapping[str, Any]) -> int:
    """Obeys the flags `dry_run`, `output` and, for a run, `wait`. Returns the exit code."""
    if flags["dry_run"]:
        kube.create(obj, server_dry_run=True)
        show(obj, flags["output"] or "yaml")
        return CliExit.OK
    created = kube.create({**obj, "metadata": kube.with_requester(obj["metadata"])})
    if flags["output"]:
        show(slim(created), flags["output"])
    else:
        say_err(f"{obj['kind']} {created['metadata']['name']} created in namespace {kube.namespace}")
        if not flags.get("wait"):
            say(created["metadata"]["name"])
    return wait_for(kube, created, flags["wait_timeout"]) if flags.get("wait") else CliExit.OK


def show(obj: Raw, form: str) -> None:
    say(name_of(obj) if form == "name" else document(obj, form))


def name_of(obj: Mapping[str, Any]) -> str:
    """As kubectl prints it with `-o name`."""
    singular = PATHS[obj["kind"]][1].removesuffix("s")
    return f"{singular}.dbbackup.io/{obj['metadata']['name']}"
