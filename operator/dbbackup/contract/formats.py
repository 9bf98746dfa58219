"""The formats of a dump, and its name in the bucket. It imports no models: the plugin uses it
too."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["plain", "custom"]
Algorithm = Literal["zstd", "gzip", "none"]

_EXTENSIONS: dict[Algorithm, str] = {"zstd": ".zst", "gzip": ".gz", "none": ""}


def artifact_name(fmt: Format, algorithm: Algorithm) -> str:
    return ("dump.sql" if fmt == "plain" else "dump.custom") + _EXTENSIONS[algorithm]


DUMPS = frozenset(artifact_name(fmt, algorithm) for fmt in get_args(Format) for algorithm in get_args(Algorithm))
"""All names that an artifact's dump may have."""
