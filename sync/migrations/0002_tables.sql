-- The tables. Every row of workflows and workflow_versions is a function of Git and can be made again from
-- it alone (`gitstore rebuild` deletes and refills both), so no other table may refer to their rows by a
-- foreign key, and no column of theirs has a default. Every key that is unique includes the project, or an
-- id made from it: what one tenant has must not show in what another may write.

create table gitstore.projects (
    id uuid primary key,
    slug text collate "C" not null constraint projects_slug_key unique,
    name text not null,
    owner uuid,                                 -- a user, where there are users
    rules text not null check (rules in ('meshhook', 'any')),
    created_at timestamptz not null default now()
);
create index projects_owner on gitstore.projects (owner);

create table gitstore.members (
    project_id uuid not null references gitstore.projects,
    user_id uuid not null,
    role text not null check (role in ('viewer', 'editor', 'publisher', 'owner')),
    primary key (project_id, user_id)
);
create index members_user on gitstore.members (user_id);

create table gitstore.access_tokens (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references gitstore.projects,
    name text not null,
    role text not null check (role in ('viewer', 'editor', 'publisher', 'owner')),
    sha256 bytea not null constraint access_tokens_sha256_key unique check (octet_length(sha256) = 32),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index access_tokens_project on gitstore.access_tokens (project_id);

create table gitstore.workflows (
    id uuid primary key,
    project_id uuid not null references gitstore.projects,
    slug text collate "C" not null,
    name text not null,
    description text not null,
    current_version_id uuid,
    held boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    latest_number integer not null,             -- 0 before the first publication
    given_name text,                            -- what the ledger says, before what the definition says
    given_description text,
    draft_commit text,                          -- where the draft's branch stands, open or not
    ledger_oid text,                            -- the newest ledger entry that counts
    constraint workflows_slug_key unique (project_id, slug),
    constraint workflows_project_key unique (id, project_id)
);

create table gitstore.workflow_versions (
    id uuid primary key,
    workflow_id uuid not null,
    project_id uuid not null,
    version_number integer not null check (version_number > 0),
    state text not null check (state in ('draft', 'published')),
    created_at timestamptz not null,
    published_at timestamptz,
    commit_sha text not null,
    ref_oid text not null,                      -- what the tag, or the draft's branch, holds
    tree_sha text not null,
    blob_sha text not null,
    file_name text not null,
    digest text,                                -- null, as definition, where an import does not parse
    definition jsonb,
    valid boolean not null,
    message text not null,
    author_name text not null,
    author_email text not null,
    published_by text,
    -- Also how history is paged: read backwards, it is (workflow_id, version_number desc).
    constraint workflow_versions_number_key unique (workflow_id, version_number),
    constraint workflow_versions_workflow_fkey
        foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id),
    constraint workflow_versions_published_check check (
        (state = 'published') = (published_at is not null) and (published_at is null) = (published_by is null))
);
create unique index workflow_versions_draft_key on gitstore.workflow_versions (workflow_id) where state = 'draft';
create index workflow_versions_project on gitstore.workflow_versions (project_id);

alter table gitstore.workflows add constraint workflows_current_fkey
    foreign key (current_version_id) references gitstore.workflow_versions (id)
    deferrable initially deferred;

create table gitstore.events (
    id uuid primary key,                        -- made from the fact, so that a fact has one event
    project_id uuid not null references gitstore.projects,
    workflow_id uuid not null,
    type text not null,
    created_at timestamptz not null,            -- when it happened
    recorded_at timestamptz not null default now(),
    data jsonb not null
);
create index events_project on gitstore.events (project_id, recorded_at, id);

create table gitstore.audit_log (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references gitstore.projects,
    at timestamptz not null default clock_timestamp(),
    actor_id text not null,                     -- an access token's or a user's id; 'operator' for the CLI
    actor_name text not null,
    door text not null,                         -- http, git, page, cli, worker
    action text not null,
    object text not null,
    remote text,
    request_id text,
    details jsonb not null default '{}'
);
create index audit_log_project on gitstore.audit_log (project_id, at, id);
