"""Bulk results of a run (an inventory, the databases of a server): pages in its log, as the
termination message holds 4 KiB.

A page is a log line with event `page`, its number and its items: JSON, packed by zlib and base64,
as a kubelet keeps no more than 10 MiB of a log by default. The report counts pages and items and
gives the SHA-256 of all of them, so that a log that was cut, rotated or mixed up is refused and
never taken for complete.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from dbbackup.contract.model import Model
from dbbackup.contract.report import PagesReport

PAGE_BYTES = 12 * 1024
"""Maximum bytes of a page's items before they are packed: a container runtime cuts log lines at
16 KiB, and some items can't be packed any smaller."""
_UNPACKED_LIMIT = 1 << 20

M = TypeVar("M", bound=Model)


class PagesError(Exception):
    """The pages that were read differ from those that the run reported; the message says how."""


def _canonical(items: list[Any]) -> bytes:
    return json.dumps(items, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _pack(items: list[Any]) -> str:
    return base64.b64encode(zlib.compress(_canonical(items))).decode()


def _unpack(text: Any) -> list[Any]:
    """TypeError, ValueError or zlib.error where `text` is not the items of a page."""
    stream = zlib.decompressobj()
    items = json.loads(stream.decompress(base64.b64decode(text, validate=True), _UNPACKED_LIMIT))
    if not stream.eof or not isinstance(items, list):
        raise ValueError("no list")
    return items


class Pager:
    """Writes items as pages. `write(number, items)` puts one page, packed, into the log."""

    def __init__(self, write: Callable[[int, str], None]) -> None:
        self._write = write
        self._page: list[Any] = []
        self._size = 0
        self._digest = hashlib.sha256()
        self._pages = self._items = 0

    def add(self, item: Model) -> None:
        data = item.model_dump(mode="json", by_alias=True, exclude_none=True)
        size = len(_canonical([data]))
        if self._page and self._size + size > PAGE_BYTES:
            self._flush()
        self._page.append(data)
        self._size += size

    def _flush(self) -> None:
        self._pages += 1
        self._items += len(self._page)
        self._digest.update(_canonical(self._page) + b"\n")
        self._write(self._pages, _pack(self._page))
        self._page, self._size = [], 0

    def end(self) -> PagesReport:
        """Writes the last page. Returns what the report says about all pages."""
        if self._page:
            self._flush()
        return PagesReport(pages=self._pages, items=self._items, sha256=self._digest.hexdigest())


def read(lines: Iterable[str], reported: PagesReport, model: type[M]) -> Iterator[M]:
    """The items in the lines of a log, in order; other lines are skipped. PagesError, at the latest
    after the last item, where they differ from those that the run `reported`: use no item before
    the end."""
    digest = hashlib.sha256()
    pages = items = 0
    for line in lines:
        if '"page"' not in line:
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or event.get("event") != "page":
            continue
        if event.get("page") != pages + 1:
            raise PagesError(f"page {pages + 1} of {reported.pages} is missing from the run's log")
        try:
            page = _unpack(event.get("items"))
        except (TypeError, ValueError, zlib.error) as error:
            raise PagesError(f"page {pages + 1} of {reported.pages} cannot be unpacked: {error}") from None
        pages += 1
        items += len(page)
        digest.update(_canonical(page) + b"\n")
        for item in page:
            try:
                yield model.model_validate(item)
            except ValueError as error:
                raise PagesError(f"page {pages} cannot be read: {error}") from None
    if (pages, items, digest.hexdigest()) != (reported.pages, reported.items, reported.sha256):
        raise PagesError(f"the run reported {reported.items} items in {reported.pages} pages; its log holds {items} in {pages}")
