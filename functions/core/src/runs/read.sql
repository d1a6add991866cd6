select rackhand.run_json(r) || jsonb_build_object(
    'phases', (
        select coalesce(jsonb_agg(jsonb_build_object('phase', p.phase, 'state', p.state,
            'started_at', rackhand.ts(p.started_at),
            'finished_at', case when p.finished_at is not null then rackhand.ts(p.finished_at) end,
            'evidence', p.evidence) order by p.started_at, p.phase), '[]')
        from rackhand.run_phase p where p.run_id = r.id),
    'effects', (
        select coalesce(jsonb_agg(jsonb_build_object('id', e.id, 'object', e.object, 'property', e.property,
            'prior', e.prior, 'wanted', e.wanted, 'state', e.state) order by e.id), '[]')
        from rackhand.effect e where e.run_id = r.id))
from rackhand.run r where r.id = ($1 ->> 'id')::uuid
