-- The definition as JSON in the order of its file, which jsonb does not keep, and with its numbers (1e21). Null in
-- rows of older releases, until `gitstore rebuild` writes it.
alter table gitstore.workflow_versions add column definition_text text;
