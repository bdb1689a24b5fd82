-- The pointers of workflows in the environments of their project, derived from the ledgers. A pointer is on one version,
-- or on two, of which the first has `weight` percent.
create table gitstore.environments (
    workflow_id uuid not null,
    name text collate "C" not null,
    project_id uuid not null references gitstore.projects,
    version_number integer not null check (version_number > 0),
    weight integer not null check (weight between 0 and 100),
    second_number integer check (second_number > 0),
    held boolean not null,
    moved_at timestamptz not null,
    moved_by text not null,
    message text not null,
    ledger_oid text collate "C" not null check (ledger_oid ~ '^[0-9a-f]{40}$'),
    primary key (workflow_id, name),
    foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id)
);
create index environments_project on gitstore.environments (project_id, name);
create index environments_workflow on gitstore.environments (workflow_id, project_id);

grant select on gitstore.environments to gitstore_user;
grant select, insert, update, delete on gitstore.environments to gitstore_mirror;

alter table gitstore.environments enable row level security, force row level security;
do $$
begin
    execute 'create policy upkeep on gitstore.environments to current_user using (true) with check (true)';
end
$$;
-- The version that a caller with `key` gets in an environment; null without a pointer, or without a key where two versions
-- share the callers. See gitstore/environments.py for the choice.
create function gitstore.version_in(workflow uuid, environment text, key text) returns integer
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when e.second_number is null then e.version_number
        when key is null then null
        when (b.signed % 100 + case when b.signed < 0 then 116 else 0 end) % 100 < e.weight then e.version_number
        else e.second_number
    end
    from gitstore.environments e, lateral (
        select ('x' || encode(substr(sha256(convert_to(workflow || '/' || environment || '/' || key, 'UTF8')), 1, 8),
                              'hex'))::bit(64)::bigint as signed
    ) b
    where e.workflow_id = workflow and e.name = environment
$$;
revoke execute on function gitstore.version_in(uuid, text, text) from public;
grant execute on function gitstore.version_in(uuid, text, text) to gitstore_user, gitstore_mirror;

create policy mirror on gitstore.environments to gitstore_mirror using (true) with check (true);
create policy visible on gitstore.environments for select to gitstore_user
    using (project_id = any ((select gitstore.visible_projects())::uuid[]));
