"""How the plugin ends: exit codes, and errors that say what happened and what to do."""

from __future__ import annotations

from enum import IntEnum


class CliExit(IntEnum):
    """Exit codes of the plugin, documented in docs/cli.md. `contract.errors` has those of a Job."""

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
    CliExit.OK: "done; with `--wait`, the run has Completed",
    CliExit.FAILED: "the backup or restore Failed, or `doctor` or `storage check` found something wrong",
    CliExit.USAGE: "the command line, or the object that it describes, is not valid; nothing was done",
    CliExit.NOT_FOUND: "an object, an artifact or the operator's API does not exist",
    CliExit.REFUSED: "RBAC or a policy of the cluster refused it, or it was not confirmed; nothing was done",
    CliExit.TIMEOUT: "waited too long; what it waited for continues",
    CliExit.UNREACHABLE: "the API server could not be reached, or kubectl did not work",
    CliExit.INTERRUPTED: "a download broke off; the `.part` file is kept, and the same command continues from there",
    CliExit.CORRUPT: "the artifact in the bucket is not what its manifest says; no file that looks like a dump was left",
    CliExit.INTERNAL: "a defect of the plugin; `DBBACKUP_DEBUG=1` shows where",
    CliExit.CANCELLED: "^C",
    CliExit.CLOSED_PIPE: "the reader of its output has gone, as with `head`",
    CliExit.TERMINATED: "SIGTERM or SIGHUP",
}


class CliError(Exception):
    """An error for the person, and the exit code. `reason` is that of the API server or of
    `contract.errors`, or empty."""

    def __init__(self, message: str, code: CliExit = CliExit.FAILED, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.hint, self.reason = message, code, hint, reason


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP: running work cleans up and ends."""
