with page as materialized (
    select j
    from rackhand.job_head j
    where ($1 ->> 'site' is null or j.site_id = ($1 ->> 'site')::uuid)
        and ($1 ->> 'state' is null or j.state = $1 ->> 'state')
        and ($1 ->> 'cursor' is null or j.id < ($1 ->> 'cursor')::uuid)
    order by j.id desc
    limit ($1 ->> 'limit')::int + 1
), sized as (
    select p.j, row_number() over w as place, sum(octet_length((p.j).params::text)) over w as bytes
    from page p
    window w as (order by (p.j).id desc)
), shown as materialized (
    -- A page ends at about 1 MiB: a job may name many packages.
    select s.j, s.place from sized s
    where s.place <= ($1 ->> 'limit')::int and (s.bytes <= 1048576 or s.place = 1)
)
select jsonb_build_object('items', coalesce(jsonb_agg(rackhand.job_head_json(s.j) order by s.place), '[]'))
    || case when (select count(*) from page) > count(*) then jsonb_build_object('next',
        (array_agg((s.j).id order by s.place desc))[1]) else '{}' end
from shown s
