"""Where notifications go: the chart's `notifications`, which addresses may be called, and how a
message is signed."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from dbbackup.api.units import parse_duration
from dbbackup.contract.model import Model

EventName = Literal["failure", "recovery", "success"]
KINDS = ("DatabaseBackup", "DatabaseRestore", "DatabaseBackupSchedule", "BackupStorage")

URL_FILE, KEY_FILE = "url", "key"
"""Files of a sink, in a directory with its name."""
SIGNATURE_HEADER = "X-Dbbackup-Signature"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_INTERNAL_NAMES = (".svc", ".cluster.local", ".localhost", ".internal")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class SecretKey(Model):
    model_config = ConfigDict(extra="forbid")  # people write it

    name: str
    key: str


class Sink(Model):
    """One receiver. If `url` is empty, it is read from the file `url`. A webhook with a `secretRef`
    is signed with the content of the file `key`. `every` and `grace` are for heartbeats."""

    model_config = ConfigDict(extra="forbid")  # people write it

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
    type: Literal["webhook", "slack", "heartbeat"]
    url: str = ""
    url_secret_ref: SecretKey | None = None
    secret_ref: SecretKey | None = None
    events: tuple[EventName, ...] = ("failure", "recovery")
    kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    allow_private: bool = False
    every: str = "5m"
    grace: str = "1h"

    @field_validator("every", "grace")
    @classmethod
    def _duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @property
    def interval(self) -> timedelta:
        return timedelta(seconds=parse_duration(self.every))

    @property
    def patience(self) -> timedelta:
        return timedelta(seconds=parse_duration(self.grace))

    def wants(self, event: EventName, kind: str, namespace: str) -> bool:
        if self.type == "heartbeat":
            return False
        return event in self.events and (not self.kinds or kind in self.kinds) and self.serves(namespace)

    def serves(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces


class SinkError(Exception):
    """The chart's `notifications` cannot be used; the message says where and why."""


def parse(value: Any) -> tuple[Sink, ...]:
    """The sinks of `notifications`, or SinkError."""
    try:
        sinks = TypeAdapter(tuple[Sink, ...]).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise SinkError(f"{'.'.join(str(part) for part in first['loc']) or 'the list'}: {first['msg']}") from None
    names = [sink.name for sink in sinks]
    for sink in sinks:
        if names.count(sink.name) > 1:
            raise SinkError(f"{sink.name}: two sinks have that name")
        if bool(sink.url) == (sink.url_secret_ref is not None):
            raise SinkError(f"{sink.name}: needs either url or urlSecretRef")
        if sink.secret_ref is not None and sink.type != "webhook":
            raise SinkError(f"{sink.name}: secretRef signs webhooks only")
    return sinks


def forbidden_url(url: str, *, allow_private: bool) -> str | None:
    """Why that URL must not be called, or None. The text quotes no part of it: it may contain a
    secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the URL cannot be read"
    if parts.scheme not in ("https", "http") or not host:
        return "the URL is neither https:// nor http://"
    if parts.username is not None:
        return "the URL contains a user name: use a token in its path, or a signature"
    if allow_private:
        return None
    if parts.scheme == "http":
        return "http:// is for receivers within the cluster (allowPrivate): use https://"
    if f".{host.rstrip('.')}".endswith(_INTERNAL_NAMES):
        return "its host is a name within the cluster, which needs allowPrivate"
    return None


def forbidden_address(text: str, *, allow_private: bool) -> str | None:
    """Why no connection to that IP address is allowed, or None. Link-local addresses are never
    allowed: clouds hand out credentials there."""
    try:
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return "it is not an IP address"
    if address.is_link_local:
        return "it is link-local"
    if address.is_unspecified or address.is_multicast:
        return "no receiver has such an address"
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if not allow_private and (site_local or not address.is_global):
        return "it is private or cluster-internal, which needs allowPrivate"
    return None


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def signature(key: bytes, body: bytes, timestamp: int) -> str:
    """Value of SIGNATURE_HEADER. The time is signed too, so that an old message cannot be replayed
    as a new one."""
    digest = hmac.new(key, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def retryable(status: int) -> bool:
    """Whether a receiver that answered with this status may take the message later."""
    return status in (408, 425, 429) or status >= 500
