"""Bulk results of a run (an inventory, the databases of a server): pages in its log, as the termination message holds 4 KiB.

A page is a log line with event `page`, its number and its items. The report counts pages and items and gives the SHA-256 of all of them, so that
what was cut, rotated away or mixed up is refused and never taken for the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from dbbackup.run import Model, PagesReport

PAGE_BYTES = 12 * 1024
"""Of a page's items: a container runtime cuts log lines at 16 KiB."""

M = TypeVar("M", bound=Model)


class PagesError(Exception):
    """What was read is not what the run told; the message says in what way."""


def _canonical(items: list[Any]) -> bytes:
    return json.dumps(items, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


class Pager:
    """Writes items as pages. `write(number, items)` puts one page into the log."""

    def __init__(self, write: Callable[[int, list[Any]], None]) -> None:
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
        self._write(self._pages, self._page)
        self._page, self._size = [], 0

    def end(self) -> PagesReport:
        """The last page is written; what the report says of them all."""
        if self._page:
            self._flush()
        return PagesReport(pages=self._pages, items=self._items, sha256=self._digest.hexdigest())


def read(lines: Iterable[str], told: PagesReport, model: type[M]) -> Iterator[M]:
    """The items in the lines of a log, in order; other lines are passed over. PagesError, at the latest after the last item, where they are not those
    that the report tells of: use nothing of it before the end."""
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
        page = event.get("items")
        if event.get("page") != pages + 1 or not isinstance(page, list):
            raise PagesError(f"page {pages + 1} of {told.pages} is missing from the run's log")
        pages += 1
        items += len(page)
        digest.update(_canonical(page) + b"\n")
        for item in page:
            try:
                yield model.model_validate(item)
            except ValueError as error:
                raise PagesError(f"page {pages} cannot be read: {error}") from None
    if (pages, items, digest.hexdigest()) != (told.pages, told.items, told.sha256):
        raise PagesError(f"the run told {told.items} items in {told.pages} pages; its log holds {items} in {pages}")
