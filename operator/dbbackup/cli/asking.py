"""Confirmation by typing a name again. Never taken from a pipe: whoever scripts says `--yes`."""

from __future__ import annotations

import sys

import click

from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.output import clean, paint


def confirm(what: str, wanted: str) -> None:
    """Asks for `wanted` to be typed; CliError REFUSED where it is not, or nobody can be asked."""
    typed = ask(what)
    if typed != wanted:
        raise CliError(f"{typed!r} is not {wanted!r}: nothing was done", ExitCode.REFUSED)


def ask(what: str) -> str:
    if not sys.stdin.isatty():
        raise CliError("there is no terminal to ask at", ExitCode.REFUSED, "--yes goes on without asking.")
    return str(click.prompt(paint(clean(what), bold=True, err=True), prompt_suffix=": ", err=True, default="", show_default=False)).strip()
