"""A restore as RESTORE.md says it, to the letter, with stock tools; and what two databases must
have in common."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.conftest import Postgres

EVERYTHING = """
CREATE EXTENSION citext; CREATE EXTENSION pgcrypto;
CREATE SCHEMA app; CREATE SCHEMA "We ird.$x";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'größer');
CREATE TABLE app.people (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email public.citext UNIQUE, mood app.mood DEFAULT 'ok',
  token uuid DEFAULT public.gen_random_uuid(), a integer, twice integer GENERATED ALWAYS AS (a * 2) STORED, note text, raw bytea);
INSERT INTO app.people (email, a, note, raw)
  SELECT 'Person' || i || '@example.org', i, E'tab\\t newline\\n backslash \\\\ \\\\. quote '' ü ' || i, decode(md5(i::text), 'hex')
  FROM generate_series(1, 500) i;
INSERT INTO app.people (note) VALUES (NULL), (''), (E'\\\\.'), (E'\\\\N'), (E'\\n\\\\.\\n');
CREATE TABLE "We ird.$x"."Ta""b.le" ("co""l" text, "select" int);
INSERT INTO "We ird.$x"."Ta""b.le" VALUES ('COPY x FROM stdin;', 1), (E'--\\n', 2);
CREATE TABLE public.nothing ();
CREATE TABLE public.only_generated (a integer GENERATED ALWAYS AS (1) STORED);
CREATE UNLOGGED TABLE public.unlogged AS SELECT i FROM generate_series(1, 10) i;
CREATE TABLE public.events (at date NOT NULL, x int) PARTITION BY RANGE (at);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY RANGE (x);
CREATE TABLE public.events_2a PARTITION OF public.events_2 DEFAULT;
INSERT INTO public.events VALUES ('2026-01-05', 1), ('2026-02-05', 2), ('2026-02-06', 3);
CREATE TABLE public.parent (a int); CREATE TABLE public.child (b int) INHERITS (public.parent);
INSERT INTO public.parent VALUES (1); INSERT INTO public.child VALUES (2, 3);
CREATE MATERIALIZED VIEW app.summary AS SELECT mood, count(*) FROM app.people GROUP BY mood;
CREATE VIEW app.by_key AS SELECT p.id, p.email, p.note FROM app.people p GROUP BY p.id;
CREATE RULE two AS ON DELETE TO "We ird.$x"."Ta""b.le" DO ALSO (SELECT 1; SELECT 2);
CREATE FUNCTION app.tricky() RETURNS text LANGUAGE plpgsql AS $f$
BEGIN
-- COPY app.people (id) FROM stdin;
EXECUTE 'SELECT 1;'; COMMIT;
RETURN $$\\.$$;
END $f$;
CREATE FUNCTION app.copying() RETURNS text LANGUAGE sql AS 'SELECT ''
COPY app.people (id) FROM stdin;
1
\\.
''::text';
COMMENT ON FUNCTION app.tricky() IS E'\\\\! echo; \\\\connect x
DROP SCHEMA public;';
COMMENT ON SCHEMA app IS 'it''s app';
CREATE SEQUENCE app.counter START 7; SELECT nextval('app.counter');
SELECT lo_from_bytea(424242, decode(repeat('00ff5c2e0a', 5000), 'hex')); SELECT lo_from_bytea(424243, '');
COMMENT ON LARGE OBJECT 424242 IS 'large';
"""
"""Objects that dumps are known to stumble over; for a superuser."""

SINCE_14 = """
CREATE FUNCTION app.standard(x integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC
  SELECT CASE WHEN x > 1 THEN 2 ELSE 3 END; SELECT 4; END;
"""


def load_everything(postgres: Postgres, database: str) -> None:
    postgres.load(EVERYTHING + (SINCE_14 if postgres.major >= 14 else ""), database)


def follow_note(postgres: Postgres, directory: Path, target: str, user: str = "postgres") -> None:
    """The commands of RESTORE.md, but for the download."""
    note = (directory / "RESTORE.md").read_text()
    blocks = [block.split("```")[0] for block in note.split("```sh\n")[1:]]
    script = "\n".join(line for block in blocks for line in block.splitlines() if not line.startswith("aws "))
    environment = {**postgres.environment(target, user), "TARGET": f"dbname={target}", "PATH": f"{postgres.bin}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-euc", script], cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, script + done.stdout + done.stderr


def assert_equal(postgres: Postgres, one: str, other: str, *arguments: str) -> None:
    """Schema, rows and large objects, as pg_dump writes them."""
    assert postgres.dump(one, "-O", "-x", *arguments) == postgres.dump(other, "-O", "-x", *arguments)
