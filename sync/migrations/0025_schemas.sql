-- The rules `schema`: a project brings a JSON Schema, which its repository keeps.
alter table gitstore.projects drop constraint projects_rules_check;
alter table gitstore.projects
    add constraint projects_rules_check check (rules in ('meshhook', 'any', 'schema')),
    add column checked_schema text;             -- commit of the schema that the rows of drafts were last checked by
grant update (checked_schema) on gitstore.projects to gitstore_mirror;

-- Objects are as large as the definitions that settings allow.
alter table gitstore.git_objects drop constraint git_objects_bytes_check;
