"""The root of the command line. It knows each verb's name and line of help; a verb's module is
imported when the verb is called."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click

from dbbackup.cli.kubectl import Kubectl

PROGRAM = "kubectl dbbackup"
COMPLETE = "_KUBECTL_DBBACKUP_COMPLETE"

# name -> (module in `verbs`, attribute, help). A test compares the help with the command's own.
VERBS: dict[str, tuple[str, str, str]] = {
    "create": ("create", "create", "Back up a database now."),
    "list": ("list", "list_", "List backups, newest first, or the artifacts in a bucket."),
    "describe": ("describe", "describe", "Show what happened to a backup or restore."),
    "logs": ("logs", "logs", "Print the log of a run."),
    "download": ("download", "download", "Download a backup, checked, as SQL or as it is stored."),
    "restore": ("restore", "restore", "Restore a backup into a database."),
    "delete": ("delete", "delete", "Delete backups together with their artifacts."),
    "schedule": ("schedule", "schedule", "Create, inspect and control schedules."),
    "storage": ("storage", "storage", "Inspect storages and check them."),
    "import": ("import_", "import_", "Create objects for artifacts that have none."),
    "doctor": ("doctor", "doctor", "Find what is wrong, and say what to do."),
    "console": ("console", "console", "Open the console in a browser."),
    "completion": ("completion", "completion", "Print the completion code for a shell."),
    "version": ("version", "version", "Show the versions of plugin and operator."),
}

F = TypeVar("F", bound=Callable[..., Any])


class Lazy(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        found = VERBS.get(cmd_name)
        if found is None:
            return None
        command: click.Command = getattr(import_module(f"dbbackup.cli.verbs.{found[0]}"), found[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in VERBS.items()])


def access(ctx: click.Context) -> Kubectl:
    """The person's access to the cluster, as the flags describe it."""
    found = ctx.find_root().ensure_object(Kubectl)
    assert isinstance(found, Kubectl)  # noqa: S101
    return found


def _store(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(access(ctx), name, value)

    return callback


def connection(command: F) -> F:
    """The flags that every verb accepts, before its name or after it."""
    for option in (
        click.option("--kubeconfig", metavar="FILE", expose_value=False, callback=_store("kubeconfig"), help="The kubeconfig file to use."),
        click.option("--context", metavar="NAME", expose_value=False, callback=_store("context"), help="The context of the kubeconfig to use."),
        click.option("-n", "--namespace", metavar="NAME", expose_value=False, callback=_store("namespace_flag"), help="The namespace to work in."),
    ):
        command = option(command)
    return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, no_args_is_help=False)
@connection
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Back up and restore PostgreSQL on Kubernetes.

    It works with your own rights in the cluster: `kubectl dbbackup doctor` shows them.
    """
    access(ctx)
