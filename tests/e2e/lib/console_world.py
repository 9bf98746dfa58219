"""What the console's tests share: two namespaces with backups, a console that may download from one
of them, and people."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.e2e.conftest import namespace
from tests.e2e.lib import console as consoles
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.console import Client, Console, account
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import S3, Bucket
from tests.e2e.lib.tenant import Tenant


@dataclass(slots=True)
class World:
    """Two namespaces, `shop` with backups, `other` with none that its people should see; a console;
    people."""

    shop: Tenant
    other: Tenant
    console: Console
    database: Database
    bucket: Bucket
    tokens: dict[str, str]
    first: Raw

    def client(self, name: str) -> Client:
        return self.console.person(self.tokens[name])

    @property
    def api(self) -> str:
        return f"/api/v1/namespaces/{self.shop.name}"


@contextmanager
def world_of(cluster: Cluster, shared_postgres: Callable[[int], Postgres], shared_s3: S3) -> Iterator[World]:
    """Taken away at the end."""
    tag = secrets.token_hex(3)
    shop, other = Tenant(cluster, f"e2e-shop-{tag}"), Tenant(cluster, f"e2e-other-{tag}")
    plain = shared_postgres(15).database(f"c{tag}_db", f"c{tag}_user")
    bucket = shared_s3.bucket(f"c-{tag}")
    with ExitStack() as ending:
        ending.callback(plain.server.drop, plain.name, plain.owner)
        ending.callback(bucket.empty)
        for tenant in (shop, other):
            tenant.apply(namespace(cluster, tenant.name))
            ending.callback(cluster.kubectl, "delete", "namespace", tenant.name, "--ignore-not-found", "--wait=false")
        plain.execute(
            "CREATE TABLE t AS SELECT n AS id, md5(n::text) || md5((n * 7)::text) AS text FROM generate_series(1, 300000) n",
        )
        shop.add_storage(bucket)
        shop.add_database(plain)
        other.add_storage(bucket, s3={"prefix": "other"})
        other.add_database(plain)
        started = [shop.backup("first"), other.backup("theirs")]
        tokens = {
            "admin": account(shop, "anna", "admin"),
            "editor": account(shop, "ed", "edit"),
            "viewer": account(shop, "vi", "view"),
            "nobody": account(shop, "nobody"),
        }
        console = ending.enter_context(consoles.console(cluster, [shop.name]))
        first = shop.completed(started[0])
        other.completed(started[1])
        yield World(shop, other, console, plain, bucket, tokens, first)
