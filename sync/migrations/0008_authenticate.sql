-- authenticate tells all of the project, too: a request that writes has nothing else to ask for. What it told
-- before, it tells as before, for processes that run while this is applied.

drop function gitstore.authenticate(bytea);

-- Who holds the secret with this SHA-256; no row for one that is unknown, expired or revoked. Noting the use
-- never waits for another session, and is done at most once a minute.
create function gitstore.authenticate(secret bytea)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    update gitstore.access_tokens set last_used_at = now() where id = (
        select id from gitstore.access_tokens
        where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
        for update skip locked
    );
    return query
        select tokens.id, tokens.name, tokens.role, projects.id, projects.slug, projects.name, projects.owner,
            projects.rules, projects.created_at
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;
revoke execute on function gitstore.authenticate(bytea) from public;
grant execute on function gitstore.authenticate(bytea) to gitstore_user;

grant create on schema gitstore to gitstore_lookup;
alter function gitstore.authenticate(bytea) owner to gitstore_lookup;
revoke create on schema gitstore from gitstore_lookup;
