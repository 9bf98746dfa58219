"""The ASGI application: the routes, the headers of every answer, and the answers to errors."""

from __future__ import annotations

import logging
import time
from importlib.resources import files
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbbackup.console.api import Api
from dbbackup.console.download import Downloads
from dbbackup.console.endpoints import PLURALS, PREFIX
from dbbackup.console.pages import Pages
from dbbackup.console.problems import HttpProblem
from dbbackup.console.render import Renderer
from dbbackup.console.service import Service
from dbbackup.console.sessions import Sessions
from dbbackup.console.web import Gate, drop_cookie

log = logging.getLogger("dbbackup.console")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-resource-policy": "same-origin",
}
"""For every answer. `same-origin`, because `no-referrer` would make browsers send `Origin: null`
with our own forms."""
STATIC_SECONDS = 3600


class PluralConvertor(Convertor[str]):
    """One of the four words for our kinds in a path."""

    regex = "|".join(PLURALS.values())

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("plural", PluralConvertor())


class Headers:
    """Adds HEADERS and the time taken to every answer, and keeps all but static files out of
    caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        static = scope["path"].startswith("/static/")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["cache-control"] = f"max-age={STATIC_SECONDS}" if static else "no-store"
                headers["server-timing"] = f"app;dur={(time.perf_counter() - began) * 1000:.1f}"
                if not static:
                    headers.add_vary_header("Cookie, Authorization, HX-Request")
            await send(message)

        await self._app(scope, receive, sending)


class Errors:
    def __init__(self, render: Renderer) -> None:
        self._render = render

    async def problem(self, request: Request, error: Exception) -> Response:
        found = error if isinstance(error, HttpProblem) else HttpProblem(500, "Internal", "Something went wrong.", "Try again.")
        answer = self._answer(request, found)
        if found.retry_after is not None:
            answer.headers["retry-after"] = str(found.retry_after)
        return answer

    def _answer(self, request: Request, problem: HttpProblem) -> Response:
        if request.url.path.startswith(PREFIX):
            fields = {"reason": problem.reason, "message": problem.message, "hint": problem.hint}
            return JSONResponse({"error": fields}, problem.status, {"www-authenticate": "Bearer"} if problem.status == 401 else None)
        if problem.status == 401:
            return self._to_sign_in(request, problem)
        if request.headers.get("hx-request"):
            return self._render.page(request, None, "_problem.html", problem.status, problem=problem)
        return self._render.page(request, getattr(request.state, "caller", None), "error.html", problem.status, problem=problem)

    def _to_sign_in(self, request: Request, problem: HttpProblem) -> Response:
        why = "expired" if problem.reason == "TokenExpired" else "ended" if request.cookies else ""
        current = request.headers.get("hx-current-url") or str(request.url)
        path = "/" + current.split("://", 1)[-1].partition("/")[2] if request.method == "GET" else "/backups"
        target = f"/sign-in?next={quote(path, safe='/')}" + (f"&why={why}" if why else "")
        if request.headers.get("hx-request"):
            answer: Response = PlainTextResponse("", 401, {"hx-redirect": target})
        else:
            answer = PlainTextResponse("", 303, {"location": target})
        drop_cookie(request, answer)
        return answer

    async def http(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        words = {404: ("NotFound", "There is no such page."), 405: ("MethodNotAllowed", "This address does not accept that method.")}
        reason, message = words.get(status, ("Refused", "The request was refused."))
        return self._answer(request, HttpProblem(status, reason, message, "Check the address."))

    async def unexpected(self, request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error, extra={"method": request.method, "path": request.url.path})
        return self._answer(request, HttpProblem(500, "Internal", "Something went wrong in the console.", "Try again; the console's log says more."))


def build(service: Service, sessions: Sessions, downloads: Downloads) -> ASGIApp:
    gate, render = Gate(service.people, sessions), Renderer(service.now)
    api, errors = Api(service, gate, downloads), Errors(render)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        return PlainTextResponse("ok\n") if service.cache.ready else PlainTextResponse("not every object has been listed\n", 503)

    static = StaticFiles(directory=str(files("dbbackup.console") / "static"))
    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Mount("/static", static),
        *api.routes(),
        *Pages(service, gate, api, render).routes(),
    ]
    handlers = {HttpProblem: errors.problem, HTTPException: errors.http, Exception: errors.unexpected}
    return Headers(Starlette(routes=routes, exception_handlers=handlers))
