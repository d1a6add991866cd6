//! List queries keep to their indexes under row-level security at 100,000 servers and 220,000 events.
//!
//! The golden files hold the scans of each plan; `INSTA_UPDATE=always` writes them anew.

use std::fmt::Write as _;

use rackhand_tests::{TestSite, database::run, site::person};
use serde_json::{Value, json};

const SERVERS_LIST: &str = include_str!("../../functions/core/src/servers/list.sql");
const JOBS_LIST: &str = include_str!("../../functions/core/src/jobs/list.sql");
const JOBS_READ: &str = include_str!("../../functions/core/src/jobs/read.sql");
const RUNS_LIST: &str = include_str!("../../functions/core/src/jobs/runs.sql");

#[tokio::test]
async fn list_queries_keep_to_their_indexes_at_a_hundred_thousand_rows() {
    let site = TestSite::new().await;
    let owner = &site.database.owner;
    owner
        .batch_execute(
            "insert into rackhand.site (name, config) select 'site ' || i, '{}' from generate_series(1, 9) i;
             insert into rackhand.server (site_id, name, model, service_tag, generation, power, health, seen_at)
                 select s.id, 'node-' || lpad(i::text, 6, '0') || '-' || s.name, 'PowerEdge R750', 'TAG' || i,
                     'idrac9', 'on', 'ok', now()
                 from rackhand.site s, generate_series(1, 10000) i;
             insert into rackhand.bmc (server_id, site_id, url) select id, site_id, 'https://' || id from rackhand.server;
             insert into rackhand.job (site_id, kind, params, mutating, policy, reason, state, trace_id,
                     created_by_name, plan_digest, plan_targets, estimated_minutes)
                 select s.id, 'inventory', '{}', false, '{}', 'why', 'succeeded', gen_random_uuid(), 'x', 'd', '[]', 1
                 from rackhand.site s, generate_series(1, 2000) i;
             insert into rackhand.run (job_id, site_id, server_id, bmc_id, kind, mutating, position, plan, slots,
                     trace_id, state, finished_at)
                 select j.id, j.site_id, b.server_id, b.id, 'inventory', false, row_number() over (), '{}', '{}',
                     gen_random_uuid(), 'succeeded', now()
                 from (select * from rackhand.job limit 10) j
                 join lateral (select * from rackhand.bmc b where b.site_id = j.site_id limit 10000) b on true;
             insert into rackhand.event (tree, at, kind, level, message, actor_kind, site_id, data, stream, n)
                 select 'lines', now(), 'run.log', 'info', 'line ' || i, 'system', s.id, '{}', s.id, i
                 from rackhand.site s, generate_series(1, 20000) i;
             insert into rackhand.event (tree, at, kind, level, message, actor_kind, site_id, server_id, data, stream, n)
                 select 'lines', now(), 'run.log', 'info', 'line ' || i, 'system', v.site_id, v.id, '{}', v.id, i
                 from (select v.* from rackhand.server v join rackhand.site s on s.id = v.site_id
                     where s.name = 'lab' order by v.id limit 1) v, generate_series(1, 20000) i;
             insert into rackhand.site (name, config) values ('quiet', '{}');",
        )
        .await
        .unwrap();
    owner.batch_execute("vacuum analyze").await.unwrap();
    let busy: String =
        owner.query_one("select job_id::text from rackhand.run limit 1", &[]).await.unwrap().get(0);
    let server: String = owner
        .query_one("select server_id::text from rackhand.event where server_id is not null limit 1", &[])
        .await
        .unwrap()
        .get(0);
    let of_one_site = person(&site.database, "Olga Operator", "operator", Some(&site.id)).await;
    let quiet = site.database.value("select id from rackhand.site where name = 'quiet'").await;
    let of_the_quiet_site = person(&site.database, "Quentin Quiet", "viewer", quiet.as_str()).await;
    let list = json!({"limit": 50, "cursor": null, "site": null, "power": null, "health": null, "generation": null,
        "model": null, "tag": null, "q": null});
    let with = |changes: Value| {
        let mut args = list.clone();
        args.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        args
    };
    let cases = [
        ("servers, first page, whole fleet", &site.admin, SERVERS_LIST, list.clone()),
        (
            "servers, later page, whole fleet",
            &site.admin,
            SERVERS_LIST,
            with(json!({"cursor": {"name": "node-005000", "id": server}})),
        ),
        ("servers, one site of the fleet", &site.admin, SERVERS_LIST, with(json!({"site": site.id}))),
        ("servers, a person of one site", &of_one_site, SERVERS_LIST, list.clone()),
        ("jobs, first page, whole fleet", &site.admin, JOBS_LIST, json!({"limit": 50})),
        ("jobs, a person of one site", &of_one_site, JOBS_LIST, json!({"limit": 50})),
        ("runs of a job", &site.admin, RUNS_LIST, json!({"limit": 50, "id": busy})),
    ];
    let mut golden = String::new();
    for (name, scope, sql, args) in cases {
        let plan =
            run(&site.database.api, scope, &format!("explain (format json) {sql}"), args).await.unwrap();
        writeln!(golden, "{name}").unwrap();
        scans(&plan[0]["Plan"], &mut golden);
    }
    insta::assert_snapshot!(golden);

    // The event query is built inside a function: the table's own counters tell.
    let page = |position: Value, filter: Value| {
        let mut args = json!({"limit": 100});
        for part in [position, filter] {
            args.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        args
    };
    let of_server = "select (era || '.' || xid || '.' || id) from rackhand.event where server_id is not null";
    let middle: String =
        owner.query_one(&format!("{of_server} order by id offset 10000 limit 1"), &[]).await.unwrap().get(0);
    for scope in [&site.admin, &of_one_site, &of_the_quiet_site] {
        for filter in [json!({}), json!({"site": site.id}), json!({"job": busy}), json!({"server": server})] {
            for position in [
                json!({"after": ""}),
                json!({"after": middle}),
                json!({"before": "latest"}),
                json!({"before": middle}),
            ] {
                let before = event_reads(&site).await;
                let found = site
                    .database
                    .run(scope, "events_after", page(position.clone(), filter.clone()))
                    .await
                    .unwrap();
                let (scans, rows) = event_reads(&site).await;
                assert_eq!(scans, before.0, "a sequential scan of 220,000 events: {position} {filter}");
                // A plan that does not keep to the page reads all 20,000.
                let read = rows - before.1;
                assert!(read <= 1000, "{read} rows read: {position} {filter}");
                if scope == &of_the_quiet_site {
                    assert_eq!((&found["items"], read), (&json!([]), 0), "{position}");
                }
            }
        }
    }
}

/// The plan of a large job is megabytes, which a viewer could have read 500 at a time, again and again.
#[tokio::test]
async fn the_list_of_jobs_reads_no_plans() {
    let site = TestSite::new().await;
    let insert = "insert into rackhand.job (site_id, kind, params, mutating, policy, reason, state, trace_id,
                created_by_name, plan_digest, plan_targets, estimated_minutes)
            select s.id, 'inventory', '{}', false, '{}', 'why', 'succeeded', gen_random_uuid(), 'x', 'd',
                (select jsonb_agg(jsonb_build_object('server', gen_random_uuid())) from generate_series(1, 1000)), 1
            from rackhand.site s, generate_series(1, 3)";
    site.database.owner.batch_execute(insert).await.unwrap();
    let before = plan_reads(&site).await;
    let list = site.database.run(&site.admin, JOBS_LIST, json!({"limit": 50})).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "{list}");
    assert_eq!(list["items"][0]["targets"], 1000);
    assert_eq!(plan_reads(&site).await, before, "blocks of plans");
    let read = json!({"id": list["items"][0]["id"]});
    let job = site.database.run(&site.admin, JOBS_READ, read).await.unwrap();
    assert_eq!(job["plan"]["targets"].as_array().unwrap().len(), 1000);
    assert!(plan_reads(&site).await > before, "the counter counts");
}

/// Blocks read of what the table of jobs keeps beside its rows, so far.
async fn plan_reads(site: &TestSite) -> i64 {
    for session in [&site.database.api, &site.database.owner] {
        session.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    }
    site.database.owner.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
    let query = "select toast_blks_read + toast_blks_hit from pg_statio_user_tables where relname = 'job'";
    site.database.owner.query_one(query, &[]).await.unwrap().get(0)
}

/// Sequential scans of the event table and rows fetched by its indexes, so far.
async fn event_reads(site: &TestSite) -> (i64, i64) {
    for session in [&site.database.api, &site.database.owner] {
        session.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    }
    site.database.owner.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
    let query = "select sum(seq_scan)::bigint, sum(idx_tup_fetch)::bigint from pg_stat_user_tables
        where relname like 'event\\_%'";
    let row = site.database.owner.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Every scan of a plan, one line each: how, what, by which index.
fn scans(node: &Value, out: &mut String) {
    if let Some(table) = node["Relation Name"].as_str() {
        let by = node["Index Name"].as_str().map(|index| format!(" by {index}")).unwrap_or_default();
        writeln!(out, "  {} of {table}{by}", node["Node Type"].as_str().unwrap()).unwrap();
    } else if let Some(index) = node["Index Name"].as_str() {
        writeln!(out, "  {} by {index}", node["Node Type"].as_str().unwrap()).unwrap();
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        scans(child, out);
    }
}
