-- A page of the history of a workflow in the project of an access token, newest first, and who holds the token: as
-- gitstore.read_version; of the versions, and the open draft, with numbers below `below`.
create function gitstore.read_history(
    secret bytea, workflow uuid, named text, below bigint, most integer, patience text
)
returns table (
    token_name text, token_role text, project_slug text,
    id uuid, workflow_id uuid, project_id uuid, version_number integer, state text,
    created_at timestamptz, published_at timestamptz, commit_sha text, ref_oid text,
    tree_sha text, blob_sha text, file_name text, digest text, valid boolean,
    invalid_reason text, message text, author_name text, author_email text,
    published_by text, external_id uuid, slug text, is_current boolean, archived boolean,
    yanked_at timestamptz, title text, notes text, node_count integer, edge_count integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
#variable_conflict use_column
declare
    held record;
    flow record;
    done text;
begin
    done := set_config('lock_timeout', patience, true);
    done := set_config('role', 'gitstore_user', true);
    select h.id, h.name, h.role, h.project_slug, h.project_id into held from gitstore.authenticate(secret) h;
    if held.project_id is null then
        return;
    end if;
    done := set_config('request.jwt.claims', '{"gitstore_token": "' || held.id || '"}', true);
    if workflow is null then
        select w.id, w.slug, w.current_version_id, w.archived into flow
        from gitstore.workflows w where w.project_id = held.project_id and w.slug = named;
    else
        select w.id, w.slug, w.current_version_id, w.archived into flow
        from gitstore.workflows w where w.id = workflow and w.project_id = held.project_id;
    end if;
    return query
        select held.name, held.role, held.project_slug,
            v.id, v.workflow_id, v.project_id, v.version_number, v.state,
            v.created_at, v.published_at, v.commit_sha, v.ref_oid, v.tree_sha, v.blob_sha, v.file_name, v.digest,
            v.valid, v.invalid_reason, v.message, v.author_name, v.author_email, v.published_by, v.external_id,
            flow.slug, (v.id = flow.current_version_id) is true, flow.archived,
            s.yanked_at, s.title, s.notes, v.node_count, v.edge_count
        from gitstore.workflow_versions v
        left join gitstore.version_states s
            on s.workflow_id = flow.id and s.version_number = v.version_number
        where v.workflow_id = flow.id and v.version_number < below and v.state <> 'discarded'
        order by v.version_number desc limit most;
end
$$;
revoke execute on function gitstore.read_history(bytea, uuid, text, bigint, integer, text) from public;
grant execute on function gitstore.read_history(bytea, uuid, text, bigint, integer, text) to gitstore_user;
