-- Deliveries that have ended, with their attempts, are kept for GITSTORE_KEEP_DAYS and then forgotten, by the
-- worker, in slices (webhooks/retention.py). Until then what an attempt met is not unsaid, as before.

create index deliveries_ended on gitstore.deliveries (ended_at) where ended_at is not null;
create index deliveries_kept_back on gitstore.deliveries (created_at) where state = 'pending' and due_at is null;

grant delete on gitstore.deliveries, gitstore.delivery_attempts to gitstore_mirror;
grant update on gitstore.receipts to gitstore_mirror;   -- to lock them

-- Whatever the setting says, nothing that ended today. (Policies of a role are its members', too, and the
-- owner is one: it is for the trigger to tell it no.)
create policy ended on gitstore.deliveries as restrictive for delete to gitstore_mirror
    using (current_user <> 'gitstore_mirror' or ended_at < now() - interval '23 hours');
create policy ended on gitstore.delivery_attempts as restrictive for delete to gitstore_mirror
    using (current_user <> 'gitstore_mirror' or exists (
        select from gitstore.deliveries d
        where d.id = delivery_id and d.ended_at < now() - interval '23 hours'));

drop trigger recorded_stays on gitstore.delivery_attempts;
create trigger recorded_stays before update on gitstore.delivery_attempts
    for each row execute function gitstore.refuse_change();
create trigger recorded_is_kept before delete on gitstore.delivery_attempts
    for each row when (current_user <> 'gitstore_mirror') execute function gitstore.refuse_change();
