"""The operator is killed again and again while objects come, run and end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib import hold
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.faults import invariants

Databases = Callable[..., Database]
KILLS = 4


@pytest.mark.xdist_group("alone")
def test_killed_again_and_again(tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator) -> None:
    source, held = database(15), database(15)
    for found in (source, held):
        hold.fill(found, 1)
    targets = {f"back-{number}": database(15) for number in range(KILLS)}
    wrong = Database(source.server, source.name, source.owner, "wrong")
    for name, found in {"db": source, "held": held, "wrong": wrong, **targets}.items():
        tenant.add_database(found, name)
    tenant.add_storage(bucket)
    good, bad, restores = [tenant.backup("first")], [], []
    tenant.completed(good[0])
    with hold.dump_after_rows(held):
        long = tenant.backup("long", "held", timeout="10m")
        for number, name in enumerate(targets):
            good.append(tenant.backup(f"good-{number}"))
            bad.append(tenant.backup(f"bad-{number}", "wrong", retries=1))
            restores.append(tenant.restore(name, "first", name))
            operator.kill()
            if number % 2:
                operator.wait_ready()  # else the next one is killed as it starts
        operator.wait_ready()
        hold.stays(held, hold.DUMP)
    for obj in good:
        invariants.completed_backup(done := tenant.completed(obj, 180), bucket, source)
        invariants.one_job(tenant, done)
        assert invariants.pods_made(tenant, done) == 1
    for obj in bad:
        invariants.failed_backup(ended := tenant.failed(obj, "AuthenticationFailed"), bucket)
        assert invariants.pods_made(tenant, ended) == 1
    for obj in restores:
        assert invariants.pods_made(tenant, tenant.completed(obj)) == 1
    invariants.completed_backup(tenant.completed(long), bucket, held)
    for found in targets.values():
        assert found.contents() == source.contents()
    assert bucket.uploads() == []
