"""Finds the installed pg_dump and pg_restore, and chooses those that fit a server."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dbbackup.contract.errors import Failure

OLDEST_SERVER = 13


@dataclass(frozen=True, slots=True)
class Client:
    """The tools of one major version."""

    major: int
    directory: Path

    @property
    def pg_dump(self) -> str:
        return str(self.directory / "pg_dump")

    @property
    def pg_restore(self) -> str:
        return str(self.directory / "pg_restore")

    def version(self) -> str:
        """pg_dump's own version, such as 17.12."""
        output = subprocess.run([self.pg_dump, "--version"], capture_output=True, text=True, check=True).stdout
        return parse_version(output)


def parse_version(output: str) -> str:
    """`pg_dump (PostgreSQL) 15.18 (Debian ...)` -> `15.18`."""
    found = re.search(r"\) (\S+)", output)
    return found[1] if found else output.strip()


def installed(root: Path) -> dict[int, Client]:
    """Major version -> tools below `root`, which holds one directory per major version."""
    directories = root.iterdir() if root.is_dir() else ()
    return {int(d.name): Client(int(d.name), d / "bin") for d in directories if d.name.isdigit() and (d / "bin" / "pg_dump").is_file()}


def choose(server_version_num: int, clients: dict[int, Client], *, least: int = 0) -> Client:
    """The client of the server's own major version where it is installed, else of the next newer
    one; `least` is the oldest that will do. Failure ServerTooOld, ServerTooNew."""
    major = server_version_num // 10000
    if major < OLDEST_SERVER:
        raise Failure("ServerTooOld", f"the server is PostgreSQL {major}; the oldest supported is {OLDEST_SERVER}")
    fitting = [m for m in clients if m >= max(major, least)]
    if not fitting:
        newest = max(clients, default=0)
        raise Failure("ServerTooNew", f"the server is PostgreSQL {major}; the newest client in this image is {newest or 'none'}")
    return clients[min(fitting)]
