"""Durations and sizes: what people write in specs and read in status."""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil
from typing import Literal

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,6}[smhdw])+")
MAX_DURATION = 365 * 86400
"""Seconds. A Job's deadline counts every attempt and must fit into 32 bits."""
MAX_TTL = 100 * 365 * 86400
NEVER = "never"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(n|u|m|k|M|G|T|P|E|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_SUFFIX: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{letter: Fraction(10 ** (3 * power)) for power, letter in enumerate("kMGTPE", 1)},
    **{letter + "i": Fraction(2 ** (10 * power)) for power, letter in enumerate("KMGTPE", 1)},
}


def parse_duration(text: str, most: int = MAX_DURATION, least: int = 1) -> int:
    """Seconds of a duration such as 90s, 15m or 1h30m; ValueError if the text is not
    a duration, or is below `least` or above `most` seconds (a year)."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m or 1h30m (units s, m, h, d, w)")
    seconds = sum(int(part[:-1]) * _SECONDS[part[-1]] for part in re.findall(r"[0-9]+[smhdw]", text))
    if not least <= seconds <= most:
        raise ValueError(f"{text!r} must be {'above zero and ' if least else ''}at most {most // 86400}d")
    return seconds


def parse_ttl(text: str) -> int | Literal["never"]:
    """Seconds of a time to live such as 30d or 52w, or `never`; ValueError if the text is
    neither, or longer than a hundred years."""
    return "never" if text == NEVER else parse_duration(text, MAX_TTL)


def parse_quantity(value: str | int) -> int:
    """Bytes of a Kubernetes quantity such as 1Gi, 500M or 1e9, a fraction rounded up as Kubernetes
    does; ValueError if it is not a quantity."""
    if isinstance(value, int):
        return value
    match = _QUANTITY.fullmatch(value)
    if not match:
        raise ValueError(f"{value!r} is not a size such as 500Mi or 10Gi")
    number, suffix, exponent = match.groups()
    factor = Fraction(10) ** int(exponent) if exponent else _SUFFIX[suffix or ""]
    return ceil(Fraction(number) * factor)


def size_text(size: int) -> str:
    """Bytes as people read them, in IEC units: 512 B, 384 KiB, 1.2 GiB."""
    value, unit = float(size), "B"
    for following in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if round(value) < 1024:
            break
        value, unit = value / 1024, following
    text = f"{value:.1f}" if unit != "B" and value < 9.95 and not f"{value:.1f}".endswith(".0") else f"{value:.0f}"
    return f"{text} {unit}"


def duration_text(seconds: float) -> str:
    """Seconds as people read them, to two units: 4s, 1m 5s, 2h 3m, 3d 4h."""
    whole = int(seconds + 0.5)
    if whole < 1:
        return "<1s"
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)
