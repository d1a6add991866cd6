select jsonb_build_object(
    'id', v.id, 'site_id', v.site_id, 'site', (select s.name from rackhand.site s where s.id = v.site_id),
    'name', v.name, 'bmc_url', b.url, 'vendor', v.vendor, 'model', v.model, 'service_tag', v.service_tag,
    'generation', v.generation, 'bios_version', v.bios_version, 'bmc_version', v.bmc_version,
    'power', v.power, 'health', v.health, 'tags', v.tags,
    'seen_at', case when v.seen_at is not null then rackhand.ts(v.seen_at) end,
    'active_job', (select r.job_id from rackhand.run r
        where r.server_id = v.id and r.finished_at is null
        order by r.mutating desc, r.id limit 1),
    'last_failure', rackhand.last_failure_json(v.id),
    'bmc', jsonb_build_object('id', b.id, 'url', b.url, 'ipmi', b.ipmi, 'credential_id', b.credential_id,
        'credential', (select c.name from rackhand.credential c where c.id = b.credential_id),
        'spki_sha256', b.spki_sha256, 'owner', b.owner_executor,
        'owner_name', (select e.name from rackhand.executor e where e.id = b.owner_executor),
        'owner_epoch', b.owner_epoch),
    'components', (
        select coalesce(jsonb_agg(jsonb_build_object('key', f.key, 'name', f.name,
            'software_id', f.software_id, 'version', f.version, 'updateable', f.updateable,
            'inactive', f.inactive, 'of_bmc', f.of_bmc)
            order by f.name, f.key), '[]')
        from rackhand.firmware f where f.server_id = v.id),
    'capabilities', v.capabilities, 'unreadable', v.unreadable,
    'created_at', rackhand.ts(v.created_at), 'version', v.version)
from rackhand.server v
join rackhand.bmc b on b.server_id = v.id
where v.id = ($1 ->> 'id')::uuid and v.removed_at is null
