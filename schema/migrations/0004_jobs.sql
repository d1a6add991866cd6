-- What people and sync agents write: sites, executors, credentials, servers, jobs. Each function checks the
-- caller's role first; each takes and gives one JSON document.
--
-- Lock order, kept by every function here and in 0005: executor_session, run (by id), server (by id), bmc (by
-- id), waiting, ready, lease, capacity (by key), job (by id), stream. A run's rows in `ready` and `lease` are
-- deleted by whoever has locked the run. Admission takes capacity first; the claim after it waits for nothing
-- but `bmc`.
set role rackhand_owner;

-- Site of rackhand-schema.
create function rackhand.site_json(s rackhand.site) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'id', s.id, 'name', s.name, 'config', s.config, 'public_key', s.public_key,
        'servers', (select count(*) from rackhand.server v where v.site_id = s.id and v.removed_at is null),
        'executors_online', (select count(distinct x.executor_id) from rackhand.executor_session x
            where x.site_id = s.id and x.superseded_at is null and x.expires_at > now()),
        'paused_by_name', s.paused_by_name,
        'paused_at', case when s.paused_at is not null then rackhand.ts(s.paused_at) end,
        'created_at', rackhand.ts(s.created_at), 'version', s.version)
$$;

-- Why no run starts that changes a server of the site; null where hardware operations are not paused.
create function rackhand.paused_words(s rackhand.site) returns text
language plpgsql stable as $$
begin
    return case when (s.config ->> 'hardware_paused')::boolean then
        format('Hardware operations of site %s are paused%s: nothing that changes a server starts until they are '
            'resumed.', s.name, case when s.paused_at is not null then
                format(' by %s since %s', s.paused_by_name, rackhand.on_at(s.paused_at)) end) end;
end
$$;

-- What a list shows of a job. The targets of a large job's plan are megabytes, and Postgres reads every
-- column of a row that is passed as a whole.
create view rackhand.job_head with (security_invoker = true) as
    select id, site_id, kind, params, policy, reason, state, state_reason, since, created_at, created_by,
        created_by_name, trace_id, target_count, plan_digest, estimated_minutes, approved_by_name, approved_at,
        cancel_requested
    from rackhand.job;
grant select on rackhand.job_head to rackhand_api;

-- Job of rackhand-schema, its plan without targets. Here and below in PL/pgSQL, which keeps its plans.
create function rackhand.job_head_json(j rackhand.job_head) returns jsonb
language plpgsql stable as $$
begin
    return jsonb_build_object(
        'id', j.id, 'site_id', j.site_id, 'site', (select s.name from rackhand.site s where s.id = j.site_id),
        'kind', j.kind, 'params', j.params, 'policy', j.policy, 'reason', j.reason,
        'state', j.state, 'state_reason', j.state_reason, 'since', rackhand.ts(j.since),
        'created_at', rackhand.ts(j.created_at), 'created_by', j.created_by,
        'created_by_name', j.created_by_name, 'trace_id', j.trace_id,
        'targets', j.target_count, 'cancel_requested', j.cancel_requested,
        'runs', (select coalesce(jsonb_object_agg(c.state, c.n), '{}') from (
            select r.state, count(*) as n from rackhand.run r where r.job_id = j.id group by r.state) c),
        'plan', jsonb_build_object(
            'digest', j.plan_digest, 'targets', '[]'::jsonb, 'estimated_minutes', j.estimated_minutes,
            'approved_by_name', j.approved_by_name,
            'approved_at', case when j.approved_at is not null then rackhand.ts(j.approved_at) end));
end
$$;

-- Job of rackhand-schema.
create function rackhand.job_json(j rackhand.job) returns jsonb
language plpgsql stable as $$
begin
    return (select jsonb_set(rackhand.job_head_json(h), '{plan,targets}', j.plan_targets)
        from rackhand.job_head h where h.id = j.id);
end
$$;

-- Machine of rackhand-schema: what a plan is made for, and approved with it.
create function rackhand.machine_json(b rackhand.bmc) returns jsonb
language sql stable as $$
    select jsonb_strip_nulls(jsonb_build_object('url', b.url, 'ipmi', b.ipmi, 'spki_sha256', b.spki_sha256,
        'service_tag', v.service_tag, 'uuid', v.uuid))
    from rackhand.server v where v.id = b.server_id
$$;

-- A service tag or UUID as it is compared; null when it identifies nothing: what makers leave in a field that
-- nobody has filled in, and zeros, which a BMC shows while its host resets. The same as `telling` of the
-- executor's `broker::machine`.
create function rackhand.telling(shown text) returns text
language plpgsql immutable parallel safe as $$
declare
    told text := lower(btrim(shown, E' \t\r\n'));
begin
    return case when told !~ '^[0fx. -]*$' and told <> all (array['none', 'n/a', 'na', 'unknown', 'not specified',
        'not available', 'default string', 'system serial number', 'to be filled by o.e.m.', 'to be filled by oem'])
        then told end;
end
$$;

-- Whether what is registered now is still the machine that the target of a plan names. What it says it is
-- counts where both say something.
create function rackhand.same_machine(target jsonb, b rackhand.bmc, v rackhand.server) returns boolean
language sql immutable as $$
    select coalesce(target -> 'machine' ->> 'url' = b.url, false)
        and (target -> 'machine' ->> 'ipmi') is not distinct from b.ipmi
        and (target -> 'machine' ->> 'spki_sha256') is not distinct from b.spki_sha256
        and coalesce(rackhand.telling(target -> 'machine' ->> 'service_tag') = rackhand.telling(v.service_tag), true)
        and coalesce(rackhand.telling(target -> 'machine' ->> 'uuid') = rackhand.telling(v.uuid), true)
$$;

-- LastFailure of rackhand-schema, of the latest run that has ended on a server; null if that went well, or was on
-- the machine that had this name before.
create function rackhand.last_failure_json(which uuid) returns jsonb
language sql stable as $$
    select case when r.state in ('failed', 'unknown')
        and r.finished_at >= (select v.machine_since from rackhand.server v where v.id = which)
        then jsonb_build_object(
        'run_id', r.id, 'job_id', r.job_id, 'at', rackhand.ts(r.finished_at), 'code', r.reason, 'detail', r.detail) end
    from rackhand.run r
    where r.server_id = which and r.finished_at is not null
    order by r.id desc limit 1
$$;

-- {reason, detail}: why a run was not admitted yet; null where it was, or its job has ended.
create function rackhand.held_up(r rackhand.run) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    most int;
    other text;
    pause text;
begin
    select (j.policy ->> 'max_parallel')::int, case when j.state = 'paused' then j.state_reason end into most, pause
        from rackhand.waiting w join rackhand.job j on j.id = w.job_id
        where w.job_id = r.job_id and w.position = r.position and j.state in ('running', 'paused');
    if not found then
        return null;
    end if;
    if pause is not null then
        return jsonb_build_object('reason', 'job_paused', 'detail',
            format('%s. This run begins once the job is resumed.', rtrim(pause, '. ')));
    end if;
    select replace(o.kind, '_', ' ') into other from rackhand.run o
        where o.server_id = r.server_id and o.finished_at is null and o.mutating and r.mutating and o.id <> r.id
            and (o.state <> 'queued' or exists (select from rackhand.ready d where d.run_id = o.id))
        limit 1;
    if found then
        return jsonb_build_object('reason', 'server_busy', 'detail', format(
            'Another job (%s) is changing this server. This run begins automatically when that one has ended.', other));
    end if;
    if r.mutating and exists (
        select from rackhand.capacity c where c.key = 'server:' || r.server_id and c.used > 0)
    then
        return jsonb_build_object('reason', 'server_busy', 'detail',
            'A run whose outcome is unknown still holds this server: look at the server, then close that run.');
    end if;
    if exists (select from rackhand.capacity c where c.key = 'job:' || r.job_id and c.used >= most) then
        return jsonb_build_object('reason', 'in_turn', 'detail',
            format('Waits for its turn: at most %s of this job at once.', rackhand.counted(most, 'server')));
    end if;
    select (s.config ->> 'max_mutating_runs')::int into most
        from rackhand.site s join rackhand.capacity c on c.key = 'site:' || s.id
        where s.id = r.site_id and r.mutating and c.used >= (s.config ->> 'max_mutating_runs')::int;
    return case when found then jsonb_build_object('reason', 'in_turn', 'detail',
        format('Waits for its turn: at most %s of this site are changed at once.', rackhand.counted(most, 'server'))) end;
end
$$;

-- Run of rackhand-schema.
create function rackhand.run_json(r rackhand.run) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'id', r.id, 'job_id', r.job_id, 'site_id', r.site_id, 'server_id', r.server_id,
        'server', r.plan ->> 'server', 'state', r.state,
        'reason', case when paused is not null then 'hardware_paused' when idle then 'no_executor'
            else coalesce(waits.held ->> 'reason', r.reason) end,
        'detail', case when paused is not null then paused when idle then 'No executor of the site is online.'
            else coalesce(waits.held ->> 'detail', r.detail) end,
        'since', rackhand.ts(r.since), 'phase', r.phase, 'percent', r.percent, 'epoch', r.epoch,
        'executor', r.executor_id,
        'executor_name', (select e.name from rackhand.executor e where e.id = r.executor_id),
        'cancel_requested', r.cancel_requested, 'created_at', rackhand.ts(r.created_at),
        'finished_at', case when r.finished_at is not null then rackhand.ts(r.finished_at) end)
    from (select
        -- What was taken up once is not held back by a pause.
        (select rackhand.paused_words(s) from rackhand.site s
            where s.id = r.site_id and r.state = 'queued' and r.reason = '' and r.mutating and r.epoch = 0) as paused,
        r.state = 'queued' and r.reason in ('', 'lease_expired') and not exists (
            select from rackhand.executor_session s where s.site_id = r.site_id and s.superseded_at is null
                and s.expires_at > clock_timestamp()) as idle,
        case when r.state = 'queued' and r.reason = '' and r.epoch = 0 then rackhand.held_up(r) end as held) waits
$$;

-- A text for people of at most `most` characters.
create function rackhand.shortened(text text, most int) returns text
language plpgsql immutable parallel safe as $$
begin
    return (select case when length(text) > most then left(text, most - 1) || '…' else text end);
end
$$;

-- What became of one value, for people; null where nothing did.
create function rackhand.from_to(what text, before text, after text) returns text
language plpgsql immutable as $$
begin
    return (select case when before is not distinct from after then null
            when before is null then format('%s set to %s', what, after)
            when after is null then format('%s %s removed', what, before)
            else format('%s %s → %s', what, before, after) end);
end
$$;

-- ── Sites and executors ──────────────────────────────────────────────────────────────────────────────

-- {name, config} → Site
create function rackhand.site_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    made rackhand.site;
begin
    perform rackhand.require_fleet('admin');
    insert into rackhand.site (name, config, paused_by_name, paused_at)
        select args ->> 'name', args -> 'config', case when paused then rackhand.scope_text('actor') end,
            case when paused then now() end
        from (select (args -> 'config' ->> 'hardware_paused')::boolean as paused) wanted
        on conflict (name) do nothing returning * into made;
    if made.id is null then
        perform rackhand.fail('name-taken', format('There is a site named %s already.', args ->> 'name'));
    end if;
    perform rackhand.append_event('site.created', 'info', format('Site %s created', made.name),
        jsonb_build_object('site', made.id), jsonb_build_object('config', made.config));
    return rackhand.site_json(made);
end
$$;

-- What was changed in the settings of a site, for people; null where nothing was.
create function rackhand.config_change(before jsonb, after jsonb) returns text
language sql immutable as $$
    select string_agg(rackhand.from_to(
            case key when 'lease_ttl_ms' then 'lease in ms:' when 'max_mutating_runs' then 'changing runs at once:'
                when 'hardware_paused' then 'hardware operations paused:' when 'second_person' then 'second person approves:'
                else replace(key, '_', ' ') || ':' end,
            coalesce(n.word_before, before ->> key), coalesce(n.word_after, after ->> key)), ', ' order by key)
    from jsonb_object_keys(before || after) as key
    cross join lateral (select
        case before -> key when 'true' then 'yes' when 'false' then 'no' end,
        case after -> key when 'true' then 'yes' when 'false' then 'no' end) as n (word_before, word_after)
$$;

-- {id, config, version?: If-Match} → Site
create function rackhand.site_update(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    before rackhand.site;
    after rackhand.site;
begin
    perform rackhand.require((args ->> 'id')::uuid, 'admin', 'site');
    select * into before from rackhand.site where id = (args ->> 'id')::uuid for update;
    if args ->> 'version' is not null and (args ->> 'version')::bigint <> before.version then
        perform rackhand.fail('version-conflict',
            format('Site %s is at version %s, not %s.', before.name, before.version, args ->> 'version'));
    end if;
    update rackhand.site s set config = args -> 'config', version = version + 1,
            paused_by_name = case when paused then coalesce(s.paused_by_name, rackhand.scope_text('actor')) end,
            paused_at = case when paused then coalesce(s.paused_at, now()) end
        from (select (args -> 'config' ->> 'hardware_paused')::boolean as paused) wanted
        where s.id = before.id returning s.* into after;
    perform rackhand.append_event('site.changed', 'info', rackhand.shortened(format('Settings of site %s: %s',
            after.name, coalesce(rackhand.config_change(before.config, after.config), 'saved without a change')), 1000),
        jsonb_build_object('site', after.id),
        jsonb_build_object('before', before.config, 'after', after.config));
    perform rackhand.wake(after.id::text);
    return rackhand.site_json(after);
end
$$;

-- {id} → {}. Only where nothing ever was: servers, credentials, executors and jobs keep their history in
-- their site.
create function rackhand.site_delete(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone rackhand.site;
    held text;
begin
    perform rackhand.require_fleet('admin');
    select * into gone from rackhand.site where id = (args ->> 'id')::uuid for update;
    if gone.id is null then
        perform rackhand.fail('not-found', 'There is no such site, or you may not see it.');
    end if;
    select string_agg(format('%s (%s)', c.what, c.n), ', ' order by c.place) into held
        from (
            select 1, count(*), 'servers' from rackhand.server where site_id = gone.id union all
            select 2, count(*), 'credentials' from rackhand.credential where site_id = gone.id union all
            select 3, count(*), 'executors' from rackhand.executor where site_id = gone.id union all
            select 4, count(*), 'jobs' from rackhand.job where site_id = gone.id) as c (place, n, what)
        where c.n > 0;
    if held is not null then
        perform rackhand.fail('site-in-use',
            format('Site %s holds %s; those that were removed count. It keeps their history and stays. To stop all '
                'work there, pause its hardware operations.', gone.name, held));
    end if;
    delete from rackhand.enrolment_token where site_id = gone.id;
    delete from rackhand.site where id = gone.id;
    perform rackhand.append_event('site.removed', 'info', format('Site %s removed', gone.name),
        jsonb_build_object('site', gone.id), jsonb_build_object('config', gone.config));
    return '{}';
end
$$;

-- {site_id, token_hash: hex, ttl_s} → {}
create function rackhand.enrolment_token_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
begin
    perform rackhand.require(site, 'admin', 'site');
    insert into rackhand.enrolment_token (hash, site_id, created_by, expires_at)
        values (decode(args ->> 'token_hash', 'hex'), site, rackhand.scope_uuid('user'),
            now() + make_interval(secs => (args ->> 'ttl_s')::int));
    perform rackhand.append_event('executor.token_created', 'info', format('Enrolment token for site %s created',
            (select s.name from rackhand.site s where s.id = site)),
        jsonb_build_object('site', site));
    return '{}';
end
$$;

-- {token_hash: hex, name, signing_key, sealing_key, fingerprint} → Enrolled. Anonymous: the token is the
-- proof, for as long as whoever made it is an admin of the site. Whose answer was lost asks again, with the same name and
-- keys, and is told the same.
create function rackhand.executor_enrol(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    shown rackhand.enrolment_token;
    home rackhand.site;
    made uuid;
    answer jsonb;
begin
    select t.* into shown from rackhand.enrolment_token t
        where t.hash = decode(args ->> 'token_hash', 'hex') and t.expires_at > now()
            and rackhand.is_admin(t.created_by, t.site_id)
        for update;
    select s.* into home from rackhand.site s where s.id = shown.site_id;
    answer := jsonb_build_object('site_id', home.id, 'site', home.name, 'fingerprint', args ->> 'fingerprint',
        'site_public_key', home.public_key);
    select e.id into made from rackhand.executor e
        where e.site_id = home.id and e.name = args ->> 'name' and e.signing_key = args ->> 'signing_key'
            and e.sealing_key = args ->> 'sealing_key' and e.state <> 'revoked';
    if made is not null then
        update rackhand.enrolment_token t set used_at = now() where t.hash = shown.hash and t.used_at is null;
        if found then
            perform rackhand.append_event('executor.enrolled', 'info',
                format('Executor %s enrolled again with the same keys', args ->> 'name'),
                jsonb_build_object('site', home.id));
        end if;
        return answer || jsonb_build_object('executor_id', made);
    end if;
    update rackhand.enrolment_token t set used_at = now() where t.hash = shown.hash and t.used_at is null;
    if not found then
        perform rackhand.fail('enrolment-refused',
            'The token is unknown, used, expired or withdrawn. `rackhand executors enrol-token --site SITE` makes a '
                'new one.');
    end if;
    insert into rackhand.executor (site_id, name, signing_key, sealing_key, fingerprint)
        values (home.id, args ->> 'name', args ->> 'signing_key', args ->> 'sealing_key',
            args ->> 'fingerprint')
        on conflict (site_id, name) do nothing returning id into made;
    if made is null then
        perform rackhand.fail('name-taken',
            format('Site %s has an executor named %s already.', home.name, args ->> 'name'));
    end if;
    perform rackhand.append_event('executor.enrolled', 'info',
        format('Executor %s enrolled, fingerprint %s', args ->> 'name', args ->> 'fingerprint'),
        jsonb_build_object('site', home.id));
    perform rackhand.wake(home.id::text);
    return answer || jsonb_build_object('executor_id', made);
end
$$;

-- {id} → {}. Its session ends now, and what it holds passes on. It may act on that until its own clock ends
-- the lease, so nobody else is given it before.
create function rackhand.executor_revoke(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_one rackhand.executor;
    sessions uuid[];
begin
    select * into found_one from rackhand.executor where id = (args ->> 'id')::uuid;
    perform rackhand.require(found_one.site_id, 'admin', 'executor');
    sessions := array(select s.id from rackhand.executor_session s where s.executor_id = found_one.id
        and (s.superseded_at is null or exists (select from rackhand.lease l where l.session_id = s.id))
        order by s.id for update);
    update rackhand.executor_session s set superseded_at = coalesce(s.superseded_at, now())
        where s.id = any (sessions);
    update rackhand.executor set state = 'revoked', site_key = null where id = found_one.id;
    perform rackhand.take_back(sessions, 'was revoked');
    perform rackhand.append_event('executor.revoked', 'warn', format('Executor %s revoked', found_one.name),
        jsonb_build_object('site', found_one.site_id));
    perform rackhand.wake(found_one.site_id::text);
    return '{}';
end
$$;

-- {executor_id} → {signing_key, site_id, name}. Anonymous. The caller verifies the signature with the key
-- before it starts a session.
create function rackhand.executor_challenge(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.executor;
begin
    select * into who from rackhand.executor where id = (args ->> 'executor_id')::uuid;
    if not found or who.state = 'revoked' then
        perform rackhand.fail('executor-revoked', 'This executor is not enrolled here, or was revoked.');
    end if;
    return jsonb_build_object('signing_key', who.signing_key, 'site_id', who.site_id, 'name', who.name);
end
$$;

-- {executor_id, session_id, resumes: [id], nonce} → {site_id} or {copied: why}. Anonymous; only after the signature
-- was verified. Only now is the nonce written down as used: who cannot sign leaves nothing behind and takes nothing
-- away. A new session supersedes the former one. The former's leases go on to their expiry, unless its process is
-- known to be dead (one of `resumes`): then they end now. Known to whoever holds the journal's lock, on one machine:
-- what runs on with a copy elsewhere announces nothing any more, and a successor waits for what was announced.
--
-- Whoever resumes sessions, but not the newest one, has a copy of the journal. It is not let in beside the newest one
-- as long as that lives, however often it is started again, and people are told: that must be committed, so it is an
-- answer here, not an exception. A journal names the newest session that it knows of and all that were tried after
-- it.
create function rackhand.executor_session_start(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.executor;
    session uuid := (args ->> 'session_id')::uuid;
    resumed uuid[] := array(select jsonb_array_elements_text(args -> 'resumes')::uuid);
    present rackhand.executor_session;
    newest rackhand.executor_session;
    lives boolean;
    copied boolean;
    said constant text := 'Executor %s runs twice, or from an old copy: a process signed in that goes on from a session '
        'which another process of this executor has taken over since. Two machines must not share one data directory. '
        'Stop the copy and enrol its machine as an executor of its own';
begin
    insert into rackhand.executor_nonce
        values (args ->> 'nonce', (args ->> 'executor_id')::uuid, now() + interval '10 minutes')
        on conflict do nothing;
    if not found then
        perform rackhand.fail('nonce-invalid', 'The nonce was used before.');
    end if;
    select * into who from rackhand.executor where id = (args ->> 'executor_id')::uuid for update;
    select * into present from rackhand.executor_session where id = session;
    if found and present.executor_id <> who.id then
        perform rackhand.fail('signature-invalid', 'The session belongs to another executor.');
    elsif found and present.superseded_at is not null then
        perform rackhand.fail('session-superseded',
            format('A newer process has signed in as executor %s.', who.name));
    elsif not found then
        select * into newest from rackhand.executor_session s
            where s.executor_id = who.id and s.superseded_at is null;
        lives := found and newest.expires_at > clock_timestamp();
        -- Sessions that nobody knows any more, such as those after the backup that was restored, prove nothing alone.
        copied := newest.id <> all (resumed) and resumed <> '{}' and (lives or exists (
            select from rackhand.executor_session s where s.id = any (resumed) and s.executor_id = who.id));
        if copied and coalesce(who.copied_at < now() - interval '1 hour', true) then
            update rackhand.executor e set copied_at = now() where e.id = who.id;
            perform rackhand.append_event('executor.copied', 'error', format(said, who.name),
                jsonb_build_object('site', who.site_id,
                    'actor', jsonb_build_object('kind', 'executor', 'id', who.id, 'session', session)),
                jsonb_build_object('resumes', args -> 'resumes'));
        end if;
        if copied and lives then
            return jsonb_build_object('copied', format(said, who.name) || '.');
        end if;
        -- Each start of a process is an event for good.
        perform rackhand.login_count('executor ' || who.id, 60, interval '5 minutes');
        update rackhand.executor_session s set superseded_at = now(),
                expires_at = case when s.id = any (resumed)
                    then least(s.expires_at, now()) else s.expires_at end
            where s.executor_id = who.id and s.superseded_at is null;
        insert into rackhand.executor_session (id, executor_id, site_id)
            values (session, who.id, who.site_id);
        perform rackhand.append_event('executor.started', 'info', format('Executor %s signed in', who.name),
            jsonb_build_object('site', who.site_id,
                'actor', jsonb_build_object('kind', 'executor', 'id', who.id, 'session', session)),
            jsonb_build_object('session', session));
    end if;
    return jsonb_build_object('site_id', who.site_id);
end
$$;

-- SiteKey → {}. By an executor. A share is for whoever has none: nobody replaces what another one has got, which after
-- a restart is all that it holds of the key. No row is waited for, as each request holds a connection that the
-- executors of all sites share.
create function rackhand.site_key_set(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor := rackhand.calling_executor();
    home rackhand.site;
    given rackhand.executor;
    changed boolean := false;
    busy constant text := 'The key of site %s is being set or handed on. Send this again in a moment.';
begin
    select * into home from rackhand.site where id = me.site_id;
    if not pg_try_advisory_xact_lock(hashtextextended(me.id::text, 8)) then
        perform rackhand.fail('report-busy', format(busy, home.name));
    end if;
    if home.public_key is null then
        update rackhand.site set public_key = args ->> 'public_key', version = version + 1 where id in (
            select s.id from rackhand.site s where s.id = home.id and s.public_key is null
            for no key update skip locked);
        if not found then
            perform rackhand.fail('report-busy', format(busy, home.name));
        end if;
        changed := true;
        perform rackhand.append_event('site.key_set', 'info',
            format('Executor %s made the key of site %s', me.name, home.name),
            jsonb_build_object('site', home.id), jsonb_build_object('public_key', args -> 'public_key'));
    elsif home.public_key <> args ->> 'public_key' then
        perform rackhand.fail('site-key-conflict', format('Site %s has another key.', home.name));
    elsif me.state <> 'active' then
        perform rackhand.fail('site-key-conflict',
            format('Executor %s does not hold the key of site %s yet.', me.name, home.name));
    end if;
    for given in
        with share as (
            select distinct on (s.executor_id) s.executor_id, s.sealed
            from jsonb_to_recordset(args -> 'shares') as s (executor_id uuid, sealed text)
        ), without as (
            select e.id from rackhand.executor e
            where e.id in (select s.executor_id from share s) and e.site_id = home.id and e.site_key is null
                and e.state <> 'revoked'
            order by e.id for no key update skip locked
        )
        update rackhand.executor e set site_key = s.sealed, state = 'active'
            from share s join without w on w.id = s.executor_id
            where e.id = s.executor_id
            returning e.*
    loop
        changed := true;
        if given.id <> me.id then
            perform rackhand.append_event('executor.confirmed', 'info',
                format('Executor %s gave the site key to executor %s', me.name, given.name),
                jsonb_build_object('site', home.id));
        end if;
    end loop;
    if exists (select from rackhand.executor e
        where e.id in (select (value ->> 'executor_id')::uuid from jsonb_array_elements(args -> 'shares'))
            and e.site_id = home.id and e.site_key is null and e.state <> 'revoked')
    then
        -- Somebody else has locked its row.
        perform rackhand.fail('report-busy', format(busy, home.name));
    end if;
    if changed then
        perform rackhand.wake(home.id::text);
    end if;
    return '{}';
end
$$;

-- ── Credentials ──────────────────────────────────────────────────────────────────────────────────────

-- Credential of rackhand-schema.
create function rackhand.credential_json(c rackhand.credential) returns jsonb
language sql stable as $$
    select jsonb_build_object('id', c.id, 'site_id', c.site_id, 'name', c.name, 'version', c.version,
        'suspended', c.suspended_at is not null, 'created_at', rackhand.ts(c.created_at),
        'refused_at', rackhand.ts(c.refused_at), 'address_count', c.address_count, 'addresses', c.addresses)
$$;

-- NewCredential → Credential
create function rackhand.credential_put(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    wanted int := (args ->> 'version')::int;
    stored rackhand.credential;
begin
    perform rackhand.require(site, 'operator', 'site');
    if wanted = 1 then
        insert into rackhand.credential (site_id, name, version, sealed, sealed_for)
            values (site, args ->> 'name', 1, args ->> 'sealed', args -> 'sealed_for')
            on conflict (site_id, name) do nothing returning * into stored;
    else
        update rackhand.credential c set version = wanted, sealed = args ->> 'sealed',
                sealed_for = args -> 'sealed_for', suspended_at = null, refused_at = null, created_at = now()
            where c.site_id = site and c.name = args ->> 'name' and c.version = wanted - 1
            returning * into stored;
    end if;
    if stored.id is null then
        select * into stored from rackhand.credential c where c.site_id = site and c.name = args ->> 'name';
        -- The same text again: the answer to the first request was lost.
        if stored.version = wanted and stored.sealed = args ->> 'sealed' then
            return rackhand.credential_json(stored);
        end if;
        perform rackhand.fail('credential-version', case when stored.id is null
            then format('There is no credential %s yet: seal it as version 1.', args ->> 'name')
            else format('Credential %s is at version %s: seal it as version %s.', stored.name, stored.version,
                stored.version + 1) end);
    end if;
    perform rackhand.append_event('credential.set', 'info',
        format('Credential %s stored as version %s', stored.name, stored.version),
        jsonb_build_object('site', site));
    return rackhand.credential_json(stored);
end
$$;

-- A moment for people.
create function rackhand.on_at(moment timestamptz) returns text
language sql stable as $$
    select to_char(moment at time zone 'UTC', 'YYYY-MM-DD "at" HH24:MI "UTC"')
$$;

-- The refusals of a version by BMCs of servers that are there and use it. All others count for a suspension, too, until
-- a person lets it be tried again.
create function rackhand.refusals(credential uuid, version int)
returns table (bmc_id uuid, server text, failures int, rejected_at timestamptz)
language sql stable as $$
    select u.bmc_id, v.name, u.failures, u.rejected_at
        from rackhand.credential_use u
        join rackhand.bmc b on b.id = u.bmc_id and b.credential_id = u.credential_id
        join rackhand.server v on v.id = b.server_id and v.removed_at is null
        where u.credential_id = credential and u.version = refusals.version and u.failures > 0
$$;

-- That a credential is suspended, and who refused its version, for people; null where it is not.
create function rackhand.suspension(which uuid) returns text
language plpgsql stable as $$
declare
    c record;
    refusers text;
    others boolean;
begin
    select k.id, k.name, k.version, k.refused_at into c
        from rackhand.credential k where k.id = which and k.suspended_at is not null;
    if not found then
        return null;
    end if;
    select case when count(*) > 1 then 'the BMCs of ' else 'the BMC of ' end
            || string_agg(s.name, ', ' order by s.place) filter (where s.place <= 5)
            || case when count(*) > 5 then format(' and %s more', count(*) - 5) else '' end into refusers
        from (
            select r.server as name, row_number() over (order by r.server) as place
                from rackhand.refusals(c.id, c.version) r) s;
    others := exists (select from rackhand.credential_use u where u.credential_id = c.id and u.version = c.version
        and u.failures > 0 and u.bmc_id not in (select r.bmc_id from rackhand.refusals(c.id, c.version) r));
    return format('Credential %s version %s is suspended: refused by %s, last on %s. Nothing was sent since.', c.name,
        c.version, concat_ws(' and ', refusers, case when others or refusers is null
            then 'BMCs that do not use it any more' end), rackhand.on_at(c.refused_at));
end
$$;

-- {server_id} → TriedAgain. A person lets executors present the credential of one BMC again: its refused and
-- unanswered attempts are forgotten, with those of BMCs that do not use it any more, and the version is suspended no
-- more if no two refusals by other BMCs are left. Where there is nothing to forget, nothing changes and nothing is noted.
create function rackhand.credential_try_again(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    home uuid := (select v.site_id from rackhand.server v
        where v.id = (args ->> 'server_id')::uuid and v.removed_at is null);
    endpoint rackhand.bmc;
    cred rackhand.credential;
    left_over record;
    own boolean;
    others boolean;
    -- BMCs that do not use the credential any more.
    unused uuid[];
    -- Attempts reserved after it may still be under way.
    settled timestamptz;
begin
    perform rackhand.require(home, 'operator', 'server');
    select * into endpoint from rackhand.bmc b where b.server_id = (args ->> 'server_id')::uuid;
    select * into cred from rackhand.credential c where c.id = endpoint.credential_id for no key update;
    if not found then
        perform rackhand.fail('invalid-request', 'No credential is set for the BMC of this server.');
    end if;
    -- No other one gets the credential back meanwhile.
    perform from rackhand.bmc b
        where b.id in (select u.bmc_id from rackhand.credential_use u where u.credential_id = cred.id)
            and b.credential_id is distinct from cred.id
        order by b.id for no key update;
    settled := clock_timestamp() - interval '10 minutes';
    unused := array(select u.bmc_id from rackhand.credential_use u where u.credential_id = cred.id
        and not exists (select from rackhand.bmc b
            join rackhand.server v on v.id = b.server_id and v.removed_at is null
            where b.id = u.bmc_id and b.credential_id = u.credential_id));
    select coalesce(bool_or(u.bmc_id = endpoint.id), false), coalesce(bool_or(u.bmc_id <> endpoint.id), false)
        into own, others
        from rackhand.credential_use u where u.credential_id = cred.id and u.version = cred.version
            and (u.bmc_id = endpoint.id or u.bmc_id = any (unused) and coalesce(u.reserved_at < settled, true))
            and (u.failures > 0 or u.unanswered > 0);
    select max(r.rejected_at) as at, coalesce(sum(r.failures), 0) as failures into left_over
        from rackhand.refusals(cred.id, cred.version) r where r.bmc_id <> endpoint.id;
    if not own and cred.suspended_at is not null and left_over.failures >= 2 then
        perform rackhand.fail('invalid-request', format('The BMC of %s has refused nothing that counts: nothing was '
            'changed. %s Let it be tried again on a server that refused it.', (select v.name from rackhand.server v
                where v.id = endpoint.server_id), rackhand.suspension(cred.id)));
    elsif not own and not others and cred.suspended_at is null then
        return jsonb_build_object('changed', false, 'suspended', null);
    end if;
    delete from rackhand.credential_use u where u.credential_id = cred.id
        and (u.bmc_id = endpoint.id or u.bmc_id = any (unused) and coalesce(u.reserved_at < settled, true));
    update rackhand.credential c set refused_at = left_over.at,
            suspended_at = case when left_over.failures >= 2 then c.suspended_at end
        where c.id = cred.id returning * into cred;
    perform rackhand.append_event('credential.try_again', 'warn',
        case when not own and others
            then format('Attempts with credential %s version %s at BMCs that no longer use it do not count any more; '
                'it is not suspended',
                cred.name, cred.version)
            when cred.suspended_at is null
            then format('Credential %s version %s may be presented to %s again', cred.name, cred.version, endpoint.url)
            else format('Refusals of credential %s version %s by %s no longer count; it stays suspended', cred.name,
                cred.version, endpoint.url) end,
        jsonb_build_object('site', home, 'server', endpoint.server_id));
    perform rackhand.wake(home::text);
    return jsonb_build_object('changed', true, 'suspended', rackhand.suspension(cred.id));
end
$$;

-- CredentialAttempt → AttemptAnswer. By the executor that owns the BMC. A BMC locks an address out after a
-- few wrong logins, so every unproven attempt is counted here before it is made, over all executors. Two
-- refusals end a version until a person says otherwise; attempts that nobody reported on count as much, but
-- are forgotten with time.
create function rackhand.credential_attempt(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    forget constant interval := interval '10 minutes';
    -- Events of one version at one BMC, which are for good.
    kept constant int := 100;
    me rackhand.executor := rackhand.active_executor();
    moment timestamptz;
    cred rackhand.credential;
    usage rackhand.credential_use;
    endpoint rackhand.bmc;
    refused int;
    open_ones int;
    forgotten int;
    since timestamptz;
begin
    select * into cred from rackhand.credential c
        where c.id = (args ->> 'credential_id')::uuid and c.site_id = me.site_id for no key update;
    select * into endpoint from rackhand.bmc b
        where b.id = (args ->> 'bmc_id')::uuid and b.site_id = me.site_id for key share;
    if cred.id is null or endpoint.id is null then
        perform rackhand.fail('not-found', 'There is no such credential or BMC in this site.');
    end if;
    moment := clock_timestamp();
    -- One caller at a time, who has locked the credential. What is refused leaves no row.
    select * into usage from rackhand.credential_use u
        where u.bmc_id = endpoint.id and u.credential_id = cred.id and u.version = (args ->> 'version')::int;
    -- How it went is for whoever reserved the attempt to say; a proven version is presented without asking,
    -- and its refusal is for the owner of the BMC to tell, also if it has been suspended since.
    if (case args ->> 'step'
        when 'reserve' then endpoint.owner_executor is distinct from me.id
        when 'rejected' then usage.reserved_by is distinct from me.id
            and (usage.proven_at is null and (usage.bmc_id is null or cred.suspended_at is null)
                or endpoint.owner_executor is distinct from me.id)
        else usage.reserved_by is distinct from me.id end)
    then
        return jsonb_build_object('allowed', false, 'detail', case args ->> 'step'
            when 'reserve' then 'Another executor speaks to this BMC.'
            else 'This executor has no attempt under way on this BMC.' end);
    end if;

    case args ->> 'step'
    when 'accepted' then
        -- By the BMC that was registered then, which says nothing of another one.
        if usage.reserved_at >= endpoint.machine_at then
            -- Of a version that was suspended meanwhile it proves nothing: it may be from before the password was changed.
            usage.proven_at := case when cred.suspended_at is null or cred.version <> usage.version then moment end;
            usage.failures := 0;
            usage.rejected_at := null;
            usage.unanswered := 0;
        end if;
        usage.reserved_at := null;
        usage.reserved_by := null;
    when 'not_sent' then
        usage.reserved_at := null;
        usage.reserved_by := null;
    when 'rejected' then
        usage.proven_at := null;
        usage.failures := usage.failures + 1;
        usage.refusals := usage.refusals + 1;
        usage.rejected_at := moment;
        usage.reserved_at := null;
        usage.reserved_by := null;
    when 'reserve' then
        if cred.version <> (args ->> 'version')::int then
            return jsonb_build_object('allowed', false, 'detail',
                format('Credential %s has moved on to version %s.', cred.name, cred.version));
        elsif cred.suspended_at is not null then
            return jsonb_build_object('allowed', false, 'detail', rackhand.suspension(cred.id));
        elsif usage.failures >= 2 then
            return jsonb_build_object('allowed', false, 'detail', format(
                'This BMC refused credential %s version %s twice, last on %s. Nothing was sent since.',
                cred.name, cred.version, rackhand.on_at(usage.rejected_at)));
        end if;
        if usage.bmc_id is null then
            usage.bmc_id := endpoint.id;
            usage.credential_id := cred.id;
            usage.version := cred.version;
            usage.failures := 0;
            usage.refusals := 0;
            usage.unanswered := 0;
        end if;
        if usage.proven_at is null then
            -- A reservation that still stands is an earlier attempt that nobody reported on.
            since := case when usage.unanswered > 0 then usage.unanswered_at else usage.reserved_at end;
            forgotten := coalesce(floor(extract(epoch from moment - since) / extract(epoch from forget)), 0);
            open_ones := greatest(0, usage.unanswered + (usage.reserved_at is not null)::int - forgotten);
            usage.unanswered := open_ones;
            usage.unanswered_at := since + forgotten * forget;
            if usage.failures + open_ones >= 2 then
                return jsonb_build_object('allowed', false, 'retry_after_ms', 60000, 'detail', format(
                    'Credential %s version %s has used up its attempts on this BMC for now: %s refused, %s without '
                    'an answer. An attempt without an answer is forgotten after ten minutes.',
                    cred.name, cred.version, usage.failures, open_ones));
            end if;
            -- While no BMC has accepted this version, it is tried on one BMC at a time, so that a wrong
            -- password costs two refusals in the whole site.
            if usage.reserved_at is null
                and not exists (select from rackhand.credential_use u where u.credential_id = cred.id
                    and u.version = usage.version and u.proven_at is not null)
                and exists (select from rackhand.credential_use u where u.credential_id = cred.id
                    and u.version = usage.version and u.bmc_id <> usage.bmc_id
                    and u.reserved_at > moment - interval '2 minutes')
            then
                return jsonb_build_object('allowed', false, 'retry_after_ms', 200, 'detail',
                    format('Credential %s version %s is tried on one BMC first.', cred.name, cred.version));
            end if;
            usage.reserved_at := moment;
            usage.reserved_by := me.id;
        end if;
    end case;
    insert into rackhand.credential_use values (usage.*)
        on conflict (bmc_id, credential_id, version) do update set proven_at = excluded.proven_at,
            failures = excluded.failures, refusals = excluded.refusals, rejected_at = excluded.rejected_at,
            unanswered = excluded.unanswered,
            unanswered_at = excluded.unanswered_at, reserved_at = excluded.reserved_at,
            reserved_by = excluded.reserved_by;
    if args ->> 'step' = 'rejected' then
        -- By whatever BMC: one that is registered anew is the same one.
        select sum(u.failures) into refused from rackhand.credential_use u
            where u.credential_id = cred.id and u.version = usage.version;
        if usage.refusals <= kept then
            perform rackhand.append_event('credential.rejected', 'warn',
                format('%s refused credential %s version %s', endpoint.url, cred.name, usage.version)
                    || case when usage.refusals = kept then format(
                        ', for the %sth time. Further refusals of this version by this BMC are not kept', kept) else '' end,
                jsonb_build_object('site', me.site_id, 'server', endpoint.server_id));
        end if;
        update rackhand.credential set refused_at = moment where id = cred.id and version = usage.version;
        if refused >= 2 and cred.version = usage.version and cred.suspended_at is null then
            update rackhand.credential set suspended_at = moment where id = cred.id;
            -- What was accepted before the refusals proves nothing any more, also once the version may be tried again.
            update rackhand.credential_use u set proven_at = null
                where u.credential_id = cred.id and u.version = cred.version and u.proven_at is not null;
            perform rackhand.append_event('credential.suspended', 'error',
                format('Credential %s version %s suspended after %s refusals', cred.name, cred.version, refused),
                jsonb_build_object('site', me.site_id));
            -- BMCs that had accepted it are logged in to without asking: their executors hear of it now.
            perform rackhand.wake(me.site_id::text);
        end if;
    end if;
    return '{"allowed": true, "detail": ""}';
end
$$;

-- ── Servers ──────────────────────────────────────────────────────────────────────────────────────────

-- {server: job}: the servers of a site for which a plan waits to be approved, and whose that is, of several the first.
create function rackhand.promised(site uuid) returns jsonb
language sql stable as $$
    select coalesce(jsonb_object_agg(p.server, p.job), '{}')
        from (select t.value ->> 'server_id' as server, min(j.id::text) as job
            from rackhand.job j, jsonb_array_elements(j.plan_targets) t
            where j.site_id = site and j.state = 'planned' and t.value -> 'blockers' = '[]' group by 1) p
$$;

-- Refuses to change what says which machine a server is (its addresses, its TLS key) while people have
-- approved or are about to approve something for it.
create function rackhand.keep_machine(known rackhand.server, promised jsonb) returns void
language plpgsql as $$
declare
    job uuid;
begin
    select r.job_id into job from rackhand.run r
        where r.server_id = known.id and (r.finished_at is null or r.admitted) limit 1;
    if found then
        perform rackhand.fail('job-state', format('Job %s changes or reads server %s. Its addresses and TLS key can be '
            'changed once that job has ended or its run is closed.', job, known.name));
    elsif promised ? known.id::text then
        perform rackhand.fail('job-state', format('The plan of job %s for server %s waits for approval. Its addresses '
            'and TLS key can be changed once that job has ended: `rackhand jobs cancel %1$s --reason …` ends it.',
            promised ->> known.id::text, known.name));
    end if;
end
$$;

-- Whether the second of two BMC addresses is another service or another system of it. Where a service has several
-- systems, an address that named none may name one.
create function rackhand.is_elsewhere(here text, there text) returns boolean
language plpgsql immutable as $$
begin
    return (select rackhand.bmc_origin(here) is distinct from rackhand.bmc_origin(there)
            or coalesce(substring(here from system) <> substring(there from system), substring(here from system) is not null)
        from (values ('^https://[^/]+(/.*)$')) as pattern (system));
end
$$;

-- What people say about a server, as it is stored.
create function rackhand.registration(b rackhand.bmc, v rackhand.server) returns jsonb
language plpgsql immutable as $$
begin
    return (select jsonb_build_object('bmc_url', b.url, 'ipmi', b.ipmi, 'credential_id', b.credential_id,
            'spki_sha256', b.spki_sha256, 'tags', v.tags));
end
$$;

-- The same as an item of an upsert wants it. What the item does not name stays as it is in `kept`; but the IPMI
-- address and the TLS key are those of the BMC address, and go with it.
create function rackhand.registration_of(item jsonb, kept jsonb default '{}') returns jsonb
language plpgsql immutable as $$
begin
    return (select jsonb_build_object('bmc_url', m.wanted ->> 'bmc_url', 'ipmi', m.wanted ->> 'ipmi',
            'credential_id', (m.wanted ->> 'credential_id')::uuid, 'spki_sha256', m.wanted ->> 'spki_sha256',
            'tags', array(select distinct t
                from jsonb_array_elements_text(coalesce(nullif(m.wanted -> 'tags', 'null'), '[]')) t order by t))
        from (select case when rackhand.is_elsewhere(kept ->> 'bmc_url', item ->> 'bmc_url')
                then kept - array['ipmi', 'spki_sha256'] else kept end || item) as m (wanted));
end
$$;

-- The members of one list that another does not have, for people; null where there are none.
create function rackhand.only_in(what text, here jsonb, there jsonb) returns text
language plpgsql immutable as $$
begin
    return (select what || ': ' || rackhand.shortened(string_agg(t, ', ' order by t), 200)
        from jsonb_array_elements_text(here) t where not there ? t);
end
$$;

-- What a changed registration has changed, for people.
create function rackhand.registration_change(before jsonb, after jsonb) returns text
language plpgsql stable as $$
begin
    return (select rackhand.shortened(concat_ws(', ',
            rackhand.from_to('BMC address', before ->> 'bmc_url', after ->> 'bmc_url'),
            rackhand.from_to('IPMI address', before ->> 'ipmi', after ->> 'ipmi'),
            rackhand.from_to('TLS key', rackhand.shortened(before ->> 'spki_sha256', 17),
                rackhand.shortened(after ->> 'spki_sha256', 17)),
            rackhand.from_to('credential',
                (select c.name from rackhand.credential c where c.id = (before ->> 'credential_id')::uuid),
                (select c.name from rackhand.credential c where c.id = (after ->> 'credential_id')::uuid)),
            rackhand.only_in('tags added', after -> 'tags', before -> 'tags'),
            rackhand.only_in('tags removed', before -> 'tags', after -> 'tags')), 1000));
end
$$;

-- Refuses a registration that would have a server's traffic go elsewhere: to another service, another system of it,
-- or another address for IPMI, or none, in place of one: the next one would then be the first.
create function rackhand.keep_address(name text, before jsonb, after jsonb) returns void
language plpgsql as $$
declare
    here text := before ->> 'bmc_url';
    there text := after ->> 'bmc_url';
begin
    if not rackhand.is_elsewhere(here, there) then
        here := 'ipmi://' || (before ->> 'ipmi');
        there := 'ipmi://' || (after ->> 'ipmi');
        if here is null or rackhand.bmc_origin(here) = rackhand.bmc_origin(there) then
            return;
        elsif there is null then
            perform rackhand.fail('name-taken', format('Server %s has its BMC at %s, too. It was not changed. To remove '
                'that address, register the server with `replace` (`--replace` on the command line).', name, here));
        end if;
    end if;
    perform rackhand.fail('name-taken', format('Server %s has its BMC at %s, not at %s. It was not changed. If the '
        'same server is now there, register it with `replace` (`--replace` on the command line); else give another '
        'name.', name, here, there));
end
$$;

-- A name stands for another machine from now on: what was read from the former one is forgotten. Its runs and events
-- stay.
create function rackhand.forget_machine(which uuid) returns void
language plpgsql as $$
begin
    update rackhand.server v set vendor = null, model = null, service_tag = null, uuid = null, generation = null,
            bios_version = null, bmc_version = null, power = 'unknown', health = 'unknown', capabilities = '{}',
            unreadable = '{}', seen_at = null, machine_since = clock_timestamp()
        where v.id = which;
    delete from rackhand.firmware f where f.server_id = which;
end
$$;

-- {site_id, servers: [{index, name, bmc_url, ipmi?, credential_id?, spki_sha256?, tags?}], replace} →
-- BulkUpsertResult. Each server stands alone: one that cannot be stored is refused by its index.
create function rackhand.servers_upsert(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    item jsonb;
    -- Its registration as it is, and as it is to be.
    before jsonb;
    after jsonb;
    known rackhand.server;
    endpoint rackhand.bmc;
    holder text;
    taken text;
    trouble text;
    told text;
    item_tags text[];
    -- What differs from its registration, and whether any of it would be another machine.
    locked uuid[];
    moved boolean;
    -- Servers in plans that wait for approval; looked for once it matters.
    promised jsonb;
    created int := 0;
    changes jsonb := '{}';
    unchanged int := 0;
    refused jsonb := '[]';
    ids jsonb := '{}';
begin
    perform rackhand.require(site, 'operator', 'site');
    -- All that is to be changed is locked at once, in the order that every writer keeps; what stays as it is,
    -- is not. Who makes a run holds `for key share`, and only another machine has to wait for that.
    select coalesce(array_agg(v.id), '{}') into locked
        from jsonb_array_elements(args -> 'servers') i
        join rackhand.server v on v.site_id = site and v.name = i.value ->> 'name'
        join rackhand.bmc b on b.server_id = v.id
        cross join lateral (select rackhand.registration(b, v)) as k (kept)
        cross join lateral (select rackhand.registration_of(i.value, k.kept)) as w (wanted)
        where k.kept is distinct from w.wanted;
    perform from rackhand.server v where v.id = any (locked) order by v.id for no key update;
    -- As whoever held them before has left them.
    select coalesce(bool_or((b.url, b.ipmi, b.spki_sha256)
            is distinct from (w.wanted ->> 'bmc_url', w.wanted ->> 'ipmi', w.wanted ->> 'spki_sha256')), false)
        into moved
        from jsonb_array_elements(args -> 'servers') i
        join rackhand.server v on v.id = any (locked) and v.name = i.value ->> 'name'
        join rackhand.bmc b on b.server_id = v.id
        cross join lateral (select rackhand.registration_of(i.value, rackhand.registration(b, v))) as w (wanted);
    if moved then
        perform from rackhand.bmc b where b.server_id = any (locked) order by b.id for update;
    else
        perform from rackhand.bmc b where b.server_id = any (locked) order by b.id for no key update;
    end if;
    for item in select value from jsonb_array_elements(args -> 'servers') order by value ->> 'name' loop
        begin
            if item ->> 'credential_id' is not null and not exists (select from rackhand.credential c
                where c.id = (item ->> 'credential_id')::uuid and c.site_id = site)
            then
                perform rackhand.fail('invalid-request', 'The site has no such credential.');
            end if;
            select * into known from rackhand.server v where v.site_id = site and v.name = item ->> 'name';
            select * into endpoint from rackhand.bmc b where b.server_id = known.id;
            before := case when known.id is not null then rackhand.registration(endpoint, known) end;
            after := rackhand.registration_of(item, coalesce(before, '{}'));
            item_tags := array(select jsonb_array_elements_text(after -> 'tags'));
            if known.id is null then
                insert into rackhand.server (site_id, name, tags)
                    values (site, item ->> 'name', item_tags) returning * into known;
                insert into rackhand.bmc (server_id, site_id, url, ipmi, credential_id, spki_sha256)
                    values (known.id, site, after ->> 'bmc_url', after ->> 'ipmi',
                        (after ->> 'credential_id')::uuid, after ->> 'spki_sha256');
                perform rackhand.append_event('server.registered', 'info',
                    format('Server %s registered at %s', known.name, after ->> 'bmc_url'),
                    jsonb_build_object('site', site, 'server', known.id));
                created := created + 1;
                locked := locked || known.id;
            elsif before = after then
                unchanged := unchanged + 1;
            else
                if known.id <> all (locked) then
                    perform rackhand.fail('job-state', format('Server %s was registered or changed by another '
                        'request at the same moment. Send it again.', known.name));
                end if;
                if not coalesce((args ->> 'replace')::boolean, false) then
                    perform rackhand.keep_address(known.name, before, after);
                end if;
                if before - array['credential_id', 'tags'] <> after - array['credential_id', 'tags'] then
                    promised := coalesce(promised, rackhand.promised(site));
                    perform rackhand.keep_machine(known, promised);
                    -- It may be another BMC: nothing is proven. Refusals count still, for it may as well be the same one,
                    -- or become it again.
                    update rackhand.credential_use u set proven_at = null where u.bmc_id = endpoint.id;
                    endpoint.machine_at := clock_timestamp();
                end if;
                told := rackhand.registration_change(before, after);
                if rackhand.is_elsewhere(before ->> 'bmc_url', after ->> 'bmc_url') then
                    perform rackhand.forget_machine(known.id);
                    told := told || '. What was read at the former address is no longer shown; an inventory job reads '
                        'the server there.';
                end if;
                update rackhand.server set tags = item_tags, version = version + 1 where id = known.id;
                update rackhand.bmc set url = after ->> 'bmc_url', ipmi = after ->> 'ipmi',
                        credential_id = (after ->> 'credential_id')::uuid, spki_sha256 = after ->> 'spki_sha256',
                        machine_at = endpoint.machine_at
                    where id = endpoint.id;
                perform rackhand.append_event('server.changed', 'info', format('%s: %s', known.name, told),
                    jsonb_build_object('site', site, 'server', known.id),
                    jsonb_build_object('before', before, 'after', after));
                changes := changes || jsonb_build_object(known.name, told);
            end if;
            ids := ids || jsonb_build_object(known.name, known.id);
        exception
            when unique_violation then
                taken := rackhand.bmc_origin(case when after ->> 'bmc_url' like 'ipmi://%' then after ->> 'bmc_url'
                    else 'ipmi://' || (after ->> 'ipmi') end);
                select v.name into holder from rackhand.bmc b join rackhand.server v on v.id = b.server_id
                    where b.site_id = site and v.name <> item ->> 'name'
                        and (b.origin = rackhand.bmc_origin(item ->> 'bmc_url') or b.ipmi_origin = taken)
                    limit 1;
                refused := refused || jsonb_build_object('index', item -> 'index', 'detail', format(
                    'The BMC at %s is the one of server %s. A BMC is registered once, also where it has several systems.',
                    rackhand.bmc_origin(item ->> 'bmc_url'), coalesce(holder, 'another name')));
            when sqlstate 'RH000' then
                get stacked diagnostics trouble = pg_exception_detail;
                refused := refused || jsonb_build_object('index', item -> 'index', 'detail', trouble);
        end;
    end loop;
    return jsonb_build_object('created', created, 'unchanged', unchanged, 'refused', refused, 'ids', ids,
        'changed', (select count(*) from jsonb_object_keys(changes)), 'changes', changes);
end
$$;

-- {id} → {}
create function rackhand.server_delete(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone rackhand.server;
begin
    perform rackhand.require((select v.site_id from rackhand.server v
        where v.id = (args ->> 'id')::uuid and v.removed_at is null), 'operator', 'server');
    select * into gone from rackhand.server where id = (args ->> 'id')::uuid for update;
    if gone.removed_at is not null then
        perform rackhand.fail('not-found', 'There is no such server, or you may not see it.');
    elsif exists (select from rackhand.run r where r.server_id = gone.id
        and (r.finished_at is null or r.admitted))
    then
        perform rackhand.fail('job-state', format('Job %s works on server %s. The server can be removed once that job '
            'has ended or its run is closed.', (select r.job_id from rackhand.run r where r.server_id = gone.id
                and (r.finished_at is null or r.admitted) limit 1), gone.name));
    end if;
    update rackhand.server set removed_at = now(), name = name || ' removed ' || id where id = gone.id;
    update rackhand.bmc set url = url || '#removed-' || id, ipmi = ipmi || '#removed-' || id,
            credential_id = null where server_id = gone.id;
    perform rackhand.append_event('server.removed', 'info', format('Server %s removed', gone.name),
        jsonb_build_object('site', gone.site_id, 'server', gone.id));
    return '{}';
end
$$;

-- ── Jobs ─────────────────────────────────────────────────────────────────────────────────────────────

-- The job that an earlier request with the same `{key, request_hash}` made, if there was one.
create function rackhand.job_replayed(once jsonb) returns jsonb
language plpgsql stable as $$
declare
    earlier rackhand.idempotency;
begin
    select * into earlier from rackhand.idempotency i
        where i.user_id = rackhand.scope_uuid('user') and i.key = once ->> 'key';
    if not found then
        return null;
    elsif earlier.request_hash <> once ->> 'request_hash' then
        perform rackhand.fail('idempotency-mismatch', 'This key was used for another request.');
    end if;
    return (select rackhand.job_json(j) from rackhand.job j where j.id = earlier.job_id);
end
$$;

-- {site_id, targets: [id], idempotency?} → {site_id, servers: [{id, name, generation, model, bmc_version,
-- power, inventoried, capabilities, credential_id, has_pin, changed_by, refused_at, machine: Machine, components:
-- [FirmwareComponent]}], credentials: {id: {name, suspended: text?, sealed_for: [CredentialTarget]?,
-- not_looked_at}}, missing: [id], executors_online, hardware_paused: text?}: what a plan is made from. Or
-- {replayed: Job}.
-- The lists are large: those of the first credentials by id are given, up to 50,000 targets in all, and null for the
-- others. A plan does not look at those, and says so; the executor refuses the servers that they do not name.
create function rackhand.job_context(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    replayed jsonb;
begin
    perform rackhand.require(site, 'operator', 'site');
    replayed := rackhand.job_replayed(args -> 'idempotency');
    if replayed is not null then
        return jsonb_build_object('replayed', replayed);
    end if;
    return (
        with wanted as (
            select value::uuid as id, ordinality as place
            from jsonb_array_elements_text(args -> 'targets') with ordinality
        )
        select jsonb_build_object(
            'site_id', site,
            'executors_online', array_length(rackhand.living(site), 1) is not null,
            'hardware_paused', (select rackhand.paused_words(s) from rackhand.site s where s.id = site),
            'missing', coalesce(jsonb_agg(w.id order by w.place) filter (where v.id is null), '[]'),
            'credentials', (select coalesce(jsonb_object_agg(c.id,
                    jsonb_build_object('name', c.name, 'suspended', rackhand.suspension(c.id), 'sealed_for',
                        case when c.targets_so_far <= 50000 then c.sealed_for end,
                        'not_looked_at', c.targets_so_far > 50000 and c.sealed_for is not null)), '{}')
                from (
                    select k.id, k.name, k.sealed_for,
                        sum(k.address_count) over (order by k.id) as targets_so_far
                    from rackhand.credential k
                    where k.id in (
                        select b.credential_id from rackhand.bmc b join wanted on wanted.id = b.server_id)) c),
            'servers', coalesce(jsonb_agg(jsonb_build_object(
                'id', v.id, 'name', v.name, 'generation', v.generation, 'model', v.model,
                'bmc_version', v.bmc_version, 'power', v.power, 'inventoried', v.seen_at is not null,
                'capabilities', v.capabilities, 'machine', rackhand.machine_json(b),
                'credential_id', b.credential_id,
                'has_pin', b.spki_sha256 is not null or b.url like 'ipmi://%',
                'changed_by', (select replace(o.kind, '_', ' ') from rackhand.run o
                    where o.server_id = v.id and o.finished_at is null and o.mutating limit 1),
                'refused_at', (select rackhand.on_at(u.rejected_at)
                    from rackhand.credential c
                    join rackhand.credential_use u
                        on u.bmc_id = b.id and u.credential_id = c.id and u.version = c.version
                    where c.id = b.credential_id and u.rejected_at >= v.machine_since),
                'components', (
                    select coalesce(jsonb_agg(jsonb_build_object('key', f.key, 'name', f.name,
                        'software_id', f.software_id, 'version', f.version, 'updateable', f.updateable,
                        'inactive', f.inactive, 'of_bmc', f.of_bmc)
                        order by f.key), '[]')
                    from rackhand.firmware f where f.server_id = v.id))
                order by w.place) filter (where v.id is not null), '[]'))
        from wanted w
        left join rackhand.server v on v.id = w.id and v.site_id = site and v.removed_at is null
        left join rackhand.bmc b on b.server_id = v.id);
end
$$;

-- Why the first servers of a plan are blocked, and of how many more it was not said.
create function rackhand.blockers_told(targets jsonb) returns text
language sql stable as $$
    select concat_ws(' ', string_agg(format('%s: %s', t.server, t.blockers), ' ' order by t.place)
            filter (where t.place <= 5),
        case when count(*) > 5 then format('And %s more.', count(*) - 5) end)
    from (
        select value ->> 'server' as server, row_number() over (order by ordinality) as place,
            (select string_agg(b, ' ') from jsonb_array_elements_text(value -> 'blockers') b) as blockers
        from jsonb_array_elements(targets) with ordinality
        where value -> 'blockers' <> '[]'
    ) t
$$;

-- Makes the runs of an approved (or harmless) job and lets it run.
create function rackhand.job_start(this rackhand.job) returns void
language plpgsql as $$
declare
    servers uuid[] := array(select (value ->> 'server_id')::uuid from jsonb_array_elements(this.plan_targets)
        where value -> 'blockers' = '[]');
    unfinished int;
begin
    -- What the rows of the runs refer to, in the order that every writer keeps.
    perform from rackhand.server v where v.id = any (servers) order by v.id for key share;
    perform from rackhand.bmc b where b.server_id = any (servers) order by b.id for key share;
    insert into rackhand.run (job_id, site_id, server_id, bmc_id, kind, mutating, position, plan, slots, trace_id,
            state, detail, finished_at)
        select this.id, this.site_id, b.server_id, b.id, this.kind, this.mutating, t.place, t.plan,
            rackhand.slot_keys(this.mutating, this.id, b.server_id, this.site_id), this.trace_id,
            case when t.idle then 'no_change' else 'queued' end,
            case when t.idle then 'The wanted version is installed already.' else '' end,
            case when t.idle then now() end
        from (
            select value as plan, ordinality as place,
                not jsonb_path_exists(value, '$.steps[*] ? (@.step != "already_installed")') as idle
            from jsonb_array_elements(this.plan_targets) with ordinality
            where value -> 'blockers' = '[]'
        ) t
        join rackhand.bmc b on b.server_id = (t.plan ->> 'server_id')::uuid;
    if not found then
        perform rackhand.fail('plan-empty', format('Every server of the job is blocked, so nothing can be done. %s',
            rackhand.blockers_told(this.plan_targets)));
    end if;
    insert into rackhand.waiting (job_id, position, run_id, site_id, server_id, bmc_id, kind, mutating, slots)
        select r.job_id, r.position, r.id, r.site_id, r.server_id, r.bmc_id, r.kind, r.mutating, r.slots
        from rackhand.run r where r.job_id = this.id and r.state = 'queued';
    update rackhand.job j set state = 'running', since = now(), state_reason = '',
            open_runs = (select count(*) from rackhand.run r where r.job_id = this.id
                and r.finished_at is null)
        where j.id = this.id
        returning j.open_runs into unfinished;
    if unfinished = 0 then
        perform rackhand.job_settle(this.id, 0, 0);
    end if;
    perform rackhand.wake(this.site_id::text);
end
$$;

-- What became of a job, for people who see only this line.
create function rackhand.job_became(j rackhand.job, became text) returns text
language sql stable as $$
    select format('Job %s %s: %s of %s, “%s”', j.id, became, replace(j.kind, '_', ' '),
        rackhand.counted(j.target_count, 'server'), rackhand.shortened(j.reason, 120))
$$;

-- Counts ended runs of a job, and ends or pauses it as it then stands. Called with the runs' locks held,
-- never before them.
create function rackhand.job_settle(which uuid, ended int, bad int) returns void
language plpgsql as $$
declare
    this rackhand.job;
    outcome text;
    fresh int;
    unknown int;
begin
    update rackhand.job j set open_runs = j.open_runs - ended, bad_runs = j.bad_runs + bad
        where j.id = which returning * into this;
    if this.state not in ('running', 'paused') then
        return;
    end if;
    if this.open_runs = 0 then
        outcome := case
            when this.cancel_requested then 'cancelled'
            when exists (select from rackhand.run r where r.job_id = which
                and r.state not in ('succeeded', 'no_change')) then 'failed'
            else 'succeeded' end;
        select count(*) into unknown from rackhand.run r where r.job_id = which and r.state = 'unknown';
        update rackhand.job set state = outcome, since = now(),
                state_reason = concat_ws('. ', rtrim(this.cancel_reason, '. '),
                    case when this.bad_runs > unknown then format('%s of its servers failed', this.bad_runs - unknown) end,
                    case when unknown > 0 then format('What became of %s of its servers is unknown', unknown) end)
            where id = which;
        perform rackhand.append_event('job.' || outcome,
            case outcome when 'failed' then 'error' else 'info' end,
            rackhand.job_became(this, outcome) || case when outcome = 'cancelled' then '. ' || this.cancel_reason else '' end,
            jsonb_build_object('site', this.site_id, 'job', which, 'trace', this.trace_id));
        return;
    end if;
    fresh := this.bad_runs - this.bad_runs_seen;
    if this.state = 'running' and (this.policy ->> 'pause_after_failures')::int between 1 and fresh then
        update rackhand.job set state = 'paused', since = now(),
                state_reason = format('Paused automatically after %s', rackhand.counted(fresh, 'failure'))
            where id = which;
        perform rackhand.append_event('job.paused', 'warn',
            rackhand.job_became(this, 'paused automatically after ' || rackhand.counted(fresh, 'failure')),
            jsonb_build_object('site', this.site_id, 'job', which, 'trace', this.trace_id),
            jsonb_build_object('failures', this.bad_runs, 'seen_at_resume', this.bad_runs_seen));
    end if;
end
$$;

-- {site_id, kind, params, mutating, policy, reason, plan: {targets, digest, estimated_minutes}, trace_id,
-- idempotency?: {key, request_hash}} → Job. A job that changes nothing starts at once.
create function rackhand.job_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    me uuid := rackhand.scope_uuid('user');
    once jsonb := args -> 'idempotency';
    made rackhand.job;
    replayed jsonb;
begin
    perform rackhand.require(site, 'operator', 'site');
    if once ->> 'key' is not null then
        perform pg_advisory_xact_lock(hashtextextended(me::text || (once ->> 'key'), 1));
        replayed := rackhand.job_replayed(once);
        if replayed is not null then
            return replayed;
        end if;
    end if;
    insert into rackhand.job (site_id, kind, params, mutating, policy, reason, state, trace_id, created_by,
            created_by_name, plan_digest, plan_targets, estimated_minutes)
        values (site, args ->> 'kind', args -> 'params', (args ->> 'mutating')::boolean, args -> 'policy',
            args ->> 'reason', 'planned', coalesce(rackhand.scope_uuid('trace'), rackhand.uuid_v7()), me,
            rackhand.scope_text('actor'), args -> 'plan' ->> 'digest', args -> 'plan' -> 'targets',
            (args -> 'plan' ->> 'estimated_minutes')::int)
        returning * into made;
    if once ->> 'key' is not null then
        insert into rackhand.idempotency values (me, once ->> 'key', once ->> 'request_hash', made.id);
    end if;
    perform rackhand.append_event('job.created', 'info',
        format('Job %s over %s created: %s', made.kind, rackhand.counted(made.target_count, 'server'), made.reason),
        jsonb_build_object('site', site, 'job', made.id), jsonb_build_object('digest', made.plan_digest));
    if not made.mutating then
        perform rackhand.job_start(made);
    end if;
    select * into made from rackhand.job where id = made.id;
    return rackhand.job_json(made);
end
$$;

-- {id, digest} → Job
create function rackhand.job_approve(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    this rackhand.job;
    me uuid := rackhand.scope_uuid('user');
    changed text;
begin
    perform rackhand.require((select j.site_id from rackhand.job j where j.id = (args ->> 'id')::uuid),
        'operator', 'job');
    select * into this from rackhand.job where id = (args ->> 'id')::uuid for update;
    if this.state <> 'planned' then
        perform rackhand.fail('job-state', format('The job does not wait for approval: its state is %s. Nothing was changed.', this.state));
    elsif this.plan_digest <> args ->> 'digest' then
        perform rackhand.fail('plan-stale', format('The plan has the digest %s.', this.plan_digest));
    elsif this.created_by = me
        and (select (s.config ->> 'second_person')::boolean from rackhand.site s where s.id = this.site_id)
    then
        perform rackhand.fail('second-person-required', 'This site requires a second person to approve the job.');
    end if;
    select t.value ->> 'server' into changed
        from jsonb_array_elements(this.plan_targets) t
        join rackhand.bmc b on b.server_id = (t.value ->> 'server_id')::uuid
        join rackhand.server v on v.id = b.server_id
        where t.value -> 'blockers' = '[]'
            and not rackhand.same_machine(t.value, b, v) limit 1;
    if found then
        perform rackhand.fail('plan-stale', format('Server %s is another machine than in the plan: its '
            'addresses, TLS key, service tag or UUID have changed. Cancel this job and plan it anew.', changed));
    end if;
    update rackhand.job set approved_by = me, approved_by_name = rackhand.scope_text('actor'),
        approved_at = now() where id = this.id;
    perform rackhand.append_event('job.approved', 'info', format('Plan approved: %s', left(this.plan_digest, 12)),
        jsonb_build_object('site', this.site_id, 'job', this.id, 'trace', this.trace_id),
        jsonb_build_object('digest', this.plan_digest));
    perform rackhand.job_start(this);
    select * into this from rackhand.job where id = this.id;
    return rackhand.job_json(this);
end
$$;

-- {id, action: cancel|pause|resume, reason} → Job. Cancel ends at once what nobody holds and what has changed
-- nothing yet; any other run ends at its next safe point; an `unknown` run is closed and its slots are freed.
create function rackhand.job_control(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    this rackhand.job;
    freed text[];
    dropped int;
    note jsonb := '{}';
begin
    perform rackhand.require((select j.site_id from rackhand.job j where j.id = (args ->> 'id')::uuid),
        'operator', 'job');
    perform from rackhand.run r where r.job_id = (args ->> 'id')::uuid order by r.id for update;
    select * into this from rackhand.job where id = (args ->> 'id')::uuid for update;
    if args ->> 'action' = 'resume' then
        note := jsonb_build_object('failures', this.bad_runs,
            'seen_at_resume', jsonb_build_object('before', this.bad_runs_seen, 'after', this.bad_runs),
            'pause_after_failures', this.policy -> 'pause_after_failures');
    end if;
    perform rackhand.append_event('job.' || (args ->> 'action'), 'info',
        format('%s requested: %s', initcap(args ->> 'action'), args ->> 'reason'),
        jsonb_build_object('site', this.site_id, 'job', this.id, 'trace', this.trace_id), note);
    case args ->> 'action'
    when 'pause' then
        if this.state <> 'running' then
            perform rackhand.fail('job-state', format('The job is not running: its state is %s. Nothing was changed.', this.state));
        end if;
        update rackhand.job set state = 'paused', since = now(), state_reason = args ->> 'reason'
            where id = this.id;
    when 'resume' then
        if this.state <> 'paused' then
            perform rackhand.fail('job-state', format('The job is not paused: its state is %s. Nothing was changed.', this.state));
        end if;
        -- The failures so far were seen by whoever resumes; the policy is what was approved, and stays.
        update rackhand.job set state = 'running', since = now(), state_reason = '', bad_runs_seen = bad_runs
            where id = this.id;
    when 'cancel' then
        if this.state in ('succeeded', 'cancelled')
            or (this.state = 'failed' and not exists (
                select from rackhand.run r where r.job_id = this.id and r.admitted))
        then
            perform rackhand.fail('job-state', format('The job has already ended as %s. Nothing was changed.', this.state));
        end if;
        -- Once nothing waits, nothing is admitted any more: what is in `ready` now is all there will be.
        delete from rackhand.waiting w where w.job_id = this.id;
        with untouched as (
            update rackhand.run r set state = 'cancelled', reason = 'cancelled', since = now(),
                    finished_at = now(), cancel_requested = true,
                    detail = case when r.epoch = 0 then 'Cancelled before an executor took it.'
                        else 'Cancelled before anything was changed.' end
                where r.job_id = this.id and r.finished_at is null and not r.acted and r.settle is null
                    and not exists (select from rackhand.lease l where l.run_id = r.id)
                returning r.*
        ), unready as (
            delete from rackhand.ready d using untouched u where d.run_id = u.id returning d.run_id
        ), closed as (
            update rackhand.run r set admitted = false
                where r.job_id = this.id and r.admitted and r.finished_at is not null
                returning r.*
        )
        select (select count(*) from untouched), array(
                select unnest(u.slots) from untouched u where u.id in (select run_id from unready)
                union all
                select unnest(c.slots) from closed c)
            into dropped, freed;
        update rackhand.run r set cancel_requested = true
            where r.job_id = this.id and r.finished_at is null;
        perform rackhand.release(freed);
        update rackhand.job j set cancel_requested = true, cancel_reason = coalesce(j.cancel_reason,
                format('Cancelled by %s: %s', rackhand.scope_text('actor'), args ->> 'reason'))
            where j.id = this.id returning * into this;
        if this.state = 'planned' then
            update rackhand.job set state = 'cancelled', since = now(), state_reason = this.cancel_reason
                where id = this.id;
        elsif this.state in ('running', 'paused') then
            update rackhand.job set state_reason =
                    rtrim(this.cancel_reason, '. ') || '. What is in progress in a BMC is not interrupted.'
                where id = this.id;
            perform rackhand.job_settle(this.id, dropped, 0);
        end if;
    end case;
    if args ->> 'action' in ('resume', 'cancel') then
        -- A person wants something done: what is stuck or was given back for a while is offered at once, as soon as
        -- nobody acts on it any more.
        update rackhand.run r set idle_leases = 0
            where r.job_id = this.id and r.finished_at is null and rackhand.is_stuck(r.idle_leases);
        update rackhand.ready d set ready_at = greatest(clock_timestamp(), r.acts_until)
            from rackhand.run r where r.id = d.run_id and r.job_id = this.id and r.finished_at is null
                and d.ready_at > clock_timestamp();
    end if;
    perform rackhand.wake(this.site_id::text);
    select * into this from rackhand.job where id = this.id;
    return rackhand.job_json(this);
end
$$;

-- {id, reason} → Run. By a person, for a run that nobody works on and that nobody can finish: it ends, its
-- slots are freed, and what it had changed and not restored is left for people to see. A run that had
-- announced a change ends `unknown`, any other `cancelled`. One that has ended `unknown` only gives its slots
-- back.
create function rackhand.run_close(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    r rackhand.run;
    home uuid := (select o.site_id from rackhand.run o where o.id = (args ->> 'id')::uuid);
    outcome text;
    held boolean;
    left_open jsonb;
    words text;
begin
    perform rackhand.require(home, 'operator', 'run');
    perform rackhand.expire(home);
    select * into r from rackhand.run o where o.id = (args ->> 'id')::uuid for update;
    if exists (select from rackhand.lease l where l.run_id = r.id) then
        perform rackhand.fail('run-state', format('Executor %s works on this run. Cancel its job: the executor ends '
            'it at the next safe point.', (select e.name from rackhand.executor e where e.id = r.executor_id)));
    elsif r.acts_until > clock_timestamp() then
        -- Its slots would go to another run, and so to another executor, beside what is still being sent.
        perform rackhand.fail('run-state', format('Executor %s has lost this run and may act on the server for up to '
            'another %s s. Close the run after that.',
            (select e.name from rackhand.executor e where e.id = r.executor_id),
            ceil(extract(epoch from r.acts_until - clock_timestamp()))));
    elsif r.finished_at is not null and not r.admitted then
        perform rackhand.fail('run-state', format('The run has ended already: %s.', replace(r.state, '_', ' ')));
    end if;
    outcome := case when r.finished_at is not null then r.state when r.acted then 'unknown' else 'cancelled' end;
    words := format('Closed by %s: %s', rackhand.scope_text('actor'), args ->> 'reason');
    with conflicts as (
        update rackhand.effect e set state = 'conflict', changed_at = now()
            where e.run_id = r.id and e.state in ('intended', 'applied', 'settling')
            returning e.object, e.property, e.prior
    )
    select coalesce(jsonb_agg(to_jsonb(c)), '[]') into left_open from conflicts c;
    update rackhand.run_phase p set state = 'failed', finished_at = clock_timestamp()
        where p.run_id = r.id and p.finished_at is null;
    delete from rackhand.waiting w where w.job_id = r.job_id and w.position = r.position;
    delete from rackhand.ready d where d.run_id = r.id;
    held := found or r.admitted;
    update rackhand.run o set state = outcome, settle = null, since = now(),
            finished_at = coalesce(o.finished_at, clock_timestamp()), admitted = false, percent = null,
            reason = case outcome when 'unknown' then 'outcome-unknown' else 'cancelled' end,
            detail = case when o.finished_at is null then words else concat_ws(' ', o.detail, words || '.') end,
            expected_by = null, cancel_requested = true
        where o.id = r.id;
    perform rackhand.append_event('run.closed', 'warn', words,
        jsonb_build_object('site', r.site_id, 'job', r.job_id, 'run', r.id, 'server', r.server_id,
            'trace', r.trace_id),
        jsonb_build_object('before', r.state, 'after', outcome, 'intent', r.intent, 'not_restored', left_open));
    if held then
        perform rackhand.release(r.slots);
    end if;
    if r.finished_at is null then
        perform rackhand.job_settle(r.job_id, 1, (outcome = 'unknown')::int);
    end if;
    perform rackhand.wake(r.site_id::text);
    return (select rackhand.run_json(o) from rackhand.run o where o.id = r.id);
end
$$;

-- {id, idempotency?} → {site_id, kind, params, policy, targets: [id], context}: what to plan anew for the
-- targets that did not succeed. Or {replayed: Job}.
create function rackhand.job_retry_context(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    this rackhand.job;
    targets jsonb;
    replayed jsonb;
begin
    select * into this from rackhand.job where id = (args ->> 'id')::uuid;
    perform rackhand.require(this.site_id, 'operator', 'job');
    replayed := rackhand.job_replayed(args -> 'idempotency');
    if replayed is not null then
        return jsonb_build_object('replayed', replayed);
    end if;
    if this.state not in ('failed', 'cancelled') then
        perform rackhand.fail('job-state', case this.state
            when 'succeeded' then 'Every server of this job succeeded: there is nothing to retry.'
            else format('The job is %s: retry it once it has ended.', this.state) end);
    end if;
    select jsonb_agg(r.server_id order by r.position) into targets
        from rackhand.run r where r.job_id = this.id and r.state in ('failed', 'cancelled', 'unknown')
            and not r.admitted;
    if targets is null then
        perform rackhand.fail('job-state', 'No server of this job failed or was cancelled.');
    end if;
    return jsonb_build_object('site_id', this.site_id, 'kind', this.kind, 'params', this.params,
        'policy', this.policy, 'targets', targets)
        || jsonb_build_object('context', rackhand.job_context(
            jsonb_build_object('site_id', this.site_id, 'targets', targets)));
end
$$;

reset role;
