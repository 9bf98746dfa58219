"""Reads requests: who makes them, from where, with which body. Protects changes against requests
from other sites."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from dbbackup import audit
from dbbackup.audit import Line
from dbbackup.console.guard import RateLimit, same_origin, same_token
from dbbackup.console.people import EXPIRED, People
from dbbackup.console.problems import HttpProblem, not_signed_in, too_many
from dbbackup.console.service import VIA, Caller
from dbbackup.console.sessions import Session, Sessions

BODY_LIMIT = 64 << 10
FIELDS = 64
SIGN_INS = (20, 60.0)
"""Attempts of one address at most, and in how many seconds; tokens that Kubernetes accepted within
the last minute do not count."""
COOKIE = "dbbackup-session"
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
SAFE = frozenset({"GET", "HEAD"})


def source_of(request: Request) -> str:
    """The address of the client, from X-Forwarded-For if a trusted proxy sent the request."""
    return request.client.host if request.client else ""


def is_https(request: Request) -> bool:
    """Also if a proxy says so: it only decides whether the cookie is limited to https."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))


def cookie_name(request: Request) -> str:
    return f"__Host-{COOKIE}" if is_https(request) else COOKIE


class Gate:
    """Finds out who makes a request: by token or by session."""

    def __init__(self, people: People, sessions: Sessions) -> None:
        self.people, self.sessions = people, sessions
        self._tries = RateLimit(*SIGN_INS)

    async def caller(self, request: Request) -> Caller:
        """The person, by the Authorization header, else by the session's cookie; HttpProblem 401. A
        change by cookie must come from our own page, else HttpProblem 403."""
        source, header = source_of(request), request.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                raise not_signed_in("The Authorization header must be `Bearer` and a token.")
            return Caller(await self._review(token.strip(), source), source)
        cookie = request.cookies.get(cookie_name(request), "")
        session = self.sessions.find(cookie) if cookie else None
        if session is None:
            raise not_signed_in("Your session has ended." if cookie else "Sign in first.")
        try:
            session.person = await self.people.review(session.token)
        except HttpProblem as problem:
            if problem.status == 401:
                self.sessions.end(cookie)
                raise HttpProblem(401, "TokenExpired", EXPIRED, problem.hint) from None
            raise
        caller = Caller(session.person, source, session)
        request.state.caller = caller  # for the page that shows an error
        if request.method not in SAFE:
            await self._own_page(request, caller, session)
        return caller

    async def _own_page(self, request: Request, caller: Caller, session: Session) -> None:
        why = same_origin(request.headers)
        if why is None:
            given = request.headers.get(CSRF_HEADER)
            given = (await read_form(request)).get(CSRF_FIELD, "") if given is None else given
            why = None if same_token(given, session.csrf) else "it lacks the page's token"
        if why is not None:
            refuse("request", caller.person.name, caller.source, request.url.path, why)
            raise HttpProblem(403, "CrossSiteRequest", f"The request was refused: {why}.", "Load the page again, then repeat the action.")

    async def _review(self, token: str, source: str) -> Any:
        known = self.people.known(token)
        if known is not None:
            return known
        if wait := self._tries.take(source):
            refuse("sign-in", audit.UNKNOWN, source, "", "too many attempts")
            raise too_many("attempts to sign in", wait)
        try:
            return await self.people.review(token)
        except HttpProblem as problem:
            if problem.status == 401:
                refuse("sign-in", audit.UNKNOWN, source, "", problem.message)
            raise

    async def sign_in(self, request: Request, token: str) -> str:
        """The new session's cookie; HttpProblem if Kubernetes does not accept the token, or the
        request comes from another site."""
        source = source_of(request)
        if (why := same_origin(request.headers)) is not None:
            refuse("sign-in", audit.UNKNOWN, source, "", why)
            raise HttpProblem(403, "CrossSiteRequest", f"The sign-in was refused: {why}.", "Open the console's own page and sign in there.")
        person = await self._review(token, source)
        audit.record(Line("sign-in", person.name, VIA, "succeeded", source=source))
        return self.sessions.begin(person, token)

    def sign_out(self, request: Request, caller: Caller) -> None:
        self.sessions.end(request.cookies.get(cookie_name(request), ""))
        audit.record(Line("sign-out", caller.person.name, VIA, "succeeded", source=caller.source))


def refuse(action: str, who: str, source: str, target: str, reason: str) -> None:
    audit.record(Line(action, who, VIA, "refused", source=source, target=target, reason=reason))


def set_cookie(request: Request, response: Response, cookie: str, seconds: float) -> None:
    response.set_cookie(cookie_name(request), cookie, int(seconds), path="/", secure=is_https(request), httponly=True, samesite="strict")


def drop_cookie(request: Request, response: Response) -> None:
    response.delete_cookie(cookie_name(request), path="/", secure=is_https(request), httponly=True, samesite="strict")


async def read_body(request: Request) -> bytes:
    """At most BODY_LIMIT bytes, or HttpProblem 413; may be called again."""
    known: bytes | None = getattr(request.state, "body", None)
    if known is not None:
        return known
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HttpProblem(413, "TooLarge", f"The request is larger than {BODY_LIMIT >> 10} KiB.", "Send less.")
    request.state.body = bytes(body)
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; empty ones are left out. HttpProblem 415 or 422."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise HttpProblem(415, "UnsupportedMediaType", "The request must be a form.", "Send application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl((await read_body(request)).decode(), max_num_fields=FIELDS, keep_blank_values=False)
    except ValueError:
        raise HttpProblem(422, "Invalid", "The form cannot be read.", "Send fewer fields, in UTF-8.") from None
    return {key: value.strip() for key, value in pairs if value.strip()}


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object; HttpProblem 415 or 422."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HttpProblem(415, "UnsupportedMediaType", "The request must be JSON.", "Send it with Content-Type: application/json.")
    try:
        value = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HttpProblem(422, "Invalid", "The body is not a JSON object.", "Correct it and try again.")
    return value
