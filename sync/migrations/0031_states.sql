-- What may change about published versions and workflows, as the newest ledger entry states it. Rows of
-- workflow_versions never change, so the numbers of yanked versions are kept with their workflow.
alter table gitstore.workflows
    add column yanked integer[] not null default '{}',
    add column archived boolean not null default false;
