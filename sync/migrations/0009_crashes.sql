-- A source or a delivery whose process ends in the middle of the work is retried alone, and given up after
-- three such crashes in a row ("poison"), until an owner asks for it again.

alter table gitstore.sources
    add column crashes integer not null default 0,      -- in a row
    add column poisoned_at timestamptz;                 -- null unless it was given up
create index sources_claimed on gitstore.sources (claimed_until) where claimed_until is not null;
grant select (crashes, poisoned_at), update (crashes, poisoned_at) on gitstore.sources to gitstore_user;

alter table gitstore.deliveries
    add column claimed boolean not null default false,  -- an attempt is under way; due_at is when its lease ends
    add column crashes integer not null default 0,      -- in a row
    drop constraint deliveries_state_check,
    add constraint deliveries_state_check check (state in ('pending', 'succeeded', 'failed', 'poison'));
create index deliveries_crashed on gitstore.deliveries (due_at) where crashes > 0 and due_at is not null;
grant update (claimed, crashes) on gitstore.deliveries to gitstore_user;
