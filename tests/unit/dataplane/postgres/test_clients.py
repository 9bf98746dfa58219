"""Which client serves which server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.clients import Client, choose, installed, parse_version

IMAGE = {major: Client(major, Path(f"/usr/lib/postgresql/{major}/bin")) for major in (13, 15, 17, 18)}


@pytest.mark.parametrize(
    ("server", "least", "client"),
    [(130023, 0, 13), (140012, 0, 15), (150018, 0, 15), (160001, 0, 17), (170012, 0, 17), (180006, 0, 18), (130023, 14, 15), (170012, 14, 17)],
)
def test_the_exact_major_or_the_next(server: int, least: int, client: int) -> None:
    assert choose(server, IMAGE, least=least).major == client


@pytest.mark.parametrize(("server", "reason"), [(190000, "ServerTooNew"), (120022, "ServerTooOld"), (90624, "ServerTooOld")])
def test_servers_that_are_refused(server: int, reason: str) -> None:
    with pytest.raises(Failure) as caught:
        choose(server, IMAGE)
    assert caught.value.reason.name == reason
    assert str(server // 10000) in caught.value.message


def test_without_any_client() -> None:
    with pytest.raises(Failure, match="none"):
        choose(150000, {})


def test_the_installed_clients(tmp_path: Path) -> None:
    for name in ("15", "17", "common", "18"):
        (tmp_path / name / "bin").mkdir(parents=True)
    for name in ("15", "17", "common"):
        (tmp_path / name / "bin" / "pg_dump").touch()
    assert sorted(installed(tmp_path)) == [15, 17]
    assert installed(tmp_path / "none") == {}
    assert installed(tmp_path)[15].pg_restore == str(tmp_path / "15/bin/pg_restore")


@pytest.mark.parametrize(
    ("said", "version"), [("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", "15.18"), ("pg_dump (PostgreSQL) 19beta1\n", "19beta1")]
)
def test_version(said: str, version: str) -> None:
    assert parse_version(said) == version
