"""`kubectl dbbackup download`: what comes is what was stored, whatever breaks on the way, or
nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.lib import s3
from tests.e2e.lib.hold import fill
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.plugin import Plugin, children
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import S3, Bucket, Toxiproxy
from tests.e2e.lib.tenant import Tenant
from tests.root import ROOT

from dbbackup.storage.codec import decompress

SLOW = 2000
"""kB/s."""
NO_ZSTD = "import sys; sys.modules['backports.zstd'] = sys.modules['compression.zstd'] = None; from dbbackup.cli.entry import entry; entry()"


def stored(bucket: Bucket, obj: Raw) -> bytes:
    artifact = obj["status"]["artifact"]
    return bucket.get(f"{artifact['key']}/{bucket.manifest(artifact['key'])['objects'][0]['name']}")


def no_pods(tenant: Tenant) -> None:
    assert all("deletionTimestamp" in pod["metadata"] for pod in tenant.objects("pods", "dbbackup.io/tool=kubectl"))


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_formats(plugin: Plugin, tenant: Tenant, source: Database, bucket: Bucket, tmp_path: Path) -> None:
    plain, custom = tenant.backup("plain"), tenant.backup("custom", format="custom", compression={"algorithm": "gzip"})
    plain, custom = tenant.completed(plain), tenant.completed(custom)
    sql = b"".join(decompress("zstd", [stored(bucket, plain)]))

    plugin("download", "plain", cwd=tmp_path)
    assert files(tmp_path) == ["plain.sql"]
    assert (tmp_path / "plain.sql").read_bytes() == sql
    assert (tmp_path / "plain.sql").stat().st_mode & 0o77 == 0, "for nobody else to read"
    assert "exists already" in plugin("download", "plain", cwd=tmp_path, code=2).err
    plugin("download", "plain", "--raw", "--force", cwd=tmp_path)
    assert (tmp_path / "plain.sql.zst").read_bytes() == stored(bucket, plain)
    plugin("download", "custom", "-o", str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "custom.dump").read_bytes() == b"".join(decompress("gzip", [stored(bucket, custom)]))
    assert (tmp_path / "custom.dump").read_bytes()[:5] == b"PGDMP"

    piped = plugin.popen("download", "plain", "-o", "-")
    out, err = piped.communicate(timeout=60)
    assert (piped.returncode, out) == (0, sql), err
    key = plain["status"]["artifact"]["key"]
    plugin("download", "--key", key, "-o", "by-key.sql", cwd=tmp_path)
    assert (tmp_path / "by-key.sql").read_bytes() == sql
    no_pods(tenant)


def test_without_any_zstd_the_pod_decompresses(tenant: Tenant, source: Database, bucket: Bucket, tmp_path: Path) -> None:
    obj = tenant.completed(tenant.backup("plain"))
    sql = b"".join(decompress("zstd", [stored(bucket, obj)]))
    bare = Plugin(tenant, program=(sys.executable, "-c", NO_ZSTD), variables={"PATH": str(tmp_path)})
    (tmp_path / "plain.sql.plain.part").write_bytes(sql[:1000])  # of a try that broke off
    done = bare("download", "plain", cwd=tmp_path)
    assert "the pod does" in done.err
    assert (tmp_path / "plain.sql").read_bytes() == sql
    assert files(tmp_path) == ["plain.sql"]
    (tmp_path / "plain.sql.plain.part").write_bytes(b"of something else")
    assert "is not the dump" in bare("download", "plain", "--force", cwd=tmp_path, code=8).err
    assert (tmp_path / "plain.sql").read_bytes() == sql, "what was there stays"


def test_a_damaged_artifact_never_looks_like_a_dump(plugin: Plugin, tenant: Tenant, source: Database, bucket: Bucket, tmp_path: Path) -> None:
    obj = tenant.completed(tenant.backup("one"))
    key = obj["status"]["artifact"]["key"]
    dump, manifest = f"{key}/dump.sql.zst", f"{key}/manifest.json"
    good, good_manifest = bucket.get(dump), bucket.get(manifest)

    bucket.put(dump, good[:-1] + bytes([good[-1] ^ 1]))
    done = plugin("download", "one", cwd=tmp_path, code=8)
    assert "part 1 of 1 has SHA-256" in done.err
    assert "one.sql" not in files(tmp_path)
    piped = plugin.popen("download", "one", "-o", "-")
    out, _ = piped.communicate(timeout=60)
    assert (piped.returncode, out) == (8, b""), "not a byte of it"

    bucket.put(dump, good)
    bucket.put(manifest, good_manifest.replace(b'"plain"', b'"custom"'))
    done = plugin("download", "one", cwd=tmp_path, code=8)
    assert "the backup recorded" in done.err
    bucket.put(manifest, good_manifest)
    bucket.delete(dump)
    assert "ArtifactMissing" in plugin("download", "one", "--force", cwd=tmp_path, code=3).err
    bucket.put(dump, good)
    plugin("download", "one", cwd=tmp_path)
    assert files(tmp_path) == ["one.sql"], "what was left of the tries that failed is used up"
    assert "is not the key of an artifact" in plugin("download", "--key", "other/namespace", cwd=tmp_path, code=2).err


@pytest.fixture
def slow(tenant: Tenant, database: Callable[..., Database], bucket: Bucket, shared_s3: S3) -> tuple[Toxiproxy, Raw]:
    """A storage behind a proxy that is slow, and a backup of 20 MB there."""
    made = database(15)
    fill(made)
    tenant.add_database(made)
    proxy = s3.proxy(tenant, "proxy", shared_s3.endpoint.removeprefix("http://"))
    tenant.add_storage(bucket, s3={"endpoint": f"http://{proxy.host}:8666"})
    obj = tenant.completed(tenant.backup("big", compression={"algorithm": "none"}))
    proxy.toxic("bandwidth", rate=SLOW)
    return proxy, obj


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def serving(tenant: Tenant) -> list[str]:
    """Names of the pods that the plugin has made and that stay."""
    return [pod["metadata"]["name"] for pod in tenant.objects("pods", "dbbackup.io/tool=kubectl") if "deletionTimestamp" not in pod["metadata"]]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_broken_off_and_taken_up_again(plugin: Plugin, tenant: Tenant, bucket: Bucket, slow: tuple[Toxiproxy, Raw], tmp_path: Path) -> None:
    proxy, obj = slow
    part = tmp_path / "big.sql.part"
    session = plugin.session("download", "big", cwd=tmp_path)
    wait_for(lambda: size(part) > 2_000_000, "it does not download")
    session.interrupt()
    done = session.end()
    assert done.code == 130
    assert files(tmp_path) == ["big.sql.part"]
    kept = size(part)
    assert 2_000_000 < kept < 19_000_000
    no_pods(tenant)

    again = plugin.popen("download", "big", cwd=tmp_path)
    wait_for(lambda: size(part) > kept + 1_000_000, "it does not go on")
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=30)
    assert again.returncode == 143
    assert b"continuing big.sql.part at" in err
    assert b"Traceback" not in err
    no_pods(tenant)

    with part.open("r+b") as file:  # what the disk has forgotten is found
        file.seek(500_000)
        file.write(b"XXXX")
    proxy.clear()
    plugin("download", "big", cwd=tmp_path)
    assert files(tmp_path) == ["big.sql"]
    assert (tmp_path / "big.sql").read_bytes() == stored(bucket, obj)


def test_it_goes_on_by_itself(plugin: Plugin, tenant: Tenant, bucket: Bucket, slow: tuple[Toxiproxy, Raw], tmp_path: Path) -> None:
    proxy, obj = slow
    part = tmp_path / "big.sql.part"
    process = plugin.popen("download", "big", cwd=tmp_path)
    wait_for(lambda: size(part) > 1_000_000, "it does not download")
    [forward] = children(process.pid, "port-forward")
    os.kill(forward, signal.SIGKILL)
    reached = size(part)
    wait_for(lambda: size(part) > reached + 1_000_000, "it does not go on after the port-forward was killed")
    [pod] = serving(tenant)
    proxy.clear()
    proxy.toxic("bandwidth", rate=SLOW // 10)  # the kubelet takes its time to end the pod: until then no more than a little comes
    tenant.run("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    wait_for(lambda: bool(set(serving(tenant)) - {pod}), "it makes no other pod")
    proxy.clear()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert err.count(b"trying again") >= 2
    whole = stored(bucket, obj)
    assert (tmp_path / "big.sql").read_bytes() == whole

    with plugin.popen("download", "big", "-o", "-", "-q") as process:  # and one whose reader goes away
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(100) == whole[:100]
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
    no_pods(tenant)


def test_the_single_file_as_kubectl_runs_it(tenant: Tenant, source: Database, bucket: Bucket, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "tools/single_file.py", str(tmp_path / "bin")], cwd=ROOT, check=True, capture_output=True)
    kubectl = shutil.which(tenant.cluster.kubectl_argv[0]) or tenant.cluster.kubectl_argv[0]
    path = f"{tmp_path / 'bin'}:{Path(kubectl).resolve().parent}:/usr/bin:/bin"
    variables = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": "", "XDG_CACHE_HOME": ""}
    plugin = Plugin(tenant, program=(kubectl, "dbbackup"), variables=variables)
    assert "Completed" in plugin("create", "one", "--secret", "db", "--wait").err
    assert "one" in plugin.terminal("list").out
    (tmp_path / "out").mkdir()
    plugin("download", "one", "-o", str(tmp_path / "out"))
    sql = b"".join(decompress("zstd", [stored(bucket, tenant.get("dbb", "one"))]))
    assert (tmp_path / "out" / "one.sql").read_bytes() == sql
    assert "Completed" in plugin.terminal("create", "two", "--secret", "db", "--wait").out
    assert len(list((tmp_path / ".cache" / "kubectl-dbbackup").iterdir())) == 1
    completion = subprocess.run(
        [kubectl, "__complete", "dbbackup", "describe", "-n", tenant.name, "on"], env=plugin.environment(), capture_output=True, text=True, check=True
    )
    assert completion.stdout.splitlines()[0] == "one", completion
