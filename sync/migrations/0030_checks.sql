-- What `gitstore verify` found in order, and what `gitstore rebuild` put in order: a row for each workflow, with a
-- fingerprint of its refs and rows. Nothing refers to these rows; without them, everything is compared again.
create table gitstore.checks (
    project_id uuid not null references gitstore.projects,
    kind text not null check (kind in ('verify', 'rebuild')),
    slug text collate "C" not null,
    fingerprint text collate "C" not null,
    versions integer not null,
    checked_at timestamptz not null default clock_timestamp(),
    primary key (project_id, kind, slug)
);
-- A run that compares everything, from its beginning to its end. One that was killed is continued.
create table gitstore.check_runs (
    project_id uuid not null references gitstore.projects,
    kind text not null check (kind in ('verify', 'rebuild')),
    begun_at timestamptz not null default clock_timestamp(),
    primary key (project_id, kind)
);

do $$
declare
    this text;
begin
    foreach this in array array['checks', 'check_runs'] loop
        execute format('alter table gitstore.%I enable row level security, force row level security', this);
        execute format('create policy upkeep on gitstore.%I to current_user using (true) with check (true)', this);
    end loop;
end
$$;
