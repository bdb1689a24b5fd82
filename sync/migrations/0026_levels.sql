-- The feature level: what every process that runs understands. An upgrade adds to the database and to Git what older
-- processes pass over; what they would refuse is written only from the level on that introduced it. `gitstore migrate
-- --finish` raises the level once no process of an older release runs, and ends what was kept for those.
create table gitstore.feature_level (
    one_row boolean primary key default true check (one_row),
    level integer not null check (level >= 0),
    raised_at timestamptz not null default now()
);
insert into gitstore.feature_level (level) values (0);

alter table gitstore.feature_level enable row level security, force row level security;
do $$
begin
    execute 'create policy upkeep on gitstore.feature_level to current_user using (true) with check (true)';
end
$$;
create policy visible on gitstore.feature_level for select
    to gitstore_user, gitstore_mirror, gitstore_lookup using (true);
grant select on gitstore.feature_level to gitstore_user, gitstore_mirror, gitstore_lookup;

-- Processes of 0.1.0 name an access token by `sub` alone, and serve on until level 1. The claims of a user have `iss`.
grant create on schema gitstore to gitstore_lookup;
set local role gitstore_lookup;
create or replace function gitstore.token() returns uuid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    claims constant jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    id text := claims ->> 'gitstore_token';
begin
    if current_setting('role') <> 'gitstore_user' then
        return null;
    end if;
    if id is null and claims ? 'sub' and not claims ? 'iss' then
        id := (select claims ->> 'sub' from gitstore.feature_level where level < 1);
    end if;
    return case when id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then id::uuid end;
end
$$;
reset role;
revoke create on schema gitstore from gitstore_lookup;
