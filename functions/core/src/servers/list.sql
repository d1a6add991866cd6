with whole as materialized (
    -- A model that is named in full is that one alone: `PowerEdge R750` is a part of `PowerEdge R750xs`.
    select $1 ->> 'model' is not null and exists (select from rackhand.server v
        where v.removed_at is null and lower(v.model) = $1 ->> 'model'
            and ($1 ->> 'site' is null or v.site_id = ($1 ->> 'site')::uuid)) as found
),
-- What is asked for, in one place; planned anew where it is used, each time by another index.
matching as not materialized (
    select v.*
    from rackhand.server v
    where v.removed_at is null
        and ($1 ->> 'power' is null or v.power = $1 ->> 'power')
        and ($1 ->> 'health' is null or v.health = $1 ->> 'health')
        and ($1 ->> 'generation' is null or v.generation = $1 ->> 'generation')
        and ($1 ->> 'model' is null or case when (select w.found from whole w) then lower(v.model) = $1 ->> 'model'
            else strpos(lower(coalesce(v.model, '')), $1 ->> 'model') > 0 end)
        and ($1 ->> 'tag' is null or v.tags @> array[$1 ->> 'tag'])
        and ($1 ->> 'q' is null or strpos(lower(v.name), $1 ->> 'q') > 0
            or strpos(lower(coalesce(v.service_tag, '')), $1 ->> 'q') > 0
            or strpos(lower(coalesce(v.model, '')), $1 ->> 'q') > 0)
),
page as materialized (
    -- The first of each site by its own index, then the first of those: row-level security hides most rows
    -- from most people, and walking the whole fleet's index past them would cost more with each site.
    select f.*, row_number() over (order by f.name, f.id) as place
    from unnest(case when $1 ->> 'site' is null then rackhand.allowed_sites()
        else array[($1 ->> 'site')::uuid] end) as own (site)
    cross join lateral (
        select m.*
        from matching m
        where m.site_id = own.site
            and ($1 -> 'cursor' = 'null'
                or (m.name, m.id) > ($1 -> 'cursor' ->> 'name', ($1 -> 'cursor' ->> 'id')::uuid))
        order by m.name, m.id
        limit ($1 ->> 'limit')::int + 1) f
    order by f.name, f.id
    limit ($1 ->> 'limit')::int + 1
),
counted as materialized (
    select m.power, m.health, coalesce(m.generation, 'unknown') as generation, count(*) as n
    from matching m
    where $1 ->> 'site' is null or m.site_id = ($1 ->> 'site')::uuid
    group by 1, 2, 3
)
select jsonb_build_object(
    'items', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'id', p.id, 'site_id', p.site_id,
            'site', (select s.name from rackhand.site s where s.id = p.site_id),
            'name', p.name, 'bmc_url', (select b.url from rackhand.bmc b where b.server_id = p.id), 'vendor', p.vendor, 'model', p.model, 'service_tag', p.service_tag,
            'generation', p.generation, 'bios_version', p.bios_version, 'bmc_version', p.bmc_version,
            'power', p.power, 'health', p.health, 'tags', p.tags,
            'seen_at', case when p.seen_at is not null then rackhand.ts(p.seen_at) end,
            'active_job', (select r.job_id from rackhand.run r
                where r.server_id = p.id and r.finished_at is null
                order by r.mutating desc, r.id limit 1),
            'last_failure', rackhand.last_failure_json(p.id)) order by p.place), '[]')
        from page p where p.place <= ($1 ->> 'limit')::int),
    'next', (
        select encode(convert_to(jsonb_build_object('name', p.name, 'id', p.id)::text, 'UTF8'), 'hex')
        from page p where p.place = ($1 ->> 'limit')::int
            and exists (select from page l where l.place > ($1 ->> 'limit')::int)),
    'counts', jsonb_build_object(
        'total', (select coalesce(sum(c.n), 0) from counted c),
        'power', (select coalesce(jsonb_object_agg(c.power, c.n), '{}')
            from (select power, sum(n) as n from counted group by power) c),
        'health', (select coalesce(jsonb_object_agg(c.health, c.n), '{}')
            from (select health, sum(n) as n from counted group by health) c),
        'generation', (select coalesce(jsonb_object_agg(c.generation, c.n), '{}')
            from (select generation, sum(n) as n from counted group by generation) c)))
