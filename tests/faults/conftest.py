"""Fixtures of the fault tests: those of the end-to-end tests, and a PostgreSQL server and proxies
that a test may break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.e2e.conftest import bucket, cluster, database, operator, pytest_runtest_makereport, run_id, shared, shared_postgres, shared_s3, tenant
from tests.e2e.lib import postgres, s3
from tests.e2e.lib.postgres import Postgres
from tests.e2e.lib.s3 import S3, Toxiproxy
from tests.e2e.lib.tenant import Tenant

__all__ = ["bucket", "cluster", "database", "operator", "pytest_runtest_makereport", "run_id", "shared", "shared_postgres", "shared_s3", "tenant"]


@pytest.fixture
def breakable(tenant: Tenant) -> Postgres:
    """A server of the test's own."""
    return postgres.start(tenant, "postgres", 15)


@pytest.fixture
def proxied_s3(tenant: Tenant, shared_s3: S3) -> Toxiproxy:
    """In front of the shared S3 server, which the test itself reaches directly."""
    return s3.proxy(tenant, "proxy", shared_s3.endpoint.removeprefix("http://"))


Proxied = Callable[[Postgres], Toxiproxy]


@pytest.fixture
def proxied_postgres(tenant: Tenant) -> Proxied:
    """A proxy in front of the server."""
    return lambda server: s3.proxy(tenant, "proxy", f"{server.host}:{server.port}")
