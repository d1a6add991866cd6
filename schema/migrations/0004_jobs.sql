-- What people and sync agents write: sites, executors, credentials, servers, jobs. Each function checks the
-- caller's role first; each takes and gives one JSON document.
--
-- Lock order, kept by every function here and in 0005: executor_session, run (by id), bmc (by id), waiting,
-- ready, lease, capacity (by key), job (by id), stream. A run's rows in `ready` and `lease` are deleted by whoever
-- has locked the run. Admission takes capacity first; the claim after it waits for nothing but `bmc`.
set role rackhand_owner;

-- Site of rackhand-schema.
create function rackhand.site_json(s rackhand.site) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'id', s.id, 'name', s.name, 'config', s.config, 'public_key', s.public_key,
        'servers', (select count(*) from rackhand.server v where v.site_id = s.id and v.removed_at is null),
        'executors_online', (select count(distinct x.executor_id) from rackhand.executor_session x
            where x.site_id = s.id and x.superseded_at is null and x.expires_at > now()),
        'created_at', rackhand.ts(s.created_at), 'version', s.version)
$$;

-- Job of rackhand-schema.
create function rackhand.job_json(j rackhand.job) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'id', j.id, 'site_id', j.site_id, 'site', (select s.name from rackhand.site s where s.id = j.site_id),
        'kind', j.kind, 'params', j.params, 'policy', j.policy, 'reason', j.reason,
        'state', j.state, 'state_reason', j.state_reason, 'since', rackhand.ts(j.since),
        'created_at', rackhand.ts(j.created_at), 'created_by', j.created_by,
        'created_by_name', j.created_by_name, 'trace_id', j.trace_id,
        'targets', jsonb_array_length(j.plan_targets),
        'runs', (select coalesce(jsonb_object_agg(c.state, c.n), '{}') from (
            select r.state, count(*) as n from rackhand.run r where r.job_id = j.id group by r.state) c),
        'plan', jsonb_build_object(
            'digest', j.plan_digest, 'targets', j.plan_targets, 'estimated_minutes', j.estimated_minutes,
            'approved_by_name', j.approved_by_name,
            'approved_at', case when j.approved_at is not null then rackhand.ts(j.approved_at) end))
$$;

-- Run of rackhand-schema.
create function rackhand.run_json(r rackhand.run) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'id', r.id, 'job_id', r.job_id, 'site_id', r.site_id, 'server_id', r.server_id,
        'server', r.plan ->> 'server', 'state', r.state, 'reason', r.reason, 'detail', r.detail,
        'since', rackhand.ts(r.since), 'phase', r.phase, 'percent', r.percent, 'epoch', r.epoch,
        'executor', r.executor_id,
        'executor_name', (select e.name from rackhand.executor e where e.id = r.executor_id),
        'cancel_requested', r.cancel_requested, 'created_at', rackhand.ts(r.created_at),
        'finished_at', case when r.finished_at is not null then rackhand.ts(r.finished_at) end)
$$;

-- ── Sites and executors ──────────────────────────────────────────────────────────────────────────────

-- {name, config} → Site
create function rackhand.site_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    made rackhand.site;
begin
    perform rackhand.require_fleet('admin');
    insert into rackhand.site (name, config) values (args ->> 'name', args -> 'config')
        on conflict (name) do nothing returning * into made;
    if made.id is null then
        perform rackhand.fail('name-taken', format('There is a site named %s already.', args ->> 'name'));
    end if;
    perform rackhand.append_event('site.created', 'info', format('Site %s created', made.name),
        jsonb_build_object('site', made.id), jsonb_build_object('config', made.config));
    return rackhand.site_json(made);
end
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
    update rackhand.site set config = args -> 'config', version = version + 1
        where id = before.id returning * into after;
    perform rackhand.append_event('site.changed', 'info', format('Settings of site %s changed', after.name),
        jsonb_build_object('site', after.id),
        jsonb_build_object('before', before.config, 'after', after.config));
    perform rackhand.wake(after.id::text);
    return rackhand.site_json(after);
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
    perform rackhand.append_event('executor.token_created', 'info', 'Enrolment token created',
        jsonb_build_object('site', site));
    return '{}';
end
$$;

-- {token_hash: hex, name, signing_key, sealing_key, fingerprint} → Enrolled. Anonymous: the token is the proof.
create function rackhand.executor_enrol(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    home rackhand.site;
    made uuid;
begin
    update rackhand.enrolment_token t set used_at = now()
        from rackhand.site s
        where t.hash = decode(args ->> 'token_hash', 'hex') and t.used_at is null and t.expires_at > now()
            and s.id = t.site_id
        returning s.* into home;
    if home.id is null then
        perform rackhand.fail('enrolment-refused', 'The token is unknown, used or expired. Make a new one.');
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
    return jsonb_build_object('executor_id', made, 'site_id', home.id, 'site', home.name,
        'fingerprint', args ->> 'fingerprint', 'site_public_key', home.public_key);
end
$$;

-- {id} → {}
create function rackhand.executor_revoke(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_one rackhand.executor;
begin
    select * into found_one from rackhand.executor where id = (args ->> 'id')::uuid;
    perform rackhand.require(found_one.site_id, 'admin', 'executor');
    update rackhand.executor set state = 'revoked', site_key = null where id = found_one.id;
    perform rackhand.append_event('executor.revoked', 'warn', format('Executor %s revoked', found_one.name),
        jsonb_build_object('site', found_one.site_id));
    return '{}';
end
$$;

-- {executor_id, nonce} → {}. Anonymous. A minute to use it; at most 20 open ones for an executor.
create function rackhand.executor_nonce(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who uuid := (args ->> 'executor_id')::uuid;
begin
    if not exists (select from rackhand.executor where id = who and state <> 'revoked') then
        perform rackhand.fail('executor-revoked', 'This executor is not enrolled here, or was revoked.');
    end if;
    delete from rackhand.executor_nonce n where n.executor_id = who and (n.expires_at < now() or n.nonce in (
        select o.nonce from rackhand.executor_nonce o where o.executor_id = who
        order by o.expires_at desc offset 19));
    insert into rackhand.executor_nonce values (args ->> 'nonce', who, now() + interval '1 minute');
    return '{}';
end
$$;

-- {executor_id, nonce} → {signing_key, site_id, name}. Anonymous. Uses the nonce up; the caller verifies the
-- signature with the key before it starts a session.
create function rackhand.executor_challenge(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.executor;
begin
    delete from rackhand.executor_nonce n
        where n.nonce = args ->> 'nonce' and n.executor_id = (args ->> 'executor_id')::uuid
            and n.expires_at > now();
    if not found then
        perform rackhand.fail('nonce-invalid', 'The nonce is used, expired or not for this executor.');
    end if;
    select * into who from rackhand.executor where id = (args ->> 'executor_id')::uuid;
    if who.state = 'revoked' then
        perform rackhand.fail('executor-revoked', format('Executor %s was revoked.', who.name));
    end if;
    return jsonb_build_object('signing_key', who.signing_key, 'site_id', who.site_id, 'name', who.name);
end
$$;

-- {executor_id, session_id, resumes?} → {site_id}. Anonymous; only after the signature was verified.
-- A new session supersedes the former one. The former's leases go on to their expiry, unless its process is
-- known to be dead (`resumes`): then they end now.
create function rackhand.executor_session_start(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.executor;
    session uuid := (args ->> 'session_id')::uuid;
    present rackhand.executor_session;
begin
    select * into who from rackhand.executor where id = (args ->> 'executor_id')::uuid for update;
    select * into present from rackhand.executor_session where id = session;
    if found and present.executor_id <> who.id then
        perform rackhand.fail('signature-invalid', 'The session belongs to another executor.');
    elsif found and present.superseded_at is not null then
        perform rackhand.fail('session-superseded',
            format('A newer process has signed in as executor %s.', who.name));
    elsif not found then
        update rackhand.executor_session s set superseded_at = now(),
                expires_at = case when s.id = (args ->> 'resumes')::uuid
                    then least(s.expires_at, now()) else s.expires_at end
            where s.executor_id = who.id and s.superseded_at is null;
        insert into rackhand.executor_session (id, executor_id, site_id) values (session, who.id, who.site_id);
        perform rackhand.append_event('executor.started', 'info', format('Executor %s signed in', who.name),
            jsonb_build_object('site', who.site_id), jsonb_build_object('session', session));
    end if;
    return jsonb_build_object('site_id', who.site_id);
end
$$;

-- SiteKey → {}. By an executor.
create function rackhand.site_key_set(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor := rackhand.calling_executor();
    home rackhand.site;
    share jsonb;
    name text;
begin
    select * into home from rackhand.site where id = me.site_id for update;
    if home.public_key is null then
        update rackhand.site set public_key = args ->> 'public_key', version = version + 1 where id = home.id;
        perform rackhand.append_event('site.key_set', 'info',
            format('Executor %s made the key of site %s', me.name, home.name),
            jsonb_build_object('site', home.id), jsonb_build_object('public_key', args -> 'public_key'));
    elsif home.public_key <> args ->> 'public_key' then
        perform rackhand.fail('site-key-conflict', format('Site %s has another key.', home.name));
    elsif me.state <> 'active' then
        perform rackhand.fail('site-key-conflict',
            format('Executor %s does not hold the key of site %s yet.', me.name, home.name));
    end if;
    for share in select * from jsonb_array_elements(args -> 'shares') loop
        update rackhand.executor e set site_key = share ->> 'sealed', state = 'active'
            where e.id = (share ->> 'executor_id')::uuid and e.site_id = home.id and e.state <> 'revoked'
            returning e.name into name;
        if found and (share ->> 'executor_id')::uuid <> me.id then
            perform rackhand.append_event('executor.confirmed', 'info',
                format('Executor %s gave the site key to executor %s', me.name, name),
                jsonb_build_object('site', home.id));
        end if;
    end loop;
    perform rackhand.wake(home.id::text);
    return '{}';
end
$$;

-- ── Credentials ──────────────────────────────────────────────────────────────────────────────────────

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
        insert into rackhand.credential (site_id, name, version, sealed)
            values (site, args ->> 'name', 1, args ->> 'sealed')
            on conflict (site_id, name) do nothing returning * into stored;
    else
        update rackhand.credential c set version = wanted, sealed = args ->> 'sealed', suspended_at = null
            where c.site_id = site and c.name = args ->> 'name' and c.version = wanted - 1
            returning * into stored;
    end if;
    if stored.id is null then
        select * into stored from rackhand.credential c where c.site_id = site and c.name = args ->> 'name';
        perform rackhand.fail('credential-version', case when stored.id is null
            then format('There is no credential %s yet: seal it as version 1.', args ->> 'name')
            else format('Credential %s is at version %s: seal it as version %s.', stored.name, stored.version,
                stored.version + 1) end);
    end if;
    perform rackhand.append_event('credential.set', 'info',
        format('Credential %s stored as version %s', stored.name, stored.version),
        jsonb_build_object('site', site));
    return jsonb_build_object('id', stored.id, 'site_id', site, 'name', stored.name,
        'version', stored.version, 'suspended', false, 'created_at', rackhand.ts(stored.created_at));
end
$$;

-- CredentialAttempt → AttemptAnswer. By an executor. A BMC locks an address out after a few wrong logins, so
-- every unproven attempt is counted here before it is made, over all executors, and a version that was
-- refused twice is never tried again.
create function rackhand.credential_attempt(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me rackhand.executor := rackhand.calling_executor();
    cred rackhand.credential;
    usage rackhand.credential_use;
    endpoint rackhand.bmc;
    refused int;
begin
    select * into cred from rackhand.credential c
        where c.id = (args ->> 'credential_id')::uuid and c.site_id = me.site_id for update;
    select * into endpoint from rackhand.bmc b
        where b.id = (args ->> 'bmc_id')::uuid and b.site_id = me.site_id;
    if cred.id is null or endpoint.id is null then
        perform rackhand.fail('not-found', 'There is no such credential or BMC in this site.');
    end if;
    insert into rackhand.credential_use (bmc_id, credential_id, version)
        values (endpoint.id, cred.id, (args ->> 'version')::int) on conflict do nothing;
    select * into usage from rackhand.credential_use u
        where u.bmc_id = endpoint.id and u.credential_id = cred.id and u.version = (args ->> 'version')::int
        for update;

    case args ->> 'step'
    when 'accepted' then
        update rackhand.credential_use u set proven_at = now(), failures = 0, reserved_at = null
            where u.bmc_id = usage.bmc_id and u.credential_id = cred.id and u.version = usage.version;
    when 'not_sent' then
        update rackhand.credential_use u set reserved_at = null
            where u.bmc_id = usage.bmc_id and u.credential_id = cred.id and u.version = usage.version;
    when 'rejected' then
        update rackhand.credential_use u set proven_at = null, failures = u.failures + 1, reserved_at = null
            where u.bmc_id = usage.bmc_id and u.credential_id = cred.id and u.version = usage.version;
        select sum(u.failures) into refused from rackhand.credential_use u
            where u.credential_id = cred.id and u.version = usage.version;
        perform rackhand.append_event('credential.rejected', 'warn',
            format('%s refused credential %s version %s', endpoint.url, cred.name, usage.version),
            jsonb_build_object('site', me.site_id, 'server', endpoint.server_id));
        if refused >= 2 and cred.version = usage.version and cred.suspended_at is null then
            update rackhand.credential set suspended_at = now() where id = cred.id;
            perform rackhand.append_event('credential.suspended', 'error',
                format('Credential %s version %s suspended after %s refusals', cred.name, cred.version, refused),
                jsonb_build_object('site', me.site_id));
        end if;
    when 'reserve' then
        if cred.version <> usage.version then
            return jsonb_build_object('allowed', false, 'detail',
                format('Credential %s has moved on to version %s.', cred.name, cred.version));
        elsif cred.suspended_at is not null then
            return jsonb_build_object('allowed', false, 'detail',
                format('Credential %s version %s is suspended after refusals.', cred.name, cred.version));
        elsif usage.failures + (usage.reserved_at is not null)::int >= 2 then
            return jsonb_build_object('allowed', false, 'detail',
                format('Credential %s version %s has used up its attempts on this BMC.', cred.name, cred.version));
        end if;
        if usage.proven_at is null then
            -- While no BMC has accepted this version, it is tried on one BMC at a time, so that a wrong
            -- password costs two refusals in the whole site.
            if usage.reserved_at is null
                and not exists (select from rackhand.credential_use u where u.credential_id = cred.id
                    and u.version = usage.version and u.proven_at is not null)
                and exists (select from rackhand.credential_use u where u.credential_id = cred.id
                    and u.version = usage.version and u.bmc_id <> usage.bmc_id
                    and u.reserved_at > now() - interval '2 minutes')
            then
                return jsonb_build_object('allowed', false, 'retry_after_ms', 200, 'detail',
                    format('Credential %s version %s is being tried on another BMC.', cred.name, cred.version));
            end if;
            if usage.reserved_at is not null then
                -- An earlier attempt never reported back: it counts.
                update rackhand.credential_use u set failures = u.failures + 1, reserved_at = now()
                    where u.bmc_id = usage.bmc_id and u.credential_id = cred.id and u.version = usage.version;
            else
                update rackhand.credential_use u set reserved_at = now()
                    where u.bmc_id = usage.bmc_id and u.credential_id = cred.id and u.version = usage.version;
            end if;
        end if;
    end case;
    return '{"allowed": true, "detail": ""}';
end
$$;

-- ── Servers ──────────────────────────────────────────────────────────────────────────────────────────

-- {site_id, servers: [{index, name, bmc_url, ipmi, credential_id, spki_sha256, tags}]} → BulkUpsertResult.
-- Each server stands alone: one that cannot be stored is refused by its index.
create function rackhand.servers_upsert(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    item jsonb;
    known rackhand.server;
    endpoint rackhand.bmc;
    holder text;
    taken text;
    item_tags text[];
    created int := 0;
    changed int := 0;
    unchanged int := 0;
    refused jsonb := '[]';
    ids jsonb := '{}';
begin
    perform rackhand.require(site, 'operator', 'site');
    for item in select value from jsonb_array_elements(args -> 'servers') order by value ->> 'name' loop
        begin
            if item ->> 'credential_id' is not null and not exists (select from rackhand.credential c
                where c.id = (item ->> 'credential_id')::uuid and c.site_id = site)
            then
                perform rackhand.fail('invalid-request', 'The site has no such credential.');
            end if;
            select coalesce(array_agg(t order by t), '{}') into item_tags
                from jsonb_array_elements_text(coalesce(item -> 'tags', '[]')) t;
            select * into known from rackhand.server v
                where v.site_id = site and v.name = item ->> 'name' for update;
            if not found then
                insert into rackhand.server (site_id, name, tags)
                    values (site, item ->> 'name', item_tags) returning * into known;
                insert into rackhand.bmc (server_id, site_id, url, ipmi, credential_id, spki_sha256)
                    values (known.id, site, item ->> 'bmc_url', item ->> 'ipmi',
                        (item ->> 'credential_id')::uuid, item ->> 'spki_sha256');
                perform rackhand.append_event('server.registered', 'info',
                    format('Server %s registered at %s', known.name, item ->> 'bmc_url'),
                    jsonb_build_object('site', site, 'server', known.id));
                created := created + 1;
            else
                select * into endpoint from rackhand.bmc b where b.server_id = known.id for update;
                if (endpoint.url, endpoint.ipmi, endpoint.credential_id, endpoint.spki_sha256, known.tags)
                    is not distinct from (item ->> 'bmc_url', item ->> 'ipmi', (item ->> 'credential_id')::uuid,
                        item ->> 'spki_sha256', item_tags)
                then
                    unchanged := unchanged + 1;
                else
                    update rackhand.server set tags = item_tags, version = version + 1 where id = known.id;
                    update rackhand.bmc set url = item ->> 'bmc_url', ipmi = item ->> 'ipmi',
                            credential_id = (item ->> 'credential_id')::uuid,
                            spki_sha256 = item ->> 'spki_sha256'
                        where id = endpoint.id;
                    perform rackhand.append_event('server.changed', 'info',
                        format('Registration of server %s changed', known.name),
                        jsonb_build_object('site', site, 'server', known.id),
                        jsonb_build_object(
                            'before', jsonb_build_object('bmc_url', endpoint.url, 'ipmi', endpoint.ipmi,
                                'tags', known.tags, 'spki_sha256', endpoint.spki_sha256),
                            'after', item - 'index'));
                    changed := changed + 1;
                end if;
            end if;
            ids := ids || jsonb_build_object(known.name, known.id);
        exception
            when unique_violation then
                taken := rackhand.bmc_origin(case when item ->> 'bmc_url' like 'ipmi://%' then item ->> 'bmc_url'
                    else 'ipmi://' || (item ->> 'ipmi') end);
                select v.name into holder from rackhand.bmc b join rackhand.server v on v.id = b.server_id
                    where b.site_id = site and v.name <> item ->> 'name'
                        and (b.origin = rackhand.bmc_origin(item ->> 'bmc_url') or b.ipmi_origin = taken)
                    limit 1;
                refused := refused || jsonb_build_object('index', item -> 'index', 'detail', format(
                    'The BMC at %s is the one of server %s. A BMC is registered once, also where it has several systems.',
                    rackhand.bmc_origin(item ->> 'bmc_url'), coalesce(holder, 'another name')));
            when sqlstate 'RH000' then
                refused := refused || jsonb_build_object('index', item -> 'index', 'detail',
                    'The site has no such credential.');
        end;
    end loop;
    return jsonb_build_object('created', created, 'changed', changed, 'unchanged', unchanged,
        'refused', refused, 'ids', ids);
end
$$;

-- {id} → {}
create function rackhand.server_delete(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone rackhand.server;
begin
    select * into gone from rackhand.server where id = (args ->> 'id')::uuid and removed_at is null for update;
    perform rackhand.require(gone.site_id, 'operator', 'server');
    if exists (select from rackhand.run r where r.server_id = gone.id
        and (r.finished_at is null or r.admitted))
    then
        perform rackhand.fail('job-state', format('Server %s is being worked on by a job.', gone.name));
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

-- {site_id, targets: [id]} → {site_id, servers: [{id, name, generation, model, bmc_version, power,
-- inventoried, has_credential, has_pin, components: [FirmwareComponent]}], missing: [id]}: what a plan is
-- made from.
create function rackhand.job_context(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
begin
    perform rackhand.require(site, 'operator', 'site');
    return (
        with wanted as (
            select value::uuid as id, ordinality as place
            from jsonb_array_elements_text(args -> 'targets') with ordinality
        )
        select jsonb_build_object(
            'site_id', site,
            'missing', coalesce(jsonb_agg(w.id order by w.place) filter (where v.id is null), '[]'),
            'servers', coalesce(jsonb_agg(jsonb_build_object(
                'id', v.id, 'name', v.name, 'generation', v.generation, 'model', v.model,
                'bmc_version', v.bmc_version, 'power', v.power, 'inventoried', v.seen_at is not null,
                'has_credential', b.credential_id is not null, 'has_pin', b.spki_sha256 is not null or b.url like 'ipmi://%',
                'components', (
                    select coalesce(jsonb_agg(jsonb_build_object('key', f.key, 'name', f.name,
                        'software_id', f.software_id, 'version', f.version, 'updateable', f.updateable)
                        order by f.key), '[]')
                    from rackhand.firmware f where f.server_id = v.id))
                order by w.place) filter (where v.id is not null), '[]'))
        from wanted w
        left join rackhand.server v on v.id = w.id and v.site_id = site and v.removed_at is null
        left join rackhand.bmc b on b.server_id = v.id);
end
$$;

-- Makes the runs of an approved (or harmless) job and lets it run.
create function rackhand.job_start(this rackhand.job) returns void
language plpgsql as $$
begin
    insert into rackhand.run (job_id, site_id, server_id, bmc_id, kind, mutating, position, plan, trace_id,
            state, detail, finished_at)
        select this.id, this.site_id, b.server_id, b.id, this.kind, this.mutating, t.place, t.plan, this.trace_id,
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
        perform rackhand.fail('plan-empty', 'Every target of the plan has a blocker. Read them in the plan.');
    end if;
    insert into rackhand.waiting (job_id, position, run_id, site_id, server_id, bmc_id, kind, mutating)
        select r.job_id, r.position, r.id, r.site_id, r.server_id, r.bmc_id, r.kind, r.mutating
        from rackhand.run r where r.job_id = this.id and r.state = 'queued';
    update rackhand.job j set state = 'running', since = now(), state_reason = '',
            open_runs = (select count(*) from rackhand.run r where r.job_id = this.id and r.finished_at is null)
        where j.id = this.id;
    perform rackhand.job_settle(this.id, 0, 0);
    perform rackhand.wake(this.site_id::text);
end
$$;

-- Counts ended runs of a job, and ends or pauses it as it then stands. Called with the runs' locks held, never
-- before them.
create function rackhand.job_settle(which uuid, ended int, bad int) returns void
language plpgsql as $$
declare
    this rackhand.job;
    outcome text;
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
        update rackhand.job set state = outcome, since = now(),
                state_reason = case when this.bad_runs > 0
                    then format('%s of its servers failed', this.bad_runs) else '' end
            where id = which;
        perform rackhand.append_event('job.' || outcome,
            case outcome when 'failed' then 'error' else 'info' end, format('Job %s', outcome),
            jsonb_build_object('site', this.site_id, 'job', which, 'trace', this.trace_id));
    elsif this.state = 'running' and (this.policy ->> 'pause_after_failures')::int > 0
        and this.bad_runs >= (this.policy ->> 'pause_after_failures')::int
    then
        update rackhand.job set state = 'paused', since = now(),
                state_reason = format('Paused by itself after %s failures', this.bad_runs)
            where id = which;
        perform rackhand.append_event('job.paused', 'warn',
            format('Job paused by itself after %s failures', this.bad_runs),
            jsonb_build_object('site', this.site_id, 'job', which, 'trace', this.trace_id));
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
    earlier rackhand.idempotency;
begin
    perform rackhand.require(site, 'operator', 'site');
    if once ->> 'key' is not null then
        perform pg_advisory_xact_lock(hashtextextended(me::text || (once ->> 'key'), 1));
        select * into earlier from rackhand.idempotency i where i.user_id = me and i.key = once ->> 'key';
        if found then
            if earlier.request_hash <> once ->> 'request_hash' then
                perform rackhand.fail('idempotency-mismatch', 'This key was used for another request.');
            end if;
            select * into made from rackhand.job where id = earlier.job_id;
            return rackhand.job_json(made);
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
        format('Job %s over %s servers created: %s', made.kind, jsonb_array_length(made.plan_targets), made.reason),
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
begin
    select * into this from rackhand.job where id = (args ->> 'id')::uuid for update;
    perform rackhand.require(this.site_id, 'operator', 'job');
    if this.state <> 'planned' then
        perform rackhand.fail('job-state', format('The job is %s, not waiting for approval.', this.state));
    elsif this.plan_digest <> args ->> 'digest' then
        perform rackhand.fail('plan-stale', format('The plan has the digest %s.', this.plan_digest));
    elsif this.created_by = me
        and (select (s.config ->> 'second_person')::boolean from rackhand.site s where s.id = this.site_id)
    then
        perform rackhand.fail('second-person-required', 'The site asks that somebody else approves this this.');
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

-- {id, action: cancel|pause|resume, reason} → Job. Cancel ends what was never leased at once; a leased run
-- ends at its next safe point; an `unknown` run is closed and its slots are freed.
create function rackhand.job_control(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    this rackhand.job;
    freed text[];
    dropped int;
begin
    perform from rackhand.run r where r.job_id = (args ->> 'id')::uuid order by r.id for update;
    select * into this from rackhand.job where id = (args ->> 'id')::uuid for update;
    perform rackhand.require(this.site_id, 'operator', 'job');
    perform rackhand.append_event('job.' || (args ->> 'action'), 'info',
        format('%s asked for: %s', initcap(args ->> 'action'), args ->> 'reason'),
        jsonb_build_object('site', this.site_id, 'job', this.id, 'trace', this.trace_id));
    case args ->> 'action'
    when 'pause' then
        if this.state <> 'running' then
            perform rackhand.fail('job-state', format('The job is %s, not running.', this.state));
        end if;
        update rackhand.job set state = 'paused', since = now(), state_reason = args ->> 'reason'
            where id = this.id;
    when 'resume' then
        if this.state <> 'paused' then
            perform rackhand.fail('job-state', format('The job is %s, not paused.', this.state));
        end if;
        -- The failures so far were seen by whoever resumes.
        update rackhand.job set state = 'running', since = now(), state_reason = '',
                policy = jsonb_set(policy, '{pause_after_failures}', '0')
            where id = this.id;
    when 'cancel' then
        if this.state in ('succeeded', 'cancelled')
            or (this.state = 'failed' and not exists (
                select from rackhand.run r where r.job_id = this.id and r.admitted))
        then
            perform rackhand.fail('job-state', format('The job is %s already.', this.state));
        end if;
        -- Once nothing waits, nothing is admitted any more: what is in `ready` now is all there will be.
        delete from rackhand.waiting w where w.job_id = this.id;
        with untouched as (
            update rackhand.run r set state = 'cancelled', reason = 'cancelled', since = now(),
                    finished_at = now(), cancel_requested = true,
                    detail = 'Cancelled before an executor took it.'
                where r.job_id = this.id and r.finished_at is null and r.epoch = 0
                returning r.*
        ), unready as (
            delete from rackhand.ready d using untouched u where d.run_id = u.id returning d.run_id
        ), closed as (
            update rackhand.run r set admitted = false
                where r.job_id = this.id and r.admitted and r.finished_at is not null
                returning r.*
        )
        select (select count(*) from untouched), array(
                select unnest(rackhand.slot_keys(u.mutating, u.job_id, u.server_id, u.site_id))
                from untouched u where u.id in (select run_id from unready)
                union all
                select unnest(rackhand.slot_keys(c.mutating, c.job_id, c.server_id, c.site_id)) from closed c)
            into dropped, freed;
        update rackhand.run r set cancel_requested = true
            where r.job_id = this.id and r.finished_at is null;
        perform rackhand.release(freed);
        if this.state = 'planned' then
            update rackhand.job set state = 'cancelled', since = now(), cancel_requested = true,
                state_reason = args ->> 'reason' where id = this.id;
        elsif this.state in ('running', 'paused') then
            update rackhand.job set cancel_requested = true, state_reason = 'Being cancelled: '
                || (args ->> 'reason') where id = this.id;
            perform rackhand.job_settle(this.id, dropped, 0);
        end if;
    end case;
    perform rackhand.wake(this.site_id::text);
    select * into this from rackhand.job where id = this.id;
    return rackhand.job_json(this);
end
$$;

-- {id} → {site_id, kind, params, policy, targets: [id]}: what to plan anew for the targets that did not
-- succeed.
create function rackhand.job_retry_context(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    this rackhand.job;
    targets jsonb;
begin
    select * into this from rackhand.job where id = (args ->> 'id')::uuid;
    perform rackhand.require(this.site_id, 'operator', 'job');
    if this.state not in ('failed', 'cancelled') then
        perform rackhand.fail('job-state', format('The job is %s: only an ended one is retried.', this.state));
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
