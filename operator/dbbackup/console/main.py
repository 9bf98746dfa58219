"""`python -m dbbackup console`: in one event loop, the cache follows the API server and uvicorn
serves, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn

from dbbackup import __version__
from dbbackup.console import config as configuration
from dbbackup.console.app import build
from dbbackup.console.cache import RowCache
from dbbackup.console.download import Downloads
from dbbackup.console.people import People
from dbbackup.console.service import Service
from dbbackup.console.sessions import Sessions
from dbbackup.kube import Kube
from dbbackup.process import ConfigError, set_up_logging

log = logging.getLogger("dbbackup.console")

CONNECTIONS = 512
"""Requests at a time; further ones get 503."""
END_SECONDS = 20


async def serve(config: configuration.ConsoleConfig) -> None:
    """Serves until SIGTERM. If the cache fails, it raises, and Kubernetes restarts the pod."""
    async with Kube.connect("dbbackup-console") as kube:
        cache = RowCache()
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
    """The exit code: 0 after SIGTERM, 1 after a crash, 2 if the configuration is invalid."""
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
        log.exception("the console crashed")
        return 1
    log.info("stopped")
    return 0
