-- The versions as MeshHook's own table has them, for a front end that reads it by PostgREST. It has the rights of
-- its reader (security_invoker), so that row-level security decides.
create view gitstore.meshhook_versions with (security_invoker = true) as
select id, workflow_id, project_id, version_number as version, state as status,
       (id = (select w.current_version_id from gitstore.workflows w where w.id = v.workflow_id)) is true as is_current,
       message as description, created_at,
       jsonb_build_object('nodes', definition -> 'nodes', 'edges', coalesce(definition -> 'edges', '[]')) as definition
from gitstore.workflow_versions v
where state <> 'discarded';

grant select on gitstore.meshhook_versions to gitstore_user;
