-- An engine's read in one round trip, and less work for each request.

grant create on schema gitstore to gitstore_lookup;
set local role gitstore_lookup;

-- As before; but the use is looked at before it is noted, which is due once a minute and costs more.
create or replace function gitstore.authenticate(secret bytea)
returns table (
    id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid,
    project_rules text, project_created_at timestamptz, project_archived_at timestamptz, project_first_rules text,
    project_file_name text, project_file_names text[], project_activate_invalid boolean
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if exists (
        select from gitstore.access_tokens
        where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
    ) then
        update gitstore.access_tokens set last_used_at = now() where id = (
            select id from gitstore.access_tokens
            where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
            for update skip locked
        );
    end if;
    return query
        select tokens.id, tokens.name, tokens.role, projects.id, projects.slug, projects.name, projects.owner,
            projects.rules, projects.created_at, projects.archived_at, projects.first_rules,
            projects.file_name, projects.file_names, projects.activate_invalid
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;

-- As before; but for a token, which is no user, only its project is looked for.
create or replace function gitstore.visible_projects() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    held constant uuid := gitstore.token();
    me uuid;
begin
    if held is not null then
        return array(
            select project_id from gitstore.access_tokens
            where id = held and revoked_at is null and (expires_at is null or expires_at > now())
        );
    end if;
    me := gitstore.subject();
    return array(
        select id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me
    );
end
$$;

reset role;
revoke create on schema gitstore from gitstore_lookup;

-- A version of a workflow in the project of an access token, and who holds the token; nulls without either. The
-- workflow is named by its id, else by its slug; the version is the one with `number`, else the one that `key` gets in
-- `environment`, else the current one. It has its definition as JSON text if `as_text`, else the bytes of its file;
-- neither if its commit, or its blob, is in `known`, the entity tags that a client has.
--
-- It is called alone in a transaction, whose role and claims it sets, so that row-level security decides what it
-- reads. Its plans are kept for a session, and may be made while the tables are empty: all that it reads is by key.
create function gitstore.read_version(
    in secret bytea, in workflow uuid, in named text, in number integer, in environment text, in key text,
    in as_text boolean, in known text, in patience text,
    out token_id uuid, out token_name text, out token_role text, out project_slug text,
    out id uuid, out workflow_id uuid, out project_id uuid, out version_number integer, out state text,
    out created_at timestamptz, out published_at timestamptz, out commit_sha text, out ref_oid text,
    out tree_sha text, out blob_sha text, out file_name text, out digest text, out valid boolean,
    out invalid_reason text, out message text, out author_name text, out author_email text,
    out published_by text, out external_id uuid, out slug text, out is_current boolean, out node_count integer,
    out edge_count integer, out yanked boolean, out text text, out stored bytea
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    project uuid;
    flow uuid;
    current uuid;
    withdrawn integer[];
    read gitstore.workflow_versions;
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
        select w.id, w.slug, w.current_version_id, w.yanked into flow, slug, current, withdrawn
        from gitstore.workflows w where w.project_id = project and w.slug = named;
    else
        select w.id, w.slug, w.current_version_id, w.yanked into flow, slug, current, withdrawn
        from gitstore.workflows w where w.id = workflow and w.project_id = project;
    end if;
    if number is null and environment is null then
        select * into read from gitstore.workflow_versions v where v.id = current;
    else
        select * into read from gitstore.workflow_versions v
        where v.workflow_id = flow
            and v.version_number = coalesce(number, gitstore.version_in(flow, environment, key));
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
    yanked := read.version_number = any (withdrawn);
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
