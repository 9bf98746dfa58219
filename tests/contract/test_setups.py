"""One server (versitygw) set up in ways that people use: TLS, a region of its own, a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.conftest import connect, secret_directory
from tests.contract.servers import OWNER, Server, Versitygw

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import StorageTarget
from dbbackup.storage import retries
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import S3Storage, open_storage

MIB = 1 << 20
pytestmark = pytest.mark.xdist_group("contract-setups")


@pytest.fixture(scope="module", params=[Versitygw], ids=lambda server: server.name)
def server(request: pytest.FixtureRequest) -> type[Server]:
    """Not started: each test starts one of its own."""
    made: type[Server] = request.param
    return made


def authority(directory: Path, name: str) -> tuple[Path, Path]:
    """Certificate and key of a self-signed server at 127.0.0.1."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return certificate, key


class Secured(Versitygw):
    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.ports[0]}"

    def command(self) -> list[str]:
        certificate, key = self.directory.parent / "server.crt", self.directory.parent / "server.key"
        binary, *rest = super().command()
        return [binary, "--cert", str(certificate), "--key", str(key), *rest]

    def ready(self) -> bool:
        return subprocess.run(["curl", "-sk", "-o", "/dev/null", self.endpoint], check=False).returncode == 0


@contextmanager
def running(made: Server) -> Iterator[Server]:
    made.directory.mkdir(exist_ok=True)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def trusting(endpoint: str, directory: Path, ca: bytes | None, *, secret: str | None = "s3-ca") -> Storage:
    mounted = directory / "ca"
    mounted.mkdir(exist_ok=True)
    if ca is not None:
        (mounted / "ca.crt").write_bytes(ca)
    target = StorageTarget(name="contract", bucket="secured", endpoint=endpoint, credentials_secret="s3", ca_secret=secret)
    return open_storage(target, secret_dir=secret_directory(directory / "secret", OWNER), ca_dir=str(mounted))


def reason(storage: Storage) -> str:
    with pytest.raises(Failure) as caught:
        storage.ensure_bucket(create=True)
    return caught.value.reason.name


def test_tls(server: type[Server], tmp_path: Path) -> None:
    certificate, _ = authority(tmp_path, "server")
    other, _ = authority(tmp_path, "other")
    with running(Secured(tmp_path / "data")) as secured:
        storage = trusting(secured.endpoint, tmp_path, other.read_bytes() + certificate.read_bytes())
        storage.ensure_bucket(create=True)
        upload = storage.start_upload("a", "text/plain")
        upload.part(1, b"1" * 6 * MIB)
        upload.part(2, b"2" * 6 * MIB)
        upload.complete()
        assert storage.get_range("a", 6 * MIB - 1, 2) == b"12"
        assert storage.get("a", 1 << 30) == b"1" * 6 * MIB + b"2" * 6 * MIB

        assert reason(trusting(secured.endpoint, tmp_path, other.read_bytes())) == "StorageTLSFailed"
        assert reason(trusting(secured.endpoint, tmp_path, None, secret=None)) == "StorageTLSFailed"
        assert reason(trusting(secured.endpoint.replace("127.0.0.1", "localhost"), tmp_path, certificate.read_bytes())) == "StorageTLSFailed"
        with pytest.raises(Failure) as caught:
            trusting(secured.endpoint, tmp_path, b"no certificate")
        assert caught.value.reason.name == "KeyMissing"
        assert "ca.crt" in caught.value.message


def test_damage_under_tls_is_refused_by_the_digest(server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload is not signed then: Content-MD5 must detect it."""
    certificate, _ = authority(tmp_path, "server")
    with running(Secured(tmp_path / "data")) as secured:
        storage = trusting(secured.endpoint, tmp_path, certificate.read_bytes())
        assert isinstance(storage, S3Storage)
        storage.ensure_bucket(create=True)

        def damage(request: object, **_: object) -> None:
            body = request.body  # type: ignore[attr-defined]
            body._view = memoryview(b"y" + bytes(body._view[1:]))

        storage.client.meta.events.register("before-send.s3", damage)
        monkeypatch.setattr(retries, "PATIENCE", 0.5)
        with pytest.raises(Failure) as caught:
            storage.put("a", b"x" * MIB, "text/plain")
        assert "BadDigest" in caught.value.message
        storage.client.meta.events.unregister("before-send.s3", damage)
        assert storage.head("a") is None


def test_missing_ca(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        trusting("https://127.0.0.1:1", tmp_path, None)
    assert caught.value.reason.name == "SecretMissing"
    assert "s3-ca" in caught.value.message


class Elsewhere(Versitygw):
    def command(self) -> list[str]:
        binary, *rest = super().command()
        return [binary, "--region", "eu-central-1", *rest]

    def ready(self) -> bool:
        return subprocess.run(["curl", "-s", "-o", "/dev/null", self.endpoint], check=False).returncode == 0


def test_region(server: type[Server], tmp_path: Path) -> None:
    with running(Elsewhere(tmp_path / "data")) as elsewhere:
        directory = secret_directory(tmp_path / "secret", OWNER)

        def storage(region: str | None) -> Storage:
            target = StorageTarget(name="contract", bucket="elsewhere", endpoint=elsewhere.endpoint, region=region, credentials_secret="s3")
            return open_storage(target, secret_dir=directory)

        right = storage("eu-central-1")
        right.ensure_bucket(create=True)
        right.put("a", b"1", "text/plain")
        for region in (None, "us-west-2"):  # the server names the right one, and the client takes it
            assert storage(region).get("a", 1) == b"1"


def test_full_disk(server: type[Server], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    data = tmp_path / "server" / "data"
    data.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(data)], check=True)
    try:
        with running(Versitygw(tmp_path / "server")) as small:
            storage = connect(small.endpoint, tmp_path, "small")
            storage.ensure_bucket(create=True)
            upload = storage.start_upload("a", "text/plain")
            for number in (1, 2):
                upload.part(number, b"1" * 6 * MIB)
            with pytest.raises(Failure) as caught:
                upload.part(3, b"1" * 10 * MIB)
            assert caught.value.reason.name == "StorageFull", caught.value
            upload.abort()
            storage.put("a", b"1" * 10 * MIB, "text/plain")
    finally:
        subprocess.run(["umount", str(data)], check=True)
