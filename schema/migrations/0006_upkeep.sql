-- What no request does: expiry and admission where nobody polls, pruning, and sealing the audit trail. The host
-- calls `upkeep` about once a minute, from a timer, a cron trigger or `POST /v1/tick`; two at a time harm nothing.
set role rackhand_owner;

-- Signed roots over the heads of all streams that grew, one after the other: whoever holds one can show later that
-- nothing before it was changed.
create table rackhand.checkpoint (
    number bigint primary key,
    at timestamptz not null,
    -- Events up to here, in the order of the cursor.
    xid xid8 not null,
    event_id bigint not null,
    streams int not null,
    -- RFC 6962 Merkle tree over (stream, head), ordered by stream.
    root bytea not null,
    -- Of the checkpoint before; 32 zero bytes for the first.
    previous bytea not null,
    kid text not null,
    -- Ed25519 over the text of these fields.
    signature bytea not null
);

-- {} → {"expired", "admitted", "requeued", "pruned"}: numbers of things.
create function rackhand.upkeep(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    home record;
    done int;
    admitted int := 0;
    requeued int := 0;
    pruned int := 0;
    leases int := (select count(*) from rackhand.lease);
begin
    if not pg_try_advisory_xact_lock(hashtextextended('upkeep', 3)) then
        return '{"busy": true}';
    end if;
    for home in select s.id from rackhand.site s order by s.id loop
        perform rackhand.expire(home.id);
        admitted := admitted + rackhand.admit(home.id);
        if exists (select from rackhand.ready d where d.site_id = home.id and d.ready_at <= clock_timestamp()) then
            perform rackhand.wake(home.id::text);
        end if;
    end loop;
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

    delete from rackhand.executor_nonce n where n.expires_at < now();
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.login_limit l where l.until < now();
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.idempotency i where i.created_at < now() - interval '7 days';
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.enrolment_token t where t.expires_at < now() - interval '30 days';
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.user_session s where least(s.expires_at, s.ended_at) < now() - interval '30 days';
    get diagnostics done = row_count;
    pruned := pruned + done;
    delete from rackhand.executor_session s
        where least(s.expires_at, s.superseded_at) < now() - interval '30 days'
            and not exists (select from rackhand.lease l where l.session_id = s.id);
    get diagnostics done = row_count;
    pruned := pruned + done;
    return jsonb_build_object('expired', greatest(0, leases - (select count(*) from rackhand.lease)),
        'admitted', admitted, 'requeued', requeued, 'pruned', pruned);
end
$$;

-- {limit} → {"number", "at", "cursor", "previous", "streams": [[stream, head], …]}: what the next checkpoint is
-- over; no streams when nothing happened since the last one.
create function rackhand.seal_due(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with last as (
        select c.number, c.xid, c.event_id, c.root from rackhand.checkpoint c order by c.number desc limit 1
    ), begins as (
        select coalesce((select number from last), 0) as number,
            coalesce((select xid from last), '0'::xid8) as xid,
            coalesce((select event_id from last), 0) as event_id,
            coalesce((select root from last), decode(repeat('00', 32), 'hex')) as root
    ), due as (
        select e.* from rackhand.event e, begins b
        where (e.xid, e.id) > (b.xid, b.event_id) and e.xid < pg_snapshot_xmin(pg_current_snapshot())
        order by e.xid, e.id limit (args ->> 'limit')::int
    ), heads as (
        select distinct on (d.stream) d.stream, d.hash from due d order by d.stream, d.xid desc, d.id desc
    )
    select jsonb_build_object('number', b.number + 1, 'at', rackhand.ts(clock_timestamp()),
        'cursor', (select d.xid || '.' || d.id from due d order by d.xid desc, d.id desc limit 1),
        'previous', encode(b.root, 'hex'),
        'streams', (select coalesce(jsonb_agg(jsonb_build_array(h.stream, encode(h.hash, 'hex')) order by h.stream),
            '[]') from heads h))
    from begins b
$$;

-- {number, at, cursor, streams, root, previous, kid, signature} → whether it was the next one.
create function rackhand.seal_store(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into rackhand.checkpoint
        select (args ->> 'number')::bigint, (args ->> 'at')::timestamptz,
            split_part(args ->> 'cursor', '.', 1)::xid8, split_part(args ->> 'cursor', '.', 2)::bigint,
            (args ->> 'streams')::int, decode(args ->> 'root', 'hex'), decode(args ->> 'previous', 'hex'),
            args ->> 'kid', decode(args ->> 'signature', 'hex')
        on conflict (number) do nothing;
    return to_jsonb(found);
end
$$;

revoke execute on function rackhand.upkeep, rackhand.seal_due, rackhand.seal_store from public;
grant execute on function rackhand.upkeep, rackhand.seal_due, rackhand.seal_store to rackhand_api;

reset role;
