"""Who somebody is (TokenReview) and what they may do (SubjectAccessReview): always Kubernetes' own
answer."""

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
"""A token that Kubernetes has taken is shown to it again after so long."""
READ_SECONDS = 20.0
"""An answer about reading counts for so long; one about writing or downloading only once."""
REMEMBERED = 20_000
"""Answers and reviews that are kept at most."""
AT_ONCE = 16
TOKEN_LIMIT = 16_384
EXPIRED = "Your token is no longer valid: it has expired or was withdrawn. Sign in with a new one."

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Person:
    """As the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tells apart two people, and one person with other groups than before."""
        told = repr((self.name, self.uid, sorted(self.groups), sorted((key, tuple(values)) for key, values in self.extra.items())))
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Right:
    """What is asked for. `resource` may have a subresource, as in `databasebackups/download`."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def text(self) -> str:
        return self.resource.plural + (f"/{self.subresource}" if self.subresource else "")


class Remembered(Generic[_V]):
    """Values for a while, the oldest dropped first."""

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
        self._reviews: Remembered[Person] = Remembered(REVIEW_SECONDS)
        self._answers: Remembered[bool] = Remembered(READ_SECONDS)

    def known(self, token: str) -> Person | None:
        """The person, where Kubernetes took that token within the last REVIEW_SECONDS."""
        return self._reviews.get(_digest(token))

    async def review(self, token: str) -> Person:
        """The person whose token it is; Problem 401 where Kubernetes does not know it (any
        more)."""
        if not token or len(token) > TOKEN_LIMIT or not token.isascii() or any(char.isspace() or not char.isprintable() for char in token):
            raise not_signed_in("That is not a token: paste the token alone, in one line.")
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
        """Whether Kubernetes lets them; Problem where it cannot be asked. Answers to get and list
        are remembered for a moment."""
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
        """Problem 403 where they may not; it says the same whether the object exists or not."""
        if not await self.allowed(person, right):
            raise forbidden(person.name, right.verb, right.text, right.namespace)

    async def readable(self, person: Person, resource: Resource, namespaces: set[str]) -> set[str] | None:
        """Of these namespaces those in which they may list; None: in every one."""
        if await self.allowed(person, Right("list", resource)):
            return None
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(namespace: str) -> str | None:
            async with gate:
                return namespace if await self.allowed(person, Right("list", resource, namespace)) else None

        return {found for found in await asyncio.gather(*map(ask, sorted(namespaces))) if found is not None}
