"""How a call of the plugin ends: exit codes, and errors that say what happened and what to do."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    TIMEOUT = 5
    UNREACHABLE = 6
    INTERRUPTED = 7
    CORRUPT = 8
    INTERNAL = 70
    CANCELLED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


MEANINGS = {
    ExitCode.OK: "done; with `--wait`, the run has Completed",
    ExitCode.FAILED: "the backup or restore Failed, or `doctor` or `storage check` found something wrong",
    ExitCode.USAGE: "the command line, or the object that it makes, cannot be used; nothing was done",
    ExitCode.NOT_FOUND: "an object, an artifact or the operator's API is not there",
    ExitCode.REFUSED: "RBAC or a policy of the cluster refused it, or it was not confirmed; nothing was done",
    ExitCode.TIMEOUT: "what was waited for has not happened; it goes on by itself",
    ExitCode.UNREACHABLE: "the API server could not be reached, or kubectl did not work",
    ExitCode.INTERRUPTED: "a download broke off; the `.part` file is kept, and the same command goes on from there",
    ExitCode.CORRUPT: "the artifact in the bucket is not what its manifest says; nothing was left that looks like a dump",
    ExitCode.INTERNAL: "a defect of the plugin; `DBBACKUP_DEBUG=1` shows where",
    ExitCode.CANCELLED: "^C",
    ExitCode.CLOSED_PIPE: "whoever read its output has gone, as after `head`",
    ExitCode.TERMINATED: "SIGTERM or SIGHUP",
}


class CliError(Exception):
    """What a person is told, and the exit code. `reason` is that of the API server or of
    `dbbackup.errors`, where there is one."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.hint, self.reason = message, code, hint, reason


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP: whatever is under way clears up and ends."""
