"""Bulk results in a run's log: they are read back, or refused as a whole."""

from __future__ import annotations

import base64
import io
import json
import random
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.artifacts import key_of, manifest_of, owner_of

from dbbackup.contract import pages
from dbbackup.contract.pages import Pager, PagesError
from dbbackup.contract.report import DiscoveredItem, InventoryItem, ManifestSummary, PagesReport
from dbbackup.contract.run import PruneItem
from dbbackup.dataplane.bucket import SealedArtifact
from dbbackup.dataplane.logs import Reporter


def write_pages(items: list[DiscoveredItem]) -> tuple[list[str], PagesReport]:
    """The lines of a log that holds other things too, and the report."""
    stream = io.StringIO()
    reporter = Reporter(stream)
    pager = Pager(reporter.page)
    for item in items:
        pager.add(item)
        reporter.info(f'a line about "page" {item.name[:20]}')
    reported = pager.end()
    reporter.info("the end")
    return stream.getvalue().splitlines(), reported


def read(lines: list[str], reported: PagesReport) -> list[str]:
    return [item.name for item in pages.read(lines, reported, DiscoveredItem)]


def many(count: int = 40) -> tuple[list[str], PagesReport, list[str]]:
    names = [f"{number}-" + "ü" * 1000 for number in range(count)]
    lines, reported = write_pages([DiscoveredItem(name=name) for name in names])
    return lines, reported, names


def is_page(line: str) -> bool:
    return bool(json.loads(line)["event"] == "page")


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=50), max_size=30))
def test_written_pages_are_read_back(names: list[str]) -> None:
    lines, reported = write_pages([DiscoveredItem(name=name) for name in names])
    assert read(lines, reported) == names
    assert reported.items == len(names)


def test_many_items_fit_lines_that_a_runtime_does_not_cut() -> None:
    lines, reported, names = many()
    assert read(lines, reported) == names
    assert reported.pages == sum(map(is_page, lines)) >= 5
    noise = random.Random(1)
    hard = [DiscoveredItem(name="".join(chr(noise.randrange(0x4E00, 0x9FFF)) for _ in range(size))) for size in (1300, 2700, 3900, 10, 3900)]
    lines, reported = write_pages(hard)
    assert read(lines, reported) == [item.name for item in hard]
    assert max(len(line.encode()) for line in lines) < 16 * 1024


def test_no_items_make_no_page() -> None:
    lines, reported = write_pages([])
    assert (reported.pages, reported.items, read(lines, reported)) == (0, 0, [])


def test_a_log_that_was_cut_is_refused() -> None:
    lines, reported, _ = many()
    last = max(number for number, line in enumerate(lines) if is_page(line))
    with pytest.raises(PagesError, match=f"reported 40 items in {reported.pages} pages; its log holds"):
        read(lines[:last], reported)
    with pytest.raises(PagesError, match="its log holds"):
        read([*lines[:last], lines[last][:-20]], reported)


def test_a_log_that_was_rotated_is_refused() -> None:
    lines, reported, _ = many()
    first = min(number for number, line in enumerate(lines) if is_page(line))
    with pytest.raises(PagesError, match=f"page 1 of {reported.pages} is missing"):
        read(lines[first + 1 :], reported)
    with pytest.raises(PagesError, match=f"reported 40 items in {reported.pages} pages; its log holds 0 in 0"):
        read([], reported)


def test_a_missing_and_a_swapped_page_is_refused() -> None:
    lines, reported, _ = many()
    at = [number for number, line in enumerate(lines) if is_page(line)]
    with pytest.raises(PagesError, match=r"page 3 of .* is missing"):
        read(lines[: at[2]] + lines[at[2] + 1 :], reported)
    swapped = list(lines)
    swapped[at[1]], swapped[at[2]] = lines[at[2]], lines[at[1]]
    with pytest.raises(PagesError, match=r"page 2 of .* is missing"):
        read(swapped, reported)
    with pytest.raises(PagesError, match=r"page 2 of .* is missing"):
        read([*lines[: at[0]], lines[at[0]], *lines[at[0] :]], reported)


def test_pages_of_another_run_are_refused() -> None:
    """The same number of pages and of items: only the digest differs."""
    lines, reported, _ = many()
    others, _ = write_pages([DiscoveredItem(name=f"{number}-" + "ö" * 1000) for number in range(40)])
    at = [number for number, line in enumerate(lines) if is_page(line)]
    lines[at[1]] = others[at[1]]
    with pytest.raises(PagesError, match="reported 40 items"):
        read(lines, reported)


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        (None, "page 1 of 1 cannot be unpacked"),
        ([{"name": "a"}], "page 1 of 1 cannot be unpacked"),
        ("no base64!", "page 1 of 1 cannot be unpacked"),
        (base64.b64encode(b"no zlib").decode(), "page 1 of 1 cannot be unpacked"),
        (base64.b64encode(zlib.compress(b'{"name":"a"}')).decode(), "page 1 of 1 cannot be unpacked"),
        (base64.b64encode(zlib.compress(b'[{"name":"a"}]')[:-5]).decode(), "page 1 of 1 cannot be unpacked"),
        (base64.b64encode(zlib.compress(b"[" + b" " * (64 << 20) + b"]")).decode(), "page 1 of 1 cannot be unpacked"),
        (pages._pack([{"nom": "a"}]), "page 1 cannot be read"),
        (pages._pack(["a"]), "page 1 cannot be read"),
    ],
)
def test_a_malformed_page_is_refused(items: object, complaint: str) -> None:
    line = json.dumps({"event": "page", "page": 1, "items": items})
    with pytest.raises(PagesError, match=complaint):
        read([line], PagesReport(pages=1, items=1, sha256="0" * 64))


def test_other_lines_are_passed_over() -> None:
    lines, reported = write_pages([DiscoveredItem(name="a")])
    assert read(['"page"', '["page"]', '{"event": "log", "page": 1}', '{"event": "page"', *lines, "not JSON"], reported) == ["a"]


def test_a_log_of_ten_thousand_artifacts_fits_what_a_kubelet_keeps() -> None:
    """10 MiB is containerLogMaxSize's default. Each artifact is reported with its manifest, as in
    an empty cluster. Here 500 are reported."""
    stream = io.StringIO()
    pager = Pager(Reporter(stream).page)
    for number in range(500):
        owner = owner_of(number, namespace="a-namespace-of-some-team").model_copy(
            update={"name": f"nightly-orders-20261122-0300-customers-{number:06x}"}
        )
        key = key_of(owner, database="customers")
        manifest = manifest_of(owner, body=str(number).encode())
        artifact = SealedArtifact(key, manifest, f"{random.Random(number).getrandbits(256):064x}")
        summary = ManifestSummary(
            owner=owner,
            artifact=artifact.report(),
            database=artifact.database_report(),
            started_at=manifest.started_at,
            finished_at=manifest.finished_at,
            expires_at=datetime(2026, 12, 1, tzinfo=UTC),
            schedule="nightly-orders",
        )
        pager.add(InventoryItem(key=key, size_bytes=number, modified=owner.created_at, manifest=summary))
    reported = pager.end()
    assert len(list(pages.read(stream.getvalue().splitlines(), reported, InventoryItem))) == 500
    assert len(stream.getvalue().encode()) / 500 * 10_000 < 5 * 2**20


def test_items_of_another_model_are_refused() -> None:
    lines, reported = write_pages([DiscoveredItem(name="a")])
    with pytest.raises(PagesError, match="cannot be read"):
        list(pages.read(lines, reported, PruneItem))
