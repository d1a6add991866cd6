-- Roles are cluster-wide, so a bootstrap makes them and not a migration. `rackhand-server migrate` runs it
-- each time, as a role that may create roles (a superuser is not needed); running it again changes nothing.
--   rackhand_owner  owns the schema; migrations run as it
--   rackhand_api    what the functions log in as: owns nothing, cannot bypass row-level security
do $$
declare
    setting text;
    value text;
    may_become boolean;
begin
    if not exists (select from pg_roles where rolname = 'rackhand_owner') then
        create role rackhand_owner nologin nobypassrls;
    end if;
    if not exists (select from pg_roles where rolname = 'rackhand_api') then
        create role rackhand_api login nobypassrls nocreatedb nocreaterole noinherit;
    end if;
    -- For every host alike; a pooler in between may not pass settings on. Only what differs: who runs this
    -- may not be who made the role. Nothing is looked up where others may make functions and tables.
    foreach setting in array array[
        'search_path=pg_catalog, pg_temp', 'TimeZone=UTC', 'jit=off', 'statement_timeout=15s',
        'idle_in_transaction_session_timeout=15s']
    loop
        if not exists (select from pg_roles where rolname = 'rackhand_api' and setting = any (rolconfig)) then
            select string_agg(quote_literal(one), ', ') into value
                from string_to_table(split_part(setting, '=', 2), ', ') as one;
            execute format('alter role rackhand_api set %I = %s', split_part(setting, '=', 1), value);
        end if;
    end loop;
    -- From 16 on, who makes a role is a member that may not become it (createrole_self_grant), and before
    -- that no member at all.
    if current_setting('server_version_num')::integer >= 160000 then
        may_become := pg_has_role(current_user, 'rackhand_owner', 'SET');
    else
        may_become := pg_has_role(current_user, 'rackhand_owner', 'MEMBER');
    end if;
    if not may_become then
        execute format('grant rackhand_owner to %I', current_user);
    end if;
end
$$;
