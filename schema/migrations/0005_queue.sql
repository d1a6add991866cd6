-- The queue: admission, lease, report. Only executors call it; rackhand_api touches none of its tables.
--
-- A run begins in `waiting`; admission (one writer for each site) gives it its slots and moves it to `ready`;
-- a claim pops it into `lease`. Liveness is one row for each executor session. Whoever polls expires the
-- dead sessions of the site first, so no cron is needed for that.
--
-- Everything works on sets: a call costs a few statements however many runs it moves. A run's own row is
-- written when it is claimed and when it is reported on, not when it is admitted.
set role rackhand_owner;

-- The slots a run holds from its admission on. Kept on the run, so that it frees what it took, whatever
-- stands here by then.
create function rackhand.slot_keys(mutating boolean, job uuid, server uuid, site uuid) returns text[]
language sql immutable parallel safe as $$
    select case when mutating
        then array['job:' || job::text, 'server:' || server::text, 'site:' || site::text]
        else array['job:' || job::text] end
$$;

-- Frees slots; a key may stand in the array more than once.
create function rackhand.release(keys text[]) returns void
language plpgsql as $$
begin
    perform from rackhand.capacity c where c.key = any (keys) order by c.key for update;
    update rackhand.capacity c set used = c.used - k.n
        from (select key, count(*)::int as n from unnest(keys) as key group by key) k where c.key = k.key;
end
$$;

-- Whether the time before which a job does not start has come.
create function rackhand.has_begun(j rackhand.job) returns boolean
language plpgsql stable as $$
begin
    return coalesce((j.policy ->> 'start_after')::timestamptz <= clock_timestamp(), true);
end
$$;

-- Moves waiting runs of a site to `ready`, the oldest job's first, as far as capacity allows; the number
-- moved, 1000 at most (whoever admits more than it claims has others look again). Only one caller at a time
-- works on a site, the others leave it to that one.
create function rackhand.admit(site uuid) returns int
language plpgsql as $$
declare
    config jsonb;
    room int;
    job record;
    keys text[] := '{}';
    servers uuid[] := '{}';
    taken record;
    moved int := 0;
begin
    if not exists (
        select from rackhand.job j join rackhand.waiting w on w.job_id = j.id
        where j.site_id = site and j.state = 'running' and rackhand.has_begun(j))
        or not pg_try_advisory_xact_lock(hashtextextended(site::text, 2))
    then
        return 0;
    end if;
    select s.config into config from rackhand.site s where s.id = site;
    room := case when (config ->> 'hardware_paused')::boolean then 0 else (config ->> 'max_mutating_runs')::int
        - coalesce((select c.used from rackhand.capacity c where c.key = 'site:' || site), 0) end;
    for job in
        select j.id, j.mutating, (j.policy ->> 'max_parallel')::int - coalesce((
                select c.used from rackhand.capacity c where c.key = 'job:' || j.id), 0) as free
            from rackhand.job j
            where j.site_id = site and j.state = 'running' and not j.cancel_requested
                and rackhand.has_begun(j)
                and exists (select from rackhand.waiting w where w.job_id = j.id)
            order by j.since, j.id
    loop
        with free as (
            -- A job that is being cancelled has locked its own.
            select w.job_id, w.position from rackhand.waiting w
            where w.job_id = job.id and not (w.mutating and (w.server_id = any (servers) or exists (
                select from rackhand.capacity c where c.key = 'server:' || w.server_id and c.used > 0)))
            order by w.position
            limit greatest(0, least(job.free, 1000 - moved, case when job.mutating then room end))
            for update skip locked
        ), gone as (
            delete from rackhand.waiting w using free f where w.job_id = f.job_id and w.position = f.position
            returning w.*
        ), readied as (
            insert into rackhand.ready (run_id, site_id, bmc_id, kind, owner)
                select g.run_id, g.site_id, g.bmc_id, g.kind, b.owner_executor
                from gone g join rackhand.bmc b on b.id = g.bmc_id order by g.position
        )
        select count(*)::int as n, array_agg(g.server_id) as servers,
                array(select unnest(o.slots) from gone o) as slots
            into taken from gone g;
        if taken.n > 0 then
            moved := moved + taken.n;
            keys := keys || taken.slots;
            if job.mutating then
                room := room - taken.n;
                servers := servers || taken.servers;
            end if;
        end if;
        exit when moved >= 1000;
    end loop;
    if moved > 0 then
        perform from rackhand.capacity c where c.key = any (keys) order by c.key for update;
        insert into rackhand.capacity as c (key, used)
            select key, count(*)::int from unnest(keys) as key group by key order by key
            on conflict (key) do update set used = c.used + excluded.used;
    end if;
    return moved;
end
$$;

-- Gives back to `waiting` what was admitted of jobs that are paused, as far as nothing has been done to the
-- server yet. A run that is locked at this moment is being claimed or reported on.
create function rackhand.hold_back(site uuid) returns void
language plpgsql as $$
declare
    freed text[];
begin
    if not exists (select from rackhand.job j join rackhand.capacity c on c.key = 'job:' || j.id
        and c.used > 0
        where j.site_id = hold_back.site and j.state = 'paused')
    then
        return;
    end if;
    with held as (
        select r.* from rackhand.job j
        join rackhand.run r on r.job_id = j.id and r.finished_at is null and not r.acted and r.settle is null
        join rackhand.ready d on d.run_id = r.id
        where j.site_id = hold_back.site and j.state = 'paused'
        order by r.id for update of r skip locked
    ), gone as (
        delete from rackhand.ready d using held h where d.run_id = h.id returning d.run_id
    ), back as (
        insert into rackhand.waiting (job_id, position, run_id, site_id, server_id, bmc_id, kind, mutating, slots)
            select h.job_id, h.position, h.id, h.site_id, h.server_id, h.bmc_id, h.kind, h.mutating, h.slots
            from held h join gone g on g.run_id = h.id
            returning waiting.slots
    )
    select array(select unnest(b.slots) from back b) into freed;
    perform rackhand.release(freed);
end
$$;

-- After so many leases in a row without a step forward a run is stuck: it is offered again at growing intervals, and
-- only that is an event.
create function rackhand.is_stuck(idle_leases int) returns boolean
language sql immutable parallel safe as $$ select idle_leases > 3 $$;

-- How long a run is left alone after so many of them: as long as `asked`, or longer, but 6 hours at most, and 15
-- minutes while something of it may be under way or has to be undone: a host may be off until then.
create function rackhand.idle_pause(which uuid, idle_leases int, asked interval default '0') returns interval
language plpgsql stable as $$
declare
    owes boolean := exists (select from rackhand.run r where r.id = which and r.intent is not null)
        or exists (select from rackhand.effect e
            where e.run_id = which and e.state in ('intended', 'applied', 'settling'));
begin
    return least(case when owes then interval '15 minutes' else interval '6 hours' end, greatest(asked,
        case when rackhand.is_stuck(idle_leases)
            then interval '1 minute' * 2 ^ least(idle_leases - 4, 10) else interval '0' end));
end
$$;

-- What of a checkpoint shows a step forward: not how long its executors have waited in vain.
create function rackhand.progress(state jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case when jsonb_typeof(state) = 'object' then nullif(state - 'patience', '{}')
        else nullif(state, 'null') end
$$;

-- Why the last lease of a run ended, and of one that is stuck that it is.
create function rackhand.stuck_words(why text, idle_leases int, again timestamptz) returns text
language sql stable as $$
    select case when rackhand.is_stuck(idle_leases) then format(
        '%s. The run is stuck: %s leases in a row ended without a step forward. It is offered again on %s.',
        rtrim(why, '. '), idle_leases, rackhand.on_at(again)) else why end
$$;

-- Takes the leases of these sessions away, whose rows the caller has locked. Whoever held them may act until
-- its own clock ends the lease: nobody is given a run before.
create function rackhand.take_back(sessions uuid[], why text) returns void
language plpgsql as $$
declare
    item record;
    idle int;
    again timestamptz;
begin
    for item in
        select r.*, l.session_id, s.expires_at as ended, e.name as executor_name
        from rackhand.lease l
        join rackhand.run r on r.id = l.run_id
        join rackhand.executor_session s on s.id = l.session_id
        join rackhand.executor e on e.id = l.executor_id
        where l.session_id = any (sessions)
        order by r.id for update of r
    loop
        idle := item.idle_leases + 1;
        again := greatest(clock_timestamp(), item.ended) + rackhand.idle_pause(item.id, idle);
        delete from rackhand.lease l where l.run_id = item.id;
        update rackhand.run r set
                state = case when r.settle is null then 'queued' else 'settling' end,
                reason = 'lease_expired', since = now(), expected_by = null, idle_leases = idle,
                lease_ended_at = coalesce(case when r.intent is not null then r.lease_ended_at end, item.ended),
                acts_until = item.ended,
                detail = rackhand.stuck_words(
                    format('Executor %s %s; another one goes on.', item.executor_name, why), idle, again)
            where r.id = item.id;
        insert into rackhand.ready (run_id, site_id, bmc_id, kind, owner, ready_at)
            values (item.id, item.site_id, item.bmc_id, item.kind, item.executor_id, again);
        if rackhand.is_stuck(item.idle_leases) then
            perform rackhand.wake_events(item.site_id);
            continue;
        end if;
        perform rackhand.append_event('run.lease_expired', 'warn',
            rackhand.stuck_words(format('Executor %s %s in phase %s; the run waits for another one', item.executor_name,
                why, coalesce(nullif(item.phase, ''), 'start')), idle, again),
            jsonb_build_object('site', item.site_id, 'job', item.job_id, 'run', item.id,
                'server', item.server_id, 'trace', item.trace_id));
    end loop;
end
$$;

-- Ends the leases of dead sessions of a site. A session that renews itself at this moment is left alone: both
-- sides lock its row first.
create function rackhand.expire(site uuid) returns void
language plpgsql as $$
declare
    dead uuid[];
begin
    select array_agg(s.id) into dead from (
        select s.id from rackhand.executor_session s
        where s.site_id = site and s.expires_at <= clock_timestamp()
            and exists (select from rackhand.lease l where l.session_id = s.id)
        order by s.id for update skip locked) s;
    if dead is not null then
        perform rackhand.take_back(dead, 'went silent');
    end if;
end
$$;

-- [RunGrant] of rackhand-schema, in the order of their jobs: one, and as many more as fit into 256 KiB, which come
-- over a slow uplink before the lease ends. Who has taken these is given the others in the next answer. Here and
-- below in PL/pgSQL, which keeps its plans.
create function rackhand.run_grants_json(runs uuid[]) returns json
language plpgsql stable as $$
begin
    runs := array(select s.id from (
        select r.id, sum(octet_length(r.plan::text) + octet_length(j.params::text)
                + coalesce(octet_length(r.checkpoint::text), 0) + coalesce(octet_length(r.intent::text), 0)
                + coalesce(octet_length(r.settle::text), 0) + coalesce(octet_length(c.sealed), 0)
                + coalesce((select sum(octet_length(e.prior::text) + octet_length(e.wanted::text))
                    from rackhand.effect e where e.run_id = r.id
                        and e.state in ('intended', 'applied', 'settling')), 0))
                over (order by r.created_at, r.job_id, r.position) as bytes,
            row_number() over (order by r.created_at, r.job_id, r.position) as place
        from rackhand.run r
        join rackhand.job j on j.id = r.job_id
        join rackhand.bmc b on b.id = r.bmc_id
        left join rackhand.credential c on c.id = b.credential_id
        where r.id = any (run_grants_json.runs)) s
        where s.bytes <= 262144 or s.place = 1);
    return (select coalesce(json_agg(json_build_object(
        'run_id', r.id, 'epoch', r.epoch, 'job_id', r.job_id, 'site_id', r.site_id, 'trace_id', r.trace_id,
        'spec', json_build_object('kind', j.kind, 'params', j.params),
        'plan', r.plan, 'phase', r.phase, 'checkpoint', r.checkpoint, 'intent', r.intent,
        'cancel_requested', r.cancel_requested, 'settle', r.settle,
        'predecessor_ended_ms', coalesce(
            greatest(0, extract(epoch from clock_timestamp() - r.lease_ended_at) * 1000)::bigint, 0),
        'effects', coalesce((select json_agg(json_build_object('id', e.id, 'object', e.object,
                'property', e.property, 'prior', e.prior, 'wanted', e.wanted, 'state', e.state) order by e.id)
            from rackhand.effect e where e.run_id = r.id
                and e.state in ('intended', 'applied', 'settling')), '[]'),
        'target', json_build_object(
            'server_id', r.server_id, 'name', v.name, 'bmc_id', b.id, 'url', b.url, 'ipmi', b.ipmi,
            'spki_sha256', b.spki_sha256, 'owner_epoch', b.owner_epoch,
            'credential', case when c.id is not null then json_build_object(
                'id', c.id, 'name', c.name, 'version', c.version, 'sealed', c.sealed,
                'proven', exists (select from rackhand.credential_use u
                    where u.bmc_id = b.id and u.credential_id = c.id and u.version = c.version
                        and u.proven_at is not null)) end)
        ) order by r.created_at, r.job_id, r.position), '[]')
    from rackhand.run r
    join rackhand.job j on j.id = r.job_id
    join rackhand.server v on v.id = r.server_id
    join rackhand.bmc b on b.id = r.bmc_id
    left join rackhand.credential c on c.id = b.credential_id
    where r.id = any (runs));
end
$$;

-- The executors of a site that have a session which has neither expired nor been superseded.
create function rackhand.living(site uuid) returns uuid[]
language plpgsql stable as $$
begin
    return array(select s.executor_id from rackhand.executor_session s
        where s.site_id = site and s.superseded_at is null and s.expires_at > clock_timestamp());
end
$$;

-- Up to `wanted` runs that `executor` may claim now, oldest first: those of its own BMCs and of `orphans`.
-- How full a queue is changes faster than statistics do; in order of the index, a long one costs no more.
create function rackhand.claimable(executor uuid, site uuid, orphans uuid[], kinds text[], wanted int)
returns uuid[]
language plpgsql stable set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off as $$
begin
    return array(
        select c.run_id from (
            (select d.run_id, d.ready_at from rackhand.ready d
                where d.site_id = site and d.owner = executor and d.ready_at <= clock_timestamp()
                    and d.kind = any (kinds)
                order by d.ready_at, d.run_id limit wanted)
            union
            (select d.run_id, d.ready_at from rackhand.ready d
                where d.bmc_id = any (orphans) and d.ready_at <= clock_timestamp() and d.kind = any (kinds)
                order by d.ready_at, d.run_id limit wanted)
        ) c order by c.ready_at, c.run_id limit wanted);
end
$$;

-- Claims up to `wanted` runs for an executor; the number claimed.
create function rackhand.claim(me rackhand.executor, session uuid, kinds text[], wanted int) returns int
language plpgsql as $$
declare
    living uuid[] := rackhand.living(me.site_id);
    orphans uuid[];
    popped uuid[];
    taken uuid[];
    drifted uuid[];
begin
    -- A BMC has one owner; it changes only when the owner is not alive. BMCs without a living owner are
    -- shared out: each poll takes at most one part in as many as there are executors, each in an order of
    -- its own, so that the first to wake does not take them all.
    orphans := array(select b.id from rackhand.bmc b where b.id in (
            select d.bmc_id from rackhand.ready d where d.site_id = me.site_id and d.owner is null
            union all
            select d.bmc_id from rackhand.executor e join rackhand.ready d on d.owner = e.id
                where e.site_id = me.site_id and e.id <> all (living) and d.site_id = me.site_id)
        and (b.owner_executor is null or b.owner_executor = me.id or b.owner_executor <> all (living))
        order by md5(b.id::text || me.id::text));
    orphans := orphans[1:ceil(array_length(orphans, 1)::numeric / greatest(1, array_length(living, 1)))];
    -- Candidates are found without a lock, then locked in the order that every writer keeps, then looked at
    -- again.
    popped := rackhand.claimable(me.id, me.site_id, orphans, kinds, wanted);
    if popped = '{}' then
        return 0;
    end if;
    popped := array(select r.id from rackhand.run r where r.id = any (popped) order by r.id
        for update skip locked);
    perform from rackhand.bmc b where b.id in (
        select d.bmc_id from rackhand.ready d where d.run_id = any (popped)) order by b.id for no key update;
    -- A machine that is not the approved one any more is left alone until a person has looked. What a run has
    -- done to it already must come to an end, and the executor looks which machine it is before it does more.
    drifted := array(select r.id from rackhand.run r
        join rackhand.bmc b on b.id = r.bmc_id join rackhand.server v on v.id = r.server_id
        where r.id = any (popped)
            and not r.acted and r.settle is null and not rackhand.same_machine(r.plan, b, v));
    if drifted <> '{}' then
        update rackhand.ready d set ready_at = clock_timestamp() + interval '1 minute'
            where d.run_id = any (drifted);
        update rackhand.run r set reason = 'another-machine', detail = 'This server is another machine than in '
                'the plan: its addresses, TLS key, service tag or UUID have changed. Cancel the job, or close the run.'
            where r.id = any (drifted) and r.reason <> 'another-machine';
        -- Others come behind them.
        perform rackhand.wake(me.site_id::text);
    end if;
    popped := array(select r.id from rackhand.run r join rackhand.job j on j.id = r.job_id
        where r.id = any (popped) and r.id <> all (drifted)
            -- Paused after it was admitted: see hold_back.
            and (j.state <> 'paused' or r.acted or r.settle is not null));
    living := rackhand.living(me.site_id);
    with gone as (
        delete from rackhand.ready d using rackhand.bmc b
            where d.run_id = any (popped) and b.id = d.bmc_id and (b.owner_executor is null
                or b.owner_executor = me.id or b.owner_executor <> all (living))
            returning d.run_id
    )
    select coalesce(array_agg(g.run_id), '{}') into popped from gone g;
    if popped = '{}' then
        return 0;
    end if;
    with owned as (
        update rackhand.bmc b set owner_executor = me.id, owner_epoch = b.owner_epoch + 1
            where b.owner_executor is distinct from me.id
                and b.id in (select r.bmc_id from rackhand.run r where r.id = any (popped))
            returning b.id
    )
    select array_agg(o.id) into taken from owned o;
    if taken is not null then
        -- One that is locked is about to be gone.
        update rackhand.ready d set owner = me.id where d.run_id in (
            select o.run_id from rackhand.ready o where o.bmc_id = any (taken) for update skip locked);
    end if;
    with before as materialized (
        select o.id, o.last_seq from rackhand.run o where o.id = any (popped)
    ), claimed as (
        update rackhand.run r set epoch = r.epoch + 1, last_seq = 0, executor_id = me.id, since = now(),
                state = case when r.settle is null then 'leased' else 'settling' end,
                reason = '', detail = '', expected_by = null, events = r.events + 1
            from before b where r.id = b.id
            returning r.id, r.site_id, r.job_id, r.server_id, r.trace_id, r.epoch, r.events, b.last_seq as former_seq
    ), leased as (
        insert into rackhand.lease (run_id, site_id, session_id, executor_id, epoch)
            select c.id, c.site_id, session, me.id, c.epoch from claimed c
    )
    insert into rackhand.event (tree, at, kind, level, message, actor_kind, actor_id, actor_session, site_id, job_id,
            run_id, server_id, trace_id, epoch, data, stream, n)
        select 'audit', clock_timestamp(), 'run.leased', 'info', format('Executor %s took the run', me.name),
            'executor', me.id, session, c.site_id, c.job_id, c.id, c.server_id, c.trace_id,
            c.epoch, jsonb_build_object('epoch', c.epoch, 'former_seq', c.former_seq), c.id, c.events
        from claimed c;
    perform rackhand.wake_events(me.site_id);
    return array_length(popped, 1);
end
$$;

-- LeaseRequest → LeaseResponse, with `wake_in_ms` beside it: when something becomes due by itself (a session
-- of the site expires, a run's pause ends); a caller that waits should look again then.
--
-- To plan its larger statements takes as long as to run them, and a poll comes all the time: plans are kept. They
-- must be right however much a table has grown since, so they read indexes.
create function rackhand.executor_lease(args jsonb) returns json
language plpgsql security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
    me rackhand.executor := rackhand.calling_executor();
    session uuid := rackhand.scope_uuid('session');
    home rackhand.site;
    ttl int;
    able text[] := array(select jsonb_array_elements_text(args -> 'kinds'));
    -- What it may be granted now, as the API works it out: `LeaseRequest::claim`.
    claim jsonb := coalesce(args -> 'claim',
        jsonb_build_object('kinds', args -> 'kinds', 'most', args -> 'capacity'));
    wanted int := (claim ->> 'most')::int;
    living uuid[];
    fresh uuid[];
    lost jsonb;
    answer json;
begin
    -- One is answered while others wait for its session's row, on connections that all executors share.
    if not (pg_try_advisory_xact_lock(hashtextextended(me.id::text, 5))
        or pg_try_advisory_xact_lock(hashtextextended(me.id::text, 6))
        or pg_try_advisory_xact_lock(hashtextextended(me.id::text, 7)))
    then
        perform rackhand.fail('lease-busy', format('Requests of executor %s for leases are being answered. Send the '
            'next one when they have been.', me.name));
    end if;
    select * into home from rackhand.site s where s.id = me.site_id;
    ttl := (home.config ->> 'lease_ttl_ms')::int;
    update rackhand.executor_session s set seen_at = clock_timestamp(),
            expires_at = case
                when (args ->> 'leaving')::boolean
                    and not exists (select from rackhand.lease l where l.session_id = session)
                then clock_timestamp()
                -- What was promised stays: the executor that never sees this answer counts on the one before.
                else greatest(s.expires_at, clock_timestamp() + make_interval(secs => ttl / 1000.0)) end
        where s.id = session and s.superseded_at is null;
    if not found then
        perform rackhand.fail('session-superseded', format('A newer process has signed in as %s.', me.name));
    end if;
    if (me.version, me.kinds) is distinct from (args ->> 'version', able) then
        update rackhand.executor e set version = args ->> 'version', kinds = able
            where e.id = me.id;
    end if;

    perform rackhand.expire(me.site_id);
    perform rackhand.hold_back(me.site_id);

    if wanted > 0 then
        -- What an answer told of that was lost is told again below, and fills the room.
        wanted := wanted - (select count(*) from rackhand.lease o
            where o.session_id = session and not exists (select
                from jsonb_to_recordset(args -> 'held') as i (run_id uuid, epoch bigint)
                where i.run_id = o.run_id and i.epoch = o.epoch));
    end if;
    if wanted > 0 and me.state = 'active'
        and (select t.held_until <= clock_timestamp() from rackhand.trail t)
        and rackhand.admit(me.site_id) > rackhand.claim(me, session,
            array(select jsonb_array_elements_text(claim -> 'kinds')), wanted)
    then
        -- What was admitted is for others too, and they may have looked too early.
        perform rackhand.wake(me.site_id::text);
    end if;

    -- Both ways by hash: an executor may hold thousands.
    select coalesce(array_agg(l.run_id) filter (where h.run_id is null), '{}'),
            coalesce(jsonb_agg(jsonb_build_object('run_id', h.run_id, 'epoch', h.epoch))
                filter (where l.run_id is null), '[]')
        into fresh, lost
        from (select o.run_id, o.epoch from rackhand.lease o where o.session_id = session) l
        full join (select distinct i.run_id, i.epoch
            from jsonb_to_recordset(args -> 'held') as i (run_id uuid, epoch bigint)) h
            on h.run_id = l.run_id and h.epoch = l.epoch;
    living := rackhand.living(me.site_id);
    select json_build_object(
        'ttl_ms', ttl,
        'server_time', rackhand.ts(clock_timestamp()),
        'grants', rackhand.run_grants_json(fresh),
        'lost', lost,
        'cancel', (select coalesce(jsonb_agg(r.id), '[]')
            from rackhand.lease l join rackhand.run r on r.id = l.run_id
            where l.session_id = session and r.cancel_requested),
        'suspended', (select coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'version', c.version) order by c.id), '[]')
            from rackhand.credential c where c.site_id = me.site_id and c.suspended_at is not null),
        'hardware_paused', home.config -> 'hardware_paused',
        'joining', case when me.state <> 'active' then '[]' else (
            select coalesce(jsonb_agg(jsonb_build_object('executor_id', e.id, 'name', e.name,
                'fingerprint', e.fingerprint, 'signing_key', e.signing_key, 'sealing_key', e.sealing_key)), '[]')
            from rackhand.executor e where e.site_id = me.site_id and e.state = 'joining') end,
        'site_key', me.site_key,
        'site_public_key', home.public_key,
        'wake_in_ms', (
            select case when min(due) is not null
                then greatest(1, ceil(extract(epoch from min(due) - clock_timestamp()) * 1000))::bigint end from (
                select s.expires_at as due from rackhand.executor_session s
                where s.site_id = me.site_id and s.id <> session
                    and exists (select from rackhand.lease l where l.session_id = s.id)
                union all
                -- An owner that has just died holds its BMCs until its session expires.
                select s.expires_at from rackhand.executor_session s
                where s.site_id = me.site_id and s.expires_at > clock_timestamp() and s.id <> session
                    and s.superseded_at is null
                    and exists (select from rackhand.ready d
                        where d.site_id = me.site_id and d.owner = s.executor_id)
                union all
                select d.ready_at from rackhand.executor e
                join rackhand.ready d on d.site_id = e.site_id and d.owner = e.id
                where e.site_id = me.site_id and (e.id = me.id or e.id <> all (living))
                    and d.ready_at > clock_timestamp()
                union all
                select d.ready_at from rackhand.ready d
                where d.site_id = me.site_id and d.owner is null and d.ready_at > clock_timestamp()
                union all
                select (j.policy ->> 'start_after')::timestamptz from rackhand.job j
                where j.site_id = me.site_id and j.state = 'running' and not rackhand.has_begun(j)
                union all
                select t.held_until from rackhand.trail t where t.held_until > clock_timestamp()) dues
            where fresh = '{}'))
        into answer;
    return answer;
end
$$;

-- What was read from a server; an event for each version or state that changed.
create function rackhand.server_observed(which uuid, inventory jsonb, about jsonb) returns void
language plpgsql as $$
declare
    before rackhand.server;
    bios text;
    changes jsonb;
begin
    select * into before from rackhand.server v where v.id = which for no key update;
    select value ->> 'version' into bios from jsonb_array_elements(inventory -> 'components')
        where value ->> 'key' like 'BIOS%' or upper(value ->> 'name') = 'BIOS' limit 1;
    with listed as (
        select * from jsonb_to_recordset(inventory -> 'components')
            as f (key text, name text, software_id text, version text, updateable boolean, inactive text,
                of_bmc boolean)
    ), changed as (
        insert into rackhand.firmware as f (server_id, site_id, key, name, software_id, version, updateable,
                inactive, of_bmc)
            select distinct on (l.key) which, before.site_id, l.key, l.name, l.software_id, l.version, l.updateable,
                l.inactive, coalesce(l.of_bmc, false)
            from listed l
            on conflict (server_id, key) do update set name = excluded.name, version = excluded.version,
                software_id = excluded.software_id, updateable = excluded.updateable, inactive = excluded.inactive,
                of_bmc = excluded.of_bmc
                where (f.name, f.software_id, f.version, f.updateable, f.inactive, f.of_bmc) is distinct from
                    (excluded.name, excluded.software_id, excluded.version, excluded.updateable, excluded.inactive,
                        excluded.of_bmc)
            returning f.key, f.version
    )
    select coalesce(jsonb_object_agg(key, version), '{}') into changes from changed;
    -- What could not be read is not gone: the whole list, or a row, which is named by its key or by a path that ends
    -- with it, at Dell behind other words.
    if not inventory -> 'unreadable' ? 'firmware' then
        delete from rackhand.firmware f where f.server_id = which
            and not exists (
                select from jsonb_array_elements(inventory -> 'components') c where c ->> 'key' = f.key)
            and not exists (
                select from jsonb_object_keys(inventory -> 'unreadable') u
                where u = f.key or right(u, length(f.key) + 1) = '/' || f.key or right(u, length(f.key) + 2) = '__' || f.key);
    end if;
    update rackhand.server v set
            vendor = coalesce(inventory ->> 'vendor', v.vendor),
            model = coalesce(inventory ->> 'model', v.model),
            service_tag = case when rackhand.telling(inventory ->> 'service_tag') is null then v.service_tag
                else btrim(inventory ->> 'service_tag') end,
            uuid = case when rackhand.telling(inventory ->> 'uuid') is null then v.uuid
                else btrim(inventory ->> 'uuid') end,
            generation = coalesce(inventory ->> 'generation', v.generation),
            bmc_version = coalesce(inventory ->> 'bmc_version', v.bmc_version),
            bios_version = coalesce(bios, v.bios_version),
            power = inventory ->> 'power', health = inventory ->> 'health',
            capabilities = array(select jsonb_array_elements_text(inventory -> 'capabilities') order by 1),
            unreadable = inventory -> 'unreadable', seen_at = clock_timestamp(), version = v.version + 1
        where v.id = which;
    if changes <> '{}' or before.power <> inventory ->> 'power' or before.health <> inventory ->> 'health' then
        perform rackhand.append_event('server.observed', 'info', format('%s read', before.name),
            about || jsonb_build_object('run', null, 'job', null, 'epoch', null, 'seq', null),
            jsonb_build_object('versions', changes, 'power', inventory -> 'power', 'health', inventory -> 'health',
                'run', about -> 'run'));
    end if;
end
$$;

-- What an executor gives in milliseconds, `longest` at most; null where it gives none.
create function rackhand.span(ms jsonb, longest interval) returns interval
language sql immutable strict parallel safe as $$
    select make_interval(secs => least((ms #>> '{}')::numeric / 1000, extract(epoch from longest)))
$$;

-- How many lines of a run are kept.
create function rackhand.lines_kept() returns bigint
language sql immutable parallel safe as $$ select 20000 $$;

-- Keeps a line that an executor says about a run, or an item that was not understood. The last one that is
-- kept says that no more are.
create function rackhand.append_line(r rackhand.run, item jsonb, about jsonb) returns void
language plpgsql as $$
declare
    body jsonb := item -> 'body';
begin
    if r.lines >= rackhand.lines_kept() then
        return;
    elsif r.lines = rackhand.lines_kept() - 1 then
        perform rackhand.append_event('run.log', 'warn',
            format('This run has reported %s lines, the maximum. Further lines are not kept.', r.lines), about, 'null');
    elsif item ? 'quarantine' then
        perform rackhand.append_event('report.quarantined', 'warn', 'A report item was not understood', about,
            rackhand.bounded(item -> 'quarantine'));
    else
        perform rackhand.append_event('run.log', body ->> 'level', left(body ->> 'message', 2000), about,
            rackhand.bounded(coalesce(body -> 'data', 'null')));
    end if;
end
$$;

-- How many events a run's executors may cause that are kept for good; leases and the end of the run aside.
create function rackhand.events_kept() returns bigint
language sql immutable parallel safe as $$ select 10000 $$;

-- Twice what executors keep as evidence, which is written here with spaces.
create function rackhand.bounded(data jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case when octet_length(data::text) <= 32768 then data
        else jsonb_build_object('left_out', 'too large', 'bytes', octet_length(data::text)) end
$$;

-- How a run ended, as it is kept and listed.
create function rackhand.finish_kept(body jsonb) returns jsonb
language sql immutable parallel safe as $$
    select body - 'type' || jsonb_build_object('code', left(body ->> 'code', 200),
        'detail', left(body ->> 'detail', 2000), 'evidence', rackhand.bounded(coalesce(body -> 'evidence', 'null')))
$$;

-- Whether an item about the state of a run is of a size that is granted to the next executor and listed: its texts
-- and what it keeps, as it is kept, which may be many times what was sent (1e300).
create function rackhand.is_sized(body jsonb) returns boolean
language sql immutable parallel safe as $$
    select case body ->> 'type'
        when 'phase' then length(body ->> 'phase') <= 200
        when 'checkpoint' then length(body ->> 'phase') <= 200 and length(body -> 'waiting' ->> 'reason') <= 200
            and octet_length((body -> 'state')::text) <= 65536
        when 'intent' then octet_length(body::text) <= 65536
        when 'effect' then length(body ->> 'object') <= 200 and length(body ->> 'property') <= 200
            and octet_length((body -> 'prior')::text) <= 4096 and octet_length((body -> 'wanted')::text) <= 4096
        end is not false
$$;

-- Keeps for good what an executor says about the state of a run; how many events that is for `run.said`. The last one
-- that is kept says that no more are. The state itself is kept by the caller, so the run goes on.
create function rackhand.append_state(
    r rackhand.run, kind text, level text, message text, about jsonb, data jsonb) returns int
language plpgsql as $$
begin
    if r.said >= rackhand.events_kept() then
        perform rackhand.wake_events(r.site_id);
        return 0;
    elsif r.said = rackhand.events_kept() - 1 then
        perform rackhand.append_event('run.quarantined', 'warn', format('This run has caused %s events, the maximum. '
            'Its state is still kept, but further events are not.', r.said), about, 'null');
    else
        perform rackhand.append_event(kind, level, left(message, 2000), about, rackhand.bounded(data));
    end if;
    return 1;
end
$$;

-- One item of a report: {status, code?, expected_seq?, job?, bad?, freed?: [key]}. The run's row is locked
-- already.
create function rackhand.report_item(item jsonb, me rackhand.executor, session uuid, live boolean) returns jsonb
language plpgsql as $$
declare
    r rackhand.run;
    body jsonb := item -> 'body';
    kind text := coalesce(item -> 'body' ->> 'type', 'quarantine');
    sent_epoch bigint := (item ->> 'epoch')::bigint;
    sent_seq bigint := (item ->> 'seq')::bigint;
    about jsonb;
    outcome text;
    effects_open boolean;
    machine text;
    spent boolean;
    stuck boolean;
    stepped boolean := false;
    again timestamptz;
    former text;
    made int := 0;
begin
    select * into r from rackhand.run where id = (item ->> 'run_id')::uuid;
    if not found or r.site_id <> me.site_id or sent_epoch > r.epoch then
        return '{"status": "refused", "code": "not-found"}';
    end if;
    if sent_epoch = r.epoch and sent_seq <= r.last_seq then
        return '{"status": "duplicate"}';
    end if;
    about := jsonb_build_object('site', r.site_id, 'job', r.job_id, 'run', r.id, 'server', r.server_id,
        'trace', r.trace_id, 'epoch', sent_epoch, 'seq', sent_seq);
    if not live or not exists (select from rackhand.lease l
        where l.run_id = r.id and l.session_id = session and l.epoch = sent_epoch)
    then
        -- The lease has passed on: observations are kept, state is refused.
        if kind not in ('event', 'quarantine') then
            return jsonb_build_object('status', 'refused', 'code',
                case when r.finished_at is not null and sent_epoch = r.epoch then 'run-finished'
                    else 'stale-epoch' end);
        elsif not exists (select from rackhand.event e
            where e.run_id = r.id and e.kind = 'run.leased' and e.epoch = sent_epoch and e.actor_id = me.id)
        then
            -- Only who held that lease has anything to add.
            return '{"status": "refused", "code": "not-found"}';
        elsif exists (select from rackhand.event e
                where e.run_id = r.id and e.kind = 'run.leased' and e.epoch = sent_epoch + 1
                    and (e.data ->> 'former_seq')::bigint >= sent_seq)
            or exists (select from rackhand.event e
                where e.run_id = r.id and e.epoch = sent_epoch and e.seq = sent_seq and e.late)
        then
            return '{"status": "duplicate"}';
        end if;
        perform rackhand.append_line(r, item, about || '{"late": true}');
        return '{"status": "late"}';
    end if;
    if sent_seq <> r.last_seq + 1 then
        return jsonb_build_object('status', 'refused', 'code', 'sequence-gap', 'expected_seq', r.last_seq + 1);
    end if;

    spent := r.said >= rackhand.events_kept();
    -- What is about to be done is known as it is said, or not done; whoever only reads is approved by nobody and leaves
    -- nothing to undo. Anything else uses up its number, so that what follows is not blocked.
    if kind in ('intent', 'effect') and not (r.mutating and rackhand.is_sized(body)) then
        return '{"status": "refused", "code": "invalid-request"}';
    elsif not rackhand.is_sized(body) then
        raise exception 'too_large';
    elsif kind = 'inventory' and spent then
        -- What is known of a server changes with an event or not at all; another run reads it again.
        raise exception 'no_more_events';
    end if;
    stuck := rackhand.is_stuck(r.idle_leases);
    if kind in ('phase', 'effect', 'intent', 'intent_resolved') then
        select v.name into machine from rackhand.server v where v.id = r.server_id;
    end if;
    case kind
    when 'event', 'quarantine' then
        perform rackhand.append_line(r, item, about);
    when 'phase' then
        select p.state into former from rackhand.run_phase p where p.run_id = r.id and p.phase = body ->> 'phase';
        insert into rackhand.run_phase as p (run_id, site_id, phase, state, started_at, finished_at, evidence)
            select r.id, r.site_id, body ->> 'phase', body ->> 'state', clock_timestamp(),
                case when body ->> 'state' <> 'running' then clock_timestamp() end,
                rackhand.bounded(coalesce(body -> 'evidence', 'null'))
            where former is not null or (not spent
                and (select count(*) from rackhand.run_phase p where p.run_id = r.id) < 64)
            on conflict (run_id, phase) do update set state = excluded.state, finished_at = excluded.finished_at,
                evidence = case when excluded.evidence = 'null' then p.evidence else excluded.evidence end;
        update rackhand.run set phase = body ->> 'phase', percent = null, reason = '', detail = '',
                state = case when state = 'settling' then state else 'running' end,
                since = case when state in ('running', 'settling') then since else now() end, expected_by = null
            where id = r.id;
        stepped := former is null;
        if (r.phase = body ->> 'phase' and former = body ->> 'state') or (stuck and not stepped) then
            perform rackhand.wake_events(r.site_id);
        else
            made := rackhand.append_state(r, 'run.phase', 'info',
                format('%s: phase %s %s', machine, replace(body ->> 'phase', '_', ' '),
                    case body ->> 'state' when 'running' then 'has begun' when 'done' then 'is complete'
                        when 'failed' then 'has failed' when 'skipped' then 'was skipped'
                        else body ->> 'state' end),
                about,
                jsonb_build_object('phase', body -> 'phase', 'state', body -> 'state',
                    'evidence', rackhand.bounded(coalesce(body -> 'evidence', 'null'))));
        end if;
    when 'checkpoint' then
        stepped := coalesce((body ->> 'percent')::smallint > r.percent, false)
            or rackhand.progress(body -> 'state') is distinct from rackhand.progress(r.checkpoint);
        update rackhand.run set checkpoint = body -> 'state', phase = body ->> 'phase',
                percent = (body ->> 'percent')::smallint,
                state = case when state = 'settling' then state
                    when body ->> 'waiting' is null then 'running' else 'waiting' end,
                reason = coalesce(body -> 'waiting' ->> 'reason', ''),
                detail = left(coalesce(body -> 'waiting' ->> 'detail', ''), 2000),
                since = case when coalesce(body -> 'waiting' ->> 'reason', '') = reason then since else now() end,
                expected_by = case when coalesce(body -> 'waiting' ->> 'reason', '') = reason then expected_by
                    else now() + rackhand.span(body -> 'waiting' -> 'within_ms', interval '7 days') end
            where id = r.id;
        if coalesce(body -> 'waiting' ->> 'reason', '') <> r.reason and body ->> 'waiting' is not null
            and not stuck
        then
            made := rackhand.append_state(r, 'run.waiting', 'info', body -> 'waiting' ->> 'detail', about,
                body -> 'waiting');
        else
            perform rackhand.wake_events(r.site_id);
        end if;
        if stepped and r.idle_leases > 0 then
            -- No event, but the leases that follow are.
            made := greatest(made, 1);
        end if;
    when 'intent' then
        if r.intent is not null then
            return '{"status": "refused", "code": "invalid-request"}';
        end if;
        -- So long a successor waits before it looks whether the request was carried out.
        body := jsonb_set(body, '{deadline_ms}', to_jsonb(least((body ->> 'deadline_ms')::numeric, 21600000)));
        update rackhand.run set intent = body - 'type', acted = true, lease_ended_at = null where id = r.id;
        made := rackhand.append_state(r, 'run.intent', 'info',
            format('%s: about to %s', machine, replace(body ->> 'action', '_', ' ')), about, body - 'type');
    when 'intent_resolved' then
        stepped := body ->> 'resolution' <> 'not_applied';
        update rackhand.run set intent = null where id = r.id;
        made := rackhand.append_state(r, 'run.intent_resolved', 'info',
            format('%s: outcome of %s: %s', machine, replace(coalesce(r.intent ->> 'action', 'nothing'), '_', ' '),
                replace(body ->> 'resolution', '_', ' ')),
            about, body - 'type');
    when 'effect' then
        -- A new one is written before anything is changed, so it can be refused; the executor ends the run then.
        if not exists (select from rackhand.effect e where e.id = (body ->> 'id')::uuid and e.run_id = r.id)
            and (spent or (select count(*) from rackhand.effect e where e.run_id = r.id) >= 64)
        then
            return '{"status": "refused", "code": "run-spent"}';
        end if;
        insert into rackhand.effect as e (id, run_id, site_id, server_id, object, property, prior, wanted, state)
            values ((body ->> 'id')::uuid, r.id, r.site_id, r.server_id, body ->> 'object', body ->> 'property',
                body -> 'prior', body -> 'wanted', body ->> 'state')
            on conflict (id) do update set state = excluded.state, changed_at = now(), property = excluded.property,
                wanted = excluded.wanted
                where e.run_id = r.id;
        stepped := body ->> 'state' not in ('intended', 'not_applied');
        update rackhand.run set acted = true where id = r.id and not acted;
        made := rackhand.append_state(r, 'run.effect',
            case body ->> 'state' when 'conflict' then 'warn' else 'info' end,
            case body ->> 'object'
                when 'bmc_job' then format('%s: update job for %s: %s', machine, body ->> 'property',
                    case body ->> 'state' when 'intended' then 'about to be queued'
                        when 'applied' then 'in the queue of the BMC'
                        when 'not_applied' then 'not in the queue of the BMC'
                        when 'settling' then 'being taken out of the queue' when 'settled' then 'over'
                        when 'conflict' then 'left as it is; look at the queue of the BMC'
                        else body ->> 'state' end)
                else format('%s: %s %s: %s', machine, replace(body ->> 'object', '_', ' '), body ->> 'property',
                    case body ->> 'state' when 'intended' then 'about to be changed' when 'applied' then 'changed'
                        when 'not_applied' then 'not changed' when 'settling' then 'being restored'
                        when 'settled' then 'restored' when 'conflict' then 'not restored; look at the server'
                        else body ->> 'state' end)
            end,
            about, body - 'type');
    when 'inventory' then
        -- An event of the server, which counts for the run as well.
        perform rackhand.server_observed(r.server_id, body - 'type', about);
        made := 1;
    when 'finish' then
        outcome := body ->> 'outcome';
        body := rackhand.finish_kept(body);
        if r.intent is not null and outcome <> 'unknown' then
            return '{"status": "refused", "code": "intent-open"}';
        end if;
        effects_open := exists (select from rackhand.effect e
            where e.run_id = r.id and e.state in ('intended', 'applied', 'settling'));
        if effects_open and outcome <> 'unknown' and r.settle is not null then
            return '{"status": "refused", "code": "effects-open"}';
        end if;
        delete from rackhand.lease l where l.run_id = r.id;
        if effects_open and outcome <> 'unknown' then
            update rackhand.run set settle = body, state = 'settling', since = now(),
                    reason = 'effects_open', detail = 'Restoring what was changed on the way', percent = null,
                    idle_leases = 0,
                    lease_ended_at = clock_timestamp(), last_seq = sent_seq
                where id = r.id;
            insert into rackhand.ready (run_id, site_id, bmc_id, kind, owner)
                values (r.id, r.site_id, r.bmc_id, r.kind, r.executor_id);
            perform rackhand.append_event('run.settling', 'info', 'Restoring what was changed on the way', about, body);
            perform rackhand.wake(r.site_id::text);
            return '{"status": "accepted"}';
        end if;
        -- An unknown outcome keeps its slots until a person has looked.
        update rackhand.run set state = outcome, finish = body, settle = null, since = now(),
                finished_at = clock_timestamp(), reason = body ->> 'code', detail = body ->> 'detail',
                percent = null, expected_by = null, admitted = (outcome = 'unknown'), last_seq = sent_seq
            where id = r.id;
        perform rackhand.append_event('run.finished',
            case when outcome in ('failed', 'unknown') then 'error' else 'info' end,
            coalesce(nullif(body ->> 'detail', ''), 'Run ' || replace(outcome, '_', ' ')), about, body);
        return jsonb_build_object('status', 'accepted', 'job', r.job_id,
            'bad', outcome in ('failed', 'unknown'), 'freed', case when outcome = 'unknown'
            then '[]' else to_jsonb(r.slots) end);
    when 'yield' then
        -- Each lease is an event, too.
        again := clock_timestamp() + rackhand.idle_pause(r.id, r.idle_leases + 1,
            greatest(rackhand.span(body -> 'resume_after_ms', interval '6 hours'),
                case when spent then interval '1 minute' end));
        body := body || jsonb_build_object('reason', left(body ->> 'reason', 200),
            'detail', left(body ->> 'detail', 2000));
        delete from rackhand.lease l where l.run_id = r.id;
        update rackhand.run set state = case when settle is null then 'queued' else 'settling' end, since = now(),
                reason = body ->> 'reason', last_seq = sent_seq, idle_leases = r.idle_leases + 1,
                detail = rackhand.stuck_words(body ->> 'detail', r.idle_leases + 1, again),
                lease_ended_at = coalesce(case when r.intent is not null then r.lease_ended_at end,
                    clock_timestamp())
            where id = r.id;
        insert into rackhand.ready (run_id, site_id, bmc_id, kind, owner, ready_at)
            values (r.id, r.site_id, r.bmc_id, r.kind, r.executor_id, again);
        if stuck then
            perform rackhand.wake_events(r.site_id);
        else
            made := rackhand.append_state(r, 'run.yielded', 'info',
                rackhand.stuck_words(body ->> 'detail', r.idle_leases + 1, again), about, body - 'type');
        end if;
        update rackhand.run set said = r.said + made where id = r.id;
        perform rackhand.wake(r.site_id::text);
        return '{"status": "accepted"}';
    end case;
    update rackhand.run set last_seq = sent_seq, said = r.said + made,
            -- What is not kept any more is no step: it could be repeated without an end.
            idle_leases = case when stepped and not spent then 0 else idle_leases end
        where id = r.id;
    return '{"status": "accepted"}';
end
$$;

-- The plain part of a report, all at once: runs whose items all come under their lease, each with the next
-- number, and say no more than log lines and an end that leaves nothing open. What `report_item` would do, in
-- three writes. One row for each item taken: its index, and for an end its job, whether it failed, and the
-- slots it frees.
create function rackhand.report_plain(items jsonb, me rackhand.executor, session uuid)
returns table (index int, ended boolean, job uuid, bad boolean, freed text[])
language plpgsql as $$
declare
    moment timestamptz := clock_timestamp();
begin
    return query
    with item as materialized (
        select i.*, i.body ->> 'type' as type, i.body ->> 'outcome' as outcome,
            row_number() over (partition by i.run_id order by i.place) as nth,
            count(*) over (partition by i.run_id) as n
        from rows from (jsonb_to_recordset(items) as (index int, run_id uuid, epoch bigint, seq bigint, body jsonb))
            with ordinality as i (index, run_id, epoch, seq, body, place)
    ), plain as materialized (
        select r.id, r.site_id, r.job_id, r.server_id, r.trace_id, r.slots, r.events, r.lines
        from item i
        join rackhand.run r on r.id = i.run_id and r.site_id = me.site_id
        join rackhand.lease l on l.run_id = r.id and l.session_id = session and l.epoch = r.epoch
        group by r.id
        having bool_and(coalesce(i.epoch = r.epoch and i.seq = r.last_seq + i.nth and (
            i.type = 'event'
            or (i.type = 'finish' and i.nth = i.n and i.outcome in ('succeeded', 'no_change', 'failed', 'cancelled')
                and r.intent is null
                and not exists (select from rackhand.effect e
                    where e.run_id = r.id and e.state in ('intended', 'applied', 'settling')))), false))
            and r.lines + count(*) < rackhand.lines_kept()
    ), said as (
        select i.index, i.epoch, i.seq, i.nth, i.nth = i.n as last, i.type = 'finish' as ended, i.outcome, i.body, p.*,
            case i.type when 'event' then 'run.log' else 'run.finished' end as kind,
            case i.type when 'event' then i.body ->> 'level'
                else case i.outcome when 'failed' then 'error' else 'info' end end as level,
            left(case i.type when 'event' then i.body ->> 'message'
                else coalesce(nullif(i.body ->> 'detail', ''), 'Run ' || replace(i.outcome, '_', ' ')) end, 2000) as message,
            case i.type when 'event' then rackhand.bounded(coalesce(i.body -> 'data', 'null'))
                else rackhand.finish_kept(i.body) end as data
        from item i join plain p on p.id = i.run_id
    ), placed as materialized (
        -- An end is the last item and the only one of its tree.
        select s.*, rackhand.tree_of(s.kind, 'executor') as tree, s.lines + s.nth - s.ended::int as lines_then
        from said s
    ), appended as (
        insert into rackhand.event (tree, at, kind, level, message, actor_kind, actor_id, actor_session, site_id,
                job_id, run_id, server_id, trace_id, epoch, seq, data, stream, n)
            select c.tree, moment, c.kind, c.level, c.message, 'executor', me.id, session, c.site_id, c.job_id, c.id,
                c.server_id, c.trace_id, c.epoch, c.seq, c.data, c.id,
                case when c.ended then c.events + 1 else c.lines_then end
            from placed c order by c.index
    ), noted as (
        update rackhand.run r set last_seq = c.seq, lines = c.lines_then
            from placed c where r.id = c.id and c.last and not c.ended
    ), closed as (
        update rackhand.run r set last_seq = c.seq, lines = c.lines_then, events = c.events + 1, state = c.outcome,
                finish = c.data, settle = null, since = now(), finished_at = moment,
                reason = c.data ->> 'code', detail = c.data ->> 'detail',
                percent = null, expected_by = null, admitted = false
            from placed c where r.id = c.id and c.ended
    ), unleased as (
        delete from rackhand.lease l using placed c where c.ended and l.run_id = c.id
    )
    select c.index, c.ended, c.job_id, c.outcome = 'failed', c.slots
    from placed c;
    if found then
        perform rackhand.wake_events(me.site_id);
    end if;
end
$$;

-- {items: [{index, run_id, epoch, seq, body} | {index, run_id, epoch, seq, quarantine: {reason, text}}]}
-- → ReportResponse, in the order of the indexes. One report of an executor at a time: others would wait for
-- the same runs, each on a connection that the executors of all sites share. An item that makes trouble is
-- quarantined under its number; its neighbours go on.
create function rackhand.executor_report(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor := rackhand.active_executor();
    session uuid := rackhand.scope_uuid('session');
    live boolean;
    item jsonb;
    result jsonb;
    results jsonb := '[]';
    taken int[] := '{}';
    others jsonb[];
    endings jsonb := '[]';
    ended record;
    trouble text;
begin
    if not pg_try_advisory_xact_lock(hashtextextended(me.id::text, 4)) then
        perform rackhand.fail('report-busy', format('A report of executor %s is being taken. Send the next one when '
            'it has been answered.', me.name));
    end if;
    -- An expiry waits for this, or this for it; a renewal that is under way does not matter to a session that
    -- lives.
    select s.expires_at > clock_timestamp() and s.superseded_at is null into live
        from rackhand.executor_session s where s.id = session for key share;
    if not live then
        select s.expires_at > clock_timestamp() and s.superseded_at is null into live
            from rackhand.executor_session s where s.id = session for share;
    end if;
    perform from rackhand.run r where r.id in (
            select (value ->> 'run_id')::uuid from jsonb_array_elements(args -> 'items'))
            and r.site_id = me.site_id
        order by r.id for update;
    perform from rackhand.server v where v.id in (select r.server_id
            from jsonb_array_elements(args -> 'items') i join rackhand.run r on r.id = (i ->> 'run_id')::uuid
            where i -> 'body' ->> 'type' = 'inventory' and r.site_id = me.site_id)
        order by v.id for no key update;
    if live and exists (select from jsonb_array_elements(args -> 'items') i
        where i -> 'body' ->> 'type' in ('event', 'finish'))
    then
        begin
            select coalesce(array_agg(p.index), '{}'),
                    coalesce(jsonb_agg(jsonb_build_object('index', p.index, 'status', 'accepted')
                        order by p.index), '[]'),
                    coalesce(jsonb_agg(jsonb_build_object('job', p.job, 'bad', p.bad, 'freed', p.freed))
                        filter (where p.ended), '[]')
                into taken, results, endings
                from rackhand.report_plain(args -> 'items', me, session) p;
        exception
            when deadlock_detected or serialization_failure or lock_not_available or query_canceled then
                raise;
            when others then
                -- One of them makes trouble; which one is found below.
                null;
        end;
    end if;
    if array_length(taken, 1) = jsonb_array_length(args -> 'items') then
        others := '{}';
    else
        others := array(select value from jsonb_array_elements(args -> 'items')
            where (value ->> 'index')::int <> all (taken));
    end if;
    foreach item in array others loop
        begin
            result := rackhand.report_item(item, me, session, live);
        exception
            when deadlock_detected or serialization_failure or lock_not_available or query_canceled then
                raise;
            when others then
                get stacked diagnostics trouble = message_text;
                result := rackhand.report_item(
                    item - 'body' || jsonb_build_object('quarantine', jsonb_build_object('reason', trouble,
                        'text', left((item -> 'body')::text, 4000))), me, session, live);
                if result ->> 'status' = 'accepted' then
                    result := '{"status": "quarantined"}';
                end if;
        end;
        if item ? 'quarantine' and result ->> 'status' = 'accepted' then
            result := '{"status": "quarantined"}';
        end if;
        if result ? 'freed' then
            endings := endings || (result - 'status');
        end if;
        results := results || (result - 'freed' - 'job' - 'bad' || jsonb_build_object('index', item -> 'index'));
    end loop;
    if endings <> '[]' then
        perform rackhand.release(array(
            select key from jsonb_array_elements(endings) e, jsonb_array_elements_text(e -> 'freed') as key));
        for ended in
            select e.job, count(*)::int as runs, count(*) filter (where e.bad)::int as bad
            from jsonb_to_recordset(endings) as e (job uuid, bad boolean) group by e.job order by e.job
        loop
            perform rackhand.job_settle(ended.job, ended.runs, ended.bad);
        end loop;
        perform rackhand.wake(me.site_id::text);
    end if;
    if others <> '{}' then
        results := (select jsonb_agg(value order by (value ->> 'index')::int)
            from jsonb_array_elements(results));
    end if;
    return jsonb_build_object('results', results);
end
$$;

-- Event of rackhand-schema; `names` as `rackhand.names` gives them.
create function rackhand.event_json(e rackhand.event, names jsonb) returns jsonb
language sql stable as $$
    select jsonb_build_object('cursor', e.era || '.' || e.xid || '.' || e.id, 'at', rackhand.ts(e.at), 'kind', e.kind,
        'level', e.level, 'message', case when e.user_id is null then e.message
            else replace(e.message, '{user}', coalesce(names ->> e.user_id::text, '(no longer known)')) end,
        'site_id', e.site_id, 'job_id', e.job_id, 'run_id', e.run_id,
        'server_id', e.server_id, 'user_id', e.user_id, 'user', names ->> e.user_id::text, 'trace_id', e.trace_id,
        'actor', coalesce(names ->> e.actor_id::text,
            case e.actor_kind when 'system' then 'rackhand' when 'anonymous' then 'anonymous' else '' end),
        'actor_kind', e.actor_kind, 'actor_id', e.actor_id, 'late', e.late, 'data', e.data)
$$;

-- The site of a site, server, job or run.
create function rackhand.site_of(object text, key uuid) returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return case object
        when 'site' then key
        when 'server' then (select v.site_id from rackhand.server v where v.id = key)
        when 'job' then (select j.site_id from rackhand.job j where j.id = key)
        when 'run' then (select r.site_id from rackhand.run r where r.id = key) end;
end
$$;

-- {after?: cursor | "latest", before?: cursor | "latest", site?, job?, run?, server?, limit}
-- → {items: [Event], cursor, more, held, sites}. As the caller, so under its policy. With `before` the newest
-- first. A page ends at `limit` or at about 1 MiB.
--
-- Only rows below the oldest running transaction are shown: nothing that commits later can sort before them.
-- `more`: there may be more at once. `held`: there are more, which wait for that transaction. `cursor` of a
-- page without `more` is that horizon, so that the next look begins there. `sites`: whose events may come;
-- null for the whole fleet's.
create function rackhand.events_after(args jsonb) returns jsonb
language plpgsql stable
-- Each page is the beginning of an index in its order; no estimate makes reading all and sorting better.
set enable_sort = off set enable_bitmapscan = off
as $$
declare
    newest_first boolean := args ->> 'before' is not null;
    given text := coalesce(args ->> 'before', args ->> 'after', '');
    wanted int := (args ->> 'limit')::int;
    now_in int := (select t.era from rackhand.trail t);
    horizon xid8 := pg_snapshot_xmin(pg_current_snapshot());
    from_era int := 0;
    from_xid xid8 := '0';
    from_id bigint := 0;
    object text := case
        when args ->> 'run' is not null then 'run' when args ->> 'job' is not null then 'job'
        when args ->> 'server' is not null then 'server' when args ->> 'site' is not null then 'site' end;
    key uuid := args ->> object;
    sites uuid[] := rackhand.allowed_sites();
    source text;
    found_ones rackhand.event[];
    many int;
    more boolean;
    shown int;
    names jsonb;
    items jsonb;
    next text;
begin
    if given = 'latest' then
        from_era := now_in;
        from_xid := horizon;
    elsif given ~ '^[0-9]{1,9}\.[0-9]{1,19}\.[0-9]{1,18}$' then
        from_era := split_part(given, '.', 1)::int;
        from_xid := split_part(given, '.', 2)::xid8;
        from_id := split_part(given, '.', 3)::bigint;
        -- What of this era its reader has seen is not known: it is told all of it again, rather than nothing.
        if not newest_first and rackhand.cursor_is_ahead(from_era, from_xid) then
            from_era := now_in;
            from_xid := '0';
            from_id := 0;
        end if;
    elsif given <> '' or newest_first then
        perform rackhand.fail('invalid-request', 'The cursor is not one of ours.');
    end if;
    -- What the caller may not see is not searched: the policy would pass by each of its events.
    if object is not null then
        sites := array(select unnest(sites) intersect select rackhand.site_of(object, key));
    elsif rackhand.sees_fleet() then
        sites := null;
    end if;
    -- With the object in the comparison too, no statistics make the index over all events look as good. Who
    -- sees some sites only is served from the index of each of them, not from that of all with the others
    -- passed by.
    source := case
        when object is not null and sites <> '{}' then format('rackhand.event e
            where (e.%1$I, e.era, e.xid, e.id) %%1$s ($5, $1, $2, $3) and e.%1$I = $5', object || '_id')
        when sites is null then 'rackhand.event e where (e.era, e.xid, e.id) %1$s ($1, $2, $3)'
        else 'unnest($6) as s (id) cross join lateral (select e.* from rackhand.event e
            where (e.site_id, e.era, e.xid, e.id) %1$s (s.id, $1, $2, $3) and e.site_id = s.id
            order by e.era %2$s, e.xid %2$s, e.id %2$s limit $4) e' end;
    -- The first one whatever its size.
    execute format('select coalesce(array_agg(p.e order by p.place) filter (where p.place = 1 or p.bytes <= 1048576),
                ''{}''), count(*)
            from (select row_number() over o as place,
                    sum(octet_length((q.e).message) + octet_length((q.e).data::text)) over o as bytes, q.e
                from (select row(e.*)::rackhand.event as e, e.era, e.xid, e.id from ' || source
            || ' order by e.era %2$s, e.xid %2$s, e.id %2$s limit $4) q
                window o as (order by q.era %2$s, q.xid %2$s, q.id %2$s)) p',
            case when newest_first then '<' else '>' end, case when newest_first then 'desc' else 'asc' end)
        into found_ones, many using from_era, from_xid, from_id, wanted, key, sites;
    select rackhand.names(array_agg(distinct e.actor_id) || array_agg(distinct e.user_id)) into names
        from unnest(found_ones) e;
    select count(*), coalesce(jsonb_agg(rackhand.event_json(found_ones[i], names) order by i), '[]') into shown, items
        from generate_subscripts(found_ones, 1) as i
        where (found_ones[i].era, found_ones[i].xid) < (now_in, horizon);
    more := shown = wanted or (shown = cardinality(found_ones) and shown < many);
    next := case
        when more or (newest_first and shown > 0) then items -> -1 ->> 'cursor'
        when newest_first or (from_era, from_xid) > (now_in, horizon) then from_era || '.' || from_xid || '.' || from_id
        else now_in || '.' || horizon || '.0' end;
    return jsonb_build_object('items', items, 'cursor', next, 'more', more, 'held', shown < cardinality(found_ones),
        'sites', to_jsonb(sites), 'people', rackhand.sees_people());
end
$$;

-- Postgres lets everybody execute a new function; here nobody may unless told.
revoke execute on all functions in schema rackhand from public;
grant execute on function
    rackhand.site_json, rackhand.paused_words, rackhand.on_at, rackhand.site_of, rackhand.job_head_json, rackhand.job_json, rackhand.run_json,
    rackhand.held_up,
    rackhand.event_json, rackhand.events_after, rackhand.last_failure_json,
    rackhand.site_create, rackhand.site_update, rackhand.site_delete, rackhand.enrolment_token_create,
    rackhand.executor_enrol,
    rackhand.executor_revoke, rackhand.executor_challenge,
    rackhand.executor_session_start, rackhand.site_key_set, rackhand.credential_put,
    rackhand.credential_attempt, rackhand.credential_try_again, rackhand.servers_upsert, rackhand.server_delete,
    rackhand.job_context, rackhand.job_create, rackhand.job_approve, rackhand.job_control, rackhand.run_close,
    rackhand.job_retry_context,
    rackhand.executor_lease, rackhand.executor_report
    to rackhand_api;

reset role;
