-- People: sign-in and its limit, sessions with rotating refresh tokens, users and grants.
--
-- Passwords are hashed and compared outside (functions/core): `login_begin` counts the attempt before the
-- costly hash, `login_finish` settles it. Refresh tokens come as SHA-256; the database never sees one.
set role rackhand_owner;

-- Grant[] of rackhand-schema.
create function rackhand.grants_json(who uuid) returns jsonb
language sql stable as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'role', g.role, 'site_id', g.site_id)
        order by g.site_id nulls first, g.role), '[]')
    from rackhand.user_grant g where g.user_id = who
$$;

-- Me of rackhand-schema.
create function rackhand.me_json(u rackhand.users) returns jsonb
language sql stable as $$
    select jsonb_build_object('id', u.id, 'email', u.email, 'name', u.name,
        'grants', rackhand.grants_json(u.id))
$$;

-- User of rackhand-schema.
create function rackhand.user_json(u rackhand.users) returns jsonb
language sql stable as $$
    select jsonb_build_object('id', u.id, 'email', u.email, 'name', u.name, 'disabled', u.disabled,
        'grants', rackhand.grants_json(u.id), 'created_at', rackhand.ts(u.created_at))
$$;

-- ── Sign-in ──────────────────────────────────────────────────────────────────────────────────────────

-- Counts one attempt under `limit_key`; refuses above `allowed` within `span`. The row lock makes parallel
-- attempts queue up, so no burst gets past the count; a refused attempt leaves the count as it was.
create function rackhand.login_count(limit_key text, allowed int, span interval) returns void
language plpgsql as $$
declare
    counted rackhand.login_limit;
begin
    insert into rackhand.login_limit as l (key, failures, until) values (limit_key, 1, now() + span)
        on conflict (key) do update set
            failures = case when l.until < now() then 1 else l.failures + 1 end,
            until = case when l.until < now() then now() + span else l.until end
        returning * into counted;
    if counted.failures > allowed then
        perform rackhand.fail('login-limited', format('Too many attempts. Try again in %s seconds.',
            greatest(1, ceil(extract(epoch from counted.until - now())))));
    end if;
end
$$;

-- Under which name an account's attempts are counted: a hash, because people type passwords into that field.
create function rackhand.login_account(email text) returns text
language sql immutable as $$
    select encode(sha256(convert_to(lower(email), 'UTF8')), 'hex')
$$;

-- {email} → {user_id, password_hash} (both null for an unknown or disabled user). Anonymous.
-- Three counts: one for the account from this address, which stops guessing; one for the account from
-- anywhere, generous, so that strangers cannot easily lock its owner out; one for the address.
create function rackhand.login_begin(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    account text := rackhand.login_account(args ->> 'email');
    address text := coalesce(rackhand.scope_text('address'), 'unknown');
    who rackhand.users;
begin
    perform rackhand.login_count('account ' || account, 100, interval '15 minutes');
    perform rackhand.login_count('address ' || address, 100, interval '5 minutes');
    perform rackhand.login_count('account ' || account || ' from ' || address, 8, interval '5 minutes');
    delete from rackhand.login_limit l where l.ctid = any (array(
        select o.ctid from rackhand.login_limit o where o.until < now() - interval '1 hour'
        limit 20 for update skip locked));
    select * into who from rackhand.users u where u.email = lower(args ->> 'email') and not u.disabled;
    return jsonb_build_object('user_id', who.id, 'password_hash', who.password_hash);
end
$$;

-- {email, user_id, accepted, refresh_hash: hex, user_agent, ttl_s} → {session_id, user: Me}, or null when
-- not accepted. Anonymous; only after the password was compared.
create function rackhand.login_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    account text := rackhand.login_account(args ->> 'email');
    address text := coalesce(rackhand.scope_text('address'), 'unknown');
    who rackhand.users;
    session uuid;
begin
    select * into who from rackhand.users u where u.id = (args ->> 'user_id')::uuid and not u.disabled;
    if who.id is null or not coalesce((args ->> 'accepted')::boolean, false) then
        -- The name typed is not kept for an unknown account: people type passwords into that field.
        perform rackhand.append_event('login.failed', 'warn',
            case when who.id is null then 'Sign-in to an unknown account refused'
                else format('Sign-in as %s refused: wrong password', who.email) end,
            jsonb_strip_nulls(jsonb_build_object('user', who.id)), jsonb_build_object('address', address));
        return null;
    end if;
    update rackhand.login_limit l set failures = greatest(0, l.failures - 1)
        where l.key in ('account ' || account, 'address ' || address);
    delete from rackhand.login_limit l where l.key = 'account ' || account || ' from ' || address;
    insert into rackhand.user_session (user_id, user_agent, expires_at)
        values (who.id, left(coalesce(args ->> 'user_agent', ''), 300),
            now() + make_interval(secs => (args ->> 'ttl_s')::int))
        returning id into session;
    insert into rackhand.refresh_token (hash, session_id)
        values (decode(args ->> 'refresh_hash', 'hex'), session);
    perform rackhand.append_event('login.succeeded', 'info', format('%s signed in', who.name),
        jsonb_build_object('user', who.id), jsonb_build_object('address', address, 'session', session));
    return jsonb_build_object('session_id', session, 'user', rackhand.me_json(who));
end
$$;

-- {hash: hex, next_hash: hex} → {session_id, user: Me} or {refused: code, detail}. Anonymous: the token is
-- the proof.
--
-- A token is exchanged once. The one used last may be exchanged again for 10 s (two tabs, a lost answer) and
-- gets a sibling; whichever sibling is used next retires the others. Anything older that comes back was
-- copied: the whole session ends. That must be committed, so refusals are answers here, not exceptions.
create function rackhand.session_refresh(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    presented rackhand.refresh_token;
    session rackhand.user_session;
    who rackhand.users;
    moment timestamptz := clock_timestamp();
begin
    select s.* into session from rackhand.user_session s
        join rackhand.refresh_token t on t.session_id = s.id
        where t.hash = decode(args ->> 'hash', 'hex') for update of s;
    if not found then
        return '{"refused": "session-ended", "detail": "This session is not known. Sign in again."}';
    end if;
    select * into who from rackhand.users u where u.id = session.user_id;
    if session.ended_at is not null or session.expires_at <= moment or who.disabled then
        return '{"refused": "session-ended", "detail": "This session has ended. Sign in again."}';
    end if;
    -- Read only now, under the session's lock: another exchange may just have used it.
    select * into presented from rackhand.refresh_token t where t.hash = decode(args ->> 'hash', 'hex');
    if presented.used_at is not null and (presented.used_at < moment - interval '10 seconds'
        or exists (select from rackhand.refresh_token t
            where t.session_id = session.id and t.used_at > presented.used_at))
    then
        update rackhand.user_session s set ended_at = moment where s.id = session.id;
        perform rackhand.append_event('session.reuse', 'error',
            format('A refresh token of %s was used twice; the session was ended', who.name),
            jsonb_build_object('user', who.id),
            jsonb_build_object('session', session.id, 'address', rackhand.scope_text('address')));
        return '{"refused": "refresh-reused",
            "detail": "This refresh token had been used before, so the session was ended. Sign in again."}';
    elsif presented.used_at is null then
        update rackhand.refresh_token t set used_at = moment
            where t.session_id = session.id and t.used_at is null;
    end if;
    insert into rackhand.refresh_token (hash, session_id, created_at)
        values (decode(args ->> 'next_hash', 'hex'), session.id, moment);
    return jsonb_build_object('session_id', session.id, 'user', rackhand.me_json(who));
end
$$;

-- ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────

-- {} → Me
create function rackhand.me(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select rackhand.me_json(u) from rackhand.users u where u.id = rackhand.scope_uuid('user')
$$;

-- {} → {}. Ends the session of the request.
create function rackhand.logout(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update rackhand.user_session s set ended_at = now()
        where s.id = rackhand.scope_uuid('session') and s.ended_at is null;
    perform rackhand.append_event('session.ended', 'info', 'Signed out',
        jsonb_build_object('user', rackhand.scope_uuid('user')),
        jsonb_build_object('session', rackhand.scope_uuid('session')));
    return '{}';
end
$$;

-- {user?: id} → Page<Session>, living ones, newest first. Another user's: fleet admin only.
create function rackhand.sessions(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    whose uuid := coalesce((args ->> 'user')::uuid, rackhand.scope_uuid('user'));
begin
    if whose <> rackhand.scope_uuid('user') then
        perform rackhand.require_fleet('admin');
    end if;
    return jsonb_build_object('items', coalesce((
        select jsonb_agg(jsonb_build_object('id', s.id, 'created_at', rackhand.ts(s.created_at),
            'expires_at', rackhand.ts(s.expires_at), 'user_agent', s.user_agent,
            'current', s.id = rackhand.scope_uuid('session')) order by s.id desc)
        from (
            select * from rackhand.user_session o
            where o.user_id = whose and o.ended_at is null and o.expires_at > now()
            order by o.id desc limit 200
        ) s), '[]'));
end
$$;

-- {id} → {}. One's own, or any for a fleet admin; for anybody else it does not exist.
create function rackhand.session_end(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    session rackhand.user_session;
begin
    select * into session from rackhand.user_session s where s.id = (args ->> 'id')::uuid for update;
    if session.user_id is distinct from rackhand.scope_uuid('user') and not exists (
        select from rackhand.user_grant g
        where g.user_id = rackhand.scope_uuid('user') and g.role = 'admin' and g.site_id is null)
        or session.id is null
    then
        perform rackhand.fail('not-found', 'There is no such session, or it is not yours.');
    end if;
    update rackhand.user_session s set ended_at = now() where s.id = session.id and s.ended_at is null;
    perform rackhand.append_event('session.ended', 'info', 'Session ended',
        jsonb_build_object('user', session.user_id), jsonb_build_object('session', session.id));
    return '{}';
end
$$;

-- ── Users and grants ─────────────────────────────────────────────────────────────────────────────────

-- {cursor?: email, limit} → Page<User>, by e-mail
create function rackhand.user_list(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    wanted int := (args ->> 'limit')::int;
    found_ones rackhand.users[];
begin
    perform rackhand.require_fleet('admin');
    select coalesce(array_agg(u order by u.email), '{}') into found_ones from (
        select * from rackhand.users o
        where args ->> 'cursor' is null or o.email > args ->> 'cursor'
        order by o.email limit wanted + 1) u;
    return jsonb_strip_nulls(jsonb_build_object('next',
            case when cardinality(found_ones) > wanted then found_ones[wanted].email end))
        || jsonb_build_object('items', coalesce((
            select jsonb_agg(rackhand.user_json(u) order by u.email)
            from unnest(found_ones[:wanted]) u), '[]'));
end
$$;

-- {email, name, password_hash} → User
create function rackhand.user_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    made rackhand.users;
begin
    perform rackhand.require_fleet('admin');
    insert into rackhand.users (email, name, password_hash)
        values (lower(args ->> 'email'), args ->> 'name', args ->> 'password_hash')
        on conflict (email) do nothing returning * into made;
    if made.id is null then
        perform rackhand.fail('name-taken', 'There is a user with this e-mail already.');
    end if;
    perform rackhand.append_event('user.created', 'info', format('User %s created', made.email),
        jsonb_build_object('user', made.id));
    return rackhand.user_json(made);
end
$$;

-- {user_id, role, site_id} → Grant. The same grant again gives the one there is.
create function rackhand.grant_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    site uuid := (args ->> 'site_id')::uuid;
    who rackhand.users;
    made rackhand.user_grant;
begin
    if site is null then
        perform rackhand.require_fleet('admin');
    else
        perform rackhand.require(site, 'admin', 'site');
    end if;
    select * into who from rackhand.users u where u.id = (args ->> 'user_id')::uuid;
    if not found then
        perform rackhand.fail('not-found', 'There is no such user.');
    end if;
    insert into rackhand.user_grant (user_id, role, site_id)
        values (who.id, (args ->> 'role')::rackhand.role, site)
        on conflict (user_id, role, site_id) do nothing returning * into made;
    if made.id is null then
        select * into made from rackhand.user_grant g where g.user_id = who.id
            and g.role = (args ->> 'role')::rackhand.role and g.site_id is not distinct from site;
    else
        perform rackhand.append_event('grant.created', 'warn', format('%s became %s of %s', who.name, made.role,
                coalesce('site ' || (select s.name from rackhand.site s where s.id = site), 'the fleet')),
            jsonb_strip_nulls(jsonb_build_object('user', who.id, 'site', site)));
    end if;
    return jsonb_build_object('id', made.id, 'role', made.role, 'site_id', made.site_id);
end
$$;

-- {user_id, id} → {}. The last fleet admin stays.
create function rackhand.grant_delete(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone rackhand.user_grant;
begin
    select * into gone from rackhand.user_grant g
        where g.id = (args ->> 'id')::uuid and g.user_id = (args ->> 'user_id')::uuid;
    if gone.id is not null and gone.site_id is null then
        perform rackhand.require_fleet('admin');
        -- One at a time, so that two admins cannot remove each other.
        perform pg_advisory_xact_lock(hashtextextended('rackhand fleet admins', 0));
        if gone.role = 'admin' and not exists (select from rackhand.user_grant g
            join rackhand.users u on u.id = g.user_id and not u.disabled
            where g.role = 'admin' and g.site_id is null and g.id <> gone.id)
        then
            perform rackhand.fail('invalid-request',
                'This is the last admin of the fleet. Make somebody else admin first.');
        end if;
    else
        perform rackhand.require(gone.site_id, 'admin', 'grant');
    end if;
    delete from rackhand.user_grant g where g.id = gone.id;
    perform rackhand.append_event('grant.deleted', 'warn', format('Role %s taken away', gone.role),
        jsonb_strip_nulls(jsonb_build_object('user', gone.user_id, 'site', gone.site_id)));
    return '{}';
end
$$;

-- {email, name, password_hash} → {id}. `rackhand-server admin create`, as the owner: makes a fleet admin, or
-- makes the user of that e-mail one and sets the password anew, ending the sessions.
create function rackhand.admin_create(args jsonb) returns jsonb
language plpgsql as $$
declare
    made rackhand.users;
begin
    insert into rackhand.users as u (email, name, password_hash)
        values (lower(args ->> 'email'), args ->> 'name', args ->> 'password_hash')
        on conflict (email) do update set name = excluded.name, password_hash = excluded.password_hash,
            disabled = false
        returning * into made;
    insert into rackhand.user_grant (user_id, role, site_id) values (made.id, 'admin', null)
        on conflict do nothing;
    update rackhand.user_session s set ended_at = now() where s.user_id = made.id and s.ended_at is null;
    perform rackhand.append_event('user.admin_created', 'warn',
        format('%s made fleet admin from the command line', made.email), jsonb_build_object('user', made.id));
    return jsonb_build_object('id', made.id);
end
$$;

-- A function is executable by everybody unless that is taken away.
revoke execute on function rackhand.grants_json, rackhand.me_json, rackhand.user_json, rackhand.login_count,
    rackhand.login_account,
    rackhand.login_begin, rackhand.login_finish, rackhand.session_refresh, rackhand.me, rackhand.logout,
    rackhand.sessions, rackhand.session_end, rackhand.user_list, rackhand.user_create, rackhand.grant_create,
    rackhand.grant_delete, rackhand.admin_create from public;
grant execute on function rackhand.login_begin, rackhand.login_finish, rackhand.session_refresh, rackhand.me,
    rackhand.logout, rackhand.sessions, rackhand.session_end, rackhand.user_list, rackhand.user_create,
    rackhand.grant_create, rackhand.grant_delete to rackhand_api;

reset role;
