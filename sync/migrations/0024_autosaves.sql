-- What people type in the editor and have not saved: a row per person, workflow and commit that was edited. It is
-- neither in Git nor an event. Only its author sees it. The worker makes it a commit once nobody types any more;
-- `committed` is then that commit, and the texts are empty: an editor that is still open continues from there.
create table gitstore.autosaves (
    project_id uuid not null references gitstore.projects,
    workflow_id uuid not null,
    actor_id uuid not null,
    actor_user text,                            -- of a user, who has no row; null for an access token
    base_commit text collate "C" not null check (base_commit ~ '^[0-9a-f]{40}$'),
    on_draft boolean not null,                  -- whether base_commit was the open draft
    base_version integer not null check (base_version >= 0),    -- the latest version then
    definition text not null,
    message text not null check (length(message) <= 10000),
    saved_at timestamptz not null default now(),
    conflict text,                              -- why it can't become a commit by itself
    committed text collate "C",
    primary key (project_id, workflow_id, actor_id, base_commit),
    foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id)
);
create index autosaves_workflow on gitstore.autosaves (workflow_id, project_id);
create index autosaves_age on gitstore.autosaves (saved_at);

alter table gitstore.autosaves enable row level security, force row level security;
do $$
begin
    execute 'create policy upkeep on gitstore.autosaves to current_user using (true) with check (true)';
end
$$;
create policy own on gitstore.autosaves to gitstore_user
    using (actor_id = (select gitstore.actor()) and project_id = any ((select gitstore.visible_projects())::uuid[]))
    with check (actor_id = (select gitstore.actor())
        and project_id = any ((select gitstore.visible_projects())::uuid[]));
grant select on gitstore.autosaves to gitstore_user;
grant insert (project_id, workflow_id, actor_id, actor_user, base_commit, on_draft, base_version, definition, message)
    on gitstore.autosaves to gitstore_user;
grant update (definition, message, saved_at, conflict) on gitstore.autosaves to gitstore_user;

create function gitstore.delete_autosaves(workflow uuid, commits text[]) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    deleted bigint;
begin
    delete from gitstore.autosaves
    where workflow_id = workflow and actor_id = gitstore.actor() and base_commit = any (commits)
        and project_id = any (gitstore.visible_projects());
    get diagnostics deleted = row_count;
    return deleted;
end
$$;
revoke execute on function gitstore.delete_autosaves(uuid, text[]) from public;
grant execute on function gitstore.delete_autosaves(uuid, text[]) to gitstore_user;
