"""How the plugin starts: fast, whatever it could do; what it says of itself; how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tests.root import ROOT

from dbbackup.cli import entry, errors
from dbbackup.cli.app import VERBS, cli
from dbbackup.cli.complete import complete
from dbbackup.cli.entry import main
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.verbs import list as listing

SLOW = {"pydantic", "yaml", "cronsim", "tzdata", "zoneinfo", "http", "email", "ssl", "asyncio", "hashlib", "importlib.metadata"}
"""What `--help` must not wait for: each takes from five to two hundred milliseconds."""
NEVER = {"pydantic", "kopf", "kubernetes", "boto3", "botocore", "psycopg", "aiohttp"}
"""What no verb may import: the wheel does not bring it, and it takes long."""


def imported(code: str) -> set[str]:
    program = f"{code}\nimport sys; print('\\n'.join(['', *sys.modules]))"
    done = subprocess.run([sys.executable, "-S", "-c", program], env=environment(), capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n"))


def environment() -> dict[str, str]:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    return {"PYTHONPATH": f"{ROOT / 'operator'}:{site}"}


def test_help_imports_nothing_that_is_slow() -> None:
    names = imported("from dbbackup.cli.entry import main; main(['--help'])")
    assert "click" in names
    assert not names & SLOW
    assert not {name for name in names if name.startswith("dbbackup.cli.verbs.")}


def test_no_verb_imports_what_the_wheel_does_not_bring() -> None:
    names = imported("; ".join(f"import dbbackup.cli.verbs.{module}" for module, _, _ in VERBS.values()))
    assert not names & NEVER


def commands(group: click.Command = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, f"{path} {name}".strip())
    if path:
        yield path, group


@pytest.mark.parametrize("name", VERBS)
def test_the_helps_first_line_is_the_commands(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == VERBS[name][2]


def test_every_command_and_flag_has_its_help() -> None:
    found = dict(commands())
    assert {"create", "schedule run-now", "storage check", "import", "doctor", "console"} <= set(found)
    for path, command in found.items():
        assert (command.help or "").splitlines()[0].endswith("."), path
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert {"namespace", "context", "kubeconfig"} <= {str(option.name) for option in options}, path
        for option in options:
            assert option.help, f"{path} --{option.name}"
            assert option.help.rstrip("]").endswith((".", "default")) or "[default" in option.help, f"{path} --{option.name}: {option.help}"


def test_an_unknown_verb_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frobnicate"]) == CliExit.USAGE
    assert "frobnicate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (CliError("no such thing", CliExit.NOT_FOUND, "look elsewhere"), 3, "error: no such thing\nlook elsewhere\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (errors.TerminatedError(), 143, "error: terminated\n"),
        (ZeroDivisionError("x"), 70, "error: a defect of the plugin, please report it: ZeroDivisionError: x\nDBBACKUP_DEBUG=1 shows where.\n"),
        (BrokenPipeError(32, "broken"), 141, ""),
        (CliError("\x1b[31mred\n line"), 1, "error: \\x1b[31mred line\n"),
    ],
)
def test_every_end_has_its_code_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, printed: str
) -> None:
    def fail(**_: object) -> int:
        raise raised

    monkeypatch.setattr(listing.list_, "callback", click.pass_context(lambda *_, **__: fail()))
    monkeypatch.setattr(entry, "_closed_pipe", lambda: 141)
    assert main(["list"]) == code
    assert capsys.readouterr().err.replace("\n\n", "\n").lstrip("\n") == printed


def test_exit_codes_are_documented() -> None:
    assert set(errors.MEANINGS) == set(CliExit)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["sch"], ["schedule\tCreate, inspect and control schedules."]),
        (["schedule", "su"], ["suspend\tStart no more runs until it is resumed."]),
        (["create", "--format", ""], ["plain", "custom"]),
        (["restore", "--repl"], ["--replace\tReplace what the backup contains. Without it, a target that is not empty is refused."]),
    ],
)
def test_completion_as_kubectl_asks_for_it(words: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert complete(words) == 0
    *found, directive = capsys.readouterr().out.splitlines()
    assert [line for line in found if not line.startswith("--no")] == wanted
    assert directive == ":4"


def test_a_file_is_completed_by_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    complete(["download", "-o", ""])
    assert capsys.readouterr().out == ":0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "kubectl"])
def test_code_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert "kubectl-dbbackup" in said
    assert ("_KUBECTL_DBBACKUP_COMPLETE" in said) == (shell != "kubectl")
