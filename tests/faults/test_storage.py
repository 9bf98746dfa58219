"""The object storage goes away in the middle of an upload."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.lib import hold
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket, Toxiproxy
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import only_pod, ready_reason
from tests.faults import invariants

Databases = Callable[..., Database]


def cut_in_mid_upload(tenant: Tenant, source: Database, bucket: Bucket, proxy: Toxiproxy, deletion: str = "Retain") -> Raw:
    """A backup whose first parts are in the bucket when the way there breaks; pg_dump has ended by
    then."""
    hold.fill(source, 20)
    tenant.add_database(source)
    tenant.apply(bucket.secret(), bucket.storage(s3={"endpoint": f"http://{proxy.host}:8666"}))
    with hold.dump_after_rows(source):
        one = tenant.backup("one", retries=0, deletionPolicy=deletion, compression={"algorithm": "none"})
        hold.stays(source, hold.DUMP)
        hold.eventually(bucket.uploads, "a part is in the bucket")
        proxy.cut()
    hold.gone(source, hold.DUMP)
    assert bucket.keys() == []
    return one


def test_it_comes_back_and_the_backup_completes(tenant: Tenant, database: Databases, bucket: Bucket, proxied_s3: Toxiproxy) -> None:
    source = database(15)
    one = cut_in_mid_upload(tenant, source, bucket, proxied_s3)
    proxied_s3.mend()
    done = tenant.completed(one)
    assert done["status"]["attempts"] == 1
    assert bucket.uploads() == []
    invariants.completed_backup(done, bucket, source)
    invariants.one_job(tenant, done)


def checking(obj: Raw) -> bool:
    return ready_reason(obj) == "Checking"


def test_it_comes_back_after_the_last_attempt_and_nothing_is_left(tenant: Tenant, database: Databases, bucket: Bucket, proxied_s3: Toxiproxy) -> None:
    one = cut_in_mid_upload(tenant, database(15), bucket, proxied_s3)
    seen = tenant.wait_until("dbb", "one", checking, 240, "the check that clears up")
    assert "removes what the run has left" in seen["status"]["conditions"][0]["message"]
    assert bucket.uploads() != []
    proxied_s3.mend()
    invariants.failed_backup(tenant.failed(one, "StorageUnavailable", 240), bucket)


def test_an_attempt_without_a_report_is_looked_after_whatever_the_next_one_says(
    tenant: Tenant, database: Databases, bucket: Bucket, proxied_s3: Toxiproxy
) -> None:
    """The first attempt is killed in mid-upload, and the second finds the storage away."""
    source = database(15)
    hold.fill(source, 20)
    tenant.add_database(source)
    tenant.apply(bucket.secret(), bucket.storage(s3={"endpoint": f"http://{proxied_s3.host}:8666"}))
    with hold.dump_after_rows(source):
        one = tenant.backup("one", retries=1, compression={"algorithm": "none"})
        hold.stays(source, hold.DUMP)
        hold.eventually(bucket.uploads, "a part is in the bucket")
        proxied_s3.cut()
        tenant.run("delete", "pod", only_pod(tenant, one), "--grace-period=0", "--force", "--wait=false")
    seen = tenant.wait_until("dbb", "one", checking, 120, "the check")
    assert "finds out what became of the run" in seen["status"]["conditions"][0]["message"]
    proxied_s3.mend()
    ended = tenant.failed(one, "StorageUnavailable", 240)
    assert ended["status"]["attempts"] == 2
    invariants.failed_backup(ended, bucket)


def test_it_stays_away_and_the_backup_fails_in_time(tenant: Tenant, database: Databases, bucket: Bucket, proxied_s3: Toxiproxy) -> None:
    one = cut_in_mid_upload(tenant, database(15), bucket, proxied_s3, deletion="Delete")
    ended = tenant.failed(one, "StorageUnavailable", 600)
    assert proxied_s3.host in ended["status"]["failure"]["message"]
    assert "the files of the run could not be removed" in ended["status"]["failure"]["message"]
    assert bucket.keys() == []
    key = ended["status"]["artifact"]["key"]
    assert f"the upload of {key}" in ended["status"]["failure"]["logTail"], "what could not be cleared away is told"
    proxied_s3.mend()
    tenant.delete("dbb", "one")
    tenant.wait_gone("dbb", "one", 90)
    assert bucket.uploads() == []
