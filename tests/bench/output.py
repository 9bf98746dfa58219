"""Figures for people (tables) and for programs (build/bench/*.json)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.bench.samples import Series, Summary
from tests.root import ROOT

DIRECTORY = ROOT / "build" / "bench"
MIB = 1 << 20


class Output:
    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if os.isatty(1) else 170)

    def tell(self, text: str) -> None:
        self.console.print(text, style="dim")

    def table(self, series: Series, against: str, *, note: str = "") -> None:
        """One row a contender: median (least-most) of its figures, and its time against that of
        `against`. Ratio and rate leave out what stands `apart`: a restore's ANALYZE."""
        table = Table(title=series.title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False, caption=note or None)
        table.add_column("")
        for column in ("wall s", "apart s", f"times {against}", "MB/s", "CPU s", "servers' CPU s", "peak MiB", "stored MB", "others", "rounds"):
            table.add_column(column, justify="right")
        for name, samples in series.samples.items():
            cells = (
                series.wall(name).text(),
                _text(series.fact(name, "apart")),
                "" if name == against else series.ratio(name, against).text(),
                _text(series.rate(name), 1_000_000, 0),
                _text(series.cpu(name)),
                _text(series.fact(name, "servers"), 1, 1),
                _text(series.peak(name), MIB, 0),
                _text(series.fact(name, "stored"), 1_000_000, 0),
                _percent(series.fact(name, "others")),
                str(len(samples)),
            )
            table.add_row(name, *cells)
        self.console.print()
        self.console.print(table)

    def grid(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of cells; the first column says what a row is."""
        table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)

    def verdict(self, what: str, value: float, limit: float, *, unit: str, at_least: bool = False) -> bool:
        """Prints a figure beside its target; whether it is met."""
        met = value >= limit if at_least else value <= limit
        word, style = ("met", "green") if met else ("missed", "bold red")
        self.console.print(f"{what}: {value:.2f}{unit}, target {'at least' if at_least else 'at most'} {limit:g}{unit}: [{style}]{word}[/]")
        return met


def _text(summary: Summary | None, divisor: float = 1, digits: int = 2) -> str:
    if summary is None:
        return "-"
    return Summary(summary.median / divisor, summary.least / divisor, summary.most / divisor).text(digits)


def _percent(summary: Summary | None) -> str:
    return f"{summary.median:.0%}" if summary else "-"


def save(name: str, results: dict[str, Any]) -> Path:
    """build/bench/NAME.json: the results with what they were taken on."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / f"{name}.json"
    path.write_text(json.dumps({"takenAt": datetime.now(UTC).isoformat(), "machine": machine(), **results}, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": cpu[0] if cpu else platform.processor(),
        "memoryBytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
        "loadAverage": os.getloadavg(),
    }
