"""`logs`: the log of a running run, or what is left of it after its end."""

from __future__ import annotations

import os
from typing import Any

import click

from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import error_of, stop
from dbbackup.cli.output import say, say_err
from dbbackup.cli.verbs.describe import log_line, run_named
from dbbackup.cli.waiting import finished


@click.command()
@click.argument("name", type=flags.RUN)
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the run ends; wait for it to start.")
@click.option("--raw", is_flag=True, help="Print the lines of JSON as the run wrote them.")
@click.option("--wait-timeout", type=flags.Seconds(), default="24h", metavar="DURATION", show_default=True, help="With -f: how long to wait.")
@connection
@click.pass_context
def logs(ctx: click.Context, /, name: str, follow: bool, raw: bool, wait_timeout: float) -> int:
    """Print the log of a run.

    A run's pod is deleted after its end. The status of a failed run keeps the end of its log, that
    of a successful one only its figures.
    """
    kube = access(ctx)
    obj = run_named(kube, name)
    kind = obj["kind"]
    if follow and not finished(obj):
        for seen in kube.watch(kind, obj["metadata"]["name"], wait_timeout):
            if seen is None:
                raise CliError(f"{kind} {name} was deleted")
            obj = {**seen, "kind": kind}
            if finished(obj) or (obj.get("status") or {}).get("phase") == "Running":
                break
        else:
            raise CliError(f"{kind} {name} has not started within {wait_timeout:.0f} s", CliExit.TIMEOUT)
    status = obj.get("status") or {}
    job = status.get("jobName")
    if not finished(obj) and job:
        return _from_pod(kube, f"job/{job}", follow, raw)
    tail = (status.get("failure") or {}).get("logTail")
    if tail:
        say_err("the run has ended and its pod is gone; this is the end of its log:")
        for line in tail.splitlines():
            say(line if raw else log_line(line))
    elif finished(obj):
        say_err(f"the run has ended and its log is gone with its pod; `kubectl dbbackup describe {name} -n {kube.namespace}` shows what happened")
    else:
        say_err(f"{name} is {status.get('phase') or 'Pending'} and has no log yet; -f waits for it")
    return CliExit.OK


def _from_pod(kube: Any, target: str, follow: bool, raw: bool) -> int:
    process = kube.start("logs", "-n", kube.namespace, target, "-c", "main", "--tail=-1", *(("-f",) if follow else ()))
    try:
        with os.fdopen(os.dup(process.stdout.fileno()), "rb") as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").rstrip("\n")
                say(text if raw else log_line(text))
        said = process.stderr.read().decode("utf-8", "replace")
        if process.wait() > 0:
            raise error_of(said)
    finally:
        stop(process)
    return CliExit.OK
