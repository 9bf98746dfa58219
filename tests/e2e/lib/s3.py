"""The S3 server in the cluster, a bucket for each test, and a proxy that makes it fail."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from tests.e2e.lib import pods
from tests.e2e.lib.kube import Kube, Raw

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY, SECRET_KEY = "key-of-tests", "secret-of-tests"
PORT = 7070


@dataclass(frozen=True, slots=True)
class S3:
    """`endpoint` is that within the cluster; `client` goes there from this machine."""

    kube: Kube
    pod: str
    address: tuple[str, int]
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    @property
    def endpoint(self) -> str:
        return f"http://{self.pod}.{self.kube.name}.svc:{PORT}"

    def client(self) -> S3Client:
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.client(
            "s3",
            endpoint_url="http://{}:{}".format(*self.address),
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=config,
        )

    def account(self, access_key: str, secret_key: str) -> None:
        """Adds an account that owns nothing and may do nothing with the buckets of others."""
        body = f"<Account><Access>{access_key}</Access><Secret>{secret_key}</Secret><Role>user</Role></Account>".encode()
        url = "http://{}:{}/create-user".format(*self.address)
        request = AWSRequest("PATCH", url, data=body, headers={"X-Amz-Content-Sha256": hashlib.sha256(body).hexdigest()})
        SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("PATCH", "/create-user", body=body, headers=dict(request.headers.items()))
            response = connection.getresponse()
            assert response.status < 300, f"{response.status} {response.read().decode()}"
        finally:
            connection.close()

    def bucket(self, name: str, *, create: bool = True) -> Bucket:
        client = self.client()
        if create:
            client.create_bucket(Bucket=name)
        return Bucket(self, name, client)


@dataclass(frozen=True, slots=True)
class Bucket:
    s3: S3
    name: str
    client: S3Client

    def storage(self, name: str = "default", secret: str = "s3", **spec: Any) -> Raw:
        """A BackupStorage on this bucket; `spec` adds to or replaces its fields, `s3` those of
        spec.s3."""
        s3 = {"bucket": self.name, "endpoint": self.s3.endpoint, "credentialsSecretRef": {"name": secret}, **spec.pop("s3", {})}
        return {"apiVersion": "dbbackup.io/v1", "kind": "BackupStorage", "metadata": {"name": name}, "spec": {"s3": s3, **spec}}

    def secret(self, name: str = "s3") -> Raw:
        values = {"accessKeyId": self.s3.access_key, "secretAccessKey": self.s3.secret_key}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        return sorted(upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def manifest(self, key: str) -> Raw:
        """The manifest of the artifact whose directory is `key`."""
        document: Raw = json.loads(self.get(f"{key}/manifest.json"))
        return document

    def empty(self) -> None:
        """Everything in it goes. The bucket itself stays as long as its server: a Job of a
        namespace that is going away may still write to it."""
        for key in self.keys():
            self.delete(key)
        for upload in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", []):
            with suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])


def start(kube: Kube, name: str = "s3", access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> S3:
    """An S3 server of its own, ready to serve. The keys are those of its root account."""
    environment = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
    arguments = ("--port", f":{PORT}", "--health", "/health", "--iam-dir", "/tmp", "posix", "/data")
    probe: Raw = {"httpGet": {"path": "/health", "port": PORT}}
    volumes: Mapping[str, Raw] = {"/data": {}, "/tmp": {}}
    objects = pods.server(name, kube.cluster.s3_image, PORT, user=65532, probe=probe, env=environment, args=arguments, volumes=volumes)
    pods.start(kube, name, objects)
    return S3(kube, name, kube.reach(name, PORT), access_key, secret_key)


@dataclass(frozen=True, slots=True)
class Toxiproxy:
    """A TCP proxy whose faults tests switch on and off. One proxy a pod: a Service points at port
    8666."""

    kube: Kube
    pod: str
    address: tuple[str, int]

    @property
    def host(self) -> str:
        return f"{self.pod}.{self.kube.name}.svc"

    def request(self, method: str, path: str, body: Raw | None = None) -> Any:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None, headers={"User-Agent": "tests"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        assert response.status < 300, f"toxiproxy {method} {path}: {response.status} {text}"
        return json.loads(text) if text else None

    def cut(self) -> None:
        """Nobody is there any more: open connections break, new ones are refused."""
        self.request("POST", "/proxies/main", {"enabled": False})

    def mend(self) -> None:
        self.request("POST", "/proxies/main", {"enabled": True})

    def toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> None:
        """For instance `toxic("bandwidth", rate=100)` (kB/s), `("latency", latency=500)` (ms),
        `("limit_data", bytes=1000000)`."""
        self.request("POST", "/proxies/main/toxics", {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes})

    def clear(self) -> None:
        for toxic in self.request("GET", "/proxies/main/toxics"):
            self.request("DELETE", f"/proxies/main/toxics/{toxic['name']}")


def proxy(kube: Kube, name: str, upstream: str) -> Toxiproxy:
    """A proxy pod in front of `upstream` (host:port); it listens as
    `<name>.<namespace>.svc:8666`."""
    probe: Raw = {"tcpSocket": {"port": 8474}}
    objects = pods.server(name, kube.cluster.toxiproxy_image, 8474, user=65532, probe=probe)
    objects[1]["spec"]["ports"].append({"name": "proxied", "port": 8666})
    pods.start(kube, name, objects)
    found = Toxiproxy(kube, name, kube.reach(name, 8474))
    found.request("POST", "/proxies", {"name": "main", "listen": "0.0.0.0:8666", "upstream": upstream, "enabled": True})
    return found
