-- One of every kind of object that pg_dump knows and a server without further packages has. Roles: @app@, @reader@.
SET check_function_bodies = off;
CREATE SCHEMA app;
CREATE SCHEMA "We.ird ""x""";
CREATE EXTENSION citext;
CREATE EXTENSION hstore WITH SCHEMA app;
CREATE TYPE app.mood AS ENUM ('calm', 'wild');
ALTER TYPE app.mood ADD VALUE 'between' BEFORE 'wild';
CREATE TYPE app.pair AS (a int, b text);
CREATE TYPE app.span AS RANGE (subtype = int);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE FUNCTION app.label(a int, OUT b text, VARIADIC c text[] DEFAULT '{}') LANGUAGE sql AS $$SELECT a::text || 'COPY t FROM stdin;'$$;
CREATE FUNCTION app.noargs() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION app.atomic(x int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN x > 0 THEN x ELSE 0 END; SELECT x; END;
CREATE PROCEDURE app.work(INOUT a int, "we ird" app.mood) LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE AGGREGATE app.anything(*) (sfunc = int8inc, stype = bigint, initcond = '0');
CREATE OPERATOR app.=== (leftarg = int, rightarg = int, function = int4eq);
CREATE OPERATOR CLASS app.int_ops FOR TYPE int USING hash AS OPERATOR 1 app.===, FUNCTION 1 hashint4(int);
CREATE COLLATION app.plain FROM "C";
CREATE CAST (app.pair AS text) WITH INOUT;
CREATE TEXT SEARCH DICTIONARY app.words (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION app.search (COPY = simple);
CREATE SEQUENCE app.loose START 42;
CREATE TABLE app.users (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  email public.citext UNIQUE,
  mood app.mood DEFAULT 'calm',
  size app.positive,
  twice int GENERATED ALWAYS AS (2 * 21) STORED,
  attributes app.hstore
);
CREATE TABLE app.posts (id serial PRIMARY KEY, author int NOT NULL REFERENCES app.users, text text DEFAULT 'x' COLLATE app.plain, pair app.pair);
CREATE INDEX posts_text ON app.posts (text);
CREATE STATISTICS app.posts_stats ON author, text FROM app.posts;
CREATE TABLE app.self (id int PRIMARY KEY, parent int REFERENCES app.self, other int);
CREATE TABLE app.mutual (id int PRIMARY KEY, self int REFERENCES app.self);
ALTER TABLE app.self ADD CONSTRAINT self_mutual FOREIGN KEY (other) REFERENCES app.mutual DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE app.events (id int, day date NOT NULL, note text) PARTITION BY RANGE (day);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.events_rest PARTITION OF app.events DEFAULT;
ALTER TABLE app.events ADD PRIMARY KEY (id, day);
CREATE TABLE app.parent (a int);
CREATE TABLE app.child (b int) INHERITS (app.parent);
CREATE UNLOGGED TABLE app.fleeting (a int);
CREATE TABLE app.empty ();
CREATE TABLE "We.ird ""x"""."t.a""b" ("c d" int, "SELECT" text);
CREATE VIEW app.active AS SELECT id, email, app.label(id) FROM app.users;
CREATE VIEW app.grouped AS SELECT id, author, text FROM app.posts GROUP BY id;
CREATE VIEW app.writable AS SELECT * FROM app.users WITH LOCAL CHECK OPTION;
CREATE RULE nothing AS ON DELETE TO app.active DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW app.counted AS SELECT count(*) AS posts FROM app.posts;
CREATE UNIQUE INDEX counted_posts ON app.counted (posts);
CREATE FUNCTION app.trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
CREATE TRIGGER changed BEFORE INSERT OR UPDATE ON app.posts FOR EACH ROW EXECUTE FUNCTION app.trigger();
CREATE FUNCTION app.of_row(app.users) RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER TABLE app.users ADD CONSTRAINT circle CHECK (app.noargs() = 1);
ALTER TABLE app.posts ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON app.posts TO @reader@ USING (author = app.noargs());
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE USER MAPPING FOR @app@ SERVER elsewhere OPTIONS (secret 'x');
CREATE FOREIGN TABLE app.far (a int) SERVER elsewhere;
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
CREATE PUBLICATION some_tables FOR TABLE app.posts;
CREATE PUBLICATION all_tables FOR ALL TABLES;
COMMENT ON TABLE app.users IS 'people; really -- "they"';
COMMENT ON COLUMN app.users.email IS 'it''s';

INSERT INTO app.users (email, mood, size, attributes) SELECT 'user' || i || '@example.org', 'between', i, 'k=>v' FROM generate_series(1, 50) i;
INSERT INTO app.posts (author, text, pair) SELECT 1 + i % 50, E'tab\there\nnew\\line \\. ' || chr(128512) || i, ROW(i, 'p'::text)::app.pair FROM generate_series(1, 500) i;
INSERT INTO app.posts (author, text) VALUES (1, NULL), (1, ''), (1, E'\\.'), (1, E'\\N');
INSERT INTO app.self VALUES (1, NULL, NULL), (2, 1, NULL);
INSERT INTO app.mutual VALUES (1, 2);
UPDATE app.self SET other = 1;
INSERT INTO app.events SELECT i, date '2025-12-01' + i, repeat('x', i) FROM generate_series(1, 60) i;
INSERT INTO app.parent VALUES (1);
INSERT INTO app.child VALUES (2, 3);
INSERT INTO app.fleeting VALUES (1);
INSERT INTO "We.ird ""x"""."t.a""b" VALUES (1, 'x');
SELECT lo_from_bytea(4711, repeat('large object ', 5000)::bytea), lo_from_bytea(4712, '') \g /dev/null
REFRESH MATERIALIZED VIEW app.counted;
SELECT nextval('app.loose') FROM generate_series(1, 5) \g /dev/null
GRANT USAGE ON SCHEMA app TO @reader@;
GRANT SELECT ON app.users, app.active, app.counted, app.far TO @reader@;
GRANT SELECT (text) ON app.posts TO @reader@ WITH GRANT OPTION;
GRANT USAGE ON SEQUENCE app.loose TO @app@;
REVOKE EXECUTE ON FUNCTION app.label(int, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.label(int, text[]) TO @app@;
GRANT EXECUTE ON PROCEDURE app.work(int, app.mood) TO @reader@;
REVOKE USAGE ON TYPE app.mood FROM PUBLIC;
GRANT USAGE ON TYPE app.mood, app.pair, app.positive TO @reader@;
GRANT SELECT ON LARGE OBJECT 4711 TO @reader@;
GRANT USAGE ON FOREIGN SERVER elsewhere TO @app@;
GRANT USAGE ON FOREIGN DATA WRAPPER nowhere TO @app@;
ALTER TABLE app.posts OWNER TO @app@;
ALTER FUNCTION app.noargs() OWNER TO @app@;
ALTER TYPE app.pair OWNER TO @app@;
ALTER VIEW app.active OWNER TO @app@;
ALTER SEQUENCE app.loose OWNER TO @app@;
ALTER LARGE OBJECT 4711 OWNER TO @app@;
ALTER AGGREGATE app.total(int) OWNER TO @app@;
ALTER TEXT SEARCH CONFIGURATION app.search OWNER TO @app@;
ALTER STATISTICS app.posts_stats OWNER TO @app@;
ALTER SERVER elsewhere OWNER TO @app@;
GRANT @reader@ TO @app@;
GRANT USAGE, CREATE ON SCHEMA app TO @app@;
