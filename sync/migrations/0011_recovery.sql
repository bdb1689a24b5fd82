-- What Postgres remembers of Git beyond its rows: which version numbers were given out, and the objects of each
-- publication. So a number is never given out twice, and a version that the repository lost can be written back
-- under the same ids. Neither table is a function of the repository, and `gitstore rebuild` empties neither.

-- The highest number that was ever given out. It only grows. No foreign key: a mark may come before the workflow.
create table gitstore.number_marks (
    workflow_id uuid primary key,
    project_id uuid not null references gitstore.projects,
    highest integer not null check (highest > 0)
);
create index number_marks_project on gitstore.number_marks (project_id);

insert into gitstore.number_marks (workflow_id, project_id, highest)
select workflow_id, project_id, max(version_number) from gitstore.workflow_versions
where state in ('published', 'lost') group by workflow_id, project_id;

-- Raw Git objects: each publication's commits, trees, blobs and tag, and every ledger entry. `bytes` is the
-- object without its header; null where it is larger than 1 MiB, which is not kept.
create table gitstore.git_objects (
    project_id uuid not null references gitstore.projects,
    oid text collate "C" not null check (oid ~ '^[0-9a-f]{40}$'),
    kind text not null check (kind in ('commit', 'tree', 'blob', 'tag')),
    bytes bytea check (octet_length(bytes) <= 1048576),
    primary key (project_id, oid)
);

grant select, insert, update on gitstore.number_marks to gitstore_mirror;
grant select, insert on gitstore.git_objects to gitstore_mirror;
grant select on gitstore.git_objects to gitstore_user;

do $$
declare
    this text;
begin
    foreach this in array array['number_marks', 'git_objects'] loop
        execute format('alter table gitstore.%I enable row level security, force row level security', this);
        execute format('create policy upkeep on gitstore.%I to current_user using (true) with check (true)',
                       this);
        execute format('create policy mirror on gitstore.%I to gitstore_mirror using (true) with check (true)',
                       this);
        execute format('create trigger not_truncated before truncate on gitstore.%I '
                       'for each statement execute function gitstore.refuse_change()', this);
    end loop;
end
$$;
-- A viewer may clone the repository, so it may read its objects, too.
create policy visible on gitstore.git_objects for select
    using (project_id = any ((select gitstore.visible_projects())::uuid[]));

create trigger recorded_stays before update or delete on gitstore.git_objects
    for each row execute function gitstore.refuse_change();
create trigger mark_grows before update on gitstore.number_marks
    for each row when (
        new.highest <= old.highest or new.workflow_id <> old.workflow_id or new.project_id <> old.project_id)
    execute function gitstore.refuse_change();
create trigger mark_stays before delete on gitstore.number_marks
    for each row execute function gitstore.refuse_change();
