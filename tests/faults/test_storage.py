"""The object storage goes away in the middle of an upload."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.e2e.lib import hold
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket, Toxiproxy
from tests.e2e.lib.tenant import Tenant
from tests.faults import invariants

Databases = Callable[..., Database]


def cut_in_mid_upload(tenant: Tenant, source: Database, bucket: Bucket, proxy: Toxiproxy, deletion: str = "Retain") -> Raw:
    """A backup whose first parts are in the bucket when the way there breaks; pg_dump has ended by then."""
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


def test_it_stays_away_and_the_backup_fails_in_time(tenant: Tenant, database: Databases, bucket: Bucket, proxied_s3: Toxiproxy) -> None:
    one = cut_in_mid_upload(tenant, database(15), bucket, proxied_s3, deletion="Delete")
    began = time.monotonic()
    ended = tenant.failed(one, "StorageUnavailable", 240)
    assert time.monotonic() - began < 240
    assert proxied_s3.host in ended["status"]["failure"]["message"]
    assert bucket.keys() == []
    key = ended["status"]["artifact"]["key"]
    if bucket.uploads():
        assert f"the upload of {key}" in ended["status"]["failure"]["logTail"], "what could not be cleared away is told"
    proxied_s3.mend()
    tenant.delete("dbb", "one")
    tenant.wait_gone("dbb", "one", 90)
    assert bucket.uploads() == []
