"""pg_dump as a child process: its arguments, its output, its failures."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup.snapshot import TableSelection
from dbbackup.dataplane.context import Stop
from dbbackup.dataplane.postgres.clients import Client
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.pipes import read_chunks, widen
from dbbackup.dataplane.postgres.reasons import pg_dump_reason
from dbbackup.dataplane.postgres.table_patterns import pg_dump_pattern
from dbbackup.dataplane.redaction import Redactor
from dbbackup.dataplane.sql.encodings import codec_of, encode

LOCK_WAIT = "15s"
"""pg_dump's own timeout for its locks. The coordinator holds the locks already, but a session that
asked for an exclusive lock in between queues before pg_dump, and waits for the coordinator."""
CLIENT_EXCLUDES_EXTENSIONS = 17
"""Older ones know only --extension, which leaves out casts, large objects and more: their dumps are
filtered instead."""
_STDERR_LINES = 60


def pg_dump_arguments(
    client: Client, options: BackupOptions, selection: TableSelection, extensions: Sequence[str], snapshot: str, *, encoding: str
) -> list[bytes]:
    """pg_dump's argv. The environment names the database. Every name is quoted, so that none is
    taken for a pattern or an option. pg_dump takes names in the `encoding` that it dumps in.

    Subscriptions stay out: their connection strings hold passwords, and a slot on another server
    cannot be dropped within a transaction.
    """
    argv = [client.pg_dump, f"--snapshot={snapshot}", "--no-password", "--no-subscriptions", f"--lock-wait-timeout={LOCK_WAIT}"]
    argv.append(f"--encoding={encoding}")  # the database's own, whatever a role or a database sets
    if options.format == "custom":
        argv += ["--format=custom", "--compress=0"]
    else:
        argv += ["--format=plain", "--no-owner", "--no-privileges", "--no-tablespaces"]
        argv += ["--clean", "--if-exists"] if options.clean else []
    if options.schemas:
        argv += [f"--schema={pg_dump_pattern(schema)}" for schema in selection.schemas]
        argv += [f"--extension={pg_dump_pattern(extension)}" for extension in extensions]
        argv += ["--strict-names", "--blobs"]
    else:
        argv += [f"--exclude-schema={pg_dump_pattern(schema)}" for schema in selection.excluded_schemas]
        if client.major >= CLIENT_EXCLUDES_EXTENSIONS:
            argv += [f"--exclude-extension={pg_dump_pattern(extension)}" for extension in selection.excluded_extensions]
    argv += ["--load-via-partition-root"] if selection.through_roots else []
    without_rows = selection.configuration.left_out
    argv += [f"--exclude-table={pg_dump_pattern(*key)}" for key in sorted(selection.excluded | without_rows)]
    argv += [f"--exclude-table-data={pg_dump_pattern(*key)}" for key in sorted(selection.without_data | without_rows)]
    return [encode(argument, codec_of(encoding)) for argument in argv]


class PgDump:
    """A running pg_dump. The end of its output is the end of the dump only when it also exits with
    0. `tables` are the names of the tables in the dump."""

    def __init__(
        self,
        argv: Sequence[bytes],
        environment: Mapping[str, str],
        info: Conninfo,
        tables: Iterable[str],
        stop: Stop,
        log: Callable[[str], None],
    ) -> None:
        self._info = info
        self._tables = tables
        self._redact = Redactor(info.password)
        self._stop = stop
        self._log = log
        self._said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._errors: list[str] = []
        self._output, write = os.pipe()
        try:
            widen(write)
            self._process = subprocess.Popen(
                argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            os.close(self._output)
            raise Failure("DumpFailed", f"pg_dump cannot be run: {error}") from None
        finally:
            os.close(write)
        self._listener = threading.Thread(target=self._listen, name="pg_dump-stderr", daemon=True)
        self._listener.start()
        self._stop.on_stop(self.kill)

    def _listen(self) -> None:
        for raw in self._process.stderr or ():
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self._log(self._redact(line))
            if not self._errors and not line.startswith("pg_dump: error: "):
                self._said.append(line)
            elif len(self._errors) < _STDERR_LINES:
                self._errors.append(line)  # the query that follows an error may be long

    def chunks(self) -> Iterator[bytes]:
        """The output; Failure instead of an end where pg_dump fails or the run is stopped."""
        for chunk in read_chunks(self._output):
            self._stop.check()
            yield chunk
        code = self._process.wait()
        self._listener.join()
        self._stop.check()
        if code:
            raise self._failure(code)

    def _failure(self, code: int) -> Failure:
        said = "\n".join(self._errors or self._said)
        text = self._redact(" ".join(said.split()))
        ended = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        if code == -signal.SIGKILL:
            return Failure("OutOfMemory", f"{self._info.who}: pg_dump {ended}: {text}")
        reason = pg_dump_reason(said, (self._info.host, self._info.user, self._info.name), self._tables) or "DumpFailed"
        return Failure(reason, f"{self._info.who}: pg_dump {ended}: {text[:2000] or 'no error output'}")

    def kill(self) -> None:
        """With its whole process group, so that nothing keeps the pipe open."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process if it still runs, and releases its pipes and threads."""
        self.kill()
        self._process.wait()
        self._listener.join()
        if self._process.stderr:
            self._process.stderr.close()
        with suppress(OSError):
            os.close(self._output)
