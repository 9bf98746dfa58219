"""Turns a connection Secret into `Conninfo`, by the key conventions of the operators whose Secrets
people already have.

For each field the first that exists wins: the spec's explicit field, the key that `keys:` maps,
the URI that `keys.uri` maps, the conventional key, the conventional `uri`. Conventions:
CloudNativePG, Zalando, Crunchy PGO, Percona, Service Binding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import DatabaseTarget
from dbbackup.dataplane.paths import Paths
from dbbackup.storage.mounted_secret import await_secret

Field = Literal["host", "port", "name", "user", "password", "sslmode"]

CONVENTIONS: dict[Field, tuple[str, ...]] = {
    "host": ("host",),
    "port": ("port",),
    "name": ("dbname", "database"),
    "user": ("username", "user"),
    "password": ("password",),
    "sslmode": ("sslmode",),
}
URI_KEYS = ("uri",)
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SPEC_FIELD: dict[Field, str] = {"host": "database.host", "name": "database.name", "user": "database.user"}
_URI_FIELDS: dict[str, Field] = {"host": "host", "port": "port", "dbname": "name", "user": "user", "password": "password", "sslmode": "sslmode"}


@dataclass(frozen=True, slots=True)
class Conninfo:
    """One database and one user. `identity` names the database everywhere: in the status, the
    manifest and the key."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    sslmode: str = "prefer"
    sslrootcert: str | None = None

    @property
    def identity(self) -> str:
        return f"{self.host}:{self.port}/{self.name}"

    @property
    def who(self) -> str:
        """For messages: the database and the user, never the password."""
        return f"{self.identity} as user {self.user}"

    def with_name(self, name: str) -> Conninfo:
        return replace(self, name=name)


def load_conninfo(target: DatabaseTarget, paths: Paths) -> Conninfo:
    """The connection that `target` and its mounted Secret describe.

    Waits up to `paths.secret_grace` seconds for a Secret or key that is not mounted yet, then
    raises Failure SecretMissing or KeyMissing; SecretInvalid where a value cannot be used.
    """

    def read() -> tuple[Conninfo, Path | None]:
        info = resolve(target, read_secret(paths.database_secret))
        return info, _ca_file(target, paths) if target.ca_secret else None

    info, ca = await_secret(read, paths.secret_grace)
    if ca is None:
        return info
    if target.ssl_mode is None and info.sslmode == "prefer":
        # Whoever gives a CA wants it checked: `prefer` would encrypt and ignore it.
        return replace(info, sslrootcert=str(ca), sslmode="verify-full")
    return replace(info, sslrootcert=str(ca))


def read_secret(directory: Path) -> dict[str, bytes]:
    """Key -> value of a mounted Secret; empty where nothing is mounted."""
    if not directory.is_dir():
        return {}
    return {entry.name: entry.read_bytes() for entry in directory.iterdir() if not entry.name.startswith("..") and entry.is_file()}


def resolve(target: DatabaseTarget, secret: Mapping[str, bytes]) -> Conninfo:
    """Pure: the connection that `target` and the Secret's values describe."""
    if not secret:
        raise Failure("SecretMissing", f"Secret {target.secret} does not exist in the namespace, or is empty")
    values = _Values(target, secret)
    password = values.require("password")
    host = values.require("host")
    if "," in host:
        raise Failure("SecretInvalid", f"Secret {target.secret} names several hosts ({host}): set database.host to the one to use")
    sslmode = values.get("sslmode") or "prefer"
    if sslmode not in SSL_MODES:
        raise Failure("SecretInvalid", f"Secret {target.secret}: sslmode is not one of {', '.join(SSL_MODES)}")
    return Conninfo(host, values.port(), values.require("name"), values.require("user"), password, sslmode)


class _Values:
    def __init__(self, target: DatabaseTarget, secret: Mapping[str, bytes]) -> None:
        self.target = target
        self.secret = secret
        keys = target.keys
        self.explicit: dict[Field, str | None] = {
            "host": target.host,
            "port": str(target.port) if target.port else None,
            "name": target.name,
            "user": target.user,
            "password": None,
            "sslmode": target.ssl_mode,
        }
        self.mapped: dict[Field, str | None] = {
            "host": keys.host,
            "port": keys.port,
            "name": keys.name,
            "user": keys.user,
            "password": keys.password,
            "sslmode": keys.ssl_mode,
        }
        self.mapped_uri = self._uri((keys.uri,), required=True) if keys.uri else {}
        self._conventional_uri: dict[Field, str] | None = None

    def get(self, name: Field) -> str | None:
        if value := self.explicit[name]:
            return value
        if key := self.mapped[name]:
            value = self._value(key)
            if value is None:
                raise Failure("KeyMissing", f"Secret {self.target.secret} has no key {key} for the {name}; it has {self._keys()}")
            return value
        if value := self.mapped_uri.get(name):
            return value
        for key in CONVENTIONS[name]:
            # CloudNativePG's superuser Secret has dbname: "*".
            if (value := self._value(key)) and (name, value) != ("name", "*"):
                return value
        if self._conventional_uri is None:
            self._conventional_uri = self._uri(URI_KEYS)
        return self._conventional_uri.get(name)

    def require(self, name: Field) -> str:
        if value := self.get(name):
            return value
        looked = ", ".join((*CONVENTIONS[name], *URI_KEYS))
        where = f" and {_SPEC_FIELD[name]} is not set" if name in _SPEC_FIELD else ""
        raise Failure("KeyMissing", f"Secret {self.target.secret} has no {name}: looked for the keys {looked}{where}; it has {self._keys()}")

    def port(self) -> int:
        text = self.get("port") or "5432"
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
            raise Failure("SecretInvalid", f"Secret {self.target.secret}: the port is not a number from 1 to 65535")
        return int(text)

    def _keys(self) -> str:
        return ", ".join(sorted(self.secret)) or "none"

    def _value(self, key: str) -> str | None:
        """The value without its trailing newline, as `echo` leaves it; None where the key is
        missing or empty."""
        raw = self.secret.get(key)
        if raw is None:
            return None
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Failure("SecretInvalid", f"Secret {self.target.secret}: key {key} is not UTF-8 text") from None
        if "\n" in text or "\0" in text or "\r" in text:
            raise Failure("SecretInvalid", f"Secret {self.target.secret}: key {key} contains a line break or a zero byte")
        return text or None

    def _uri(self, keys: tuple[str, ...], *, required: bool = False) -> dict[Field, str]:
        from psycopg import ProgrammingError  # noqa: PLC0415
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

        for key in keys:
            value = self._value(key)
            if value is None:
                continue
            if not value.startswith(("postgresql://", "postgres://")):
                raise Failure("SecretInvalid", f"Secret {self.target.secret}: key {key} is not a postgresql:// URI")
            try:
                parsed = conninfo_to_dict(value)
            except ProgrammingError:  # its message repeats what it can't parse, possibly the password
                raise Failure("SecretInvalid", f"Secret {self.target.secret}: key {key} is not a valid postgresql:// URI") from None
            found = {ours: str(parsed[theirs]) for theirs, ours in _URI_FIELDS.items() if parsed.get(theirs)}
            if "," in found.get("host", "") or "," in found.get("port", ""):
                found["port"] = found.get("port", "").partition(",")[0]
            if found.get("name") == "*":
                del found["name"]
            return {name: text for name, text in found.items() if text}
        if required:
            raise Failure("KeyMissing", f"Secret {self.target.secret} has no key {keys[0]} for the URI; it has {self._keys()}")
        return {}


def _ca_file(target: DatabaseTarget, paths: Paths) -> Path:
    file = paths.database_ca / target.ca_key
    if file.is_file():
        return file
    held = read_secret(paths.database_ca)
    if not held:
        raise Failure("SecretMissing", f"Secret {target.ca_secret} (the database's CA) does not exist in the namespace, or is empty")
    raise Failure("KeyMissing", f"Secret {target.ca_secret} has no key {target.ca_key} for the database's CA; it has {', '.join(sorted(held))}")
