"""The plugin's process: from argv to an exit code, and never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from dbbackup.cli.app import COMPLETE, PROGRAM, cli
from dbbackup.cli.errors import CliError, CliExit, TerminatedError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code. It never ends with a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["__complete"]:
        from dbbackup.cli.complete import complete  # noqa: PLC0415

        return complete(arguments[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, _terminate)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _closed_pipe()
    return code


def _closed_pipe() -> int:
    """The reader of stdout has gone. Without this, Python would report it again at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return CliExit.CLOSED_PIPE


def _terminate(*_: object) -> None:
    raise TerminatedError


def _run(arguments: list[str]) -> int:
    try:
        result = cli.main(args=arguments, prog_name=PROGRAM, complete_var=COMPLETE, standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        # click ends a completion this way, and anything else only if the reader of stdout has gone.
        return int(end.code or 0) if COMPLETE in os.environ else _closed_pipe()
    except click.ClickException as error:
        error.show()
        return CliExit.USAGE
    except CliError as error:
        _report(error.message, error.hint)
        return error.code
    except (KeyboardInterrupt, click.Abort):
        _report("interrupted")
        return CliExit.CANCELLED
    except TerminatedError:
        _report("terminated")
        return CliExit.TERMINATED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("DBBACKUP_DEBUG"):
            raise
        _report(f"a defect of the plugin, please report it: {type(error).__name__}: {error}", "DBBACKUP_DEBUG=1 shows where.")
        return CliExit.INTERNAL
    return result if isinstance(result, int) else CliExit.OK


def _report(message: str, hint: str = "") -> None:
    from dbbackup.cli.output import clean, paint, say_err  # noqa: PLC0415

    with suppress(OSError):
        say_err(f"{paint('error:', 'red', bold=True, err=True)} {clean(message)}")
        if hint:
            say_err(clean(hint))


def entry() -> None:
    """The console script."""
    sys.exit(main())
