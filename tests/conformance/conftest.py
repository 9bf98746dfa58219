"""One server and one bucket for the session, with what the inputs need of a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.cases import install_extensions
from tests.conformance.ways import World
from tests.contract.servers import Versitygw
from tests.integration.conftest import start_postgres


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    s3 = Versitygw(tmp_path_factory.mktemp("s3"))
    try:
        s3.start()
        for postgres in start_postgres(Path("/tmp") / f"dbbackup-conformance-{os.getpid()}", max_prepared_transactions="5"):
            install_extensions(Path("/usr/share/postgresql") / str(postgres.major))
            yield World(postgres, s3, tmp_path_factory.mktemp("runs") / "job")
    finally:
        s3.kill()
