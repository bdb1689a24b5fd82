-- Releases of several workflows: a row for each ref refs/releases/<name>, and one for each workflow in it. Both are
-- derived from the commit that the ref holds, and never change.
create table gitstore.releases (
    id uuid primary key,
    project_id uuid not null references gitstore.projects,
    name text collate "C" not null,
    commit_sha text collate "C" not null check (commit_sha ~ '^[0-9a-f]{40}$'),
    environment text collate "C" not null,      -- whose pointers it moved; `current` is the current version
    message text not null,
    released_by text not null,
    released_at timestamptz not null,
    unique (project_id, name)
);
create index releases_newest on gitstore.releases (project_id, released_at, id);

create table gitstore.release_items (
    release_id uuid not null references gitstore.releases,
    workflow_id uuid not null,
    project_id uuid not null references gitstore.projects,
    version_number integer not null check (version_number > 0),
    published boolean not null,                 -- by this release, and not before
    before_number integer check (before_number > 0),    -- what the pointer stood on before; null: on none
    before_held boolean not null,
    primary key (release_id, workflow_id),
    foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id)
);
create index release_items_workflow on gitstore.release_items (workflow_id, project_id);
create index release_items_project on gitstore.release_items (project_id);

grant select on gitstore.releases, gitstore.release_items to gitstore_user;
grant select, insert on gitstore.releases, gitstore.release_items to gitstore_mirror;

do $$
declare
    this text;
begin
    foreach this in array array['releases', 'release_items'] loop
        execute format('alter table gitstore.%I enable row level security, force row level security', this);
        execute format('create policy upkeep on gitstore.%I to current_user using (true) with check (true)', this);
        execute format('create policy mirror on gitstore.%I to gitstore_mirror using (true) with check (true)', this);
        execute format('create policy visible on gitstore.%I for select to gitstore_user '
                       'using (project_id = any ((select gitstore.visible_projects())::uuid[]))', this);
        execute format('create trigger recorded_stays before update or delete on gitstore.%I '
                       'for each row execute function gitstore.refuse_change()', this);
        execute format('create trigger not_truncated before truncate on gitstore.%I '
                       'for each statement execute function gitstore.refuse_change()', this);
    end loop;
end
$$;
