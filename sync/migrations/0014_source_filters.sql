-- What of an upstream concerns the project: the workflows whose slugs match a glob, with their drafts or without,
-- in both directions. Sources that exist keep syncing drafts; new ones do so only if asked.
alter table gitstore.sources
    add column workflows text[] not null default '{*}' check (cardinality(workflows) between 1 and 50),
    add column drafts boolean not null default true;
alter table gitstore.sources alter column drafts set default false;

grant select (workflows, drafts), insert (workflows, drafts), update (workflows, drafts)
    on gitstore.sources to gitstore_user;
