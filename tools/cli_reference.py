"""docs/cli-reference.md: every verb, argument and flag of the kubectl plugin, its exit codes, and
the rights that verbs need."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dbbackup.cli.app import PROGRAM, VERBS, cli
from dbbackup.cli.checks import CAPABILITIES
from dbbackup.cli.errors import MEANINGS


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Verbs in the order of `--help`; a group is replaced by its verbs."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in VERBS if command is cli else command.commands:
        child = command.get_command(context, name)
        assert child is not None  # noqa: S101
        yield from _commands(child, f"{path} {name}")


def _common() -> set[str]:
    return {str(parameter.name) for parameter in cli.params}


def _row(option: click.Option) -> str:
    """A flag's row of the table: how it is written, what it does."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = ""
    if not option.is_flag:
        choices = "\\|".join(option.type.choices) if isinstance(option.type, click.Choice) else ""
        value = choices or option.metavar or option.type.name.upper()
    help_text = (option.help or "").replace("|", "\\|").replace("  [default", " [default").replace("*", "\\*")
    default = option.default
    if option.show_default and isinstance(default, (str, int)) and not option.is_flag:
        help_text += f" [default: {default}]"
    elif option.secondary_opts:
        help_text += f" [default: {option.opts[0] if default else option.secondary_opts[0]}]"
    return f"| {names} | {value} | {help_text} |"


def _right(resource: str, verbs: list[str]) -> str:
    return f"`{resource}`: {', '.join(verbs)}"


def _verb(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    pieces = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    yield from ("", f"## {path.removeprefix(PROGRAM + ' ')}", f"`{path} {pieces}`".replace(" `", "`"), "")
    paragraphs = (command.help or "").split("\n\n")
    for paragraph in paragraphs:
        lines = paragraph.strip().splitlines()
        if lines and lines[0] == "\b":
            yield from ("```", *(line.rstrip() for line in lines[1:]), "```", "")
        else:
            yield from (" ".join(line.strip() for line in lines), "")
    common = _common()
    options = [option for option in command.params if isinstance(option, click.Option) and option.name not in common]
    if options:
        yield from ("| flag | value | |", "| --- | --- | --- |", *(_row(option) for option in options))


def reference(notice: str) -> str:
    """The whole page."""
    lines = [
        f"<!-- {notice} Source: operator/dbbackup/cli -->",
        "# Reference of kubectl dbbackup",
        "What it is for, and how to get it: [cli.md](cli.md).",
        "",
    ]
    lines += ["Every verb takes these, before it or after it:", "", "| flag | value | |", "| --- | --- | --- |"]
    lines += [_row(option) for option in cli.params if isinstance(option, click.Option)]
    lines += ["", "## Exit codes", "| code | meaning |", "| --- | --- |", *(f"| {int(code)} | {text} |" for code, text in MEANINGS.items())]
    lines += [
        "",
        "## Rights",
        "What a verb asks of RBAC in the namespace, as `kubectl dbbackup doctor` looks for it. Resources without a group are ours.",
        "",
    ]
    lines += ["| to | rights |", "| --- | --- |"]
    for capability in CAPABILITIES:
        rights: dict[str, list[str]] = {}
        for verb, _, resource in capability.rights:
            rights.setdefault(resource, []).append(verb)
        lines.append(f"| {capability.what} | {'; '.join(_right(*item) for item in rights.items())} |")
    for path, command in _commands(cli, PROGRAM):
        lines += _verb(path, command)
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"
