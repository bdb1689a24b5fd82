-- The roles that gitstore acts as. None may log in; the user of DATABASE_URL, who owns everything here, is
-- granted each of them, and turns into one for a transaction at a time.
--
--   gitstore_user     a request: sees what row-level security lets its claims see
--   gitstore_mirror   writes rows from Git
--   gitstore_lookup   owns the functions that policies ask; nobody acts as it
--
-- Roles belong to the whole cluster: another database may have made them, or be making them right now.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['gitstore_user', 'gitstore_mirror', 'gitstore_lookup'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
        if exists (select from pg_roles where rolname = wanted and (rolsuper or rolbypassrls)) then
            raise exception 'the role % may bypass row-level security: take that from it', wanted
                using errcode = 'insufficient_privilege';
        end if;
        begin
            -- Whether we may turn into it: from 16 on, membership alone does not tell.
            perform set_config('role', wanted, true);
            perform set_config('role', 'none', true);
        exception when insufficient_privilege then
            execute format('grant %I to %I', wanted, current_user);
        end;
    end loop;
exception when insufficient_privilege then
    raise exception '%', sqlerrm using errcode = 'insufficient_privilege', hint = format(
        'as a superuser: create role gitstore_user nologin; create role gitstore_mirror nologin; '
        'create role gitstore_lookup nologin; '
        'grant gitstore_user, gitstore_mirror, gitstore_lookup to %I', current_user);
end
$$;
