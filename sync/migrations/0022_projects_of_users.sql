-- Owners say whether invalid versions of sources become current, and what tells of a project tells that, too.
grant update (activate_invalid) on gitstore.projects to gitstore_user;

-- A user of several projects chooses one by naming a workflow, by any of its ids: its own, that of a version, or
-- one of the system that it was imported from. Ids of another system may be in several projects.
grant select (external_ids) on gitstore.workflows to gitstore_lookup;
grant select (id, project_id, external_id) on gitstore.workflow_versions to gitstore_lookup;
create policy lookup on gitstore.workflow_versions to gitstore_lookup using (true);

drop function gitstore.authenticate(bytea);
drop function gitstore.project_of_user(text, uuid);
grant create on schema gitstore to gitstore_lookup;
set local role gitstore_lookup;

-- Who holds the secret with this SHA-256; no row for one that is unknown, expired or revoked. Noting the use
-- never waits for another session, and is done at most once a minute.
create function gitstore.authenticate(secret bytea)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text,
    project_file_name text, project_file_names text[], project_activate_invalid boolean
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
            projects.rules, projects.created_at, projects.archived_at, projects.first_rules,
            projects.file_name, projects.file_names, projects.activate_invalid
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;

-- The project in which the user of the claims has a role: the one with the slug or id `named`, the one of the
-- workflow that the id `workflow` names, or any one, with whether there are others.
create function gitstore.project_of_user(named text, workflow uuid)
returns table (
    role text, others boolean, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text,
    project_file_name text, project_file_names text[], project_activate_invalid boolean
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    me constant uuid := gitstore.subject();
    visible constant uuid[] := gitstore.visible_projects();
    holding uuid[];
begin
    if workflow is not null then
        holding := array(select project_id from gitstore.workflows where id = workflow);
        if holding = '{}' then
            holding := array(
                select project_id from gitstore.workflow_versions where id = workflow
                union
                select project_id from gitstore.workflow_versions
                where project_id = any (visible) and external_id = workflow
                union
                select project_id from gitstore.workflows
                where project_id = any (visible) and external_ids <> '{}' and external_ids @> array[workflow]);
        end if;
    end if;
    return query
        select case when projects.owner = me then 'owner' else members.role end, count(*) over () > 1,
            projects.id, projects.slug, projects.name, projects.owner, projects.rules, projects.created_at,
            projects.archived_at, projects.first_rules, projects.file_name, projects.file_names,
            projects.activate_invalid
        from gitstore.projects
        left join gitstore.members on members.project_id = projects.id and members.user_id = me
        where projects.id = any (visible) and (projects.owner = me or members.user_id = me)
            and (named is null or projects.slug = named or projects.id::text = lower(named))
            and (workflow is null or projects.id = any (holding))
        limit 1;
end
$$;
revoke execute on function gitstore.authenticate(bytea), gitstore.project_of_user(text, uuid) from public;
grant execute on function gitstore.authenticate(bytea), gitstore.project_of_user(text, uuid) to gitstore_user;

reset role;
revoke create on schema gitstore from gitstore_lookup;
