-- Who holds an access token, its project, and whether row-level security shows the project to the holder.
create function gitstore.enter(secret bytea, patience text)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text,
    project_file_name text, project_file_names text[], project_activate_invalid boolean, visible boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    held record;
    done text;
begin
    done := set_config('lock_timeout', patience, true);
    done := set_config('role', 'gitstore_user', true);
    select h.* into held from gitstore.authenticate(secret) h;
    if held.id is null then
        return;
    end if;
    done := set_config('request.jwt.claims', '{"gitstore_token": "' || held.id || '"}', true);
    return query
        select held.id, held.name, held.role, held.project_id, held.project_slug, held.project_name,
            held.project_owner, held.project_rules, held.project_created_at, held.project_archived_at,
            held.project_first_rules, held.project_file_name, held.project_file_names,
            held.project_activate_invalid,
            exists (select from gitstore.projects p where p.id = held.project_id);
end
$$;
revoke execute on function gitstore.enter(bytea, text) from public;
grant execute on function gitstore.enter(bytea, text) to gitstore_user;

-- The position in the log; null where an operator has revoked what it needs.
create function gitstore.position() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    return (select left(pg_walfile_name(lsn), 8) || ':' || lsn from pg_current_wal_lsn() as lsn);
exception when insufficient_privilege then
    return null;
end
$$;
revoke execute on function gitstore.position() from public;
grant execute on function gitstore.position() to gitstore_user, gitstore_mirror;
