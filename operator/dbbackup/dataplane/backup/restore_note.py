"""RESTORE.md: the exact stock commands that restore one artifact without the operator."""

from __future__ import annotations

import re
from datetime import UTC

from dbbackup.contract.keys import MANIFEST
from dbbackup.contract.manifest import Manifest
from dbbackup.dataplane.sql.filter import is_system_schema

_DECOMPRESS = {"zstd": ("zstd -t {file}", "zstd -d --keep {file}"), "gzip": ("gzip -t {file}", "gzip -dk {file}"), "none": ("", "")}
_PSQL = (
    "psql must know `\\restrict`, which keeps the dump's own SQL from running commands of your shell: that is 13.22, 14.19, 15.14, 16.10, 17.6"
    " or later (August 2025). "
)
_SUFFIX = {"zstd": ".zst", "gzip": ".gz", "none": ""}


def restore_note(manifest: Manifest, location: str) -> bytes:
    """`location` is the s3:// URL of the artifact's directory."""
    stored = manifest.artifact
    file = stored.name
    dump = file.removesuffix(_SUFFIX[manifest.compression])
    check, expand = (command.format(file=file) for command in _DECOMPRESS[manifest.compression])
    lines = [
        f"# Restore of {_code(manifest.database.identity)} with stock tools",
        "",
        (
            f"A {manifest.format} dump of PostgreSQL {manifest.database.server_version}, by pg_dump {manifest.pg_dump_version},"
            f" {manifest.started_at:%Y-%m-%d %H:%M:%S} UTC. {_extent(manifest)}"
        ),
        "",
        *_expiry(manifest),
        "Nothing below needs the operator. `$TARGET` is the target's connection string, such as `postgresql://owner@db.example:5432/app`.",
        "",
        "## 1. Fetch and check",
        "```sh",
        f"aws s3 cp --recursive {_quote(location)}/ .   # not AWS: with --endpoint-url https://...; any other S3 client will do",
        f"echo '{stored.sha256}  {file}' | sha256sum -c -",
        *([check, expand] if check else []),
        "```",
        "Go on only if each command ended well. Decompress to a file, as above: from a pipe, `psql -1` **commits** a stream that was cut.",
        "",
        "## 2. Restore",
        *(_plain(manifest, dump) if manifest.format == "plain" else _custom(manifest, dump)),
        "",
        "## What the target needs",
        *_needs(manifest),
        "",
        "Afterwards run `ANALYZE`: a dump holds no statistics for the planner.",
        "",
        f"`{MANIFEST}` beside this file lists every table with its rows, and the SHA-256 of each part.",
        "",
    ]
    return "\n".join(lines).encode()


def _expiry(manifest: Manifest) -> list[str]:
    if manifest.expires_at is None:
        return []
    return [
        f"The operator may delete it after {manifest.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: to keep it longer, copy it elsewhere.",
        "",
    ]


def _plain(manifest: Manifest, dump: str) -> list[str]:
    clean = manifest.options.clean
    return [
        "```sh",
        f'psql -X -1 -v ON_ERROR_STOP=1 -f {dump} -d "$TARGET"',
        "```",
        "One transaction: it restores everything or changes nothing. "
        + _PSQL
        + (
            "Objects of the dump that the target holds are dropped and made anew; others are left alone, and stop the restore where they depend on"
            " one of the dump. The user must own what is replaced. Owners and privileges are not in the dump: new objects belong to the user."
            if clean
            else "The dump drops nothing: restore into an empty database. Owners and privileges are not in the dump."
        ),
    ]


def _custom(manifest: Manifest, dump: str) -> list[str]:
    least = manifest.pg_dump_version.partition(".")[0]
    contents = manifest.contents
    chosen = bool(manifest.options.schemas)
    left_out = {e.schema_ for e in contents.extensions} - {*contents.schemas, "public"} if chosen or manifest.options.exclude_schemas else set()
    homes = sorted(home for home in left_out if not is_system_schema(home))
    before = [f'psql -X -v ON_ERROR_STOP=1 -d "$TARGET" -c {_quote(f"CREATE SCHEMA IF NOT EXISTS {_identifier(home)}")}' for home in homes]
    unwanted = _unwanted_entries(manifest)
    if unwanted:
        patterns = " ".join(f"-e {_quote(pattern)}" for pattern in unwanted)
        before.append(f"pg_restore -l {dump} | grep -v {patterns} > contents.list   # without what is there already, or was to be left out")
    listed = "-L contents.list " if before and "contents.list" in before[-1] else ""
    return [
        "```sh",
        *before,
        f'pg_restore -1 --exit-on-error --no-owner --no-privileges --no-tablespaces {listed}-d "$TARGET" {dump}',
        "```",
        (
            f"Into an empty database, with pg_restore {least} or newer; one transaction. To replace what is there add `--clean --if-exists`;"
            " to keep owners and privileges leave `--no-owner --no-privileges` out, and have the roles made before."
            f" `pg_restore -l {dump}` lists the contents; `-t`, `-n` and `-L` choose from them."
        ),
    ]


def _unwanted_entries(manifest: Manifest) -> list[str]:
    """Expressions of grep for lines of `pg_restore -l`: schema public, and extensions that pg_dump
    before 17 could not leave out."""
    entry = "; [0-9]* [0-9]* "
    options = manifest.options
    found = [f"{entry}SCHEMA - public "] if options.schemas and "public" in manifest.contents.schemas else []
    for pattern in options.exclude_extensions or ():
        if pattern.startswith('"'):
            name = _literal(pattern[1:-1].replace('""', '"'))
        else:
            name = "".join({"*": ".*", "?": "."}.get(c) or _literal(c) for c in pattern)
        found += [f"{entry}EXTENSION - {name} ", f"{entry}COMMENT - EXTENSION {name} "]
    return found


def _literal(text: str) -> str:
    return re.sub(r"[.*\[\]^$\\]", r"\\\g<0>", text)


def _extent(manifest: Manifest) -> str:
    options = manifest.options
    parts = [f"Schemas: {', '.join(map(_code, options.schemas))}." if options.schemas else "The whole database."]
    parts += [
        f"Left out: {kind}{', '.join(map(_code, names))}."
        for kind, names in (("schemas ", options.exclude_schemas), ("extensions ", options.exclude_extensions), ("", options.exclude_tables))
        if names
    ]
    if options.exclude_table_data:
        parts.append(f"Without their rows: {', '.join(map(_code, options.exclude_table_data))}.")
    return " ".join(parts)


def _needs(manifest: Manifest) -> list[str]:
    contents = manifest.contents
    encoding = manifest.database.encoding
    other = "" if encoding == "SQL_ASCII" else ", or another into which the server converts it"
    lines = [f"- PostgreSQL {manifest.database.server_version_num // 10000} or newer, encoding {encoding}{other}."]
    if contents.extensions:
        lines.append("- Extensions that the server must offer: " + ", ".join(f"{_code(e.name)} ({e.version})" for e in contents.extensions) + ".")
    if contents.outside:
        lines.append("- What the dump refers to and leaves out: " + ", ".join(map(_code, contents.outside)) + ".")
    if contents.roles:
        lines.append("- Roles that must be there: " + ", ".join(map(_code, contents.roles)) + ".")
    if contents.event_triggers or contents.superuser_publications:
        held = [*contents.event_triggers, *contents.superuser_publications]
        lines.append("- A superuser, for event triggers and publications: " + ", ".join(map(_code, held)) + ".")
    return lines


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
