with page as materialized (
    select s, row_number() over (order by s.name) as place
    from rackhand.site s
    where $1 -> 'cursor' = 'null' or s.name > $1 -> 'cursor' ->> 'name'
    order by s.name
    limit ($1 ->> 'limit')::int + 1
)
select jsonb_build_object('items', coalesce(jsonb_agg(rackhand.site_json(p.s) order by p.place)
        filter (where p.place <= ($1 ->> 'limit')::int), '[]'))
    || case when count(*) > ($1 ->> 'limit')::int then jsonb_build_object('next',
        encode(convert_to(jsonb_build_object('name', max((p.s).name)
            filter (where p.place = ($1 ->> 'limit')::int))::text, 'UTF8'), 'hex'))
        else '{}' end
from page p
