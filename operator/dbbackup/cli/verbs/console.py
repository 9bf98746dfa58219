"""`console`: opens the console's page through a port-forward."""

from __future__ import annotations

import time

import click

from dbbackup.api.objects import Raw
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import interactive, say, say_err

SELECTOR = "app.kubernetes.io/component=console,app.kubernetes.io/name=database-backup-operator"
PORT = 80
TRIES = 5
QUICK_SECONDS = 10
"""A connection that lasts less has failed."""


@click.command()
@click.option("--operator-namespace", metavar="NAME", help="The namespace of the operator. Without it, all namespaces are searched.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="The local port.  [default: a free one]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@connection
@click.pass_context
def console(ctx: click.Context, /, operator_namespace: str | None, port: int | None, no_browser: bool) -> int:
    """Open the console in a browser.

    It forwards a local port to the console's Service until ^C. You sign in there with your own
    bearer token.
    """
    kube = access(ctx)
    service = _service(kube, operator_namespace)
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    wanted, failures, shown = port or 0, 0, False
    while failures < TRIES:
        with kube.forward(f"service/{name}", PORT, namespace=namespace, local=wanted) as forward:
            if not shown:
                shown = True
                _show(f"http://127.0.0.1:{forward.port}/", no_browser=no_browser)
            wanted, began = forward.port, time.monotonic()
            forward.process.wait()
        failures = failures + 1 if time.monotonic() - began < QUICK_SECONDS else 1
        say_err("the connection broke off, for example because the console's pod was replaced; forwarding again")
        time.sleep(min(failures, 3))
    raise CliError(f"the connection to service {name} broke off {TRIES} times", CliExit.UNREACHABLE)


def _show(address: str, *, no_browser: bool) -> None:
    say(address)
    say_err("^C ends it. To sign in you need a bearer token, for example from: kubectl create token NAME -n NAMESPACE")
    if not no_browser and interactive():
        import webbrowser  # noqa: PLC0415

        webbrowser.open(address)


def _service(kube: Kubectl, namespace: str | None) -> Raw:
    try:
        found = kube.objects("Service", everywhere=namespace is None, namespace=namespace, selector=SELECTOR)
    except CliError as error:
        if error.code is CliExit.REFUSED and namespace is None:
            hint = "--operator-namespace NAME searches that namespace only."
            raise CliError("you may not list Services in all namespaces", CliExit.REFUSED, hint) from None
        raise
    if not found:
        where = f"in namespace {namespace}" if namespace else "in this cluster"
        raise CliError(f"there is no console {where}", CliExit.NOT_FOUND, "Enable it in the chart's values: console.enabled=true.")
    return found[0]
