with page as materialized (
    select j, row_number() over (order by j.id desc) as place
    from rackhand.job_head j
    where ($1 ->> 'site' is null or j.site_id = ($1 ->> 'site')::uuid)
        and ($1 ->> 'state' is null or j.state = $1 ->> 'state')
        and ($1 ->> 'cursor' is null or j.id < ($1 ->> 'cursor')::uuid)
    order by j.id desc
    limit ($1 ->> 'limit')::int + 1
)
select jsonb_build_object('items', coalesce(
        jsonb_agg(rackhand.job_head_json(p.j) order by p.place)
        filter (where p.place <= ($1 ->> 'limit')::int), '[]'))
    || case when count(*) > ($1 ->> 'limit')::int then jsonb_build_object('next',
        max((p.j).id::text) filter (where p.place = ($1 ->> 'limit')::int)) else '{}' end
from page p
