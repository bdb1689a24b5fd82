-- Search by an index. Row-level security withholds every operator of text search from an index, since they are not
-- leakproof: a search read all workflows of a project. Here are the words of each workflow, which only
-- gitstore.matching_workflows reads; it looks at one project, and only if the caller may see it.
--
-- Each word has its project before it, so that a search costs the same however many projects use the same words.
create table gitstore.workflow_words (
    workflow_id uuid primary key references gitstore.workflows on delete cascade,
    project_id uuid not null references gitstore.projects,
    words tsvector not null
);
-- Without a list of pending entries, which every search would read.
create index workflow_words_words on gitstore.workflow_words using gin (words) with (fastupdate = off);
create index workflow_words_project on gitstore.workflow_words (project_id);

alter table gitstore.workflow_words enable row level security, force row level security;
create policy upkeep on gitstore.workflow_words to current_user using (true) with check (true);
create policy mirror on gitstore.workflow_words to gitstore_mirror using (true) with check (true);
create policy lookup on gitstore.workflow_words to gitstore_lookup using (true);
grant select, insert, update on gitstore.workflow_words to gitstore_mirror;
grant select on gitstore.workflow_words to gitstore_lookup;

-- Four bytes: with them before each word, the words of a workflow stay below the 1 MiB of a tsvector.
create function gitstore.word_scope(project uuid) returns text
language sql immutable parallel safe as $$
    select left(encode(uuid_send(project), 'base64'), 4)
$$;

create function gitstore.scoped_words(project uuid, words tsvector) returns tsvector
language sql immutable parallel safe as $$
    select array_to_tsvector(array(
        select gitstore.word_scope(project) || word from unnest(tsvector_to_array(words)) as word
        where octet_length(word) < 2040))  -- a word of a tsvector has at most 2,046 bytes
$$;

-- As gitstore.searched.
create function gitstore.scoped_search(project uuid, content text) returns tsquery
language sql immutable parallel safe as $$
    select string_agg('''' || gitstore.word_scope(project) || word || ''':*', ' & ')::tsquery
    from unnest(tsvector_to_array(gitstore.words(content))) as word
    where octet_length(word) < 2040
$$;

-- The words of a workflow, and the labels of its draft, else of its current version, else of its latest.
create function gitstore.renew_words() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
    changed uuid[];
begin
    if tg_level = 'ROW' then
        changed := array[new.id];
    elsif tg_op = 'INSERT' then
        changed := array(select distinct workflow_id from new_rows);
    else
        changed := array(
            select distinct n.workflow_id from new_rows n left join old_rows o on o.id = n.id
            where o.id is null or (n.labels, n.state) is distinct from (o.labels, o.state));
    end if;
    if changed = '{}' then
        return null;
    end if;
    insert into gitstore.workflow_words as stored (workflow_id, project_id, words)
    select w.id, w.project_id, gitstore.scoped_words(w.project_id, w.words || coalesce(
        (select v.labels from gitstore.workflow_versions v where v.workflow_id = w.id and v.state = 'draft'),
        (select v.labels from gitstore.workflow_versions v where v.id = w.current_version_id),
        (select v.labels from gitstore.workflow_versions v
         where v.workflow_id = w.id and v.version_number = w.latest_number),
        ''::tsvector))
    from gitstore.workflows w where w.id = any (changed)
    on conflict (workflow_id) do update set words = excluded.words where stored.words <> excluded.words;
    return null;
end
$$;

create trigger words_of_new after insert on gitstore.workflow_versions
    referencing new table as new_rows
    for each statement execute function gitstore.renew_words();
create trigger words_of_changed after update on gitstore.workflow_versions
    referencing old table as old_rows new table as new_rows
    for each statement execute function gitstore.renew_words();
create trigger words_of_new after insert on gitstore.workflows
    for each row execute function gitstore.renew_words();
create trigger words_of_changed after update on gitstore.workflows
    for each row when (
        (old.words, old.current_version_id, old.latest_number)
            is distinct from (new.words, new.current_version_id, new.latest_number))
    execute function gitstore.renew_words();

insert into gitstore.workflow_words (workflow_id, project_id, words)
select w.id, w.project_id, gitstore.scoped_words(
    w.project_id, w.words || coalesce(draft.labels, current.labels, latest.labels, ''::tsvector))
from gitstore.workflows w
left join gitstore.workflow_versions current on current.id = w.current_version_id
left join gitstore.workflow_versions draft on draft.workflow_id = w.id and draft.state = 'draft'
left join gitstore.workflow_versions latest
    on latest.workflow_id = w.id and latest.version_number = w.latest_number;

-- The workflows of a project with all words that begin as those of `content`: none unless the caller may see the
-- project, and null if there are more than `most`. It may be planned while the table is empty, hence no scan of it.
create function gitstore.matching_workflows(project uuid, content text, most integer) returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = on as $$
declare
    query constant tsquery := gitstore.scoped_search(project, content);
    matching uuid[];
begin
    if query is null or project <> all (gitstore.visible_projects()) then
        return '{}';
    end if;
    matching := array(
        select workflow_id from gitstore.workflow_words where words @@ query and project_id = project
        limit most + 1);
    return case when cardinality(matching) <= most then matching end;
end
$$;
revoke execute on function gitstore.matching_workflows(uuid, text, integer) from public;
grant execute on function gitstore.matching_workflows(uuid, text, integer) to gitstore_user;
grant create on schema gitstore to gitstore_lookup;
alter function gitstore.matching_workflows(uuid, text, integer) owner to gitstore_lookup;
revoke create on schema gitstore from gitstore_lookup;
