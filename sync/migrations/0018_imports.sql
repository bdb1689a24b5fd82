-- Imported versions are recorded as they are, valid or not. An invalid one becomes current only where the project
-- says so; invalid_reason describes its errors, as they were when it was recorded.
alter table gitstore.workflow_versions add column invalid_reason text;
alter table gitstore.projects add column activate_invalid boolean not null default false;
