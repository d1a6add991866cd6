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

-- What `rackhand-server migrate` has applied; its transactions write it.
create table rackhand.migration (
    version integer primary key,
    name text not null,
    -- Of the file, hex.
    sha256 text not null,
    applied_at timestamptz not null default now()
);

-- Time-ordered id (RFC 9562 §5.7): 48 bits of Unix milliseconds, version 7, the rest random. In PL/pgSQL, which keeps
-- its plans: a function in SQL that Postgres cannot inline is planned anew in each statement.
create function rackhand.uuid_v7() returns uuid
language plpgsql volatile parallel safe as $$
declare
    stamped bytea := overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6);
begin
    return encode(set_byte(stamped, 6, (get_byte(stamped, 6) & 15) | 112), 'hex')::uuid;
end
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
    -- Who has paused hardware operations, and when; null while they are not paused.
    paused_by_name text,
    paused_at timestamptz,
    version bigint not null default 1,
    created_at timestamptz not null default now()
);

create table rackhand.users (
    id uuid primary key default rackhand.uuid_v7(),
    -- Lower case.
    email text not null unique,
    name text not null,
    -- argon2id, PHC string. Null: none was chosen yet, and nobody signs in.
    password_hash text,
    disabled boolean not null default false,
    -- When an admin last let this person in again (rackhand.is_welcome).
    welcome_at timestamptz,
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
    -- SHA-256 of what all its refresh tokens begin with, and nobody else's.
    family bytea not null unique,
    user_agent text not null default '',
    -- From where its person signed in: the network that attempts are counted for (rackhand.network_of). Empty
    -- where it may have been someone else.
    network text not null default '',
    created_at timestamptz not null default now(),
    -- When its tokens were last renewed; a session that is not used ends by itself.
    seen_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz
);
create index user_session_by_user on rackhand.user_session (user_id);

-- Refresh tokens by SHA-256: those of a session that may be exchanged, and those that were exchanged last.
-- Any other of its family was exchanged before.
create table rackhand.refresh_token (
    hash bytea primary key,
    session_id uuid not null references rackhand.user_session on delete cascade,
    created_at timestamptz not null default now(),
    used_at timestamptz
);
create index refresh_token_by_session on rackhand.refresh_token (session_id);

-- One-time links with which a person chooses a password, by SHA-256 of what stands in the link.
create table rackhand.password_reset (
    hash bytea primary key,
    user_id uuid not null references rackhand.users on delete cascade,
    created_by uuid not null references rackhand.users on delete cascade,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index password_reset_by_user on rackhand.password_reset (user_id);

-- Failed sign-ins, counted for each account, for each network and over all; starts of each executor.
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
    -- When people were last told that two processes seem to run with its data directory.
    copied_at timestamptz,
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
    created_by uuid not null references rackhand.users,
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

-- Whether the caller has a role for the whole fleet.
create function rackhand.sees_fleet() returns boolean
language sql stable parallel safe as $$
    select coalesce(rackhand.scope_text('fleet')::boolean, false)
$$;

-- Whether the caller may see events that belong to no site: sign-ins with their addresses, people, refusals.
create function rackhand.sees_people() returns boolean
language sql stable parallel safe as $$
    select coalesce(rackhand.scope_text('people')::boolean, false)
$$;

-- Wakes who waits for a topic: a site; `events:<site>` for those who wait for that site's events and for
-- those who wait for all; `events` for the latter alone. Hosts that listen are notified; for the others the
-- answer of the statement names it (`RUN_SQL`). After the transaction the setting is empty again.
create function rackhand.wake(topic text) returns void
language plpgsql as $$
declare
    woken text := coalesce(current_setting('rackhand.wakes', true), '');
begin
    perform pg_notify('rackhand', topic);
    if topic <> all (string_to_array(woken, ' ')) then
        perform set_config('rackhand.wakes', ltrim(woken || ' ' || topic), true);
    end if;
end
$$;

-- Wakes who waits for events of a site; null: for those that belong to none.
create function rackhand.wake_events(site uuid) returns void
language plpgsql as $$
begin
    perform rackhand.wake('events' || coalesce(':' || site, ''));
end
$$;

-- What a person has who has a smaller role than is needed: names only sites in which they have one.
create function rackhand.smaller_role(who text, has rackhand.user_grant[]) returns text
language sql stable as $$
    select case
        when count(*) = 0 then format('%s has no role yet. Ask an admin.', who)
        when count(distinct g.site_id) = 0 then
            format('%s is %s of the whole fleet. Ask an admin.', who, max(g.role))
        when bool_or(g.site_id is null) then format('%s has at most the role %s. Ask an admin.', who, max(g.role))
        when count(distinct g.site_id) = 1 then
            format('%s is %s in site %s. Ask an admin of %3$s.', who, max(g.role), max(s.name))
        else format('%s has at most the role %s, in %s sites. Ask an admin of the site.', who, max(g.role),
            count(distinct g.site_id))
    end
    from unnest(has) g left join rackhand.site s on s.id = g.site_id
$$;

create function rackhand.enter(scope jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    needed rackhand.role := coalesce(scope ->> 'need', 'viewer')::rackhand.role;
    user_name text;
    fleet boolean := false;
    people boolean := false;
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
               coalesce(bool_or(g.site_id is null and g.role = 'admin'), false),
               coalesce(bool_or(g.role >= needed), false),
               coalesce(array_agg(g.site_id) filter (where g.site_id is not null), '{}')
            into fleet, people, may_act, sites
            from rackhand.user_grant g where g.user_id = (scope ->> 'user')::uuid;
        if needed > 'viewer' and not may_act then
            perform rackhand.fail('forbidden-role',
                format('This needs the role %s; %s', needed, rackhand.smaller_role(user_name,
                    (select array_agg(g) from rackhand.user_grant g where g.user_id = (scope ->> 'user')::uuid))),
                needed::text);
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
            set_config('rackhand.fleet', fleet::text, true),
            set_config('rackhand.people', people::text, true);
    if (scope -> 'fleet')::boolean then
        perform rackhand.require_fleet('admin');
    end if;
end
$$;

create function rackhand.run(scope jsonb, statement text, args jsonb) returns text
language plpgsql security invoker as $$
declare
    answer text;
begin
    perform rackhand.enter(scope);
    execute statement into answer using args;
    return answer;
end
$$;

-- `1 failure`, `2 failures`: a number with the thing it counts, given in the singular.
create function rackhand.counted(number bigint, thing text) returns text
language sql immutable as $$
    select format('%s %s%s', number, thing, case when number <> 1 then 's' end)
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
            (select format('This needs the role %s in site %s; %s is %s there. Ask an admin of %2$s.', needed, s.name,
                    current_setting('rackhand.actor'),
                    (select max(g.role) from rackhand.user_grant g where g.user_id = rackhand.scope_uuid('user')
                        and (g.site_id is null or g.site_id = s.id)))
                from rackhand.site s where s.id = require.site), needed::text);
    end if;
end
$$;

-- Whether a person is an admin of a site, or of the fleet if that is null, and may sign in. What somebody may
-- use later, in the name of whoever made it, stands and falls with this.
create function rackhand.is_admin(who uuid, site uuid) returns boolean
language sql stable as $$
    select exists (select from rackhand.users u join rackhand.user_grant g on g.user_id = u.id
        where u.id = who and not u.disabled and g.role = 'admin'
            and (g.site_id is null or g.site_id = is_admin.site))
$$;

create function rackhand.require_fleet(needed rackhand.role) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        select from rackhand.user_grant g
        where g.user_id = rackhand.scope_uuid('user') and g.role >= needed and g.site_id is null)
    then
        perform rackhand.fail('forbidden-role',
            (select format('This needs the role %s for the whole fleet; %s has %s there. Ask an admin of the whole '
                    'fleet.', needed, current_setting('rackhand.actor'),
                    coalesce('the role ' || max(g.role), 'no role'))
                from rackhand.user_grant g
                where g.user_id = rackhand.scope_uuid('user') and g.site_id is null), needed::text);
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

-- The same, once people have let it in: it may report and present credentials.
create function rackhand.active_executor() returns rackhand.executor
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor := rackhand.calling_executor();
begin
    if me.state <> 'active' then
        perform rackhand.fail('executor-joining',
            format('Executor %s waits to be confirmed: compare its fingerprint, then confirm it.', me.name));
    end if;
    return me;
end
$$;

-- ── Events ───────────────────────────────────────────────────────────────────────────────────────────
-- Append-only, in two trees: `audit`, what was done and decided, kept for good; `lines`, what executors say
-- while they work and what strangers were refused, which may be dropped by the month. Nothing is hashed here:
-- upkeep seals the rows in their order (0006).
--
-- The order is (era, xid, id), and only rows below the oldest running transaction are shown, so a reader that
-- goes on from its cursor never skips one that committed late. An era is a stretch in which xids only grow: a
-- dump restored into another cluster meets lower ones, and a cluster set back to an earlier moment hands them
-- out again. Both begin the next. Of the second only the timeline of the write-ahead log tells: Postgres
-- begins a new one whenever a restore to a moment ends or a standby takes over ("Timelines" in its manual).

create function rackhand.timeline_now() returns int
language sql volatile as $$
    select ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
$$;

-- The timeline; null where Postgres does not tell it, as on Aurora ("wal_level must be set to 'logical'").
create function rackhand.timeline() returns int
language plpgsql as $$
begin
    return rackhand.timeline_now();
exception
    when others then
        return null;
end
$$;

create table rackhand.trail (
    only_row boolean primary key default true check (only_row),
    -- Names the trees of this deployment, in its copies too.
    id uuid not null default rackhand.uuid_v7(),
    era int not null default 1,
    -- In the cluster of this era every transaction that runs or will begin has at least this xid.
    floor xid8 not null default '0',
    -- Of the write-ahead log in this era, if Postgres tells it.
    timeline int default rackhand.timeline(),
    -- What was claimed in the time that a restore has undone is not known here: no run is handed out before
    -- this.
    held_until timestamptz not null default '-infinity',
    -- Full months for which lines are kept; null: for good. `admin` people change it in SQL, as the owner.
    lines_months int default 24 check (lines_months > 0)
);
insert into rackhand.trail default values;

-- The era of this transaction. The default of `event.era`, so it is asked under the lock of an insert: see
-- `era_begin`.
create function rackhand.era() returns int
language plpgsql as $$
declare
    trail rackhand.trail;
begin
    select * into trail from rackhand.trail;
    if pg_current_xact_id() < trail.floor
        or (case when trail.timeline is not null then trail.timeline <> rackhand.timeline_now() end)
    then
        return rackhand.era_begin();
    end if;
    return trail.era;
end
$$;

create sequence rackhand.event_id;

create table rackhand.event (
    tree text not null check (tree in ('audit', 'lines')),
    era int not null default rackhand.era(),
    xid xid8 not null default pg_current_xact_id(),
    id bigint not null default nextval('rackhand.event_id'),
    at timestamptz not null,
    kind text not null,
    level text not null,
    -- `{user}` in it stands for the name of the person it is about, which is filled in when it is shown.
    message text not null,
    -- Who did it: `user`, `executor`, `anonymous`, or `system` for what nobody asked for. No names and
    -- e-mails, which may have to be erased; `rackhand.names` has them.
    actor_kind text not null,
    actor_id uuid,
    actor_session uuid,
    -- What it is about.
    site_id uuid,
    job_id uuid,
    run_id uuid,
    server_id uuid,
    user_id uuid,
    trace_id uuid,
    -- Number within (run, epoch) for what an executor reported; the epoch alone for a lease.
    epoch bigint,
    seq bigint,
    late boolean not null default false,
    data jsonb not null,
    -- Place n of the run, job, server, user or site, without gaps in each tree, in the order of that object's
    -- lock.
    stream uuid not null,
    n bigint not null,
    constraint event_by_cursor primary key (era, xid, id, tree, at)
) partition by list (tree);
create index event_by_site on rackhand.event (site_id, era, xid, id);
create index event_by_job on rackhand.event (job_id, era, xid, id) where job_id is not null;
create index event_by_run on rackhand.event (run_id, era, xid, id) where run_id is not null;
create index event_by_server on rackhand.event (server_id, era, xid, id) where server_id is not null;
-- Who held a lease, and what came too late under it: a late item is looked up by them, under the run's lock,
-- so there is one of each however often it comes.
create index event_leased on rackhand.event (run_id, epoch) where kind = 'run.leased';
create index event_late on rackhand.event (run_id, epoch, seq) where late;

create table rackhand.event_audit partition of rackhand.event for values in ('audit') partition by range (at);
create table rackhand.event_lines partition of rackhand.event for values in ('lines') partition by range (at);
-- What comes where no partition was made in time; `partitions_ahead` moves it.
create table rackhand.event_audit_rest partition of rackhand.event_audit default;
create table rackhand.event_lines_rest partition of rackhand.event_lines default;

-- Makes the partitions of this period and the next ones: of `audit` by the year, of `lines` by the month. The
-- names of those made.
create function rackhand.partitions_ahead(moment timestamptz default now()) returns text[]
language plpgsql as $$
declare
    part record;
    made text[] := '{}';
begin
    for part in
        select 'event_audit' as parent, 'event_audit_' || to_char(p, 'YYYY') as name, p as begins, p + interval '1 year' as ends
            from generate_series(0, 1) as i, lateral (
                select date_trunc('year', moment at time zone 'UTC') + i * interval '1 year' as p) s
        union all
        select 'event_lines', 'event_lines_' || to_char(p, 'YYYY_MM'), p, p + interval '1 month'
            from generate_series(0, 2) as i, lateral (
                select date_trunc('month', moment at time zone 'UTC') + i * interval '1 month' as p) s
    loop
        continue when to_regclass('rackhand.' || part.name) is not null;
        execute format('create table rackhand.%I (like rackhand.event including defaults including constraints)',
            part.name);
        execute format('with moved as (delete from rackhand.%I where at >= %L and at < %L returning *)
            insert into rackhand.%I select * from moved', part.parent || '_rest',
            part.begins at time zone 'UTC', part.ends at time zone 'UTC', part.name);
        execute format('alter table rackhand.%I attach partition rackhand.%I for values from (%L) to (%L)',
            part.parent, part.name, part.begins at time zone 'UTC', part.ends at time zone 'UTC');
        made := made || part.name;
    end loop;
    return made;
end
$$;
select rackhand.partitions_ahead();

-- How many events each stream has in each tree; a run counts its own, on the row that whoever writes them has
-- locked anyway.
create table rackhand.stream (
    id uuid,
    tree text,
    length bigint not null,
    primary key (id, tree)
);

-- The tree of an event: what executors say at will, and what strangers can cause, is lines.
create function rackhand.tree_of(kind text, actor_kind text) returns text
language sql immutable parallel safe as $$
    select case when kind in ('run.log', 'report.quarantined')
        or (kind = 'request.refused' and actor_kind = 'anonymous') then 'lines' else 'audit' end
$$;

-- Appends to the stream of the most specific object named. `about` names what the event belongs to:
-- {"site","job","run","server","user","epoch","seq","late","trace"}, and as "actor" {"kind","id","session"}
-- who did it where that is not the caller.
create function rackhand.append_event(
    kind text, level text, message text, about jsonb, data jsonb default '{}') returns void
language plpgsql as $$
declare
    run uuid := about ->> 'run';
    chain uuid := coalesce(about ->> 'run', about ->> 'job', about ->> 'server', about ->> 'user',
        about ->> 'site', '00000000-0000-0000-0000-000000000000')::uuid;
    log text;
    actor jsonb := coalesce(about -> 'actor', jsonb_build_object(
        'kind', coalesce(rackhand.scope_text('kind'), 'system'),
        'id', coalesce(rackhand.scope_text('user'), rackhand.scope_text('executor')),
        'session', rackhand.scope_text('session')));
    place bigint;
begin
    log := rackhand.tree_of(append_event.kind, actor ->> 'kind');
    if run is not null then
        update rackhand.run r set events = r.events + (log = 'audit')::int, lines = r.lines + (log = 'lines')::int
            where r.id = run returning case log when 'audit' then r.events else r.lines end into place;
    else
        insert into rackhand.stream as s (id, tree, length) values (chain, log, 1)
            on conflict (id, tree) do update set length = s.length + 1
            returning s.length into place;
    end if;
    insert into rackhand.event (tree, at, kind, level, message, actor_kind, actor_id, actor_session, site_id, job_id,
            run_id, server_id, user_id, trace_id, epoch, seq, late, data, stream, n)
        values (log, clock_timestamp(), kind, level, message, actor ->> 'kind', (actor ->> 'id')::uuid,
            (actor ->> 'session')::uuid, (about ->> 'site')::uuid, (about ->> 'job')::uuid, run,
            (about ->> 'server')::uuid, (about ->> 'user')::uuid,
            coalesce((about ->> 'trace')::uuid, rackhand.scope_uuid('trace')),
            (about ->> 'epoch')::bigint, (about ->> 'seq')::bigint,
            coalesce((about ->> 'late')::boolean, false), data, chain, place);
    perform rackhand.wake_events((about ->> 'site')::uuid);
end
$$;

-- Whether this cluster hands out lower xids than the stored ones, or was set back.
create function rackhand.era_is_over() returns boolean
language plpgsql as $$
begin
    return (select pg_current_xact_id() < greatest(t.floor, (
            select e.xid from rackhand.event e where e.era = t.era order by e.era desc, e.xid desc limit 1))
            or t.timeline is distinct from rackhand.timeline()
        from rackhand.trail t);
end
$$;

-- Begins the next era if this one is over; the era that is. Called by `migrate` and upkeep, and by the first
-- event that notices.
create function rackhand.era_begin() returns int
language plpgsql as $$
declare
    -- In the undone time an executor may have claimed any run that waits here: it counts on its lease until
    -- that ends by its own clock, an upload that it began then may take 10 minutes, and the device one more
    -- to show it (`Timing` of the executor).
    hold constant interval := interval '11 minutes' + coalesce((
        select max((s.config ->> 'lease_ttl_ms')::int) from rackhand.site s), 0) * interval '1 millisecond';
    trail rackhand.trail;
begin
    if rackhand.era_is_over() then
        -- Whoever writes an event holds this table until the end of the transaction, and asked for the era
        -- thereafter: no event comes into an era that has ended.
        lock table rackhand.event in exclusive mode;
        if rackhand.era_is_over() then
            -- Timelines are not used again, so an era that a second restore begins is none that the first one
            -- had.
            update rackhand.trail t set era = greatest(t.era + 1, rackhand.timeline()), floor = '0',
                    timeline = rackhand.timeline(), held_until = clock_timestamp() + hold
                returning * into trail;
            perform rackhand.append_event('trail.era', 'warn',
                'The database was restored, or a standby took over. Events go on in a new era. Runs that wait are not '
                    'handed out for some minutes: an executor may still work on them.',
                '{"actor": {"kind": "system"}}', jsonb_build_object('era', trail.era, 'timeline', trail.timeline,
                    'held_until', rackhand.ts(trail.held_until)));
        end if;
    end if;
    return (select t.era from rackhand.trail t);
end
$$;

-- Whether a cursor lies where no transaction of this database has been yet: it is of a history that a restore
-- has undone.
create function rackhand.cursor_is_ahead(cursor_era int, cursor_xid xid8) returns boolean
language sql stable as $$
    select (cursor_era, cursor_xid) > (t.era, pg_snapshot_xmax(pg_current_snapshot())) from rackhand.trail t
$$;

-- The names of people and executors by id, as far as they are known.
create function rackhand.names(ids uuid[]) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(n.id, n.name), '{}') from (
        select u.id, u.name from rackhand.users u where u.id = any (ids)
        union all
        select e.id, e.name from rackhand.executor e where e.id = any (ids)) n
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
        or (site_id is null and (select rackhand.sees_people())));

grant select on rackhand.site, rackhand.event, rackhand.executor_session to rackhand_api;
grant select (era) on rackhand.trail to rackhand_api;
grant select (id, site_id, name, state, fingerprint, version, kinds, enrolled_at) on rackhand.executor
    to rackhand_api;
grant execute on function rackhand.run, rackhand.enter, rackhand.ts, rackhand.scope_text,
    rackhand.scope_uuid, rackhand.allowed_sites, rackhand.sees_fleet, rackhand.sees_people, rackhand.fail,
    rackhand.names, rackhand.cursor_is_ahead to rackhand_api;

reset role;
