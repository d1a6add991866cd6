-- Servers, credentials, jobs, runs and the queue's tables.
set role rackhand_owner;

create table rackhand.credential (
    id uuid primary key default rackhand.uuid_v7(),
    site_id uuid not null references rackhand.site,
    name text not null,
    version int not null,
    -- A sealed box; nothing here can open it.
    sealed text not null,
    -- [CredentialTarget] for which it is sealed, as whoever sealed it says; null where nothing was said. For plans
    -- only: an executor goes by what is in the box.
    sealed_for jsonb,
    -- How many these are and the first of them, beside what is large to read.
    address_count int generated always as (jsonb_array_length(sealed_for)) stored,
    addresses jsonb generated always as (jsonb_path_query_array(sealed_for, '$[0 to 19].url')) stored,
    suspended_at timestamptz,
    -- When a BMC last refused this version.
    refused_at timestamptz,
    created_at timestamptz not null default now(),
    unique (site_id, name)
);

create table rackhand.server (
    id uuid primary key default rackhand.uuid_v7(),
    site_id uuid not null references rackhand.site,
    name text not null,
    tags text[] not null default '{}',
    vendor text,
    model text,
    service_tag text,
    uuid text,
    generation text,
    bios_version text,
    bmc_version text,
    power text not null default 'unknown',
    health text not null default 'unknown',
    capabilities text[] not null default '{}',
    unreadable jsonb not null default '{}',
    seen_at timestamptz,
    -- Since when its addresses are those of this machine: what was read or went wrong before was another's.
    machine_since timestamptz not null default now(),
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    -- Its runs and events stay; its name and address are free again.
    removed_at timestamptz,
    unique (site_id, name)
);
create index server_by_site_name on rackhand.server (site_id, name, id);
-- The counts beside a list, from the index alone.
create index server_counts on rackhand.server (site_id, power, health, generation) where removed_at is null;
create index server_by_service_tag on rackhand.server (service_tag);

-- `https://host[:port]` or `ipmi://host[:port]` of an address, in one spelling; what marks a removed one
-- stays.
create function rackhand.bmc_origin(url text) returns text
language sql immutable parallel safe as $$
    select lower(regexp_replace(regexp_replace(url, '^(https://[^/#]+?)(:443)?(/[^#]*)?(#.*)?$', '\1\4'),
        '^(ipmi://[^/#]+?)(:623)?(#.*)?$', '\1\3'))
$$;

create table rackhand.bmc (
    id uuid primary key default rackhand.uuid_v7(),
    server_id uuid not null unique references rackhand.server on delete cascade,
    site_id uuid not null references rackhand.site,
    -- May name one system of the service; still there is one row for the service, because it has one owner.
    url text not null,
    origin text not null generated always as (rackhand.bmc_origin(url)) stored,
    -- host[:port] for IPMI beside an https address.
    ipmi text,
    -- However it is reached by IPMI, `ipmi://host[:port]`: one BMC is one row.
    ipmi_origin text generated always as (rackhand.bmc_origin(
        case when url like 'ipmi://%' then url else 'ipmi://' || ipmi end)) stored,
    credential_id uuid references rackhand.credential,
    spki_sha256 text,
    -- Since when its addresses and its key are these.
    machine_at timestamptz not null default clock_timestamp(),
    -- All traffic goes through this executor; it stays so while it is alive.
    owner_executor uuid references rackhand.executor,
    owner_epoch bigint not null default 0,
    unique (site_id, origin),
    unique (site_id, ipmi_origin)
);
create index bmc_by_owner on rackhand.bmc (site_id, owner_executor);

create table rackhand.firmware (
    server_id uuid not null references rackhand.server on delete cascade,
    key text not null,
    site_id uuid not null,
    name text not null,
    software_id text,
    version text not null,
    updateable boolean not null,
    inactive text,
    of_bmc boolean not null,
    primary key (server_id, key)
);

-- The login budget of each (BMC, credential version); survives executors.
create table rackhand.credential_use (
    bmc_id uuid not null references rackhand.bmc on delete cascade,
    credential_id uuid not null references rackhand.credential on delete cascade,
    version int not null,
    proven_at timestamptz,
    -- Refusals, and when the last one came.
    failures int not null default 0,
    rejected_at timestamptz,
    -- All refusals, also those before it was accepted again.
    refusals int not null default 0,
    -- Attempts that nobody reported on, as counted at that time; one of them is forgotten every ten minutes.
    unanswered int not null default 0,
    unanswered_at timestamptz,
    -- An attempt under way, and whose. If that executor dies it stays, and counts as unanswered.
    reserved_at timestamptz,
    reserved_by uuid references rackhand.executor,
    primary key (bmc_id, credential_id, version)
);

create table rackhand.job (
    id uuid primary key default rackhand.uuid_v7(),
    site_id uuid not null references rackhand.site,
    kind text not null,
    params jsonb not null,
    mutating boolean not null,
    policy jsonb not null,
    reason text not null,
    state text not null check (state in ('planned', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    state_reason text not null default '',
    since timestamptz not null default now(),
    cancel_requested boolean not null default false,
    -- By whom and why, for people; what the job ends with.
    cancel_reason text,
    -- Runs that have not ended, and runs that failed or are unknown.
    open_runs int not null default 0,
    bad_runs int not null default 0,
    -- How many of the latter whoever last resumed the job had seen: they do not pause it again.
    bad_runs_seen int not null default 0,
    trace_id uuid not null,
    created_by uuid references rackhand.users,
    created_by_name text not null,
    created_at timestamptz not null default now(),
    plan_digest text not null,
    plan_targets jsonb not null,
    -- How many, beside what is large to read.
    target_count int not null generated always as (jsonb_array_length(plan_targets)) stored,
    estimated_minutes int not null,
    approved_by uuid references rackhand.users,
    approved_by_name text,
    approved_at timestamptz
) with (fillfactor = 50);
create index job_by_site on rackhand.job (site_id, id desc);
create index job_newest on rackhand.job (id desc);
create index job_running on rackhand.job (site_id, id) where state = 'running';
create index job_paused on rackhand.job (site_id, id) where state = 'paused';
create index job_planned on rackhand.job (site_id, id) where state = 'planned';

-- Room on its pages keeps a claim and a report away from the indexes. Executors are never deleted, and a
-- claim has just read its own: `executor_id` without a foreign key saves the look.
create table rackhand.run (
    id uuid primary key default rackhand.uuid_v7(),
    job_id uuid not null references rackhand.job,
    site_id uuid not null,
    server_id uuid not null references rackhand.server,
    bmc_id uuid not null references rackhand.bmc,
    kind text not null,
    mutating boolean not null,
    position int not null,
    plan jsonb not null,
    -- The keys of `capacity` that it takes when it is admitted and frees when it ends.
    slots text[] not null,
    trace_id uuid not null,
    state text not null check (state in ('queued', 'leased', 'running', 'waiting', 'settling',
        'succeeded', 'no_change', 'failed', 'cancelled', 'unknown')),
    reason text not null default '',
    detail text not null default '',
    since timestamptz not null default now(),
    -- Expected to leave this state by then; afterwards it shows as stuck.
    expected_by timestamptz,
    phase text not null default '',
    percent smallint,
    -- Of an ended run only: it keeps its slots, because its outcome is unknown. Before the end a run holds
    -- slots while it is in `ready` or `lease`.
    admitted boolean not null default false,
    epoch bigint not null default 0,
    last_seq bigint not null default 0,
    -- How many events it has in each tree.
    events bigint not null default 0,
    lines bigint not null default 0,
    -- How many that are kept for good its executors have caused, which is bounded.
    said bigint not null default 0,
    -- Leases in a row without a step forward: no phase was begun for the first time, nothing was changed, the
    -- checkpoint is the same.
    idle_leases int not null default 0,
    executor_id uuid,
    checkpoint jsonb,
    -- Announced and not resolved.
    intent jsonb,
    -- Whether a change was ever announced. As long as none was, nothing has been done to the server.
    acted boolean not null default false,
    -- How it will end once its effects are undone.
    settle jsonb,
    finish jsonb,
    cancel_requested boolean not null default false,
    -- When the last lease ended; while an intent is open, the one under which it was announced.
    lease_ended_at timestamptz,
    -- Until when an executor whose lease was taken away may act by its own clock.
    acts_until timestamptz,
    created_at timestamptz not null default now(),
    finished_at timestamptz
) with (fillfactor = 50);
create index run_by_job on rackhand.run (job_id, position);
create index run_by_server on rackhand.run (server_id, id desc);
create index run_active_on_server on rackhand.run (server_id) where finished_at is null;

create table rackhand.run_phase (
    run_id uuid not null references rackhand.run on delete cascade,
    site_id uuid not null,
    phase text not null,
    state text not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    evidence jsonb not null default 'null',
    primary key (run_id, phase)
);

create table rackhand.effect (
    id uuid primary key,
    run_id uuid not null references rackhand.run,
    site_id uuid not null,
    server_id uuid not null,
    object text not null,
    property text not null,
    prior jsonb not null,
    wanted jsonb not null,
    state text not null check (state in ('intended', 'applied', 'not_applied', 'settling', 'settled', 'conflict')),
    changed_at timestamptz not null default now()
);
create index effect_by_run on rackhand.effect (run_id);
create index effect_open on rackhand.effect (site_id) where state in ('intended', 'applied', 'settling');

-- ── The queue: no policy for rackhand_api, only functions touch it ─────────────────────────────────────
-- A run goes from `waiting` to `ready` to `lease` and back to `ready` when its lease ends before it does.
-- Runs and executors are never deleted, and these rows are made from rows that are locked or just read: a
-- foreign key would only look each of them up once more.

-- Runs that have no slots yet.
create table rackhand.waiting (
    job_id uuid not null,
    position int not null,
    run_id uuid not null,
    site_id uuid not null,
    server_id uuid not null,
    bmc_id uuid not null,
    kind text not null,
    mutating boolean not null,
    slots text[] not null,
    since timestamptz not null default now(),
    primary key (job_id, position)
);

-- Admitted runs that wait for an executor. They are found by the owner of their BMC, so that nobody walks
-- through what others have to do. Only `bmc` says for certain who owns one.
create table rackhand.ready (
    run_id uuid primary key,
    site_id uuid not null,
    bmc_id uuid not null,
    kind text not null,
    owner uuid,
    ready_at timestamptz not null default now()
);
create index ready_next on rackhand.ready (site_id, owner, ready_at, run_id);
create index ready_by_bmc on rackhand.ready (bmc_id);

-- Granted runs. Liveness is not here but in executor_session: one row to renew, whatever is held.
create table rackhand.lease (
    run_id uuid primary key,
    site_id uuid not null,
    session_id uuid not null,
    executor_id uuid not null,
    epoch bigint not null
);
create index lease_by_session on rackhand.lease (session_id);

-- Slots: site, job and server. A run holds its slots until it is terminal and its effects are settled.
create table rackhand.capacity (
    key text primary key,
    used int not null check (used >= 0)
) with (fillfactor = 50);

create table rackhand.idempotency (
    user_id uuid not null references rackhand.users on delete cascade,
    key text not null,
    request_hash text not null,
    job_id uuid not null references rackhand.job,
    created_at timestamptz not null default now(),
    primary key (user_id, key)
);

do $$
declare
    name text;
begin
    foreach name in array array['credential', 'server', 'bmc', 'firmware', 'job', 'run', 'run_phase', 'effect']
    loop
        execute format('alter table rackhand.%I enable row level security', name);
        execute format('create policy visible on rackhand.%I for select to rackhand_api
            using (site_id = any ((select rackhand.allowed_sites())::uuid[]))', name);
    end loop;
end
$$;
alter policy visible on rackhand.server
    using (site_id = any ((select rackhand.allowed_sites())::uuid[]) and removed_at is null);
grant select on rackhand.server, rackhand.bmc, rackhand.firmware, rackhand.job, rackhand.run,
    rackhand.run_phase, rackhand.effect to rackhand_api;
grant select (id, site_id, name, version, address_count, addresses, suspended_at, refused_at, created_at)
    on rackhand.credential to rackhand_api;

reset role;
