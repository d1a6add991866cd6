-- People: sign-in and its limit, sessions with rotating refresh tokens, users and grants.
--
-- Passwords are hashed and compared outside (functions/core): `login_begin` counts the attempt before the
-- costly hash, `login_finish` settles it. Refresh tokens come as SHA-256; the database never sees one.
--
-- Lock order, kept by every function here: users, password_reset, user_session (by id), login_limit (account,
-- networks, account from a network, day, strangers), stream. A user's row is locked `for no key update`: rows that
-- name them may be written meanwhile.
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

-- Takes back one attempt under each of these keys, in this order.
create function rackhand.login_uncount(variadic keys text[]) returns void
language plpgsql as $$
declare
    named text;
begin
    foreach named in array keys loop
        update rackhand.login_limit l set failures = greatest(0, l.failures - 1) where l.key = named;
    end loop;
end
$$;

-- Under which name an account's attempts are counted: a hash, because people type passwords into that field.
create function rackhand.login_account(email text) returns text
language sql immutable as $$
    select encode(sha256(convert_to(lower(email), 'UTF8')), 'hex')
$$;

-- Whom an address stands for when attempts are counted. Whoever has one IPv6 address has its whole /64, and
-- often a /48 (RFC 6177, §2).
create function rackhand.network_of(address text, bits int) returns text
language plpgsql immutable as $$
begin
    return case when family(address::inet) = 6 then network(set_masklen(address::inet, bits))::text
        else host(address::inet) end;
exception when invalid_text_representation or null_value_not_allowed then
    return 'unknown';
end
$$;

-- Lets a person in again: forgets what was counted for the account, from everywhere, and for a day exempts it
-- from the counts over all accounts.
create function rackhand.login_forgive(email text) returns void
language sql as $$
    update rackhand.users u set welcome_at = now() where u.email = lower(login_forgive.email);
    with counted as materialized (
        select l.key from rackhand.login_limit l
        where l.key like 'account ' || rackhand.login_account(email) || '%' order by l.key for update
    )
    delete from rackhand.login_limit l using counted c where l.key = c.key;
$$;

-- Whether an admin has let a person in again a short while ago.
create function rackhand.is_welcome(who rackhand.users) returns boolean
language sql stable as $$
    select coalesce(who.welcome_at > now() - interval '1 day', false)
$$;

-- Whether a person has signed in from a network within the last weeks, and nobody ended that session because
-- it may have been someone else's.
create function rackhand.login_known(who uuid, network text) returns boolean
language sql stable as $$
    select exists (select from rackhand.user_session s where s.user_id = who
        and s.network = login_known.network)
$$;

-- {email} → {user_id, password_hash} (both null for an unknown or disabled user). Anonymous.
-- Counted for the account from this network, which stops guessing; for the network, and for the wider one
-- around an IPv6 network. Who tries from a network from which that person has not signed in lately is counted
-- more strictly: for the account from everywhere, for the network within a day, and over all accounts and
-- networks, which stops one password from being tried on every account. Strangers can use these counts up,
-- and must not keep people out of where they signed in before, nor those whom an admin lets in again. The
-- order is the same for everybody: each count locks a row, and the one that all share is last.
create function rackhand.login_begin(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    account text := rackhand.login_account(args ->> 'email');
    here text := coalesce(rackhand.network_of(rackhand.scope_text('address'), 64), 'unknown');
    around text := coalesce(rackhand.network_of(rackhand.scope_text('address'), 48), 'unknown');
    who rackhand.users;
    stranger boolean;
begin
    select * into who from rackhand.users u where u.email = lower(args ->> 'email') and not u.disabled;
    stranger := not rackhand.login_known(who.id, here);
    if stranger then
        perform rackhand.login_count('account ' || account, 100, interval '15 minutes');
    end if;
    perform rackhand.login_count('address ' || here, 100, interval '5 minutes');
    if around <> here then
        perform rackhand.login_count('address ' || around, 400, interval '5 minutes');
    end if;
    perform rackhand.login_count('account ' || account || ' from ' || here, 8, interval '5 minutes');
    if stranger and not rackhand.is_welcome(who) then
        perform rackhand.login_count('day ' || here, 500, interval '1 day');
        if around <> here then
            perform rackhand.login_count('day ' || around, 2000, interval '1 day');
        end if;
        perform rackhand.login_count('strangers', 2000, interval '1 hour');
    end if;
    delete from rackhand.login_limit l where l.ctid = any (array(
        select o.ctid from rackhand.login_limit o where o.until < now() - interval '1 hour'
        limit 20 for update skip locked));
    return jsonb_build_object('user_id', who.id, 'password_hash', who.password_hash);
end
$$;

-- Ends the session of a family of refresh tokens, if it is known and lives. Whoever showed such a token did it: its
-- user, or `closer`.
create function rackhand.session_close(family text, why text, closer uuid default null) returns void
language plpgsql as $$
declare
    ended rackhand.user_session;
begin
    update rackhand.user_session s set ended_at = now()
        where s.family = decode(session_close.family, 'hex') and s.ended_at is null returning s.* into ended;
    if found then
        perform rackhand.append_event('session.ended', 'info', why,
            jsonb_build_object('user', ended.user_id, 'actor', jsonb_build_object('kind', 'user',
                'id', coalesce(closer, ended.user_id), 'session', case when closer is null then ended.id end)),
            jsonb_build_object('session', ended.id, 'address', rackhand.scope_text('address')));
    end if;
end
$$;

-- {email, user_id, fitted, family: hex, refresh_hash: hex, former?: hex, user_agent, ttl_s} → {session_id,
-- user: Me}, or null when not accepted. Anonymous; only after the password was compared: `fitted` is the hash
-- that it fits, null for none. `former` is the family of the refresh token that the browser still had: its
-- session ends.
create function rackhand.login_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    account text := rackhand.login_account(args ->> 'email');
    address text := coalesce(rackhand.scope_text('address'), 'unknown');
    here text := coalesce(rackhand.network_of(rackhand.scope_text('address'), 64), 'unknown');
    around text := coalesce(rackhand.network_of(rackhand.scope_text('address'), 48), 'unknown');
    who rackhand.users;
    former rackhand.user_session;
    stranger boolean;
    session uuid;
begin
    -- Whoever sets another password waits for this session and ends it, or this waits and sees that password.
    select * into who from rackhand.users u where u.id = (args ->> 'user_id')::uuid and not u.disabled
        for no key update;
    if (who.password_hash = args ->> 'fitted') is not true then
        -- The name typed is not kept for an unknown account: people type passwords into that field.
        perform rackhand.append_event('login.failed', 'warn',
            case when who.id is null then 'Sign-in to an unknown account refused'
                else 'Sign-in of {user} refused: wrong password' end,
            jsonb_strip_nulls(jsonb_build_object('user', who.id)), jsonb_build_object('address', address));
        return null;
    end if;
    select * into former from rackhand.user_session s
        where s.family = decode(args ->> 'former', 'hex') and s.ended_at is null for update;
    -- What did not fail is taken back, where it was counted: else one's own account would wipe out attempts
    -- on others.
    stranger := not rackhand.login_known(who.id, here);
    if stranger then
        perform rackhand.login_uncount('account ' || account);
    end if;
    perform rackhand.login_uncount('address ' || here, 'address ' || around);
    delete from rackhand.login_limit l where l.key = 'account ' || account || ' from ' || here;
    if stranger and not rackhand.is_welcome(who) then
        perform rackhand.login_uncount('day ' || here, 'day ' || around, 'strangers');
    end if;
    -- The former session may be another person's.
    perform from rackhand.stream s where s.id in (former.user_id, who.id) order by s.id, s.tree for update;
    perform rackhand.session_close(args ->> 'former', 'Signed in anew in the same browser', who.id);
    insert into rackhand.user_session (user_id, family, user_agent, network, expires_at)
        values (who.id, decode(args ->> 'family', 'hex'), left(coalesce(args ->> 'user_agent', ''), 300), here,
            now() + make_interval(secs => (args ->> 'ttl_s')::int))
        returning id into session;
    insert into rackhand.refresh_token (hash, session_id)
        values (decode(args ->> 'refresh_hash', 'hex'), session);
    perform rackhand.append_event('login.succeeded', 'info', '{user} signed in',
        jsonb_build_object('user', who.id,
            'actor', jsonb_build_object('kind', 'user', 'id', who.id, 'session', session)),
        jsonb_build_object('address', address, 'session', session));
    return jsonb_build_object('session_id', session, 'user', rackhand.me_json(who));
end
$$;

-- {family: hex, hash: hex, next_hash: hex, idle_s} → {session_id, user: Me} or {refused: code, detail}.
-- Anonymous: the token is the proof.
--
-- A token is exchanged once. The one used last may be exchanged again for 10 s (two tabs, a lost answer) and
-- gets a sibling, one of a few; whichever sibling is used next retires the others. Anything older that comes
-- back was copied: the whole session ends. Older ones need no rows of their own, the family tells: only
-- whoever has held one of its tokens can name it. That must be committed, so refusals are answers here, not
-- exceptions.
create function rackhand.session_refresh(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    presented rackhand.refresh_token;
    session rackhand.user_session;
    who rackhand.users;
    moment timestamptz := clock_timestamp();
    siblings constant int := 16;
begin
    select s.* into session from rackhand.user_session s
        where s.family = decode(args ->> 'family', 'hex') for update;
    if not found then
        return '{"refused": "session-ended", "detail": "This session is not known. Sign in again."}';
    end if;
    select * into who from rackhand.users u where u.id = session.user_id;
    if session.ended_at is not null or session.expires_at <= moment or who.disabled then
        return '{"refused": "session-ended", "detail": "This session has ended. Sign in again."}';
    end if;
    if session.seen_at < moment - make_interval(secs => (args ->> 'idle_s')::int) then
        update rackhand.user_session s set ended_at = moment where s.id = session.id;
        perform rackhand.append_event('session.ended', 'info', 'Session ended: it was not used for too long',
            jsonb_build_object('user', who.id), jsonb_build_object('session', session.id));
        return '{"refused": "session-ended", "detail": "This session was not used for too long. Sign in again."}';
    end if;
    -- Read only now, under the session's lock: another exchange may just have used it.
    select * into presented from rackhand.refresh_token t
        where t.session_id = session.id and t.hash = decode(args ->> 'hash', 'hex');
    if presented.hash is null or presented.used_at < moment - interval '10 seconds' then
        update rackhand.user_session s set ended_at = moment, network = '' where s.id = session.id;
        perform rackhand.append_event('session.reuse', 'error',
            'A refresh token of {user} was used twice; the session was ended',
            jsonb_build_object('user', who.id),
            jsonb_build_object('session', session.id, 'address', rackhand.scope_text('address')));
        return '{"refused": "refresh-reused",
            "detail": "This refresh token had been used before, so the session was ended. Sign in again."}';
    elsif presented.used_at is null then
        delete from rackhand.refresh_token t where t.session_id = session.id and t.used_at is not null;
        update rackhand.refresh_token t set used_at = moment
            where t.session_id = session.id and t.used_at is null;
    elsif (select count(*) from rackhand.refresh_token t
        where t.session_id = session.id and t.used_at is null) >= siblings
    then
        return '{"refused": "login-limited",
            "detail": "This refresh token was exchanged too often at once. Use one of the tokens it was exchanged for."}';
    end if;
    insert into rackhand.refresh_token (hash, session_id, created_at)
        values (decode(args ->> 'next_hash', 'hex'), session.id, moment);
    update rackhand.user_session s set seen_at = moment where s.id = session.id;
    return jsonb_build_object('session_id', session.id, 'user', rackhand.me_json(who));
end
$$;

-- ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────

-- {} → Me
create function rackhand.me(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select rackhand.me_json(u) from rackhand.users u where u.id = rackhand.scope_uuid('user')
$$;

-- {session?: id, family?: hex} → {}. Ends the session of an access token that was verified, and that of a
-- refresh token. Anonymous: the tokens are the proof, and one that has expired must not keep anybody from
-- signing out.
create function rackhand.logout(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    ended rackhand.user_session;
begin
    perform from rackhand.user_session s
        where s.family = decode(args ->> 'family', 'hex') or s.id = (args ->> 'session')::uuid
        order by s.id for update;
    perform rackhand.session_close(args ->> 'family', 'Signed out');
    update rackhand.user_session s set ended_at = now()
        where s.id = (args ->> 'session')::uuid and s.ended_at is null returning * into ended;
    if found then
        perform rackhand.append_event('session.ended', 'info', 'Signed out',
            jsonb_build_object('user', ended.user_id,
                'actor', jsonb_build_object('kind', 'user', 'id', ended.user_id, 'session', ended.id)),
            jsonb_build_object('session', ended.id));
    end if;
    return '{}';
end
$$;

-- {user?: id} → Page<Session>, living ones, newest first. Another user's: fleet admin only.
create function rackhand.sessions(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    whose uuid := coalesce((args ->> 'user')::uuid, rackhand.scope_uuid('user'));
begin
    if whose is distinct from rackhand.scope_uuid('user') then
        perform rackhand.require_fleet('admin');
    end if;
    return jsonb_build_object('items', coalesce((
        select jsonb_agg(jsonb_build_object('id', s.id, 'created_at', rackhand.ts(s.created_at),
            'expires_at', rackhand.ts(s.expires_at), 'seen_at', rackhand.ts(s.seen_at),
            'user_agent', s.user_agent, 'network', s.network,
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
    select * into session from rackhand.user_session s where s.id = (args ->> 'id')::uuid;
    if session.user_id is distinct from rackhand.scope_uuid('user') and not exists (
        select from rackhand.user_grant g
        where g.user_id = rackhand.scope_uuid('user') and g.role = 'admin' and g.site_id is null)
        or session.id is null
    then
        perform rackhand.fail('not-found', 'There is no such session, or it is not yours.');
    end if;
    update rackhand.user_session s set ended_at = now(), network = ''
        where s.id = session.id and s.ended_at is null;
    if found then
        perform rackhand.append_event('session.ended', 'info', 'Session ended',
            jsonb_build_object('user', session.user_id), jsonb_build_object('session', session.id));
    end if;
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
    perform rackhand.append_event('user.created', 'info', 'User {user} created',
        jsonb_build_object('user', made.id));
    return rackhand.user_json(made);
end
$$;

-- Refuses unless the fleet has an admin who can sign in beside this user or this grant. One caller at a time,
-- so that two admins cannot remove each other.
create function rackhand.keep_an_admin(without_user uuid, without_grant uuid) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('rackhand fleet admins', 0));
    if not exists (select from rackhand.user_grant g
        join rackhand.users u on u.id = g.user_id and not u.disabled
        where g.role = 'admin' and g.site_id is null and u.id is distinct from without_user
            and g.id is distinct from without_grant)
    then
        perform rackhand.fail('invalid-request',
            'This is the last admin of the fleet. Make someone else admin first.');
    end if;
end
$$;

-- The user that a fleet admin means, locked.
create function rackhand.user_for_admin(which uuid) returns rackhand.users
language plpgsql as $$
declare
    who rackhand.users;
begin
    perform rackhand.require_fleet('admin');
    select * into who from rackhand.users u where u.id = which for no key update;
    if not found then
        perform rackhand.fail('not-found', 'There is no such user.');
    end if;
    return who;
end
$$;

-- Ends the living sessions of a user, but for one; how many. Who had them may have been someone else, also who
-- signed out before: their networks are not known.
create function rackhand.sessions_close(whose uuid, but uuid default null) returns int
language plpgsql as $$
declare
    ended int;
begin
    perform from rackhand.user_session s where s.user_id = whose and s.id is distinct from but
        order by s.id for update;
    update rackhand.user_session s set network = '' where s.user_id = whose and s.id is distinct from but;
    update rackhand.user_session s set ended_at = now()
        where s.user_id = whose and s.ended_at is null and s.id is distinct from but;
    get diagnostics ended = row_count;
    return ended;
end
$$;

-- {id, name?, disabled?} → User. A disabled user's sessions end at once. One who is let in again is not held
-- up by what strangers tried meanwhile.
create function rackhand.user_update(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    before rackhand.users := rackhand.user_for_admin((args ->> 'id')::uuid);
    after rackhand.users;
begin
    update rackhand.users u set name = coalesce(args ->> 'name', u.name),
            disabled = coalesce((args ->> 'disabled')::boolean, u.disabled)
        where u.id = before.id returning * into after;
    if after.disabled and not before.disabled then
        perform rackhand.keep_an_admin(null, null);
        update rackhand.password_reset r set used_at = now() where r.user_id = after.id and r.used_at is null;
        perform rackhand.sessions_close(after.id);
    elsif before.disabled and not after.disabled then
        perform rackhand.login_forgive(after.email);
    end if;
    perform rackhand.append_event('user.changed', 'warn',
        case when after.disabled and not before.disabled then 'User {user} disabled'
            when before.disabled and not after.disabled then 'User {user} enabled'
            when before.name <> after.name then 'User {user} renamed'
            else 'User {user} saved without a change' end,
        jsonb_build_object('user', after.id),
        jsonb_build_object('before', jsonb_build_object('disabled', before.disabled),
            'after', jsonb_build_object('disabled', after.disabled), 'renamed', before.name <> after.name));
    return rackhand.user_json(after);
end
$$;

-- {id} → {}. Ends all sessions of a user; one's own but for this one.
create function rackhand.user_sessions_end(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    whose uuid := (args ->> 'id')::uuid;
    ended int;
begin
    if whose is distinct from rackhand.scope_uuid('user') then
        whose := (rackhand.user_for_admin(whose)).id;
    end if;
    ended := rackhand.sessions_close(whose, rackhand.scope_uuid('session'));
    if ended > 0 then
        perform rackhand.append_event('session.ended', 'warn', format('%s sessions of {user} ended', ended),
            jsonb_build_object('user', whose));
    end if;
    return '{}';
end
$$;

-- {id, token_hash: hex, ttl_s} → {}. A link with which the person chooses a password; earlier links end. The
-- former password stays until then, and nobody is held up by what strangers tried.
create function rackhand.password_reset_create(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.users := rackhand.user_for_admin((args ->> 'id')::uuid);
begin
    if who.disabled then
        perform rackhand.fail('invalid-request', format('User %s is disabled. Enable them first.', who.email));
    end if;
    update rackhand.password_reset r set used_at = now() where r.user_id = who.id and r.used_at is null;
    delete from rackhand.password_reset r where r.hash in (
        select o.hash from rackhand.password_reset o where o.expires_at < now() - interval '30 days'
        for update skip locked);
    insert into rackhand.password_reset (hash, user_id, created_by, expires_at)
        values (decode(args ->> 'token_hash', 'hex'), who.id, rackhand.scope_uuid('user'), now() + make_interval(secs => (args ->> 'ttl_s')::int));
    perform rackhand.login_forgive(who.email);
    perform rackhand.append_event('user.reset_link', 'warn', 'Link for a new password of {user} made',
        jsonb_build_object('user', who.id));
    return '{}';
end
$$;

-- {token_hash: hex} → whether such a link may be used. Anonymous, and counted: asked before the costly hash.
create function rackhand.password_reset_begin(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform rackhand.login_count('reset ' || coalesce(rackhand.network_of(rackhand.scope_text('address'), 64),
        'unknown'), 20, interval '5 minutes');
    return to_jsonb(exists (select from rackhand.password_reset r join rackhand.users u on u.id = r.user_id
        where r.hash = decode(args ->> 'token_hash', 'hex') and r.used_at is null and r.expires_at > now()
            and not u.disabled and rackhand.is_admin(r.created_by, null)));
end
$$;

-- {token_hash: hex, password_hash} → {}. Anonymous: the link is the proof, once, while its maker is an admin.
-- All sessions end.
create function rackhand.password_reset_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who rackhand.users;
begin
    select u.* into who from rackhand.users u
        where u.id = (select r.user_id from rackhand.password_reset r
            where r.hash = decode(args ->> 'token_hash', 'hex'))
        for no key update;
    update rackhand.password_reset r set used_at = now()
        where r.hash = decode(args ->> 'token_hash', 'hex') and r.user_id = who.id and r.used_at is null
            and r.expires_at > now() and not who.disabled and rackhand.is_admin(r.created_by, null);
    if not found then
        perform rackhand.fail('reset-refused', 'This link is unknown, used, expired or withdrawn. Ask an admin for a new one.');
    end if;
    update rackhand.users u set password_hash = args ->> 'password_hash' where u.id = who.id;
    perform rackhand.sessions_close(who.id);
    perform rackhand.login_forgive(who.email);
    perform rackhand.append_event('user.password_changed', 'warn',
        '{user} chose a password with a link', jsonb_build_object('user', who.id));
    return '{}';
end
$$;

-- {} → {password_hash}: one's own, to compare the present password with before it is changed. Counted like a
-- sign-in.
create function rackhand.password_change_begin(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform rackhand.login_count('change ' || rackhand.scope_text('user'), 8, interval '5 minutes');
    return (select jsonb_build_object('password_hash', u.password_hash)
        from rackhand.users u where u.id = rackhand.scope_uuid('user'));
end
$$;

-- {fitted, password_hash} → {}. Only after the present password was compared: `fitted` is the hash that it fits.
-- The other sessions end.
create function rackhand.password_change_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    me uuid := rackhand.scope_uuid('user');
begin
    update rackhand.users u set password_hash = args ->> 'password_hash'
        where u.id = me and u.password_hash = args ->> 'fitted';
    if not found then
        perform rackhand.fail('password-wrong',
            'The password was changed by another request at the same moment. This one changed nothing.');
    end if;
    update rackhand.password_reset r set used_at = now() where r.user_id = me and r.used_at is null;
    perform rackhand.sessions_close(me, rackhand.scope_uuid('session'));
    delete from rackhand.login_limit l where l.key = 'change ' || me;
    perform rackhand.append_event('user.password_changed', 'warn',
        '{user} changed their password', jsonb_build_object('user', me));
    return '{}';
end
$$;

-- Of what a grant is, for people.
create function rackhand.reach(site uuid) returns text
language sql stable as $$
    select coalesce((select format('site %s', s.name) from rackhand.site s where s.id = reach.site), 'the fleet')
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
        perform rackhand.append_event('grant.created', 'warn', format('{user} became %s of %s', made.role,
                rackhand.reach(site)),
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
        if gone.role = 'admin' then
            perform rackhand.keep_an_admin(null, gone.id);
        end if;
    else
        perform rackhand.require(gone.site_id, 'admin', 'grant');
    end if;
    delete from rackhand.user_grant g where g.id = gone.id;
    perform rackhand.append_event('grant.deleted', 'warn', format('Removed the role %s of {user} for %s', gone.role,
            rackhand.reach(gone.site_id)),
        jsonb_strip_nulls(jsonb_build_object('user', gone.user_id, 'site', gone.site_id)));
    return '{}';
end
$$;

-- {email, name, password_hash, reset?} → {id}. `rackhand-server admin create`, as the owner: makes a fleet admin.
-- The id is null, and nothing changes, where the e-mail has an account already; with `reset` that account becomes a
-- fleet admin, gets name and password anew, is enabled, and its sessions end.
create function rackhand.admin_create(args jsonb) returns jsonb
language plpgsql as $$
declare
    made rackhand.users;
begin
    insert into rackhand.users as u (email, name, password_hash)
        values (lower(args ->> 'email'), args ->> 'name', args ->> 'password_hash')
        on conflict (email) do update set name = excluded.name, password_hash = excluded.password_hash,
            disabled = false
        where (args ->> 'reset')::boolean
        returning * into made;
    if made.id is null then
        return jsonb_build_object('id', null);
    end if;
    insert into rackhand.user_grant (user_id, role, site_id) values (made.id, 'admin', null)
        on conflict do nothing;
    perform rackhand.sessions_close(made.id);
    perform rackhand.login_forgive(made.email);
    perform rackhand.append_event('user.admin_created', 'warn',
        '{user} made fleet admin from the command line', jsonb_build_object('user', made.id));
    return jsonb_build_object('id', made.id);
end
$$;

-- A function is executable by everybody unless that is taken away.
revoke execute on function rackhand.grants_json, rackhand.me_json, rackhand.user_json, rackhand.login_count,
    rackhand.login_account, rackhand.network_of, rackhand.login_forgive, rackhand.login_known,
    rackhand.login_uncount, rackhand.is_welcome, rackhand.session_close,
    rackhand.keep_an_admin, rackhand.user_for_admin, rackhand.sessions_close, rackhand.user_update,
    rackhand.user_sessions_end, rackhand.password_reset_create, rackhand.password_reset_begin,
    rackhand.password_reset_finish, rackhand.password_change_begin, rackhand.password_change_finish,
    rackhand.login_begin, rackhand.login_finish, rackhand.session_refresh, rackhand.me, rackhand.logout,
    rackhand.sessions, rackhand.session_end, rackhand.user_list, rackhand.user_create, rackhand.grant_create,
    rackhand.reach, rackhand.grant_delete, rackhand.admin_create from public;
grant execute on function rackhand.login_begin, rackhand.login_finish, rackhand.session_refresh, rackhand.me,
    rackhand.logout, rackhand.sessions, rackhand.session_end, rackhand.user_list, rackhand.user_create,
    rackhand.grant_create, rackhand.grant_delete, rackhand.user_update, rackhand.user_sessions_end,
    rackhand.password_reset_create, rackhand.password_reset_begin, rackhand.password_reset_finish,
    rackhand.password_change_begin, rackhand.password_change_finish to rackhand_api;

reset role;
