with page as materialized (
    select r, r.position, row_number() over (order by r.position) as place
    from rackhand.run r
    where r.job_id = ($1 ->> 'id')::uuid
        and ($1 ->> 'cursor' is null or r.position > ($1 ->> 'cursor')::int)
    order by r.position
    limit ($1 ->> 'limit')::int + 1
)
select case when exists (select from rackhand.job j where j.id = ($1 ->> 'id')::uuid) then
    (select jsonb_build_object('items', coalesce(jsonb_agg(rackhand.run_json(p.r) order by p.place)
            filter (where p.place <= ($1 ->> 'limit')::int), '[]'))
        || case when count(*) > ($1 ->> 'limit')::int then jsonb_build_object('next',
            (max(p.position) filter (where p.place = ($1 ->> 'limit')::int))::text) else '{}' end
    from page p) end
