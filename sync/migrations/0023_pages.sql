-- The activity of a workflow includes its divergences, which are few among a project's events.
create index events_diverged on gitstore.events (workflow_id, created_at, id)
    where type = 'workflow.version.diverged';

-- Search by words: of a workflow's slug, name and description, and of the labels of a version's nodes. Punctuation
-- separates words, so that "sync" is found in "order-sync", and "example" in "api.example.org".
create function gitstore.words(content text) returns tsvector
language sql immutable parallel safe as $$
    -- A tsvector has at most 1 MiB.
    select to_tsvector('pg_catalog.simple'::regconfig, translate(
        left(content, 100000), '-_./:@+#&%=?!,;()[]{}<>|*^~`''"\', repeat(' ', 40)))
$$;

-- The query for a text, each word of which is the beginning of one that is sought; null without a word.
create function gitstore.searched(content text) returns tsquery
language sql immutable parallel safe as $$
    select to_tsquery('pg_catalog.simple'::regconfig, string_agg('''' || word || ''':*', ' & '))
    from unnest(tsvector_to_array(gitstore.words(content))) as word
$$;

create function gitstore.node_labels(definition jsonb) returns tsvector
language sql immutable parallel safe as $$
    select gitstore.words(string_agg(label #>> '{}', ' '))
    from jsonb_path_query(definition, '$.nodes[*].data.label') as label
$$;

alter table gitstore.workflows
    add column words tsvector generated always as (
        gitstore.words(slug || ' ' || name || ' ' || description)) stored;
alter table gitstore.workflow_versions
    add column labels tsvector generated always as (gitstore.node_labels(definition)) stored;
