"""The HTTP server for probes and metrics. `/healthz`: the queue's timer runs. `/readyz`: everything
has been listed, and every watch has delivered its objects. `/metrics`: if enabled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from dbbackup.metrics.page import CONTENT_TYPE

Check = Callable[[], str | None]
"""Returns None if all is well, else what is wrong."""


def _answer(check: Check) -> Callable[[web.Request], object]:
    async def handler(_request: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200)

    return handler


@asynccontextmanager
async def serving(port: int, alive: Check, ready: Check, metrics: Callable[[], Awaitable[bytes]] | None = None) -> AsyncIterator[None]:
    """Serves on all addresses while the context lasts."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE}) if metrics else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/healthz", _answer(alive))  # type: ignore[arg-type]
    app.router.add_get("/readyz", _answer(ready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()
