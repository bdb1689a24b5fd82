-- Fewer rights, and one permissive policy per role and action. What each role may read and write stays the same,
-- but for what is named here.

-- Policies for reading were for everybody, and so stood beside those of the mirror, the lookup and the owner.
-- They are now for gitstore_user, and for roles of a host (Supabase's `authenticated`) that may select already.
-- To let another one read, see docs/operations.md.
revoke execute on function gitstore.visible_projects(), gitstore.owned_projects() from public;
grant execute on function gitstore.visible_projects(), gitstore.owned_projects() to gitstore_user;

do $$
declare
    policy record;
    host record;
begin
    for policy in
        select tablename, policyname from pg_policies
        where schemaname = 'gitstore' and cmd = 'SELECT' and roles = '{public}'
    loop
        execute format('alter policy %I on gitstore.%I to gitstore_user', policy.policyname, policy.tablename)
            || coalesce((
                select string_agg(distinct format(', %I', grantee), '')
                from information_schema.column_privileges
                where table_schema = 'gitstore' and table_name = policy.tablename and privilege_type = 'SELECT'
                    and grantee not in ('PUBLIC', current_user, 'gitstore_user', 'gitstore_mirror', 'gitstore_lookup')
            ), '');
    end loop;
    for host in
        select distinct grantee from information_schema.column_privileges
        where table_schema = 'gitstore' and privilege_type = 'SELECT'
            and grantee not in ('PUBLIC', current_user, 'gitstore_user', 'gitstore_mirror', 'gitstore_lookup')
    loop
        execute format('grant execute on function gitstore.visible_projects(), gitstore.owned_projects() to %I',
                       host.grantee);
    end loop;
end
$$;

-- Update, delete or truncate on a whole table permits `lock table` in every mode. gitstore_user, which has none
-- of them any more, deletes by functions of the owner. They ask who calls: an owner of the project by its claims,
-- or the tables' owner itself.
revoke delete on gitstore.sources, gitstore.subscription_secrets from gitstore_user;
drop policy removed on gitstore.sources;
drop policy retired on gitstore.subscription_secrets;

create function gitstore.delete_source(project uuid, source uuid) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    deleted bigint;
begin
    delete from gitstore.sources
    where project_id = project and id = source and (
        project_id = any (gitstore.owned_projects())
        or session_user = current_user and current_setting('role') = 'none');
    get diagnostics deleted = row_count;
    return deleted;
end
$$;

-- Deletes the secrets of a subscription that are retired, and all but the newest `kept`.
create function gitstore.delete_secrets(subscription uuid, kept integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    deleted bigint;
begin
    delete from gitstore.subscription_secrets
    where subscription_id = subscription
        and (retires_at <= now() or id not in (
            select newest.id from gitstore.subscription_secrets newest
            where newest.subscription_id = subscription order by newest.created_at desc limit kept))
        and (
            project_id = any (gitstore.owned_projects())
            or session_user = current_user and current_setting('role') = 'none');
    get diagnostics deleted = row_count;
    return deleted;
end
$$;
revoke execute on function gitstore.delete_source(uuid, uuid), gitstore.delete_secrets(uuid, integer) from public;
grant execute on function gitstore.delete_source(uuid, uuid), gitstore.delete_secrets(uuid, integer)
    to gitstore_user;

-- Audit rows: the database sets the time, and the name of who acts as gitstore_user. Such a session names itself
-- alone (actor_id is the subject of its claims), and notes nothing that the mirror, the worker or the operator
-- does.
revoke insert on gitstore.audit_log from gitstore_user, gitstore_mirror;
grant insert (project_id, actor_id, actor_name, door, action, object, remote, request_id, details)
    on gitstore.audit_log to gitstore_user, gitstore_mirror;
alter policy noted on gitstore.audit_log
    with check (actor_id = (select gitstore.subject())::text
        and project_id = any ((select gitstore.visible_projects())::uuid[])
        and door not in ('worker', 'cli') and action !~ '^(workflow|project)\.');

-- The name of the token of the claims, or the address in the claims of a user.
create function gitstore.subject_name() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce(
        (select name from gitstore.access_tokens where id = gitstore.subject()),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email',
        gitstore.subject()::text);
end
$$;
revoke execute on function gitstore.subject_name() from public;
grant execute on function gitstore.subject_name() to gitstore_user;
grant create on schema gitstore to gitstore_lookup;
alter function gitstore.subject_name() owner to gitstore_lookup;
revoke create on schema gitstore from gitstore_lookup;

create function gitstore.stamp_audit_row() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    new.at := clock_timestamp();
    if current_user = 'gitstore_user' then
        new.actor_name := coalesce(gitstore.subject_name(), new.actor_name);
    end if;
    return new;
end
$$;
create trigger stamped before insert on gitstore.audit_log
    for each row execute function gitstore.stamp_audit_row();

-- An index for each foreign key.
create index workflows_current on gitstore.workflows (current_version_id);
create index workflow_versions_workflow on gitstore.workflow_versions (workflow_id, project_id);
drop index gitstore.subscription_secrets_subscription;
create index subscription_secrets_subscription on gitstore.subscription_secrets (subscription_id, project_id);
create index deliveries_subscription_project on gitstore.deliveries (subscription_id, project_id);
create index delivery_attempts_delivery on gitstore.delivery_attempts (delivery_id, project_id);
create index receipts_source on gitstore.receipts (source_id, project_id);
create index upstream_refs_source on gitstore.upstream_refs (source_id, project_id);
create index divergences_source_project on gitstore.divergences (source_id, project_id);
