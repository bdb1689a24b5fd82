-- The numbers of nodes and edges of a version, for lists that do not read definitions. Null where the definition
-- has no such list, as in a project without MeshHook's rules.
alter table gitstore.workflow_versions
    add column node_count integer generated always as (
        case when jsonb_typeof(definition -> 'nodes') = 'array' then jsonb_array_length(definition -> 'nodes') end
    ) stored,
    add column edge_count integer generated always as (
        case when jsonb_typeof(definition -> 'edges') = 'array' then jsonb_array_length(definition -> 'edges') end
    ) stored;
