-- What of an upstream concerns the project: the workflows whose slugs match a glob, with their drafts or without,
-- in both directions. Sources that exist keep syncing drafts; new ones do so only if asked.
alter table gitstore.sources
    add column workflows text[] not null default '{*}' check (cardinality(workflows) between 1 and 50),
    add column drafts boolean not null default true;
alter table gitstore.sources alter column drafts set default false;

-- The secret of a source's webhook, and the one before it while a rotation lasts. gitstore_user reads neither, and
-- so replaces a secret by a function of the owner, which asks who calls. Without an overlap, the previous secret is
-- forgotten.
alter table gitstore.sources
    add column sealed_previous_secret text,
    add column previous_secret_until timestamptz;
grant select (workflows, drafts, previous_secret_until), insert (workflows, drafts), update (workflows, drafts)
    on gitstore.sources to gitstore_user;
revoke update (sealed_secret) on gitstore.sources from gitstore_user;

create function gitstore.replace_source_secret(project uuid, source uuid, sealed text, overlap interval)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    update gitstore.sources
    set sealed_secret = sealed,
        sealed_previous_secret = case when overlap > interval '0' then sealed_secret end,
        previous_secret_until = case when overlap > interval '0' then now() + overlap end
    where project_id = project and id = source and (
        project_id = any (gitstore.owned_projects())
        or session_user = current_user and current_setting('role') = 'none');
end
$$;
revoke execute on function gitstore.replace_source_secret(uuid, uuid, text, interval) from public;
grant execute on function gitstore.replace_source_secret(uuid, uuid, text, interval) to gitstore_user;
