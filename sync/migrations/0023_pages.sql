-- The activity of a workflow includes its divergences, which are few among a project's events.
create index events_diverged on gitstore.events (workflow_id, created_at, id)
    where type = 'workflow.version.diverged';
