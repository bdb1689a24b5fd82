-- Publications and moves of pointers that are carried out later, in the name of the person who scheduled them. They are
-- neither in Git nor derived from it; what they do is. `due_at` is when a worker has to look at the row again: the time
-- itself, that of another attempt, or the end of a claim; null after the end.
create table gitstore.schedules (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references gitstore.projects,
    workflow_id uuid not null,
    kind text collate "C" not null check (kind in ('publish', 'move', 'promote')),
    at timestamptz not null,
    environment text collate "C",               -- whose pointer moves; `current` for the current version
    source text collate "C",                    -- of a promotion: the environment from which
    draft_commit text collate "C" check (draft_commit ~ '^[0-9a-f]{40}$'),  -- of a publication
    version_number integer check (version_number > 0),  -- of a publication: set by it
    weight integer not null default 100 check (weight between 0 and 100),
    second_number integer check (second_number > 0),
    held boolean not null default false,
    activate boolean not null default true,
    message text not null check (length(message) <= 10000),
    ledger_oid text collate "C" check (ledger_oid ~ '^[0-9a-f]{40}$'),  -- the newest entry when it was made
    author_name text,
    author_email text,
    actor_id uuid not null,
    actor_name text not null,
    actor_kind text collate "C" not null check (actor_kind in ('token', 'user', 'operator')),
    actor_user text,                            -- of a user; users have no rows here
    on_behalf_of text,
    created_at timestamptz not null default now(),
    state text collate "C" not null default 'waiting'
        check (state in ('waiting', 'running', 'done', 'stopped', 'cancelled')),
    due_at timestamptz,
    claim uuid,
    crashes integer not null default 0,
    ended_at timestamptz,
    ended_by text,                              -- who cancelled it
    code text collate "C",                      -- why it was stopped
    reason text,
    check ((actor_kind = 'user') = (actor_user is not null)),
    check ((kind = 'publish') = (draft_commit is not null)),
    check ((kind = 'publish') = (environment is null)),
    check ((kind = 'promote') = (source is not null)),
    check (kind = 'publish' or version_number is not null),
    check ((state in ('waiting', 'running')) = (due_at is not null)),
    foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id)
);
create index schedules_workflow on gitstore.schedules (workflow_id, project_id, at, id);
create index schedules_project on gitstore.schedules (project_id, at, id);
create index schedules_due on gitstore.schedules (due_at) where due_at is not null;
-- A request that is sent again finds its schedule; two different ones at the same moment would have no order.
create unique index schedules_waiting on gitstore.schedules (workflow_id, coalesce(environment, ''), at)
    where state in ('waiting', 'running');

grant select on gitstore.schedules to gitstore_user;
grant insert (id, project_id, workflow_id, kind, at, environment, source, draft_commit, version_number, weight,
    second_number, held, activate, message, ledger_oid, author_name, author_email, actor_id, actor_name, actor_kind,
    actor_user, on_behalf_of, due_at) on gitstore.schedules to gitstore_user;
grant update (state, due_at, ended_at, ended_by) on gitstore.schedules to gitstore_user;
grant select, update on gitstore.schedules to gitstore_mirror;

alter table gitstore.schedules enable row level security, force row level security;
do $$
begin
    execute 'create policy upkeep on gitstore.schedules to current_user using (true) with check (true)';
end
$$;
create policy mirror on gitstore.schedules to gitstore_mirror using (true) with check (true);
create policy visible on gitstore.schedules for select to gitstore_user
    using (project_id = any ((select gitstore.visible_projects())::uuid[]));
create policy made on gitstore.schedules for insert to gitstore_user
    with check (actor_id = (select gitstore.actor()) and actor_kind <> 'operator'
        and project_id = any ((select gitstore.visible_projects())::uuid[]));
create policy cancelled on gitstore.schedules for update to gitstore_user
    using (state = 'waiting' and project_id = any ((select gitstore.visible_projects())::uuid[]))
    with check (state = 'cancelled' and project_id = any ((select gitstore.visible_projects())::uuid[]));
