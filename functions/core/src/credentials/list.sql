with page as materialized (
    select c.id, c.site_id, c.name, c.version, c.suspended_at, c.refused_at, c.created_at, c.address_count,
        c.addresses, row_number() over (order by c.id) as place
    from rackhand.credential c
    where ($1 ->> 'site' is null or c.site_id = ($1 ->> 'site')::uuid)
        and ($1 ->> 'cursor' is null or c.id > ($1 ->> 'cursor')::uuid)
    order by c.id
    limit ($1 ->> 'limit')::int + 1
)
select jsonb_build_object('items', coalesce(jsonb_agg(jsonb_build_object(
            'id', p.id, 'site_id', p.site_id, 'name', p.name, 'version', p.version,
            'suspended', p.suspended_at is not null, 'refused_at', rackhand.ts(p.refused_at),
            'address_count', p.address_count, 'addresses', p.addresses, 'created_at', rackhand.ts(p.created_at))
            order by p.place)
        filter (where p.place <= ($1 ->> 'limit')::int), '[]'))
    || case when count(*) > ($1 ->> 'limit')::int then jsonb_build_object('next',
        max(p.id::text) filter (where p.place = ($1 ->> 'limit')::int)) else '{}' end
from page p
