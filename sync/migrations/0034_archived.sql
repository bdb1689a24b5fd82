-- MeshHook's front end, which reads this view by PostgREST, shows no archived workflows.
create or replace view gitstore.meshhook_versions with (security_invoker = true) as
select id, workflow_id, project_id, version_number as version, state as status,
       (id = (select w.current_version_id from gitstore.workflows w where w.id = v.workflow_id)) is true as is_current,
       message as description, created_at,
       jsonb_build_object('nodes', definition -> 'nodes', 'edges', coalesce(definition -> 'edges', '[]')) as definition
from gitstore.workflow_versions v
where state <> 'discarded'
    and not exists (select from gitstore.workflows w where w.id = v.workflow_id and w.archived);
