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

-- As before; but without a user, only the token's project is looked for.
create or replace function gitstore.visible_projects() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    me constant uuid := gitstore.subject();
    held constant uuid := gitstore.token();
begin
    if me is null then
        return array(
            select project_id from gitstore.access_tokens
            where id = held and revoked_at is null and (expires_at is null or expires_at > now())
        );
    end if;
    return coalesce(array_agg(visible.id), '{}') from (
        select projects.id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me
        union
        select project_id from gitstore.access_tokens
        where access_tokens.id = held
            and revoked_at is null and (expires_at is null or expires_at > now())
    ) as visible (id);
end
$$;

reset role;
revoke create on schema gitstore from gitstore_lookup;

-- A version of a workflow in the project of an access token, and who holds the token; nulls without either. The
-- workflow is named by its id, else by its slug; the version is the one with `number`, else the one that `key` gets in
-- `environment`, else the current one. It has its definition as JSON text if `as_text`, else the bytes of its file; neither if its commit, or its blob, is in `known`,
-- the entity tags that a client has.
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
    out edge_count integer, out text text, out stored bytea
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    project uuid;
    flow uuid;
    current uuid;
    wanted uuid;
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
        select w.id, w.slug, w.current_version_id into flow, slug, current
        from gitstore.workflows w where w.project_id = project and w.slug = named;
    else
        select w.id, w.slug, w.current_version_id into flow, slug, current
        from gitstore.workflows w where w.id = workflow and w.project_id = project;
    end if;
    wanted := current;
    if number is not null or environment is not null then
        select v.id into wanted
        from gitstore.workflow_versions v
        where v.workflow_id = flow
            and v.version_number = coalesce(number, gitstore.version_in(flow, environment, key));
    end if;
    select v.id, v.workflow_id, v.project_id, v.version_number, v.state, v.created_at, v.published_at, v.commit_sha,
        v.ref_oid, v.tree_sha, v.blob_sha, v.file_name, v.digest, v.valid, v.invalid_reason, v.message,
        v.author_name, v.author_email, v.published_by, v.external_id, (v.id = current) is true, v.node_count,
        v.edge_count,
        case when as_text and strpos(known, v.commit_sha) = 0 and v.definition is not null
            then coalesce(v.definition_text, v.definition::text) end,
        case when not as_text and strpos(known, v.blob_sha) = 0
            then (select o.bytes from gitstore.git_objects o
                  where o.project_id = v.project_id and o.oid = v.blob_sha and o.kind = 'blob') end
    into id, workflow_id, project_id, version_number, state, created_at, published_at, commit_sha,
        ref_oid, tree_sha, blob_sha, file_name, digest, valid, invalid_reason, message,
        author_name, author_email, published_by, external_id, is_current, node_count,
        edge_count, text, stored
    from gitstore.workflow_versions v where v.id = wanted;
end
$$;
revoke execute on function
    gitstore.read_version(bytea, uuid, text, integer, text, text, boolean, text, text) from public;
grant execute on function gitstore.read_version(bytea, uuid, text, integer, text, text, boolean, text, text) to gitstore_user;
