-- Sources: repositories that a project follows, or that follow it. What has to be done is a row that is due
-- (`due_at`); who does it holds a lease (`claimed_until`), so that a worker that was killed is replaced.

create table gitstore.sources (
    id uuid primary key,
    project_id uuid not null references gitstore.projects,
    url text not null,                          -- http(s), without a user in it
    forge text not null check (forge in ('github', 'gitea', 'forgejo', 'gitlab', 'bitbucket', 'any')),
    layout text not null check (layout in ('refs', 'folders')),
    direction text not null check (direction in ('pull', 'push', 'both')),
    poll_seconds integer not null check (poll_seconds between 10 and 86400),
    paused boolean not null default false,
    has_credential boolean not null,
    sealed_credential text,                     -- user and password; sealed, as the secret of its webhook
    sealed_secret text not null,
    created_at timestamptz not null default now(),
    due_at timestamptz not null default now(),
    full_sync boolean not null default true,    -- look at everything again, also at what is known to diverge
    claim uuid,
    claimed_until timestamptz,
    tried_at timestamptz,
    succeeded_at timestamptz,
    failures integer not null default 0,        -- in a row
    last_error text,
    report jsonb not null default '{}',         -- what the last sync that succeeded brought
    constraint sources_url_key unique (project_id, url),
    constraint sources_project_key unique (id, project_id)
);
create index sources_due on gitstore.sources (due_at) where not paused;

-- Which deliveries of webhooks have been taken, so that one that is sent again does nothing.
create table gitstore.receipts (
    source_id uuid not null,
    project_id uuid not null,
    delivery text collate "C" not null,
    event text not null,
    received_at timestamptz not null default now(),
    primary key (source_id, delivery),
    foreign key (source_id, project_id) references gitstore.sources (id, project_id) on delete cascade
);
create index receipts_received on gitstore.receipts (received_at);

-- What of the upstream means something here, as it was last seen: so that what vanished there is noticed, and
-- a draft that was discarded here does not come back by itself.
create table gitstore.upstream_refs (
    source_id uuid not null,
    project_id uuid not null,
    ref text collate "C" not null,
    oid text not null,
    primary key (source_id, ref),
    foreign key (source_id, project_id) references gitstore.sources (id, project_id) on delete cascade
);

-- Where the two sides have something different under one name, and nobody overwrites anything.
create table gitstore.divergences (
    id uuid primary key default gen_random_uuid(),
    source_id uuid not null,
    project_id uuid not null,
    ref text collate "C" not null,
    slug text collate "C" not null,
    version_number integer,                     -- null for a draft
    ours text,                                  -- what the ref holds; null where it is not there
    theirs text,
    code text not null,
    reason text not null,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    decision text check (decision in ('theirs')),   -- of a person, to be carried out by the next sync
    decided_by text,
    resolved_at timestamptz,
    resolution text check (resolution in ('theirs', 'ours', 'gone')),
    check ((resolved_at is null) = (resolution is null)),
    foreign key (source_id, project_id) references gitstore.sources (id, project_id) on delete cascade
);
create unique index divergences_open_key on gitstore.divergences (source_id, ref) where resolved_at is null;
create index divergences_source on gitstore.divergences (source_id, first_seen_at);

-- Nobody but the mirror, which syncs, reads what is sealed; of the rest, owners see and change their own.
grant select (id, project_id, url, forge, layout, direction, poll_seconds, paused, has_credential, created_at,
        due_at, full_sync, claimed_until, tried_at, succeeded_at, failures, last_error, report),
    insert (id, project_id, url, forge, layout, direction, poll_seconds, has_credential, sealed_credential,
        sealed_secret),
    update (forge, layout, direction, poll_seconds, paused, has_credential, sealed_credential, sealed_secret,
        due_at, full_sync),
    delete
    on gitstore.sources to gitstore_user;
grant select, update (decision, decided_by, resolved_at, resolution) on gitstore.divergences to gitstore_user;

grant select, update on gitstore.sources to gitstore_mirror;
grant select, insert, delete on gitstore.receipts to gitstore_mirror;
grant select, insert, update, delete on gitstore.upstream_refs to gitstore_mirror;
grant select, insert, update on gitstore.divergences to gitstore_mirror;

do $$
declare
    this text;
begin
    foreach this in array array['sources', 'receipts', 'upstream_refs', 'divergences'] loop
        execute format('alter table gitstore.%I enable row level security, force row level security', this);
        execute format('create policy upkeep on gitstore.%I to current_user using (true) with check (true)',
                       this);
        execute format('create policy mirror on gitstore.%I to gitstore_mirror using (true) with check (true)',
                       this);
    end loop;
    foreach this in array array['sources', 'divergences'] loop
        execute format('create policy owned on gitstore.%I for select '
                       'using (project_id = any ((select gitstore.owned_projects())::uuid[]))', this);
        execute format('create policy changed on gitstore.%I for update to gitstore_user '
                       'using (project_id = any ((select gitstore.owned_projects())::uuid[]))', this);
    end loop;
end
$$;

create policy made on gitstore.sources for insert to gitstore_user
    with check (project_id = any ((select gitstore.owned_projects())::uuid[]));
create policy removed on gitstore.sources for delete to gitstore_user
    using (project_id = any ((select gitstore.owned_projects())::uuid[]));
