-- Two more states of a version, so that no row is ever deleted. Other tables may refer to rows of workflows and
-- workflow_versions by foreign keys: `gitstore rebuild` updates the rows that differ and deletes none.
--
--   lost        published, and Git has it no more (`gitstore rebuild --accept-git`); its number stays taken
--   discarded   a draft that was discarded; the row is used again by the next draft with that number
--
-- Both remember what Git does not call for: they are the rows that can't be made again from Git alone.
alter table gitstore.workflow_versions
    drop constraint workflow_versions_state_check,
    drop constraint workflow_versions_published_check,
    add constraint workflow_versions_state_check
        check (state in ('draft', 'published', 'lost', 'discarded')),
    add constraint workflow_versions_published_check check (
        (state in ('published', 'lost')) = (published_at is not null)
        and (published_at is null) = (published_by is null));

-- A lost version stays as it was published. Only upkeep by the owner sets this state, and clears it.
drop trigger published_stays on gitstore.workflow_versions;
create trigger published_stays before update or delete on gitstore.workflow_versions
    for each row when (old.state in ('published', 'lost')) execute function gitstore.refuse_change();

revoke delete on gitstore.workflow_versions from gitstore_mirror;
