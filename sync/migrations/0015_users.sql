-- Users beside access tokens. A user is the `sub` of the claims; a token has a claim of its own, `gitstore_token`,
-- so that no id of a token is ever taken for a user's, nor the reverse.

grant create on schema gitstore to gitstore_lookup;
grant select (id, project_id) on gitstore.workflows to gitstore_lookup;
create policy lookup on gitstore.workflows to gitstore_lookup using (true);

-- The functions of gitstore_lookup are replaced as their owner.
set local role gitstore_lookup;

-- The access token of the claims. Only the service sets it, as gitstore_user: in the claims of a host's role
-- (Supabase's `authenticated`) it means nothing.
create function gitstore.token() returns uuid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    id constant text := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'gitstore_token';
begin
    return case when current_setting('role') = 'gitstore_user'
        and id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then id::uuid end;
end
$$;

-- Who acts: the token, else the user.
create function gitstore.actor() returns uuid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce(gitstore.token(), gitstore.subject());
end
$$;

create or replace function gitstore.visible_projects() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant uuid := gitstore.subject();
    held constant uuid := gitstore.token();
begin
    return coalesce(array_agg(visible.id), '{}') from (
        select projects.id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me
        union
        select project_id from gitstore.access_tokens
        where access_tokens.id = held
            and revoked_at is null and (expires_at is null or expires_at > now())
    ) as visible (id);
end
$$;

create or replace function gitstore.owned_projects() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant uuid := gitstore.subject();
    held constant uuid := gitstore.token();
begin
    return coalesce(array_agg(owned.id), '{}') from (
        select projects.id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me and role = 'owner'
        union
        select project_id from gitstore.access_tokens
        where access_tokens.id = held and role = 'owner'
            and revoked_at is null and (expires_at is null or expires_at > now())
    ) as owned (id);
end
$$;

-- The name of the token of the claims, or null: a user's name is what the service says, beside the actor_id.
create or replace function gitstore.subject_name() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return (select name from gitstore.access_tokens where id = gitstore.token());
end
$$;

-- The project in which the user of the claims has a role: the one with the slug or id `named`, the one of
-- `workflow`, or any one, with whether there are others.
create function gitstore.project_of_user(named text, workflow uuid)
returns table (
    role text, others boolean, project_id uuid, project_slug text, project_name text, project_owner uuid, project_rules text,
    project_created_at timestamptz
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    me constant uuid := gitstore.subject();
    visible constant uuid[] := gitstore.visible_projects();
begin
    return query
        select case when projects.owner = me then 'owner' else members.role end, count(*) over () > 1,
            projects.id, projects.slug, projects.name, projects.owner, projects.rules, projects.created_at
        from gitstore.projects
        left join gitstore.members on members.project_id = projects.id and members.user_id = me
        where projects.id = any (visible) and (projects.owner = me or members.user_id = me)
            and (named is null or projects.slug = named or projects.id::text = lower(named))
            and (workflow is null or projects.id =
                (select workflows.project_id from gitstore.workflows where workflows.id = workflow))
        limit 1;
end
$$;
revoke execute on function gitstore.project_of_user(text, uuid) from public;
grant execute on function gitstore.project_of_user(text, uuid) to gitstore_user;

reset role;
revoke create on schema gitstore from gitstore_lookup;

alter policy noted on gitstore.audit_log
    with check (actor_id = (select gitstore.actor())::text
        and project_id = any ((select gitstore.visible_projects())::uuid[])
        and door not in ('worker', 'cli') and action !~ '^(workflow|project)\.');
