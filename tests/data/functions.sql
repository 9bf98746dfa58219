-- Functions and views. Names are schema-qualified or pinned by SET search_path: a restore runs with an empty one.
BEGIN;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
  AS $$ SELECT nullif(current_setting('app.user_id', true), '')::uuid $$;

CREATE FUNCTION public.has_role(_user_id uuid, _role public.app_role) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
  AS $$ SELECT EXISTS (SELECT FROM public.user_roles WHERE user_id = _user_id AND role = _role) $$;

CREATE FUNCTION public.has_any_role(_user_id uuid, VARIADIC _roles public.app_role[]) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS $$ SELECT EXISTS (SELECT FROM public.user_roles WHERE user_id = _user_id AND role = ANY (_roles)) $$;

CREATE FUNCTION public.is_admin() RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT public.has_role(auth.uid(), 'admin') $$;

CREATE FUNCTION public.get_enum_values(enum_name text) RETURNS TABLE (value text, sort real) LANGUAGE sql STABLE
  AS $$
  SELECT e.enumlabel::text, e.enumsortorder
  FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  WHERE n.nspname = 'public' AND t.typname = enum_name
  ORDER BY e.enumsortorder
$$;

CREATE FUNCTION public.table_exists(_schema text, _table text) RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT to_regclass(format('%I.%I', _schema, _table)) IS NOT NULL $$;

CREATE FUNCTION public.column_exists(_schema text, _table text, _column text) RETURNS boolean LANGUAGE sql STABLE
  AS $$
  SELECT EXISTS (
    SELECT FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass(format('%I.%I', _schema, _table)) AND attname = _column AND attnum > 0 AND NOT attisdropped
  )
$$;

CREATE FUNCTION public.normalize_hostname(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  AS $$ SELECT lower(regexp_replace($1, '[^A-Za-z0-9.-]+', '-', 'g')) $$;

CREATE FUNCTION public.hash_token(token text, OUT digest bytea) LANGUAGE sql IMMUTABLE STRICT
  AS $$ SELECT public.digest(token, 'sha256') $$;

CREATE FUNCTION public.check_password(_email public.citext, _password text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
  AS $$ SELECT coalesce((SELECT encrypted_password = crypt(_password, encrypted_password) FROM auth.users WHERE email = _email), false) $$;

CREATE FUNCTION public.set_updated_at() RETURNS trigger LANGUAGE plpgsql
  AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE FUNCTION public.log_activity() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  AS $function$
DECLARE
  -- a dollar-quoted string within a dollar-quoted body
  template CONSTANT text := $message$%s of %s "%s" by $1$message$;
BEGIN
  INSERT INTO public.activity_logs (user_id, action, entity, entity_id, message, details)
  VALUES (
    auth.uid(), lower(TG_OP), TG_TABLE_NAME, coalesce(NEW.id, OLD.id)::text,
    format(template, TG_OP, TG_TABLE_NAME, coalesce(NEW.hostname, OLD.hostname)),
    CASE WHEN TG_OP = 'UPDATE' THEN public.jsonb_diff(to_jsonb(OLD), to_jsonb(NEW)) END
  );
  RETURN NULL;
END
$function$;

CREATE FUNCTION public.jsonb_diff(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
  AS $$ SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}') FROM jsonb_each(b) n WHERE a -> n.key IS DISTINCT FROM n.value $$;

CREATE FUNCTION public.handle_new_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  AS $$
BEGIN
  INSERT INTO profiles (id, full_name) VALUES (NEW.id, coalesce(NEW.raw_user_meta_data ->> 'name', split_part(NEW.email::text, '@', 1)));
  INSERT INTO user_roles (user_id, role) VALUES (NEW.id, 'viewer');
  RETURN NEW;
END
$$;

-- A lexer that looks for COPY at the start of a line without knowing quotes takes this body for data.
CREATE FUNCTION public.import_script(_table regclass) RETURNS text LANGUAGE plpgsql STABLE
  AS $_$
BEGIN
  RETURN format($script$-- written by import_script()
BEGIN;
COPY %s FROM stdin;
a	b\t\\N	it's; "quoted" -- not a comment
\.
COPY public.servers (hostname, serial_number) FROM stdin;
\.
COMMIT; /* not the end
$script$, _table);
END
$_$;

CREATE FUNCTION public.escape_like(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
  AS 'SELECT replace(replace(replace($1, ''\'', ''\\''), ''%'', ''\%''), ''_'', ''\_'')';

CREATE FUNCTION public.rack_free_units(_rack public.rack_code) RETURNS integer LANGUAGE sql STABLE
  AS $$
  SELECT r.total_units - coalesce(sum((s."position").height), 0)::integer
  FROM public.rack_metadata r LEFT JOIN public.servers s ON s.rack = r.rack
  WHERE r.rack = _rack GROUP BY r.total_units
$$;

CREATE FUNCTION public.power_headroom(_rack public.rack_code, reserve numeric DEFAULT 0.2) RETURNS numeric LANGUAGE sql STABLE
  AS $$
  SELECT r.max_power * (1 - reserve) - coalesce(sum(p.max_power), 0)
  FROM public.rack_metadata r LEFT JOIN public.servers s ON s.rack = r.rack LEFT JOIN public.power_specs p ON p.server_id = s.id
  WHERE r.rack = _rack GROUP BY r.max_power
$$;

CREATE FUNCTION public.search_servers(_query text, _limit integer DEFAULT 20) RETURNS SETOF public.servers LANGUAGE sql STABLE ROWS 20
  AS $$
  SELECT * FROM public.servers
  WHERE hostname LIKE ('%' || public.escape_like(_query) || '%')::public.citext OR serial_number ILIKE '%' || public.escape_like(_query) || '%'
  ORDER BY hostname LIMIT _limit
$$;

CREATE FUNCTION public.color_of(_type text, _value text) RETURNS text LANGUAGE sql STABLE
  AS $$ SELECT coalesce((SELECT color FROM public.enum_colors WHERE enum_type = _type AND value = _value), '#9ca3af') $$;

CREATE FUNCTION public.dashboard_summary() RETURNS jsonb LANGUAGE sql STABLE
  AS $$
  SELECT jsonb_build_object('servers', count(*), 'active', count(*) FILTER (WHERE status = 'Active'), 'watts', sum(p.max_power))
  FROM public.servers s LEFT JOIN public.power_specs p ON p.server_id = s.id
$$;

CREATE PROCEDURE public.prune_activity_logs(keep interval DEFAULT '1 year') LANGUAGE sql
  AS $$ DELETE FROM public.activity_logs WHERE at < now() - keep $$;

CREATE AGGREGATE public.longest(text) (SFUNC = textcat, STYPE = text, INITCOND = '');

CREATE VIEW public.server_inventory AS
  SELECT s.id, s.hostname, s.serial_number, s.device_type, s.status, s.allocation, g.vendor, g.model, s.rack, (s."position").unit AS unit,
         r.site, p.max_power, p.redundant
  FROM public.servers s
  LEFT JOIN public.device_glossary g ON g.id = s.device_id
  LEFT JOIN public.rack_metadata r ON r.rack = s.rack
  LEFT JOIN public.power_specs p ON p.server_id = s.id;
COMMENT ON VIEW public.server_inventory IS 'What the list page shows; другие страницы тоже';

CREATE VIEW public.rack_power AS
  SELECT rack, site, count(*) AS servers, sum(max_power) AS max_power FROM public.server_inventory WHERE rack IS NOT NULL GROUP BY rack, site;

CREATE VIEW public."Überblick ""Racks""" AS
  SELECT r.rack AS "Rack", public.rack_free_units(r.rack) AS "freie HE", p.max_power AS "Leistung (W)"
  FROM public.rack_metadata r LEFT JOIN public.rack_power p USING (rack);

CREATE VIEW auth.active_sessions WITH (security_barrier) AS
  SELECT s.id, u.email, s.ip, s.created_at FROM auth.sessions s JOIN auth.users u ON u.id = s.user_id WHERE s.not_after IS NULL OR s.not_after > now();
COMMIT;
