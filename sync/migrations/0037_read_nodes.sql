-- A replica cannot note that a token is used, so there authenticate only reads.
grant create on schema gitstore to gitstore_lookup;
set local role gitstore_lookup;

create or replace function gitstore.authenticate(secret bytea)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text,
    project_file_name text, project_file_names text[], project_activate_invalid boolean
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if current_setting('transaction_read_only') = 'off' and exists (
        select from gitstore.access_tokens
        where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
    ) then
        update gitstore.access_tokens set last_used_at = now() where id = (
            select id from gitstore.access_tokens
            where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
            for update skip locked
        );
    end if;
    return query
        select tokens.id, tokens.name, tokens.role, projects.id, projects.slug, projects.name, projects.owner,
            projects.rules, projects.created_at, projects.archived_at, projects.first_rules,
            projects.file_name, projects.file_names, projects.activate_invalid
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;

reset role;
revoke create on schema gitstore from gitstore_lookup;
