"""Servers from Debian's packages, each in a root file system of its own that make_root.sh made: no
package of a test's comes onto the machine, and a major that the machine's suite lacks is there too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.explore import QUICK, temporary
from tests.conformance.ways import World
from tests.contract.servers import Versitygw
from tests.integration.conftest import PASSWORD, Postgres, free_port
from tests.root import ROOT

BUILD = ROOT / "build/conformance"
SUITES = {15: "bookworm", 17: "trixie", 18: "sid"}
_CLIENTS = ("pg_dump", "pg_restore", "psql", "pg_isready")


def root_of(major: int) -> Path:
    """The root with this major's server, its contributed modules and the packages that some inputs
    need; it is made where it is missing."""
    subprocess.run([Path(__file__).parent / "make_root.sh", str(major), SUITES[major], BUILD], check=True)
    return BUILD / f"root-{major}"


def source_of(major: int) -> Path:
    """The server's source, as the suite's source package has it."""
    return BUILD / f"source-{major}"


def headers_of(major: int) -> Path:
    return BUILD / f"headers-{major}/usr/include/postgresql/{major}/server"


def _clients(root: Path, major: int) -> Path:
    """The root's clients, run by the root's own loader and libraries, so that they see the paths of
    this machine."""
    directory = BUILD / f"clients-{major}/{major}/bin"
    directory.mkdir(parents=True, exist_ok=True)
    loader = next((root / "lib64").glob("ld-linux*"))
    libraries = next((root / "usr/lib").glob("*-linux-gnu"))
    for name in _CLIENTS:
        path = directory / name
        path.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {root}/usr/lib/postgresql/{major}/bin/{name} "$@"\n')
        path.chmod(0o755)
    return directory


@contextmanager
def serving_major(major: int, **settings: str) -> Iterator[World]:
    """A world whose server is the one in the major's root."""
    root, directory = root_of(major), temporary()
    (directory / "s3").mkdir()
    s3 = Versitygw(directory / "s3")
    inside = f"/var/lib/conformance-{os.getpid()}"
    as_server = ["chroot", str(root), "runuser", "-u", "postgres", "--"]
    binaries = f"/usr/lib/postgresql/{major}/bin"
    home = root / inside.lstrip("/")
    home.mkdir(parents=True)
    process = None
    try:
        s3.start()
        (home / "password").write_text(PASSWORD)
        subprocess.run(["chroot", root, "chown", "-R", "postgres:", inside], check=True)
        initdb = [*as_server, f"{binaries}/initdb", "-D", f"{inside}/data", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={inside}/password"]
        subprocess.run([*initdb, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], check=True, capture_output=True)
        postgres = Postgres(free_port(), _clients(root, major), home / "data")
        options = {
            **QUICK,
            "fsync": "off",
            "max_connections": "60",
            "wal_level": "logical",
            "listen_addresses": "127.0.0.1",
            "port": str(postgres.port),
            "unix_socket_directories": inside,
            "dynamic_shared_memory_type": "mmap",
            **settings,
        }
        with (directory / "log").open("wb") as log:
            command = [*as_server, f"{binaries}/postgres", "-D", f"{inside}/data", *(f"--{name}={value}" for name, value in options.items())]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(400):
            ready = subprocess.run([postgres.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(postgres.port), "-t", "1"], check=False)
            if ready.returncode == 0:
                break
            time.sleep(0.05)
        yield World(postgres, s3, directory / "job")
    finally:
        s3.kill()
        if process is not None:
            subprocess.run([*as_server, f"{binaries}/pg_ctl", "stop", "-D", f"{inside}/data", "-m", "immediate", "-s"], check=False)
            process.wait(30)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
