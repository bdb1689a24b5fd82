-- What may change about a version after its publication, derived from the ledgers: rows of workflow_versions never
-- change. A row exists for each version that was yanked, titled or given notes, even if all of it was taken back.
create table gitstore.version_states (
    workflow_id uuid not null,
    version_number integer not null check (version_number > 0),
    project_id uuid not null references gitstore.projects,
    yanked_at timestamptz,
    yanked_by text,
    yank_reason text,
    title text,
    notes text,
    annotated_at timestamptz,
    annotated_by text,
    primary key (workflow_id, version_number),
    foreign key (workflow_id, project_id) references gitstore.workflows (id, project_id),
    check ((yanked_at is null) = (yanked_by is null) and (yanked_at is null) = (yank_reason is null)),
    check ((annotated_at is null) = (annotated_by is null))
);
create index version_states_project on gitstore.version_states (project_id);
create index version_states_workflow on gitstore.version_states (workflow_id, project_id);

grant select on gitstore.version_states to gitstore_user;
grant select, insert, update, delete on gitstore.version_states to gitstore_mirror;

alter table gitstore.version_states enable row level security, force row level security;
do $$
begin
    execute 'create policy upkeep on gitstore.version_states to current_user using (true) with check (true)';
end
$$;
create policy mirror on gitstore.version_states to gitstore_mirror using (true) with check (true);
create policy visible on gitstore.version_states for select to gitstore_user
    using (project_id = any ((select gitstore.visible_projects())::uuid[]));

-- As before, with what may have changed about the version, and whether its workflow is archived.
--
-- A version of a workflow in the project of an access token, and who holds the token; nulls without either. The
-- workflow is named by its id, else by its slug; the version is the one with `number`, else the one that `key` gets in
-- `environment`, else the current one. It has its definition as JSON text if `as_text`, else the bytes of its file;
-- neither if its commit, or its blob, is in `known`, the entity tags that a client has.
--
-- It is called alone in a transaction, whose role and claims it sets, so that row-level security decides what it
-- reads. Its plans are kept for a session, and may be made while the tables are empty: all that it reads is by key.
--
-- The pointer of an environment is read by a statement of this function, whose plan is kept for a session; `version_in`,
-- which Postgres plans at each call, is called only where two versions have weights.
drop function gitstore.read_version(bytea, uuid, text, integer, text, text, boolean, text, text);
create function gitstore.read_version(
    in secret bytea, in workflow uuid, in named text, in number integer, in environment text, in key text,
    in as_text boolean, in known text, in patience text,
    out token_id uuid, out token_name text, out token_role text, out project_slug text,
    out id uuid, out workflow_id uuid, out project_id uuid, out version_number integer, out state text,
    out created_at timestamptz, out published_at timestamptz, out commit_sha text, out ref_oid text,
    out tree_sha text, out blob_sha text, out file_name text, out digest text, out valid boolean,
    out invalid_reason text, out message text, out author_name text, out author_email text,
    out published_by text, out external_id uuid, out slug text, out is_current boolean, out node_count integer,
    out edge_count integer, out yanked boolean, out yanked_at timestamptz, out title text, out notes text,
    out archived boolean, out text text, out stored bytea
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    project uuid;
    flow uuid;
    current uuid;
    read gitstore.workflow_versions;
    wanted integer := number;
    other integer;
    done text;
begin
    done := set_config('lock_timeout', patience, true);
    done := set_config('role', 'gitstore_user', true);
    select held.id, held.name, held.role, held.project_slug, held.project_id
    into token_id, token_name, token_role, project_slug, project
    from gitstore.authenticate(secret) held;
    if project is null then
        return;
    end if;
    done := set_config('request.jwt.claims', '{"gitstore_token": "' || token_id || '"}', true);
    if workflow is null then
        select w.id, w.slug, w.current_version_id, w.archived into flow, slug, current, archived
        from gitstore.workflows w where w.project_id = project and w.slug = named;
    else
        select w.id, w.slug, w.current_version_id, w.archived into flow, slug, current, archived
        from gitstore.workflows w where w.id = workflow and w.project_id = project;
    end if;
    if number is null and environment is not null then
        select e.version_number, e.second_number into wanted, other
        from gitstore.environments e where e.workflow_id = flow and e.name = environment;
        if other is not null then
            wanted := gitstore.version_in(flow, environment, key);
        end if;
    end if;
    if number is null and environment is null then
        select * into read from gitstore.workflow_versions v where v.id = current;
    else
        select * into read from gitstore.workflow_versions v
        where v.workflow_id = flow and v.version_number = wanted;
    end if;
    id := read.id;
    workflow_id := read.workflow_id;
    project_id := read.project_id;
    version_number := read.version_number;
    state := read.state;
    created_at := read.created_at;
    published_at := read.published_at;
    commit_sha := read.commit_sha;
    ref_oid := read.ref_oid;
    tree_sha := read.tree_sha;
    blob_sha := read.blob_sha;
    file_name := read.file_name;
    digest := read.digest;
    valid := read.valid;
    invalid_reason := read.invalid_reason;
    message := read.message;
    author_name := read.author_name;
    author_email := read.author_email;
    published_by := read.published_by;
    external_id := read.external_id;
    is_current := (read.id = current) is true;
    select s.yanked_at, s.title, s.notes into yanked_at, title, notes
    from gitstore.version_states s where s.workflow_id = flow and s.version_number = read.version_number;
    yanked := yanked_at is not null;
    node_count := read.node_count;
    edge_count := read.edge_count;
    if as_text and strpos(known, commit_sha) = 0 and read.definition is not null then
        text := coalesce(read.definition_text, read.definition::text);
    elsif not as_text and strpos(known, blob_sha) = 0 then
        select o.bytes into stored from gitstore.git_objects o
        where o.project_id = read.project_id and o.oid = read.blob_sha and o.kind = 'blob';
    end if;
end
$$;
revoke execute on function
    gitstore.read_version(bytea, uuid, text, integer, text, text, boolean, text, text) from public;
grant execute on function gitstore.read_version(bytea, uuid, text, integer, text, text, boolean, text, text) to gitstore_user;
