-- What no request does: expiry and admission where nobody polls, pruning, partitions, and sealing the audit
-- trail. The host calls `upkeep` about once a minute, from a timer, a cron trigger or `POST /v1/tick`; two at
-- a time harm nothing.
set role rackhand_owner;

-- ── The sealed trail ─────────────────────────────────────────────────────────────────────────────────
-- Each tree of events is an RFC 6962 Merkle tree over the records of its rows, in their order; a checkpoint
-- signs its size and root. Whoever holds one can show later that nothing before it was changed, and nothing
-- left out.

-- The record of an event: every column, as RFC 8785 (canonical JSON) writes it. `row_to_json` puts in no
-- white space and escapes as RFC 8785 §3.2.2.2 does; the names are in order here. Numbers that a reader might
-- round (RFC 7493 §2.2) are texts, and so is `data`: the text of its jsonb.
create function rackhand.event_record(e rackhand.event) returns text
language sql stable as $$
    select row_to_json(r)::text from (select e.actor_id, e.actor_kind, e.actor_session, rackhand.ts(e.at) as at,
        e.data::text as data, e.epoch::text as epoch, e.era, e.id::text as id, e.job_id, e.kind, e.late, e.level,
        e.message, e.n, e.run_id, e.seq::text as seq, e.server_id, e.site_id, e.stream, e.trace_id, e.tree, e.user_id,
        e.xid::text as xid) r
$$;

-- RFC 6962 §2.1: the hash of a leaf.
create function rackhand.event_leaf(e rackhand.event) returns bytea
language sql stable as $$
    select sha256('\x00'::bytea || convert_to(rackhand.event_record(e), 'UTF8'))
$$;

create table rackhand.checkpoint (
    tree text not null,
    number bigint not null,
    at timestamptz not null default clock_timestamp(),
    -- Events up to here, in the order of the cursor.
    era int not null,
    xid xid8 not null,
    event_id bigint not null,
    size bigint not null,
    root bytea not null,
    -- The roots of the perfect trees that it consists of, the largest first: the next checkpoint goes on from
    -- them, and who verifies may begin with any.
    frontier bytea[] not null,
    -- A C2SP tlog-checkpoint: a signed note over size and root. The host knows the keys; it goes on from the
    -- newest one that they have signed.
    note text not null,
    -- It was not signed by one of them: the trail says so.
    refused boolean not null default false,
    primary key (tree, number),
    unique (tree, note)
);

-- Every key that has signed checkpoints, as a C2SP verifier key.
create table rackhand.audit_key (
    vkey text primary key,
    since timestamptz not null default now()
);

-- {tree, limit, below?} → {"log", "newest", "head", "cursor", "leaves": [hex]}: what the next checkpoint of a
-- tree is over. `head`: the newest one that there is, or the newest below a number, {"number", "size",
-- "frontier": [hex], "note"}; `leaves`: what happened after it, up to the cursor.
create function rackhand.seal_due(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set enable_sort = off as $$
    with last as (
        select c.* from rackhand.checkpoint c where c.tree = args ->> 'tree'
            and c.number < coalesce((args ->> 'below')::bigint, 9223372036854775807)
            order by c.number desc limit 1
    ), due as materialized (
        select e.era, e.xid, e.id, rackhand.event_leaf(e) as leaf
        from rackhand.event e, rackhand.trail t
        where e.tree = args ->> 'tree'
            and (e.era, e.xid, e.id) > (coalesce((select era from last), 0), coalesce((select xid from last), '0'::xid8),
                coalesce((select event_id from last), 0))
            and (e.era, e.xid) < (t.era, pg_snapshot_xmin(pg_current_snapshot()))
        order by e.era, e.xid, e.id limit (args ->> 'limit')::int
    )
    select jsonb_build_object('log', (select t.id from rackhand.trail t),
        'newest', (select coalesce(max(c.number), 0) from rackhand.checkpoint c
            where c.tree = args ->> 'tree'),
        'head', (select jsonb_build_object('number', l.number, 'size', l.size, 'note', l.note,
            'frontier', array(select encode(f, 'hex') from unnest(l.frontier) f)) from last l),
        'cursor', (select d.era || '.' || d.xid || '.' || d.id
            from due d order by d.era desc, d.xid desc, d.id desc
            limit 1),
        'leaves', (select coalesce(jsonb_agg(encode(d.leaf, 'hex') order by d.era, d.xid, d.id), '[]') from due d))
$$;

-- {tree, number, after, cursor, size, root, frontier, note, vkey} → whether it was the next one. It goes on
-- from the checkpoint `after` (0: from none); those in between were not signed by the control plane, and the
-- trail says so. One that covers other events than those up to its cursor is refused.
create function rackhand.seal_store(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    last rackhand.checkpoint;
    made rackhand.checkpoint;
    refused jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended('seal ' || (args ->> 'tree'), 3));
    if (args ->> 'number')::bigint <> 1 + coalesce((
        select max(c.number) from rackhand.checkpoint c where c.tree = args ->> 'tree'), 0)
    then
        return 'false';
    end if;
    select * into last from rackhand.checkpoint c
        where c.tree = args ->> 'tree' and c.number = (args ->> 'after')::bigint;
    insert into rackhand.checkpoint (tree, number, era, xid, event_id, size, root, frontier, note)
        values (args ->> 'tree', (args ->> 'number')::bigint, split_part(args ->> 'cursor', '.', 1)::int,
            split_part(args ->> 'cursor', '.', 2)::xid8, split_part(args ->> 'cursor', '.', 3)::bigint,
            (args ->> 'size')::bigint, decode(args ->> 'root', 'hex'),
            array(select decode(f, 'hex') from jsonb_array_elements_text(args -> 'frontier') f), args ->> 'note')
        returning * into made;
    if made.size <= coalesce(last.size, 0) or (made.era, made.xid) >= (select t.era, pg_snapshot_xmin(pg_current_snapshot()) from rackhand.trail t)
        or made.size - coalesce(last.size, 0) <> (
            select count(*) from rackhand.event e where e.tree = made.tree
                and (e.era, e.xid, e.id) > (coalesce(last.era, 0), coalesce(last.xid, '0'), coalesce(last.event_id, 0))
                and (e.era, e.xid, e.id) <= (made.era, made.xid, made.event_id))
    then
        perform rackhand.fail('invalid-request', 'The checkpoint does not cover the events up to its cursor.');
    end if;
    insert into rackhand.audit_key (vkey) values (args ->> 'vkey') on conflict do nothing;
    with told as (
        update rackhand.checkpoint c set refused = true
            where c.tree = made.tree and c.number > coalesce(last.number, 0) and c.number < made.number
                and not c.refused
            returning c.number
    )
    select jsonb_agg(t.number order by t.number) into refused from told t;
    if refused is not null then
        perform rackhand.append_event('trail.checkpoint_refused', 'error',
            'Checkpoints were stored that the control plane has not signed: someone else has its database password',
            '{"actor": {"kind": "system"}}', jsonb_build_object('tree', made.tree, 'numbers', refused));
    end if;
    return 'true';
end
$$;

-- {} → {"log", "keys": [{"vkey", "since"}]}: the keys that have signed checkpoints, says whoever stored
-- these. The host publishes those it knows. Anonymous.
create function rackhand.audit_keys(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('log', t.id, 'keys', coalesce((
        select jsonb_agg(jsonb_build_object('vkey', k.vkey, 'since', rackhand.ts(k.since)) order by k.since, k.vkey)
        from rackhand.audit_key k), '[]'))
    from rackhand.trail t
$$;

-- {tree, after, limit} → {"items": [Checkpoint]}: those with a higher number, in order.
create function rackhand.audit_checkpoints(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform rackhand.require_fleet('admin');
    return jsonb_build_object('items', coalesce((select jsonb_agg(jsonb_build_object('number', c.number,
            'at', rackhand.ts(c.at), 'cursor', c.era || '.' || c.xid || '.' || c.event_id, 'size', c.size,
            'root', encode(c.root, 'hex'), 'frontier', array(select encode(f, 'hex') from unnest(c.frontier) f),
            'note', c.note) order by c.number)
        from (select * from rackhand.checkpoint k
            where k.tree = args ->> 'tree' and k.number > (args ->> 'after')::bigint
            order by k.number limit (args ->> 'limit')::int) c), '[]'));
end
$$;

-- {tree, after: cursor, limit} → {"records": [text], "cursor"}: the records after the cursor that will not
-- change any more, in their order, up to about 1 MiB.
create function rackhand.audit_records(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_sort = off as $$
declare
    given text := coalesce(nullif(args ->> 'after', ''), '0.0.0');
    answer jsonb;
begin
    perform rackhand.require_fleet('admin');
    if given !~ '^[0-9]{1,9}\.[0-9]{1,19}\.[0-9]{1,18}$' then
        perform rackhand.fail('invalid-request', 'The cursor is not one of ours.');
    elsif rackhand.cursor_is_ahead(split_part(given, '.', 1)::int, split_part(given, '.', 2)::xid8) then
        perform rackhand.fail('invalid-request', 'The database was restored to a moment before this cursor. Begin a '
            'new export, and keep the former one: what it has beyond that moment is nowhere else.');
    end if;
    select jsonb_build_object('records', coalesce(jsonb_agg(p.record order by p.place), '[]'),
            'cursor', coalesce((array_agg(p.era || '.' || p.xid || '.' || p.id order by p.place desc))[1], given))
        into answer
        from (select q.*, row_number() over o as place, sum(octet_length(q.record)) over o as bytes
            from (select rackhand.event_record(e) as record, e.era, e.xid, e.id from rackhand.event e, rackhand.trail t
                where e.tree = args ->> 'tree' and (e.era, e.xid, e.id) > (split_part(given, '.', 1)::int,
                        split_part(given, '.', 2)::xid8, split_part(given, '.', 3)::bigint)
                    and (e.era, e.xid) < (t.era, pg_snapshot_xmin(pg_current_snapshot()))
                order by e.era, e.xid, e.id limit (args ->> 'limit')::int) q
            window o as (order by q.era, q.xid, q.id)) p
        where p.place = 1 or p.bytes <= 1048576;
    return answer;
end
$$;

-- ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────
-- What was refused, counted by minute, code and caller: the transaction that refused is rolled back, so the
-- Router tells it in one of its own. Upkeep makes an event of each once its minute is over.

create table rackhand.refusal (
    minute timestamptz not null,
    code text not null,
    actor_kind text not null,
    actor_id uuid,
    actor_session uuid,
    address text not null,
    -- Of the last one.
    path text not null,
    count bigint not null,
    unique nulls not distinct (minute, code, actor_kind, actor_id, actor_session, address)
);

-- {items: [{minute: unix seconds, code, kind, id?, session?, address, path, count}]} → {}. Anonymous.
-- Strangers have 1,000 rows in a minute, over all processes; beyond them they are counted together, without
-- an address.
create function rackhand.refusals_add(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into rackhand.refusal as r
        select to_timestamp(i.minute), i.code, i.kind, i.id, i.session,
            case when i.kind <> 'anonymous' or place <= 1000 - (select count(*) from (select from rackhand.refusal o
                where o.minute = to_timestamp(i.minute) and o.actor_kind = 'anonymous' limit 1000) present)
                then left(i.address, 64) else '' end as address,
            left(max(i.path), 200), sum(i.count)
        from rows from (jsonb_to_recordset(args -> 'items') as (minute bigint, code text, kind text, id uuid,
            session uuid, address text, path text, count bigint)) with ordinality
            as i (minute, code, kind, id, session, address, path, count, place)
        group by 1, 2, 3, 4, 5, 6
        order by 1, 2, 3, 4, 5, 6
        on conflict (minute, code, actor_kind, actor_id, actor_session, address) do update
            set count = r.count + excluded.count, path = excluded.path;
    return '{}';
end
$$;

-- Makes events of what was refused in minutes that are over; how many.
create function rackhand.refusals_tell() returns int
language plpgsql as $$
declare
    item rackhand.refusal;
    told int := 0;
begin
    for item in
        delete from rackhand.refusal r where r.ctid = any (array(
            select o.ctid from rackhand.refusal o where o.minute < date_trunc('minute', clock_timestamp())
            order by o.minute limit 1000))
        returning *
    loop
        perform rackhand.append_event('request.refused', 'warn',
            format('%s refused with %s between %s and %s UTC',
                case item.count when 1 then 'A request' else item.count || ' requests' end, item.code,
                to_char(item.minute at time zone 'UTC', 'HH24:MI'),
                to_char(item.minute at time zone 'UTC' + interval '1 minute', 'HH24:MI')),
            jsonb_build_object('actor', jsonb_build_object('kind', item.actor_kind, 'id', item.actor_id,
                'session', item.actor_session)),
            jsonb_build_object('code', item.code, 'count', item.count, 'minute', rackhand.ts(item.minute),
                'address', item.address, 'path', item.path));
        told := told + 1;
    end loop;
    return told;
end
$$;

-- ── Upkeep ───────────────────────────────────────────────────────────────────────────────────────────

-- Drops the months of lines that are to be kept no longer and are sealed; their checkpoints stay. The number
-- dropped. `verified`: the newest checkpoint that the host knows to be signed by its keys. Whoever has the password of
-- the API's role may claim that too, but a day later the sealing has refused what they stored.
create function rackhand.lines_drop(verified bigint) returns int
language plpgsql as $$
declare
    part record;
    ended record;
    head rackhand.checkpoint;
    dropped int := 0;
begin
    for part in
        select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid, rackhand.trail t
        where i.inhparent = 'rackhand.event_lines'::regclass and c.relname ~ '^event_lines_\d{4}_\d\d$'
            and to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
                <= date_trunc('month', now() at time zone 'UTC') - make_interval(months => t.lines_months)
        order by c.relname
    loop
        execute format('select e.era, e.xid, e.id, (select count(*) from rackhand.%1$I) as records
            from rackhand.%1$I e order by e.era desc, e.xid desc, e.id desc limit 1', part.name) into ended;
        select * into head from rackhand.checkpoint c
            where c.tree = 'lines' and not c.refused and c.number <= verified
                and c.at < clock_timestamp() - interval '1 day'
                and (c.era, c.xid, c.event_id) >= (ended.era, ended.xid, ended.id)
            order by c.number limit 1;
        continue when ended.era is not null and head.number is null;
        execute format('drop table rackhand.%I', part.name);
        perform rackhand.append_event('trail.lines_dropped', 'warn',
            format('What executors said in %s was dropped: %s records', replace(right(part.name, 7), '_', '-'),
                coalesce(ended.records, 0)),
            '{"actor": {"kind": "system"}}',
            jsonb_build_object('partition', part.name, 'records', coalesce(ended.records, 0), 'checkpoint', head.number,
                'size', head.size, 'root', encode(head.root, 'hex')));
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;

-- {verified?} → {"made", "dropped"}: numbers of partitions; `verified` as for `lines_drop`. A reader that is in the
-- way makes it wait for the next round: who waits for these locks holds up everybody behind.
create function rackhand.upkeep_partitions(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
    if not pg_try_advisory_xact_lock(hashtextextended('upkeep', 3)) then
        return '{"made": 0, "dropped": 0}';
    end if;
    return jsonb_build_object('made', cardinality(rackhand.partitions_ahead()), 'dropped',
        rackhand.lines_drop((args ->> 'verified')::bigint));
exception
    when lock_not_available then
        return '{"made": 0, "dropped": 0}';
end
$$;

-- {} → the era. For a host that starts.
create function rackhand.upkeep_begin(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return to_jsonb(rackhand.era_begin());
end
$$;

-- {site_id} → {"expired", "admitted"}: numbers of leases and runs. A transaction for each site: it holds the
-- admission of that one alone, and one that does not work holds up no other.
create function rackhand.upkeep_site(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    leases int := (select count(*) from rackhand.lease l where l.site_id = site);
    admitted int;
begin
    perform set_config('rackhand.kind', 'system', true), rackhand.expire(site);
    admitted := rackhand.admit(site);
    if exists (select from rackhand.ready d where d.site_id = site and d.ready_at <= clock_timestamp()) then
        perform rackhand.wake(site::text);
    end if;
    return jsonb_build_object('admitted', admitted, 'expired', greatest(0,
        leases - (select count(*) from rackhand.lease l where l.site_id = site)));
end
$$;

-- {} → {"requeued", "pruned", "refusals"}: numbers of things; "sites": those that `upkeep_site` has something
-- to do for.
create function rackhand.upkeep(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    done int;
    requeued int := 0;
    pruned int := 0;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('upkeep', 3)) then
        return '{"busy": true}';
    end if;
    perform set_config('rackhand.kind', 'system', true), rackhand.era_begin();
    update rackhand.trail t set floor = pg_snapshot_xmin(pg_current_snapshot());
    -- A run with effects to settle that nobody holds and nobody will be offered: a fault of ours, put right.
    with lost as (
        select r.* from rackhand.run r
        where r.state = 'settling'
            and not exists (select from rackhand.lease l where l.run_id = r.id)
            and not exists (select from rackhand.ready d where d.run_id = r.id)
        order by r.id for update skip locked limit 100
    )
    insert into rackhand.ready (run_id, site_id, bmc_id, kind)
        select l.id, l.site_id, l.bmc_id, l.kind from lost l on conflict do nothing;
    get diagnostics requeued = row_count;

    -- What somebody has locked is pruned another time: rows are found in no order here.
    delete from rackhand.executor_nonce n where n.expires_at < now();
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.login_limit l where l.key in (
        select o.key from rackhand.login_limit o where o.until < now() for update skip locked);
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.idempotency i where i.created_at < now() - interval '7 days';
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.enrolment_token t where t.expires_at < now() - interval '30 days';
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.user_session s where s.id in (
        select o.id from rackhand.user_session o where least(o.expires_at, o.ended_at) < now() - interval '30 days'
        for update skip locked);
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.executor_session s where s.id in (
        select o.id from rackhand.executor_session o
        where least(o.expires_at, o.superseded_at) < now() - interval '30 days'
            and not exists (select from rackhand.lease l where l.session_id = o.id)
        for update skip locked);
    get diagnostics done = row_count;
    pruned := pruned + done;
    return jsonb_build_object('requeued', requeued, 'pruned', pruned, 'refusals', rackhand.refusals_tell(),
        'sites', (select coalesce(jsonb_agg(s.id order by s.id), '[]') from rackhand.site s
            where exists (select from rackhand.ready d where d.site_id = s.id)
                or exists (select from rackhand.lease l where l.site_id = s.id)
                or exists (select from rackhand.job j where j.site_id = s.id and j.state = 'running')));
end
$$;

revoke execute on all functions in schema rackhand from public;
grant execute on function rackhand.upkeep, rackhand.upkeep_site, rackhand.upkeep_begin, rackhand.upkeep_partitions, rackhand.seal_due, rackhand.seal_store,
    rackhand.audit_keys, rackhand.audit_checkpoints, rackhand.audit_records, rackhand.refusals_add to rackhand_api;

reset role;
