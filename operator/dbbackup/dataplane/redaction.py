"""Secrets in texts: replaced wherever they stand, but never so that the text can no longer be read.

A password may be a word of our own messages. To mask it there would make them unreadable, and would
give it away by the gaps. So a weak secret is masked where only a value can stand, and nowhere else.
docs/security.md says what that means for passwords.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from dbbackup.text import presentable

MASK = "***"
SHORT = 8
"""Characters below which a secret is masked only as a word of its own, never inside a word."""
WORD = 16
"""Characters below which a word (letters, as a sentence writes it) or a number counts as common."""
_TINY = 4


class Redactor:
    """Masks registered values, also where they are URL-encoded, JSON-escaped or inside a repr."""

    def __init__(self, *secrets: str | None) -> None:
        self._lock = threading.Lock()
        self._patterns: set[tuple[int, str]] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str | None) -> None:
        with self._lock:
            for secret in filter(None, secrets):
                self._patterns |= {(len(form), _pattern(secret, form)) for form in _forms(secret)}
            # The longest first: a secret within another one leaves no rest of it.
            ordered = [pattern for _, pattern in sorted(self._patterns, reverse=True)]
            self._pattern = re.compile("|".join(ordered)) if ordered else None

    def __call__(self, text: str) -> str:
        """Lone surrogates, which JSON cannot carry, become presentable."""
        clean = presentable(text)
        return self._pattern.sub(MASK, clean) if self._pattern else clean


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]


def _pattern(secret: str, form: str) -> str:
    text = re.escape(form)
    if len(secret) < _TINY or (len(secret) < WORD and _is_common(secret)):
        # In quotes, behind `=` or `password`, or before the @ of a URI.
        behind = ("=", "= ", "(?i:password) ", "(?i:password):", "(?i:password): ")
        values = [rf"(?<={before}){text}(?!\w)" for before in behind]
        return "|".join([rf"""(?<=['"`]){text}(?=['"`])""", *values, rf"(?<=:){text}(?=@)"])
    return rf"(?<!\w){text}(?!\w)" if len(secret) < SHORT else text


def _is_common(secret: str) -> bool:
    return secret.isdigit() or (secret.isalpha() and (secret.islower() or secret.isupper() or secret.istitle()))
