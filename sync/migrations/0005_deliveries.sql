-- Webhooks out: who is told of what, and what became of it.
--
-- An event that somebody may want to be told of is put into event_queue in its own transaction; the worker
-- turns it into deliveries, one for each subscription, in the transaction that takes it out of the queue. So
-- none is lost or doubled, and a publish costs the same with one subscription and with a hundred.
--
-- What is due is a row of deliveries with due_at. A worker claims it by moving due_at to where its lease ends.

-- Not every event is about a workflow.
alter table gitstore.events alter column workflow_id drop not null;

create table gitstore.event_queue (
    event_id uuid primary key references gitstore.events
);

create table gitstore.subscriptions (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references gitstore.projects,
    url text not null,
    events text[] not null check (cardinality(events) > 0),
    state text not null default 'active' check (state in ('active', 'paused', 'disabled', 'deleted')),
    reason text,                                -- why it was disabled
    failing_since timestamptz,                  -- null: the last attempt succeeded
    quiet_until timestamptz,                    -- what its Retry-After asked for
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint subscriptions_project_key unique (id, project_id)
);
create index subscriptions_project on gitstore.subscriptions (project_id, created_at, id);

-- Each of those that are not retired yet signs. Sealed with a key that is not in the database.
create table gitstore.subscription_secrets (
    id uuid primary key,
    subscription_id uuid not null,
    project_id uuid not null,
    sealed text not null,
    created_at timestamptz not null default clock_timestamp(),
    retires_at timestamptz,
    constraint subscription_secrets_subscription_fkey
        foreign key (subscription_id, project_id) references gitstore.subscriptions (id, project_id)
);
create index subscription_secrets_subscription on gitstore.subscription_secrets (subscription_id);

create table gitstore.deliveries (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null,
    subscription_id uuid not null,
    event_id uuid not null,                     -- what subscribers see as webhook-id; a test has no row in events
    type text not null,
    data jsonb,                                 -- null: that of the event
    state text not null default 'pending' check (state in ('pending', 'succeeded', 'failed')),
    due_at timestamptz,                         -- null while pending: held, as its subscription is paused
    tries integer not null default 0,           -- since it was created, or asked for again
    attempts integer not null default 0,        -- of all times
    last_status integer,
    last_error text,
    created_at timestamptz not null default now(),
    ended_at timestamptz,
    constraint deliveries_event_key unique (subscription_id, event_id),
    constraint deliveries_project_key unique (id, project_id),
    constraint deliveries_subscription_fkey
        foreign key (subscription_id, project_id) references gitstore.subscriptions (id, project_id),
    constraint deliveries_ended_check check (
        (state = 'pending') = (ended_at is null) and (state = 'pending' or due_at is null))
);
-- What is due, by subscription (to be fair to each) and in all (to know when to wake up).
create index deliveries_due on gitstore.deliveries (subscription_id, due_at) where due_at is not null;
create index deliveries_next on gitstore.deliveries (due_at) where due_at is not null;
create index deliveries_held on gitstore.deliveries (subscription_id) where state = 'pending';
create index deliveries_project on gitstore.deliveries (project_id, created_at desc, id desc);
create index deliveries_subscription on gitstore.deliveries (subscription_id, created_at desc, id desc);

create table gitstore.delivery_attempts (
    delivery_id uuid not null,
    number integer not null,
    project_id uuid not null,
    url text not null,
    started_at timestamptz not null,
    duration_ms integer not null,
    status integer,                             -- null: no answer
    error text,                                 -- null: it was a success
    response text,                              -- the beginning of the answer's body
    primary key (delivery_id, number),
    constraint delivery_attempts_delivery_fkey
        foreign key (delivery_id, project_id) references gitstore.deliveries (id, project_id)
);
create index delivery_attempts_project on gitstore.delivery_attempts (project_id);

grant select on gitstore.subscriptions, gitstore.deliveries, gitstore.delivery_attempts to gitstore_user;
grant insert (id, project_id, url, events) on gitstore.subscriptions to gitstore_user;
grant update (url, events, state, reason, failing_since, quiet_until, updated_at)
    on gitstore.subscriptions to gitstore_user;
-- Nobody reads a secret, sealed as it is; the worker alone does.
grant select (id, subscription_id, project_id, created_at, retires_at) on gitstore.subscription_secrets
    to gitstore_user;
grant insert (id, subscription_id, project_id, sealed) on gitstore.subscription_secrets to gitstore_user;
grant update (retires_at) on gitstore.subscription_secrets to gitstore_user;
grant delete on gitstore.subscription_secrets to gitstore_user;
grant insert (id, project_id, subscription_id, event_id, type, data, due_at) on gitstore.deliveries
    to gitstore_user;
grant update (state, due_at, tries, last_error, ended_at) on gitstore.deliveries to gitstore_user;

grant select, insert, delete, update on gitstore.event_queue to gitstore_mirror;
grant select, update on gitstore.subscriptions to gitstore_mirror;
grant select on gitstore.subscription_secrets to gitstore_mirror;
grant select, insert, update on gitstore.deliveries to gitstore_mirror;
grant select, insert on gitstore.delivery_attempts to gitstore_mirror;

do $$
declare
    this text;
begin
    foreach this in array array['event_queue', 'subscriptions', 'subscription_secrets', 'deliveries',
                                'delivery_attempts'] loop
        execute format('alter table gitstore.%I enable row level security, force row level security', this);
        execute format('create policy upkeep on gitstore.%I to current_user using (true) with check (true)',
                       this);
        execute format('create policy mirror on gitstore.%I to gitstore_mirror using (true) with check (true)',
                       this);
    end loop;
    -- For owners alone, reading too: the URL of a webhook is often a secret in itself.
    foreach this in array array['subscriptions', 'subscription_secrets', 'deliveries',
                                'delivery_attempts'] loop
        execute format('create policy owned on gitstore.%I for select '
                       'using (project_id = any ((select gitstore.owned_projects())::uuid[]))', this);
    end loop;
    foreach this in array array['subscriptions', 'subscription_secrets', 'deliveries'] loop
        execute format('create policy made on gitstore.%I for insert to gitstore_user '
                       'with check (project_id = any ((select gitstore.owned_projects())::uuid[]))', this);
        execute format('create policy changed on gitstore.%I for update to gitstore_user '
                       'using (project_id = any ((select gitstore.owned_projects())::uuid[]))', this);
    end loop;
end
$$;
create policy retired on gitstore.subscription_secrets for delete to gitstore_user
    using (project_id = any ((select gitstore.owned_projects())::uuid[]));

-- What an attempt met is not unsaid.
create trigger recorded_stays before update or delete on gitstore.delivery_attempts
    for each row execute function gitstore.refuse_change();
create trigger not_truncated before truncate on gitstore.delivery_attempts
    for each statement execute function gitstore.refuse_change();
