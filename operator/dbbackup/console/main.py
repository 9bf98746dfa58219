"""`python -m dbbackup console`: the cache follows the API server, uvicorn serves, both in one event
loop until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn

from dbbackup import __version__
from dbbackup.console import config as configuration
from dbbackup.console.app import build
from dbbackup.console.cache import Cache
from dbbackup.console.download import Downloads
from dbbackup.console.people import People
from dbbackup.console.service import Service
from dbbackup.console.sessions import Sessions
from dbbackup.kube import Kube
from dbbackup.process import ConfigError, set_up_logging

log = logging.getLogger("dbbackup.console")

CONNECTIONS = 512
"""Requests at a time; more are told to come again."""
END_SECONDS = 20


async def serve(config: configuration.Config) -> None:
    """Until SIGTERM, or the cache dies: then it raises, and Kubernetes starts it again."""
    async with Kube.connect("dbbackup-console") as kube:
        cache = Cache()
        service = Service(kube, cache, People(kube), config)
        downloads = Downloads(service)
        app = build(service, Sessions(config.session_lifetime.total_seconds()), downloads)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host="",
                port=config.port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                http="h11",
                ws="none",
                proxy_headers=bool(config.trusted_proxies),
                forwarded_allow_ips=list(config.trusted_proxies),
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        following = asyncio.create_task(cache.follow(kube, config.namespaces), name="cache")
        following.add_done_callback(lambda _task: setattr(server, "should_exit", True))
        try:
            await server.serve()
        finally:
            following.cancel()
            (ended,) = await asyncio.gather(following, return_exceptions=True)
            downloads.close()
        if isinstance(ended, Exception):
            raise ended


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 where something died, 2 where the configuration cannot be
    used."""
    try:
        config = configuration.read()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(config.log_level)
    log.info("starting", extra={"version": __version__, "namespaces": list(config.namespaces) or "all"})
    try:
        asyncio.run(serve(config))
    except Exception:
        log.exception("the console died")
        return 1
    log.info("stopped")
    return 0
