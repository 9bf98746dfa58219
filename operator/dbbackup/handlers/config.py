"""The operator's configuration, from its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dbbackup.api.units import parse_duration
from dbbackup.plan.settings import DEFAULT_SWEEP_AFTER, Settings
from dbbackup.plan.sinks import Sink, SinkError
from dbbackup.plan.sinks import parse as parse_sinks
from dbbackup.process import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """`namespaces` is empty for all. `port` serves the probes, and the metrics unless
    `metrics_series` is None, the most series of one metric."""

    settings: Settings
    namespaces: tuple[str, ...]
    port: int
    log_level: str
    metrics_series: int | None = None
    sinks: tuple[Sink, ...] = ()


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}: {text!r} is not a whole number above 0")
    return int(text)


def _duration(environment: Mapping[str, str], name: str, default: timedelta) -> timedelta:
    text = environment.get(name, "").strip()
    try:
        return timedelta(seconds=parse_duration(text)) if text else default
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _defaults(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"DBBACKUP_JOB_DEFAULTS: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError("DBBACKUP_JOB_DEFAULTS: is not a JSON object")
    return value


def _sinks(environment: Mapping[str, str]) -> tuple[Sink, ...]:
    try:
        return parse_sinks(json.loads(environment.get("DBBACKUP_NOTIFICATIONS", "").strip() or "[]"))
    except ValueError as error:
        raise ConfigError(f"DBBACKUP_NOTIFICATIONS: is not JSON: {error}") from None
    except SinkError as error:
        raise ConfigError(f"DBBACKUP_NOTIFICATIONS: {error}") from None


def read(environment: Mapping[str, str] = os.environ, now: datetime | None = None) -> Config:
    """The configuration; ConfigError if a variable cannot be used."""
    image = environment.get("DBBACKUP_IMAGE", "").strip()
    if not image:
        raise ConfigError("DBBACKUP_IMAGE: is not set; Jobs run this image, which is the operator's own")
    settings = Settings(
        image=image,
        started_at=now or datetime.now(UTC),
        image_pull_policy=environment.get("DBBACKUP_IMAGE_PULL_POLICY", "").strip() or "IfNotPresent",
        max_concurrent=_number(environment, "DBBACKUP_MAX_CONCURRENT", None),
        job_defaults=_defaults(environment.get("DBBACKUP_JOB_DEFAULTS", "").strip()),
        sweep_after=_duration(environment, "DBBACKUP_SWEEP_AFTER", DEFAULT_SWEEP_AFTER),
    )
    names = tuple(name.strip() for name in environment.get("DBBACKUP_NAMESPACES", "").split(",") if name.strip())
    port = _number(environment, "DBBACKUP_PORT", None) or 8080
    level = environment.get("DBBACKUP_LOG_LEVEL", "").strip().upper() or "INFO"
    return Config(settings, names, port, level, _number(environment, "DBBACKUP_METRICS_SERIES", None), _sinks(environment))
