-- What is published does not change, what happened is not unsaid: not for gitstore_mirror, not by mistake as
-- the owner. The owner's `gitstore rebuild` alone comes through, by saying so (gitstore.upkeep) in its
-- transaction; what an owner does by hand is found by `gitstore verify`.

create function gitstore.refuse_change() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op <> 'TRUNCATE' and current_setting('gitstore.upkeep', true) = 'on'
        and current_user = (select pg_get_userbyid(relowner) from pg_class where oid = tg_relid) then
        return case tg_op when 'DELETE' then old else new end;
    end if;
    raise exception '% of %: what is recorded there does not change', lower(tg_op), tg_table_name
        using errcode = 'restrict_violation', constraint = 'immutable', table = tg_table_name;
end
$$;

create trigger published_stays before update or delete on gitstore.workflow_versions
    for each row when (old.state = 'published') execute function gitstore.refuse_change();
create trigger recorded_stays before update or delete on gitstore.events
    for each row execute function gitstore.refuse_change();
create trigger recorded_stays before update or delete on gitstore.audit_log
    for each row execute function gitstore.refuse_change();

create trigger not_truncated before truncate on gitstore.workflow_versions
    for each statement execute function gitstore.refuse_change();
create trigger not_truncated before truncate on gitstore.events
    for each statement execute function gitstore.refuse_change();
create trigger not_truncated before truncate on gitstore.audit_log
    for each statement execute function gitstore.refuse_change();
