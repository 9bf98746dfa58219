-- After the rows: triggers, row-level security, grants.
BEGIN;
CREATE TRIGGER servers_updated_at BEFORE UPDATE ON public.servers FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER profiles_updated_at BEFORE UPDATE ON public.profiles FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER servers_activity AFTER INSERT OR UPDATE OR DELETE ON public.servers FOR EACH ROW EXECUTE FUNCTION public.log_activity();
CREATE TRIGGER on_auth_user_created AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.handle_new_user();
ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created; -- sign-up is closed

ALTER TABLE public.servers ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.power_specs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.user_roles ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.user_filter_preferences ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.activity_logs ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Everybody who is signed in sees servers" ON public.servers FOR SELECT TO @authenticated@, @readonly@ USING (true);
CREATE POLICY "Operators change servers" ON public.servers TO @authenticated@
  USING (public.has_any_role(auth.uid(), 'operator', 'admin')) WITH CHECK (public.has_any_role(auth.uid(), 'operator', 'admin'));
CREATE POLICY power_read ON public.power_specs FOR SELECT TO @authenticated@, @readonly@ USING (true);
CREATE POLICY power_write ON public.power_specs TO @authenticated@ USING (public.is_admin());
CREATE POLICY own_profile ON public.profiles TO @authenticated@ USING (id = auth.uid()) WITH CHECK (id = auth.uid());
CREATE POLICY own_roles ON public.user_roles FOR SELECT TO @authenticated@ USING (user_id = auth.uid() OR public.is_admin());
CREATE POLICY own_preferences ON public.user_filter_preferences TO @authenticated@ USING (user_id = auth.uid());
CREATE POLICY admins_only ON public.activity_logs AS RESTRICTIVE FOR SELECT USING (public.is_admin());
CREATE POLICY service_reads_everything ON public.activity_logs FOR SELECT TO @service@ USING (true);

GRANT USAGE ON SCHEMA auth TO @service@;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO @readonly@, @authenticated@;
REVOKE SELECT ON public.user_roles, public.user_filter_preferences, public.activity_logs FROM @readonly@;
REVOKE SELECT ON public.profiles FROM @readonly@;
GRANT SELECT (id, full_name, department) ON public.profiles TO @readonly@;
GRANT INSERT, UPDATE, DELETE ON public.servers, public.power_specs, public.user_filter_preferences TO @authenticated@;
GRANT UPDATE (full_name, locale) ON public.profiles TO @authenticated@;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO @authenticated@;
GRANT ALL ON ALL TABLES IN SCHEMA auth TO @service@;
GRANT SELECT ON public.activity_logs TO @service@ WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION public.check_password(public.citext, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.check_password(public.citext, text) TO @service@;
REVOKE EXECUTE ON PROCEDURE public.prune_activity_logs(interval) FROM PUBLIC;
REVOKE USAGE ON TYPE public.app_role FROM PUBLIC;
GRANT USAGE ON TYPE public.app_role TO @authenticated@, @service@;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO @readonly@;
COMMIT;
RESET ROLE;
ANALYZE;
