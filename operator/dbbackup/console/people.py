"""Who a person is (TokenReview) and what they may do (SubjectAccessReview). Kubernetes alone
answers both questions."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dbbackup.console.problems import forbidden, from_api, not_signed_in
from dbbackup.console.resources import ACCESS_REVIEWS, TOKEN_REVIEWS
from dbbackup.kube import ApiError, Kube, Resource

REVIEW_SECONDS = 60.0
"""A token that Kubernetes accepted is reviewed again after this time."""
READ_SECONDS = 20.0
"""An answer about reading is reused for this time; one about writing or downloading never."""
REMEMBERED = 20_000
"""Answers and reviews kept at most."""
AT_ONCE = 16
TOKEN_LIMIT = 16_384
EXPIRED = "Your token is no longer valid: it has expired or was revoked. Sign in with a new one."

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the API server describes them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Differs between two people, and for one person after a change of their groups."""
        text = repr((self.name, self.uid, sorted(self.groups), sorted((key, tuple(values)) for key, values in self.extra.items())))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Right:
    """A right in Kubernetes. It may name a subresource, as in `databasebackups/download`."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def text(self) -> str:
        return self.resource.plural + (f"/{self.subresource}" if self.subresource else "")


class TimedCache(Generic[_V]):
    """Values that expire after `seconds`; beyond `most`, the oldest are dropped."""

    def __init__(self, seconds: float, most: int = REMEMBERED, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._values: OrderedDict[Any, tuple[float, _V]] = OrderedDict()

    def get(self, key: Any) -> _V | None:
        found = self._values.get(key)
        return found[1] if found is not None and self._clock() - found[0] < self._seconds else None

    def put(self, key: Any, value: _V) -> None:
        self._values[key] = (self._clock(), value)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class People:
    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._reviews: TimedCache[Person] = TimedCache(REVIEW_SECONDS)
        self._answers: TimedCache[bool] = TimedCache(READ_SECONDS)

    def known(self, token: str) -> Person | None:
        """The person, if Kubernetes accepted the token within the last REVIEW_SECONDS."""
        return self._reviews.get(_digest(token))

    async def review(self, token: str) -> Person:
        """The person whose token it is; HttpProblem 401 if Kubernetes does not accept it, or no
        longer does."""
        if not token or len(token) > TOKEN_LIMIT or not token.isascii() or any(char.isspace() or not char.isprintable() for char in token):
            raise not_signed_in("That is not a token: paste only the token, on one line.")
        key = _digest(token)
        if (known := self._reviews.get(key)) is not None:
            return known
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        try:
            answer = await self._kube.create(TOKEN_REVIEWS, None, body)
        except ApiError as error:
            raise from_api(error, "ask who you are") from None
        status = answer.get("status") or {}
        if not status.get("authenticated"):
            raise not_signed_in(EXPIRED)
        user = status.get("user") or {}
        person = Person(
            user.get("username", ""),
            user.get("uid", ""),
            tuple(user.get("groups") or ()),
            {key: tuple(values) for key, values in (user.get("extra") or {}).items()},
        )
        self._reviews.put(key, person)
        return person

    async def allowed(self, person: Person, right: Right) -> bool:
        """Whether Kubernetes allows it; HttpProblem if the API server does not answer. Answers
        about get and list are reused for READ_SECONDS."""
        reads = right.verb in ("get", "list") and not right.subresource
        key = (person.key, right)
        if reads and (known := self._answers.get(key)) is not None:
            return known
        attributes = {
            "verb": right.verb,
            "group": right.resource.group,
            "version": right.resource.version,
            "resource": right.resource.plural,
            "subresource": right.subresource,
            "namespace": right.namespace,
            "name": right.name,
        }
        extra = {key: list(values) for key, values in person.extra.items()}
        spec = {"user": person.name, "uid": person.uid, "groups": list(person.groups), "extra": extra, "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        try:
            answer = await self._kube.create(ACCESS_REVIEWS, None, body)
        except ApiError as error:
            raise from_api(error, "ask what you may do") from None
        status = answer.get("status") or {}
        allowed = bool(status.get("allowed")) and not status.get("denied")
        if reads:
            self._answers.put(key, allowed)
        return allowed

    async def demand(self, person: Person, right: Right) -> None:
        """HttpProblem 403 if they may not, the same whether the object exists or not."""
        if not await self.allowed(person, right):
            raise forbidden(person.name, right.verb, right.text, right.namespace)

    async def readable(self, person: Person, resource: Resource, namespaces: set[str]) -> set[str] | None:
        """Those of the namespaces in which they may list; None if they may list in every one."""
        if await self.allowed(person, Right("list", resource)):
            return None
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(namespace: str) -> str | None:
            async with gate:
                return namespace if await self.allowed(person, Right("list", resource, namespace)) else None

        return {found for found in await asyncio.gather(*map(ask, sorted(namespaces))) if found is not None}
