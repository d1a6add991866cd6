-- Roles are cluster-wide, so a bootstrap makes them and not a migration. Run once for each cluster, by a
-- role that may create roles, before the first migration; running it again changes nothing.
--   rackhand_owner  owns the schema; migrations run as it
--   rackhand_api    what the functions log in as: owns nothing, cannot bypass row-level security
do $$
begin
    if not exists (select from pg_roles where rolname = 'rackhand_owner') then
        create role rackhand_owner nologin nobypassrls;
    end if;
    if not exists (select from pg_roles where rolname = 'rackhand_api') then
        create role rackhand_api login nobypassrls nocreatedb nocreaterole noinherit;
    end if;
    -- For every host alike; a pooler in between may not pass settings on.
    alter role rackhand_api set timezone = 'UTC';
    alter role rackhand_api set jit = off;
    alter role rackhand_api set statement_timeout = '15s';
    alter role rackhand_api set idle_in_transaction_session_timeout = '15s';
    if not pg_has_role(current_user, 'rackhand_owner', 'member') then
        execute format('grant rackhand_owner to %I', current_user);
    end if;
end
$$;
