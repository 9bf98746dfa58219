"""One measured run, and what several of them say. Contenders are run in turn (A B A B ...), so that
a busy machine is unfair to none of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """`wall` and `cpu` in seconds, `peak` in bytes: of all processes of the run together. `facts`
    are figures of the contender's own."""

    wall: float
    cpu: float | None = None
    peak: int | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """The machine's load average as the run ended."""

    @property
    def counted(self) -> float:
        """Wall time without `apart`, the seconds of what other contenders do not do."""
        return self.wall - self.facts.get("apart", 0.0)


@dataclass(frozen=True, slots=True)
class Summary:
    """Median, least and greatest of one figure."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


class Series:
    """Samples of contenders, by name; sample i of one was taken beside sample i of the others."""

    def __init__(self, title: str, size: int = 0) -> None:
        """`size`: bytes that each contender moves, if that is known."""
        self.title = title
        self.bytes = size
        self.samples: dict[str, list[Sample]] = {}

    def add(self, name: str, sample: Sample) -> None:
        self.samples.setdefault(name, []).append(sample)

    def wall(self, name: str) -> Summary:
        return Summary.of([sample.wall for sample in self.samples[name]])

    def cpu(self, name: str) -> Summary | None:
        return _summary([sample.cpu for sample in self.samples[name]])

    def peak(self, name: str) -> Summary | None:
        return _summary([sample.peak for sample in self.samples[name]])

    def fact(self, name: str, fact: str) -> Summary | None:
        return _summary([sample.facts.get(fact) for sample in self.samples[name]])

    def ratio(self, name: str, to: str) -> Summary:
        """Counted time of `name` over that of `to`, round by round."""
        return Summary.of([one.counted / other.counted for one, other in zip(self.samples[name], self.samples[to], strict=True)])

    def rate(self, name: str) -> Summary | None:
        """Bytes a second."""
        return Summary.of([self.bytes / sample.counted for sample in self.samples[name]]) if self.bytes else None

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "contenders": {
                name: {
                    "wall": asdict(self.wall(name)),
                    "cpu": _as_dict(self.cpu(name)),
                    "peak": _as_dict(self.peak(name)),
                    "samples": [asdict(sample) for sample in samples],
                }
                for name, samples in self.samples.items()
            },
        }


def alternate(series: Series, contenders: Mapping[str, Callable[[], Sample]], rounds: int, tell: Callable[[str], None]) -> Series:
    """Runs every contender once a round."""
    for number in range(1, rounds + 1):
        for name, contender in contenders.items():
            sample = contender()
            series.add(name, sample)
            tell(f"{series.title}: round {number} of {rounds}: {name}: {sample.wall:.2f} s (load {sample.load:.1f})")
    return series


def _summary(values: Sequence[float | int | None]) -> Summary | None:
    present = [float(value) for value in values if value is not None]
    return Summary.of(present) if present and len(present) == len(values) else None


def _as_dict(summary: Summary | None) -> dict[str, float] | None:
    return asdict(summary) if summary else None
