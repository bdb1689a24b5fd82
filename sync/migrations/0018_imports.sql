-- Imported versions are recorded as they are, valid or not. An invalid one becomes current only where the project
-- says so; invalid_reason describes its errors, as they were when it was recorded.
alter table gitstore.workflow_versions add column invalid_reason text;
alter table gitstore.projects add column activate_invalid boolean not null default false;

-- Ids in the system that a workflow was imported from: of the rows that became its versions, and of its drafts.
-- The ledger holds them, too. Not unique: the mirror adds what Git says.
alter table gitstore.workflow_versions add column external_id uuid;
alter table gitstore.workflows add column external_ids uuid[] not null default '{}';
create index workflow_versions_external on gitstore.workflow_versions (project_id, external_id)
    where external_id is not null;
create index workflows_external on gitstore.workflows using gin (external_ids)
    where external_ids <> '{}';
