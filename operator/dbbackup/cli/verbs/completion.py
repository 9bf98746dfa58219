"""`completion`: code for a shell, or the program that kubectl looks for."""

from __future__ import annotations

import click

from dbbackup.cli.app import connection
from dbbackup.cli.errors import CliExit
from dbbackup.cli.output import say

KUBECTL = """#!/bin/sh
# kubectl runs this program, anywhere on the PATH, for the completion of `kubectl dbbackup`.
exec kubectl-dbbackup __complete "$@"
"""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
@connection
def completion(shell: str) -> int:
    """Print the completion code for a shell.

    \b
    kubectl dbbackup ...   kubectl's own completion runs kubectl_complete-dbbackup from the PATH.
                           pipx installs it. Without pipx:
                           f=/usr/local/bin/kubectl_complete-dbbackup
                           kubectl dbbackup completion kubectl > $f; chmod +x $f
    kubectl-dbbackup ...   source <(kubectl-dbbackup completion bash), or zsh
                           kubectl-dbbackup completion fish | source
    """
    if shell == "kubectl":
        say(KUBECTL.rstrip())
        return CliExit.OK
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from dbbackup.cli.app import COMPLETE, cli  # noqa: PLC0415

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101
    say(kind(cli, {}, "kubectl-dbbackup", COMPLETE).source())
    return CliExit.OK
