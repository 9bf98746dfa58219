"""The console's configuration from its environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from dbbackup.api.units import parse_duration
from dbbackup.process import ConfigError

DEFAULT_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """`namespaces` is empty for all; `trusted_proxies` are the addresses or networks whose
    X-Forwarded-For is trusted."""

    namespaces: tuple[str, ...] = ()
    download_namespaces: frozenset[str] = frozenset()
    max_downloads: int = 4
    session_lifetime: timedelta = DEFAULT_LIFETIME
    trusted_proxies: tuple[str, ...] = ()
    port: int = 8080
    log_level: str = "INFO"


def read(environment: Mapping[str, str] = os.environ) -> ConsoleConfig:
    """The configuration; ConfigError if a variable is invalid."""

    def words(name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in environment.get(name, "").split(",") if word.strip())

    def number(name: str, default: int) -> int:
        text = environment.get(name, "").strip()
        if text and (not text.isdigit() or int(text) < 1):
            raise ConfigError(f"{name}: {text!r} is not a whole number above 0")
        return int(text) if text else default

    lifetime = environment.get("DBBACKUP_CONSOLE_SESSION_LIFETIME", "").strip()
    proxies = words("DBBACKUP_CONSOLE_TRUSTED_PROXIES")
    try:
        seconds = parse_duration(lifetime) if lifetime else DEFAULT_LIFETIME.total_seconds()
    except ValueError as error:
        raise ConfigError(f"DBBACKUP_CONSOLE_SESSION_LIFETIME: {error}") from None
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ConfigError(f"DBBACKUP_CONSOLE_TRUSTED_PROXIES: {proxy!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return ConsoleConfig(
        namespaces=words("DBBACKUP_NAMESPACES"),
        download_namespaces=frozenset(words("DBBACKUP_CONSOLE_DOWNLOAD_NAMESPACES")),
        max_downloads=number("DBBACKUP_CONSOLE_MAX_DOWNLOADS", 4),
        session_lifetime=timedelta(seconds=seconds),
        trusted_proxies=proxies,
        port=number("DBBACKUP_PORT", 8080),
        log_level=environment.get("DBBACKUP_LOG_LEVEL", "").strip().upper() or "INFO",
    )
