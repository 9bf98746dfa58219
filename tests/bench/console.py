"""The console: its lists over thousands of backups, and downloads beside a direct GET from the S3
server.

Lists are timed in this process, by the time that the console itself tells (Server-Timing), over an
API server that answers at once. Downloads run in the cluster: the console's pod and the S3
server's, one client that reads from both in turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.bench import cgroup
from tests.bench.cgroup import BenchError
from tests.bench.cluster import pod_cgroup
from tests.bench.output import MIB, Output, save
from tests.bench.samples import Summary
from tests.e2e.conftest import namespace
from tests.e2e.lib import console as consoles
from tests.e2e.lib import s3
from tests.e2e.lib.cluster import Cluster, CommandFailed, install_operator
from tests.e2e.lib.console import account
from tests.e2e.lib.kube import Kube
from tests.e2e.lib.tenant import Tenant
from tests.integration.artifacts import manifest_of, owner_of
from tests.unit.support.console_world import NOW, FakeKube, World, backup

from dbbackup.contract.manifest import Part, StoredObject
from dbbackup.storage.codec import compressor

LIST_TARGET = 200.0
"""Milliseconds of the console's time for a first page."""
DOWNLOAD_TARGET = 0.9
LINK = 1000
"""Mbit/s of the wire that the S3 server is put behind."""
PART = 8 << 20
NAMESPACES = 100
_PIECE = 1 << 20


def lists(output: Output, count: int) -> bool:
    """Pages of `count` backups in 100 namespaces: for somebody who may list everywhere, and for
    somebody who is asked about in each namespace."""
    rows = []
    people = {"everywhere": {"anna": {"* * *"}}, f"in {NAMESPACES} namespaces": {"anna": {f"* * ns{n}" for n in range(NAMESPACES)}}}
    worst = 0.0
    for person, rights in people.items():
        for what, times in asyncio.run(_pages(count, rights)).items():
            told = Summary.of(times)
            rows.append((f"{what}, rights {person}", f"{times[0]:.0f}", told.text(0)))
            worst = max(worst, times[0])
    output.grid(f"Console: lists of {count} backups, ms", ("", "first", "median (least-most)"), rows)
    save("console-lists", {"count": count, "rows": rows})
    return output.verdict(f"first page of {count} backups", worst, LIST_TARGET, unit=" ms")


async def _pages(count: int, rights: dict[str, set[str]]) -> dict[str, list[float]]:
    world = World(FakeKube(rights=rights))
    for number in range(count):
        made = (NOW - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        world.cache.put(
            backup(f"nightly-{number:05}", f"ns{number % NAMESPACES}", created=made, status={"database": {"name": f"app-{number % 200}"}})
        )
    await world.sign_in()
    found: dict[str, list[float]] = {}
    paths = {"first page": "/backups", "search": "/backups?q=nightly-0999", "by state": "/backups?state=Failed", "API": "/api/v1/backups"}
    for what, path in paths.items():
        for _ in range(5):
            answer = await world.get(path)
            found.setdefault(what, []).append(float(answer.headers["server-timing"].rpartition("=")[2]))
    world.downloads.close()
    return found


def downloads(output: Output, megabytes: int, rounds: int) -> bool:
    """An artifact of `megabytes` as stored, and the SQL in it, beside a GET of the same object."""
    try:
        cluster = Cluster.from_environment()
        install_operator(cluster)
        tenant = Tenant(cluster, f"bench-console-{secrets.token_hex(3)}")
        tenant.apply(namespace(cluster, tenant.name))
        try:
            return _downloads(output, tenant, megabytes, rounds)
        finally:
            cluster.kubectl("delete", "namespace", tenant.name, "--wait=false")
    except (CommandFailed, RuntimeError) as error:
        raise BenchError(str(error)) from None


def _downloads(output: Output, tenant: Tenant, megabytes: int, rounds: int) -> bool:
    output.tell(f"an artifact of {megabytes} MB in an S3 server, and a console")
    bucket = s3.start(tenant).bucket("bench")
    tenant.add_storage(bucket, inventoryInterval="52w")
    key = _artifact(tenant, bucket, megabytes)
    direct = "http://{}:{}".format(*bucket.s3.address) + f"/{bucket.name}/{key}/dump.sql.zst"
    signed = AWSRequest("GET", direct)
    S3SigV4Auth(Credentials(bucket.s3.access_key, bucket.s3.secret_key), "s3", "us-east-1").add_auth(signed)
    token = account(tenant, "anna", "admin")
    path = f"/api/v1/namespaces/{tenant.name}/backups/big/download"
    met = True
    with consoles.console(tenant.cluster, [tenant.name]) as console:
        memory = pod_cgroup(console.kube.get("pod", console.pod)["metadata"]["uid"], "memory")
        contenders = {"direct GET": direct, "console, as stored": f"{console.url}{path}?raw=1", "console, SQL": f"{console.url}{path}"}
        for link in (None, LINK):
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            charged = []
            with wire(tenant, bucket.s3.pod, link) as told:
                for _ in range(rounds):
                    for name, url in contenders.items():
                        headers = dict(signed.headers) if name == "direct GET" else {"Authorization": f"Bearer {token}"}
                        rates[name].append(_rate(url, headers))
                    charged.append(cgroup.memory_peak(memory) if memory else 0)
            rows = [(name, Summary.of(values).text(0)) for name, values in rates.items()]
            output.grid(f"Console: downloads of {megabytes} MB over {told}, MB/s", ("", "median (least-most)"), rows)
            ratio = Summary.of([mine / theirs for mine, theirs in zip(rates["console, as stored"], rates["direct GET"], strict=True)])
            output.console.print(f"peak memory of its pod after each round: {', '.join(f'{value / MIB:.0f}' for value in charged)} MiB")
            save(f"console-downloads-{link or 'loopback'}", {"megabytes": megabytes, "rates": rates, "memory": charged, "ratio": ratio.text()})
            held = output.verdict(f"times a direct GET, over {told}", ratio.median, DOWNLOAD_TARGET, unit="", at_least=True)
            met &= held or link is None  # without a wire the S3 server copies within the kernel, which checks no digest
    return met


@contextmanager
def wire(kube: Kube, pod: str, megabits: int | None) -> Iterator[str]:
    """What leaves that pod shares a wire of so many Mbit/s, for all of its connections together;
    the rig alone. None: no wire at all."""
    if megabits is None:
        yield "no wire"
        return
    group = pod_cgroup(kube.get("pod", pod)["metadata"]["uid"], "memory")
    processes = [line for file in group.rglob("cgroup.procs") for line in file.read_text().split()] if group else []
    if not processes:
        raise BenchError("the S3 server does not run on this machine: no wire can be made for it")
    _tc(processes[0], "add", "tbf", "rate", f"{megabits}mbit", "burst", "1mb", "latency", "100ms")
    try:
        yield f"a wire of {megabits} Mbit/s"
    finally:
        _tc(processes[0], "del")


def _tc(process: str, verb: str, *rule: str) -> None:
    argv = ["nsenter", "--net", "--target", process, "tc", "qdisc", verb, "dev", "eth0", "root", *rule]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr}")


def _artifact(tenant: Tenant, bucket: Any, megabytes: int) -> str:
    """An artifact of that size in the bucket, and a DatabaseBackup whose status tells of it, as an
    import leaves them. Returns its key."""
    packer, body, length = compressor("zstd"), bytearray(), 0
    while len(body) < megabytes * 1_000_000:
        text = b"\n".join(os.urandom(60).hex().encode() for _ in range(20_000))
        body += packer.feed(text)
        length += len(text)
    body += packer.finish()
    parts = tuple(
        Part(size=len(part), sha256=hashlib.sha256(part).hexdigest()) for part in (body[at : at + PART] for at in range(0, len(body), PART))
    )
    stored = StoredObject(name="dump.sql.zst", size=len(body), sha256=hashlib.sha256(body).hexdigest(), parts=parts)
    owner = owner_of(1, namespace=tenant.name)
    told = manifest_of(owner, objects=(stored,), dump_bytes=length).to_bytes()
    key = f"{tenant.name}/db_5432/app/20261101T030000Z-big-12345678"
    bucket.put(f"{key}/dump.sql.zst", bytes(body))
    bucket.put(f"{key}/manifest.json", told)
    tenant.create(
        {"apiVersion": "dbbackup.io/v1", "kind": "DatabaseBackup", "metadata": {"name": "big"}, "spec": {"origin": "Discovered", "artifactKey": key}}
    )
    artifact = {
        "key": key,
        "bucket": bucket.name,
        "endpoint": bucket.s3.endpoint,
        "manifestSha256": hashlib.sha256(told).hexdigest(),
        "sha256": stored.sha256,
    }
    status = {"phase": "Completed", "sizeBytes": len(body), "artifact": artifact}
    tenant.run("patch", "databasebackup", "big", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    return key


def _rate(url: str, headers: Mapping[str, str]) -> float:
    """MB/s of one GET, read to its end and thrown away."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    buffer, total = memoryview(bytearray(_PIECE)), 0
    began = time.monotonic()
    connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=dict(headers))
    response = connection.getresponse()
    if response.status != 200:
        raise BenchError(f"GET {parts.path}: {response.status} {response.read(500)!r}")
    while count := response.readinto(buffer):
        total += count
    seconds = time.monotonic() - began
    connection.close()
    if total != int(response.headers["Content-Length"]):
        raise BenchError(f"GET {parts.path}: {total} bytes of {response.headers['Content-Length']}")
    return total / seconds / 1e6
