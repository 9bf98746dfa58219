"""Confirmation by typing a name again. Answers are never read from a pipe: scripts use `--yes`."""

from __future__ import annotations

import sys

import click

from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.output import clean, paint


def confirm(question: str, wanted: str) -> None:
    """Asks the person to type `wanted`; CliError REFUSED if they type anything else."""
    typed = ask(question)
    if typed != wanted:
        raise CliError(f"{typed!r} is not {wanted!r}: nothing was done", CliExit.REFUSED)


def ask(question: str) -> str:
    """What the person types; CliError REFUSED if stdin is not a terminal."""
    if not sys.stdin.isatty():
        raise CliError("there is no terminal to ask on", CliExit.REFUSED, "Use --yes to continue without a question.")
    return str(click.prompt(paint(clean(question), bold=True, err=True), prompt_suffix=": ", err=True, default="", show_default=False)).strip()
