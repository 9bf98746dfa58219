"""Databases of a chosen size and several shapes: what a dump costs depends on what its rows are
like."""

from __future__ import annotations

from tests.data import big

_ROWS: dict[str, tuple[int, str]] = {
    "wide text": (
        2367,
        """CREATE TABLE public.documents (id integer PRIMARY KEY, body text NOT NULL);
INSERT INTO public.documents SELECT i, (SELECT string_agg(md5((i * 41 + j)::text) || ' the quick brown fox jumps ', '') FROM generate_series(1, 40) j)
  FROM generate_series(1, {rows}) i;""",
    ),
    "narrow numbers": (
        74,
        """CREATE TABLE public.samples (id integer PRIMARY KEY, a bigint, b bigint, c double precision, d numeric(12, 2), e timestamptz, f boolean);
INSERT INTO public.samples SELECT i, i::bigint * 7919 % 100000, i::bigint * 2654435761 % 1000000007, i / 7.0, i % 100000 / 100.0,
  timestamptz '2026-01-01 00:00:00+00' + i * interval '1.7 seconds', i % 3 = 0 FROM generate_series(1, {rows}) i;""",
    ),
    "jsonb": (
        228,
        """CREATE TABLE public.events (id integer PRIMARY KEY, document jsonb NOT NULL);
INSERT INTO public.events SELECT i, jsonb_build_object('trace', md5(i::text), 'user', i % 5003, 'path', '/api/v1/items/' || i % 20011,
  'ok', i % 97 <> 0, 'nested', jsonb_build_object('a', i, 'b', i::bigint * 2, 'c', ARRAY[i, i + 1, i + 2], 'name', 'server-' || i % 300),
  'tags', jsonb_build_array('eu', 'tier-' || i % 3)) FROM generate_series(1, {rows}) i;""",
    ),
    "random base64": (
        2742,
        """CREATE TABLE public.blobs (id integer PRIMARY KEY, body text NOT NULL);
ALTER TABLE public.blobs ALTER body SET STORAGE EXTERNAL;
INSERT INTO public.blobs SELECT i, (SELECT string_agg(encode(sha512((i * 41 + j)::text::bytea), 'base64'), '') FROM generate_series(1, 30) j)
  FROM generate_series(1, {rows}) i;""",
    ),
}
SHAPES = tuple(_ROWS)
MIXED, BARE = "mixed", "mixed without indexes"


def render(shape: str, megabytes: int) -> str:
    """SQL for an empty database; MIXED is the event log of `tests.data.big`. The plain dump has
    about `megabytes` (10^6 bytes)."""
    if shape in {MIXED, BARE}:
        return big.render(megabytes, indexes=shape == MIXED)
    size, sql = _ROWS[shape]
    return sql.format(rows=megabytes * 1_000_000 // size) + "\nANALYZE;\n"
