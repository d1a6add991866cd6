-- Foundations: the schema, ids, errors, the scope of a request and who may do what.
--
-- Every host sends one statement, `select rackhand.run(scope, statement, args)`. `run` enters the scope
-- (who asks, which sites they may see) for the length of the transaction and executes the statement as the
-- caller, so row-level security applies. Writes are functions owned by rackhand_owner that check the scope
-- first (`rackhand.require`).

create schema rackhand authorization rackhand_owner;
set role rackhand_owner;

revoke all on schema rackhand from public;
grant usage on schema rackhand to rackhand_api;

-- Time-ordered id (RFC 9562 §5.7): 48 bits of Unix milliseconds, version 7, the rest random.
create function rackhand.uuid_v7() returns uuid
language sql volatile parallel safe as $$
    select encode(
        set_byte(stamped, 6, (get_byte(stamped, 6) & 15) | 112),
        'hex')::uuid
    from (
        select overlay(uuid_send(gen_random_uuid())
            placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
            from 1 for 6) as stamped
    ) as parts
$$;

-- How every instant is written: RFC 3339, UTC, microseconds.
create function rackhand.ts(at timestamptz) returns text
language sql stable parallel safe as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Refuses with an error code of rackhand-schema. Hosts know it by SQLSTATE RH000: message = code,
-- detail = text for people, hint = the role that would allow it.
create function rackhand.fail(code text, explanation text, needs_role text default '') returns void
language plpgsql as $$
begin
    raise exception using errcode = 'RH000', message = code, detail = explanation, hint = needs_role;
end
$$;

create type rackhand.role as enum ('viewer', 'operator', 'admin');

create table rackhand.site (
    id uuid primary key default rackhand.uuid_v7(),
    name text not null unique,
    config jsonb not null,
    -- X25519, base64; private half only on executors.
    public_key text,
    version bigint not null default 1,
    created_at timestamptz not null default now()
);

create table rackhand.users (
    id uuid primary key default rackhand.uuid_v7(),
    -- Lower case.
    email text not null unique,
    name text not null,
    -- argon2id, PHC string.
    password_hash text not null,
    disabled boolean not null default false,
    created_at timestamptz not null default now()
);

create table rackhand.user_grant (
    id uuid primary key default rackhand.uuid_v7(),
    user_id uuid not null references rackhand.users on delete cascade,
    role rackhand.role not null,
    -- Null: the whole fleet.
    site_id uuid references rackhand.site on delete cascade,
    unique nulls not distinct (user_id, role, site_id)
);

create table rackhand.user_session (
    id uuid primary key default rackhand.uuid_v7(),
    user_id uuid not null references rackhand.users on delete cascade,
    user_agent text not null default '',
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz
);
create index user_session_by_user on rackhand.user_session (user_id);

-- Refresh tokens by SHA-256; a session has a chain of them, of which only the newest may be exchanged.
create table rackhand.refresh_token (
    hash bytea primary key,
    session_id uuid not null references rackhand.user_session on delete cascade,
    created_at timestamptz not null default now(),
    used_at timestamptz
);
create index refresh_token_by_session on rackhand.refresh_token (session_id);

-- Failed sign-ins, counted for each account and for each address.
create table rackhand.login_limit (
    key text primary key,
    failures int not null,
    -- The count starts anew after this.
    until timestamptz not null
);

create table rackhand.executor (
    id uuid primary key default rackhand.uuid_v7(),
    site_id uuid not null references rackhand.site,
    name text not null,
    state text not null default 'joining' check (state in ('joining', 'active', 'revoked')),
    signing_key text not null,
    sealing_key text not null,
    fingerprint text not null,
    -- The site's private key, sealed to `sealing_key`.
    site_key text,
    version text not null default '',
    kinds text[] not null default '{}',
    enrolled_at timestamptz not null default now(),
    unique (site_id, name)
);

-- One row for each start of an executor process; its expiry is the expiry of every lease it holds.
create table rackhand.executor_session (
    id uuid primary key,
    executor_id uuid not null references rackhand.executor,
    site_id uuid not null references rackhand.site,
    created_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    expires_at timestamptz not null default now(),
    superseded_at timestamptz
);
create index executor_session_live on rackhand.executor_session (executor_id) where superseded_at is null;
create index executor_session_by_site on rackhand.executor_session (site_id, expires_at);

create table rackhand.executor_nonce (
    nonce text primary key,
    executor_id uuid not null references rackhand.executor,
    expires_at timestamptz not null
);

create table rackhand.enrolment_token (
    hash bytea primary key,
    site_id uuid not null references rackhand.site,
    created_by uuid references rackhand.users,
    expires_at timestamptz not null,
    used_at timestamptz
);

-- ── Scope ────────────────────────────────────────────────────────────────────────────────────────────
-- Kept in transaction-local settings. After the transaction a pooled connection has them as '' (not null).

create function rackhand.scope_text(name text) returns text
language sql stable parallel safe as $$
    select nullif(current_setting('rackhand.' || name, true), '')
$$;

create function rackhand.scope_uuid(name text) returns uuid
language sql stable parallel safe as $$
    select rackhand.scope_text(name)::uuid
$$;

-- The sites whose rows the caller may see; none without a scope.
create function rackhand.allowed_sites() returns uuid[]
language sql stable parallel safe as $$
    select coalesce(rackhand.scope_text('sites')::uuid[], '{}')
$$;

-- Whether the caller may see what belongs to no site (users, sign-ins).
create function rackhand.sees_fleet() returns boolean
language sql stable parallel safe as $$
    select coalesce(rackhand.scope_text('fleet')::boolean, false)
$$;

-- Wakes who waits for a topic: a site, or `events`. Hosts that listen are notified; for the others the answer of the
-- statement names it (`RUN_SQL`). After the transaction the setting is empty again.
create function rackhand.wake(topic text) returns void
language plpgsql as $$
declare
    woken text := coalesce(current_setting('rackhand.wakes', true), '');
begin
    perform pg_notify('rackhand', topic);
    if strpos(woken, topic) = 0 then
        perform set_config('rackhand.wakes', ltrim(woken || ' ' || topic), true);
    end if;
end
$$;

create function rackhand.enter(scope jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    needed rackhand.role := coalesce(scope ->> 'need', 'viewer')::rackhand.role;
    user_name text;
    fleet boolean := false;
    sites uuid[] := '{}';
    may_act boolean;
    caller record;
begin
    perform set_config('rackhand.kind', scope ->> 'kind', true),
            set_config('rackhand.trace', coalesce(scope ->> 'trace', ''), true),
            set_config('rackhand.user', '', true),
            set_config('rackhand.session', '', true),
            set_config('rackhand.executor', '', true),
            set_config('rackhand.address', coalesce(scope ->> 'address', ''), true),
            set_config('rackhand.actor', 'anonymous', true);
    case scope ->> 'kind'
    when 'user' then
        select u.name into user_name
            from rackhand.user_session s join rackhand.users u on u.id = s.user_id
            where s.id = (scope ->> 'session')::uuid and s.user_id = (scope ->> 'user')::uuid
                and s.ended_at is null and s.expires_at > now() and not u.disabled;
        if not found then
            perform rackhand.fail('session-ended', 'This session was ended or has expired. Sign in again.');
        end if;
        select coalesce(bool_or(g.site_id is null), false),
               coalesce(bool_or(g.role >= needed), false),
               coalesce(array_agg(g.site_id) filter (where g.site_id is not null), '{}')
            into fleet, may_act, sites
            from rackhand.user_grant g where g.user_id = (scope ->> 'user')::uuid;
        if needed > 'viewer' and not may_act then
            perform rackhand.fail('forbidden-role',
                format('%s has no site with the role %s, which this needs.', user_name, needed), needed::text);
        end if;
        if fleet then
            select coalesce(array_agg(id), '{}') into sites from rackhand.site;
        end if;
        perform set_config('rackhand.user', scope ->> 'user', true),
                set_config('rackhand.session', scope ->> 'session', true),
                set_config('rackhand.actor', user_name, true);
    when 'executor' then
        select s.executor_id, s.site_id, s.superseded_at, e.name, e.state into caller
            from rackhand.executor_session s join rackhand.executor e on e.id = s.executor_id
            where s.id = (scope ->> 'session')::uuid and s.executor_id = (scope ->> 'executor')::uuid;
        if not found or caller.state = 'revoked' then
            perform rackhand.fail('executor-revoked', 'This executor is not enrolled, or was revoked.');
        elsif caller.superseded_at is not null then
            perform rackhand.fail('session-superseded',
                format('A newer process has signed in as executor %s.', caller.name));
        end if;
        sites := array[caller.site_id];
        perform set_config('rackhand.executor', caller.executor_id::text, true),
                set_config('rackhand.session', scope ->> 'session', true),
                set_config('rackhand.actor', caller.name, true);
    else
        null;
    end case;
    perform set_config('rackhand.sites', sites::text, true),
            set_config('rackhand.fleet', fleet::text, true);
end
$$;

create function rackhand.run(scope jsonb, statement text, args jsonb) returns jsonb
language plpgsql security invoker as $$
declare
    answer jsonb;
begin
    perform rackhand.enter(scope);
    execute statement into answer using args;
    return answer;
end
$$;

-- The caller must have `needed` for this site: 404 where it may not even see the site, 403 naming the role
-- where it may see but not act.
create function rackhand.require(site uuid, needed rackhand.role, what text) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if site is null or not site = any (rackhand.allowed_sites()) then
        perform rackhand.fail('not-found', format('There is no such %s, or you may not see it.', what));
    end if;
    if not exists (
        select from rackhand.user_grant g
        where g.user_id = rackhand.scope_uuid('user') and g.role >= needed
            and (g.site_id is null or g.site_id = site))
    then
        perform rackhand.fail('forbidden-role',
            format('This needs the role %s for the site.', needed), needed::text);
    end if;
end
$$;

create function rackhand.require_fleet(needed rackhand.role) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        select from rackhand.user_grant g
        where g.user_id = rackhand.scope_uuid('user') and g.role >= needed and g.site_id is null)
    then
        perform rackhand.fail('forbidden-role',
            format('This needs the role %s for the whole fleet.', needed), needed::text);
    end if;
end
$$;

-- The executor that calls, or a refusal.
create function rackhand.calling_executor() returns rackhand.executor
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor;
begin
    select * into me from rackhand.executor where id = rackhand.scope_uuid('executor');
    if not found then
        perform rackhand.fail('not-signed-in', 'Only an executor may call this.');
    end if;
    return me;
end
$$;

-- ── Events ───────────────────────────────────────────────────────────────────────────────────────────
-- Append-only. The cursor is (xid, id) and only rows below the oldest running transaction are shown, so a
-- reader that goes on from its cursor never skips one that committed late.

create table rackhand.event (
    id bigint generated always as identity,
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null,
    kind text not null,
    level text not null,
    message text not null,
    actor text not null,
    site_id uuid,
    job_id uuid,
    run_id uuid,
    server_id uuid,
    user_id uuid,
    trace_id uuid,
    -- Number within (run, epoch) for what an executor reported.
    epoch bigint,
    seq bigint,
    late boolean not null default false,
    data jsonb not null,
    -- Hash chain: run, job, server, user or site.
    stream uuid not null,
    hash bytea not null,
    constraint event_by_cursor primary key (xid, id)
);
create index event_by_site on rackhand.event (site_id, xid, id);
create index event_by_job on rackhand.event (job_id, xid, id) where job_id is not null;
create index event_by_run on rackhand.event (run_id, xid, id) where run_id is not null;
create index event_by_server on rackhand.event (server_id, xid, id) where server_id is not null;
-- What is reported in time is kept once by the run's `last_seq`.
create unique index event_late_once on rackhand.event (run_id, epoch, seq) where late;

-- Heads of chains; a run's is on its own row, which whoever writes its events has locked anyway.
create table rackhand.stream (
    id uuid primary key,
    head bytea not null,
    length bigint not null
);

-- The next link of a chain: SHA-256 over the previous link and the event's fields, each ended by a byte
-- that UTF-8 text cannot hold. As stable as what it calls, so that Postgres can inline it.
create function rackhand.link(
    previous bytea, at timestamptz, kind text, level text, actor text, message text, data jsonb) returns bytea
language sql stable parallel safe as $$
    select sha256(previous
        || convert_to((extract(epoch from at) * 1000000)::bigint::text, 'UTF8') || '\xff'
        || convert_to(kind, 'UTF8') || '\xff' || convert_to(level, 'UTF8') || '\xff'
        || convert_to(actor, 'UTF8') || '\xff' || convert_to(message, 'UTF8') || '\xff'
        || convert_to(data::text, 'UTF8'))
$$;

create function rackhand.chain_step(
    tip bytea, head bytea, at timestamptz, kind text, level text, actor text, message text, data jsonb) returns bytea
language plpgsql stable parallel safe as $$
begin
    return rackhand.link(coalesce(tip, head), at, kind, level, actor, message, data);
end
$$;

-- The links of several events of one stream: over (partition by stream order by place), `head` before them.
create aggregate rackhand.chain(
    head bytea, at timestamptz, kind text, level text, actor text, message text, data jsonb) (
    sfunc = rackhand.chain_step, stype = bytea, parallel = safe);

-- Appends to the stream of the most specific object named. `about` names what the event belongs to:
-- {"site","job","run","server","user","epoch","seq","late"}.
create function rackhand.append_event(
    kind text, level text, message text, about jsonb, data jsonb default '{}') returns void
language plpgsql as $$
declare
    run uuid := about ->> 'run';
    chain uuid := coalesce(about ->> 'run', about ->> 'job', about ->> 'server', about ->> 'user',
        about ->> 'site', '00000000-0000-0000-0000-000000000000')::uuid;
    moment timestamptz := clock_timestamp();
    actor text := coalesce(rackhand.scope_text('actor'), 'rackhand');
    tip bytea;
begin
    if run is not null then
        update rackhand.run r set
                head = rackhand.link(r.head, moment, append_event.kind, level, actor, message, data)
            where r.id = run returning r.head into tip;
    else
        insert into rackhand.stream as s (id, head, length)
            values (chain, rackhand.link('\x', moment, kind, level, actor, message, data), 1)
            on conflict (id) do update set length = s.length + 1,
                head = rackhand.link(s.head, moment, kind, level, actor, message, data)
            returning s.head into tip;
    end if;
    insert into rackhand.event (at, kind, level, message, actor, site_id, job_id, run_id, server_id, user_id,
            trace_id, epoch, seq, late, data, stream, hash)
        values (moment, kind, level, message, actor, (about ->> 'site')::uuid, (about ->> 'job')::uuid,
            run, (about ->> 'server')::uuid,
            coalesce((about ->> 'user')::uuid, rackhand.scope_uuid('user')),
            coalesce((about ->> 'trace')::uuid, rackhand.scope_uuid('trace')),
            (about ->> 'epoch')::bigint, (about ->> 'seq')::bigint,
            coalesce((about ->> 'late')::boolean, false), data, chain, tip);
    perform rackhand.wake('events');
end
$$;

alter table rackhand.site enable row level security;
create policy visible on rackhand.site for select to rackhand_api
    using (id = any ((select rackhand.allowed_sites())::uuid[]));
alter table rackhand.executor enable row level security;
create policy visible on rackhand.executor for select to rackhand_api
    using (site_id = any ((select rackhand.allowed_sites())::uuid[]));
alter table rackhand.executor_session enable row level security;
create policy visible on rackhand.executor_session for select to rackhand_api
    using (site_id = any ((select rackhand.allowed_sites())::uuid[]));
alter table rackhand.event enable row level security;
create policy visible on rackhand.event for select to rackhand_api
    using (site_id = any ((select rackhand.allowed_sites())::uuid[])
        or (site_id is null and (select rackhand.sees_fleet())));

grant select on rackhand.site, rackhand.event, rackhand.executor_session to rackhand_api;
grant select (id, site_id, name, state, fingerprint, version, kinds, enrolled_at) on rackhand.executor
    to rackhand_api;
grant execute on function rackhand.run, rackhand.enter, rackhand.ts, rackhand.scope_text,
    rackhand.scope_uuid, rackhand.allowed_sites, rackhand.sees_fleet, rackhand.fail to rackhand_api;

reset role;
