"""Checks before a request is handled: where it comes from, and how often. Pure."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from urllib.parse import urlsplit

KEYS = 10_000
"""People or addresses that a limit remembers at most."""


def same_origin(headers: Mapping[str, str]) -> str | None:
    """None if a page of this server made the request; else why it is refused.

    A browser says with each POST where it comes from, by Origin, Sec-Fetch-Site or both. A client
    that sends neither cannot be trusted with a cookie.
    """
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host", "")
    if site is not None and site not in ("same-origin", "none"):
        return f"it comes from another site (Sec-Fetch-Site: {site})"
    if origin is not None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not host or parts.netloc.lower() != host.lower():
            return "it comes from a page of another origin"
    return "it does not say where it comes from" if site is None and origin is None else None


def same_token(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class RateLimit:
    """A token bucket for each key: at most `most` in a row, refilled evenly in `seconds`."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = float(most), most / seconds, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> int:
        """0 if the request is allowed; else the seconds to wait, at least 1."""
        now = self._clock()
        left, at = self._left.get(key, (self._most, now))
        left = min(self._most, left + (now - at) * self._rate)
        wait = 0 if left >= 1 else max(1, ceil((1 - left) / self._rate))
        self._left[key] = (left if wait else left - 1, now)
        self._left.move_to_end(key)
        while len(self._left) > KEYS:
            self._left.popitem(last=False)
        return wait
