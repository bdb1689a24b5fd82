-- Members of projects, and the life of a project: it is changed and archived by its owners, who also say who is
-- a member. Requests write members and new projects through functions alone, which keep what no policy can: the
-- last owner of a project stays, and a new project belongs to the user who makes it.

alter table gitstore.projects
    add column archived_at timestamptz,         -- null: it accepts writes
    add column first_rules text,                -- of versions whose ledger entry names none
    add column checked_rules text;              -- that the rows of drafts were last checked by
update gitstore.projects set first_rules = rules, checked_rules = rules;
alter table gitstore.projects
    alter column first_rules set not null,
    alter column checked_rules set not null;
grant update (checked_rules) on gitstore.projects to gitstore_mirror;

alter table gitstore.members add column created_at timestamptz not null default now();

-- Who asks, from the claims: of PostgREST now, or else in its older form, a setting for each claim.
create or replace function gitstore.subject() returns uuid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    claims constant text := nullif(current_setting('request.jwt.claims', true), '');
    sub constant text := case when claims is null then current_setting('request.jwt.claim.sub', true)
        else claims::jsonb ->> 'sub' end;
begin
    return case when sub ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then sub::uuid end;
end
$$;

-- What tells of a project tells all of it, as before.
drop function gitstore.authenticate(bytea);
drop function gitstore.project_of_user(text, uuid);

-- Who holds the secret with this SHA-256; no row for one that is unknown, expired or revoked. Noting the use
-- never waits for another session, and is done at most once a minute.
create function gitstore.authenticate(secret bytea)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text
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
            projects.rules, projects.created_at, projects.archived_at, projects.first_rules
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;

-- The project in which the user of the claims has a role: the one with the slug or id `named`, the one of
-- `workflow`, or any one, with whether there are others.
create function gitstore.project_of_user(named text, workflow uuid)
returns table (
    role text, others boolean, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    me constant uuid := gitstore.subject();
    visible constant uuid[] := gitstore.visible_projects();
begin
    return query
        select case when projects.owner = me then 'owner' else members.role end, count(*) over () > 1,
            projects.id, projects.slug, projects.name, projects.owner, projects.rules, projects.created_at,
            projects.archived_at, projects.first_rules
        from gitstore.projects
        left join gitstore.members on members.project_id = projects.id and members.user_id = me
        where projects.id = any (visible) and (projects.owner = me or members.user_id = me)
            and (named is null or projects.slug = named or projects.id::text = lower(named))
            and (workflow is null or projects.id =
                (select workflows.project_id from gitstore.workflows where workflows.id = workflow))
        limit 1;
end
$$;
revoke execute on function gitstore.authenticate(bytea), gitstore.project_of_user(text, uuid) from public;
grant execute on function gitstore.authenticate(bytea), gitstore.project_of_user(text, uuid) to gitstore_user;
grant create on schema gitstore to gitstore_lookup;
alter function gitstore.authenticate(bytea) owner to gitstore_lookup;
alter function gitstore.project_of_user(text, uuid) owner to gitstore_lookup;
revoke create on schema gitstore from gitstore_lookup;

-- Owners change their projects. A slug is unique across tenants, as it is part of addresses: that one is taken
-- shows, but not by whom.
grant update (slug, name, rules, archived_at) on gitstore.projects to gitstore_user;
create policy changed on gitstore.projects for update to gitstore_user
    using (id = any ((select gitstore.owned_projects())::uuid[]));

-- Requests record what they do to projects, too, but for what an operator alone does.
alter policy noted on gitstore.audit_log
    with check (actor_id = (select gitstore.actor())::text
        and project_id = any ((select gitstore.visible_projects())::uuid[])
        and door not in ('worker', 'cli') and action !~ '^workflow\.' and action <> 'project.losses_accepted');

-- Makes a project of the user who asks, unless they own as many as they may. The lock keeps two requests of one
-- user from both being the last.
create function gitstore.create_project(
    project uuid, new_slug text, new_name text, new_rules text, most integer
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant uuid := gitstore.subject();
begin
    if me is null then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('gitstore projects of ' || me, 0));
    if (select count(*) from gitstore.projects where owner = me) >= most then
        return false;
    end if;
    insert into gitstore.projects (id, slug, name, owner, rules, first_rules, checked_rules)
    values (project, new_slug, new_name, me, new_rules, new_rules, new_rules);
    return true;
end
$$;

-- Each of these answers null if whoever asks may not, false if the project would be left without an owner. The
-- tables' owner may all. Locking the project orders two changes of its members.
create function gitstore.may_change_members(project uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if project = any (gitstore.owned_projects())
        or session_user = current_user and current_setting('role') = 'none' then
        perform from gitstore.projects where id = project for update;
        return found;
    end if;
    return false;
end
$$;

create function gitstore.has_another_owner(project uuid, member uuid) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from gitstore.projects where id = project and owner <> member)
        or exists (select from gitstore.members
            where project_id = project and user_id <> member and role = 'owner');
end
$$;

-- Takes a member's role away. Who owned the project is followed by the oldest of its other owners.
create function gitstore.remove_member(project uuid, member uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not gitstore.may_change_members(project) then
        if member is distinct from gitstore.subject() then
            return null;
        end if;
        perform from gitstore.projects where id = project for update;
    end if;
    if not gitstore.has_another_owner(project, member) and (
            exists (select from gitstore.projects where id = project and owner = member)
            or exists (select from gitstore.members
                where project_id = project and user_id = member and role = 'owner')) then
        return false;
    end if;
    delete from gitstore.members where project_id = project and user_id = member;
    update gitstore.projects set owner = (
        select user_id from gitstore.members where project_id = project and role = 'owner'
        order by created_at, user_id limit 1)
    where id = project and owner = member;
    return true;
end
$$;

create function gitstore.set_member(project uuid, member uuid, new_role text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not gitstore.may_change_members(project) then
        return null;
    end if;
    if new_role = 'owner' and exists (select from gitstore.projects where id = project and owner = member) then
        return true;
    end if;
    if new_role <> 'owner' and not gitstore.remove_member(project, member) then
        return false;
    end if;
    insert into gitstore.members (project_id, user_id, role) values (project, member, new_role)
    on conflict (project_id, user_id) do update set role = excluded.role;
    return true;
end
$$;

-- Makes `member` the one owner that the project's row names; the one before stays an owner.
create function gitstore.transfer_project(project uuid, member uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not gitstore.may_change_members(project) then
        return null;
    end if;
    insert into gitstore.members (project_id, user_id, role)
    select project, owner, 'owner' from gitstore.projects where id = project and owner <> member
    on conflict (project_id, user_id) do update set role = 'owner';
    update gitstore.projects set owner = member where id = project;
    delete from gitstore.members where project_id = project and user_id = member;
    return true;
end
$$;

revoke execute on function gitstore.create_project(uuid, text, text, text, integer),
    gitstore.may_change_members(uuid), gitstore.has_another_owner(uuid, uuid), gitstore.remove_member(uuid, uuid),
    gitstore.set_member(uuid, uuid, text), gitstore.transfer_project(uuid, uuid) from public;
grant execute on function gitstore.create_project(uuid, text, text, text, integer),
    gitstore.remove_member(uuid, uuid), gitstore.set_member(uuid, uuid, text),
    gitstore.transfer_project(uuid, uuid) to gitstore_user;
