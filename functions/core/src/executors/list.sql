with page as materialized (
    select e.id, e.site_id, e.name, e.state, e.fingerprint, e.version, e.kinds, e.enrolled_at
    from rackhand.executor e
    where ($1 ->> 'site' is null or e.site_id = ($1 ->> 'site')::uuid)
        and ($1 ->> 'cursor' is null or e.id > ($1 ->> 'cursor')::uuid)
    order by e.id
    limit ($1 ->> 'limit')::int + 1
),
numbered as (
    select p.*, row_number() over (order by p.id) as place from page p
)
select jsonb_build_object('items', coalesce(jsonb_agg(jsonb_build_object(
            'id', n.id, 'site_id', n.site_id, 'name', n.name, 'state', n.state,
            'fingerprint', n.fingerprint, 'version', n.version, 'kinds', n.kinds,
            'online', n.state <> 'revoked' and coalesce(live.online, false),
            'runs_held', (select count(*) from rackhand.run r
                where r.site_id = n.site_id and r.finished_at is null and r.executor_id = n.id
                    and r.state <> 'queued'),
            'seen_at', case when live.seen_at is not null then rackhand.ts(live.seen_at) end,
            'enrolled_at', rackhand.ts(n.enrolled_at)) order by n.place)
        filter (where n.place <= ($1 ->> 'limit')::int), '[]'))
    || case when count(*) > ($1 ->> 'limit')::int then jsonb_build_object('next',
        max(n.id::text) filter (where n.place = ($1 ->> 'limit')::int)) else '{}' end
from numbered n
left join lateral (
    select max(s.seen_at) as seen_at, bool_or(s.superseded_at is null and s.expires_at > now()) as online
    from rackhand.executor_session s
    where s.executor_id = n.id
) live on true
