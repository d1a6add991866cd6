//! Row-level security: what a scope shows, and what it leaves behind on a pooled connection.

use rackhand_tests::{TestSite, database::run, site::person};
use serde_json::json;

const TABLES: [&str; 9] =
    ["site", "server", "bmc", "firmware", "credential", "job", "run", "event", "executor"];

#[tokio::test]
async fn a_person_of_one_site_sees_nothing_of_another_in_any_table() {
    let site = TestSite::new().await;
    let servers = site.servers(2).await;
    site.executor("one").await;
    site.job("inventory", &servers, 5).await;
    let other = site
        .admin(
            "site_create",
            json!({"name": "other", "config": {"lease_ttl_ms": 1000,
        "max_mutating_runs": 1, "hardware_paused": false, "second_person": false}}),
        )
        .await;
    let stranger = person(&site.database, "Sam Stranger", "admin", other["id"].as_str()).await;
    for table in TABLES {
        let count = format!("select to_jsonb(count(id)) from rackhand.{table}");
        let count = if table == "firmware" { count.replace("(id)", "(key)") } else { count };
        let seen = |scope| {
            let client = &site.database.api;
            let count = count.clone();
            async move { run(client, scope, &count, json!({})).await.unwrap().as_u64().unwrap() }
        };
        let own = u64::from(table == "site") + u64::from(table == "event");
        assert_eq!(seen(&stranger).await, own, "{table} of another site");
        assert_eq!(seen(&json!({"kind": "anonymous"})).await, 0, "{table} without a scope");
    }
    // Without `run` there is no scope, on a connection that had one a moment ago too.
    let row = site.database.api.query_one("select count(*) from rackhand.server", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_failed_request_leaves_no_scope_behind() {
    let site = TestSite::new().await;
    site.servers(1).await;
    run(&site.database.api, &site.admin, "select to_jsonb(1 / 0) from rackhand.server", json!({}))
        .await
        .unwrap_err();
    let row = site.database.api.query_one("select count(*) from rackhand.server", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_api_role_cannot_touch_the_queue_secrets_or_other_peoples_tables() {
    let site = TestSite::new().await;
    for statement in [
        "select * from rackhand.ready",
        "select * from rackhand.lease",
        "select * from rackhand.capacity",
        "select sealed from rackhand.credential",
        "select password_hash from rackhand.users",
        "select site_key from rackhand.executor",
        "update rackhand.run set state = 'succeeded'",
        "delete from rackhand.event",
        "insert into rackhand.server (site_id, name) values (gen_random_uuid(), 'x')",
        "select rackhand.append_event('x', 'info', 'forged', '{}')",
        "select rackhand.release('{}')",
        "set role rackhand_owner",
    ] {
        let error = site.database.api.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().unwrap().code(), "42501", "{statement}");
    }
    // What the API may call is listed here, so that a new function is a decision.
    let callable = site
        .database
        .value(
            "select array_agg(p.proname order by p.proname) from pg_proc p
                where p.pronamespace = 'rackhand'::regnamespace
                    and has_function_privilege('rackhand_api', p.oid, 'execute')",
        )
        .await;
    let callable: Vec<_> = callable.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    insta::assert_snapshot!(callable.join("\n"));
    let row = site
        .database
        .api
        .query_one("select rolbypassrls or rolsuper from pg_roles where rolname = current_user", &[])
        .await
        .unwrap();
    assert!(!row.get::<_, bool>(0));
}

#[tokio::test]
async fn roles_are_asked_of_the_database_at_each_request() {
    let site = TestSite::new().await;
    let mut viewer = person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await;
    let args = json!({"site_id": site.id, "servers": []});
    let refused = site.database.run(&viewer, "servers_upsert", args.clone()).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.needs_role.as_str()), ("forbidden-role", "operator"));
    let name = site
        .database
        .value(&format!("select to_jsonb(name) from rackhand.site where id = '{}'", site.id))
        .await;
    let name = name.as_str().unwrap();
    let there = format!(
        "This needs the role operator in site {name}; Vera Viewer is viewer there. Ask an admin of {name}."
    );
    assert_eq!(refused.detail, there);
    let refused = site.database.run(&viewer, "site_create", json!({"name": "x"})).await.unwrap_err();
    let fleet = "This needs the role admin for the whole fleet; Vera Viewer has no role there. Ask an admin of the whole \
                 fleet.";
    assert_eq!(refused.detail, fleet);
    viewer["need"] = json!("operator");
    let refused = site.database.run(&viewer, "servers_upsert", args.clone()).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.needs_role.as_str()), ("forbidden-role", "operator"));
    let anywhere = format!(
        "This needs the role operator; Vera Viewer is viewer in site {name}. Ask an admin of {name}."
    );
    assert_eq!(refused.detail, anywhere);
    site.database
        .owner
        .batch_execute("update rackhand.user_grant set role = 'operator' where role = 'viewer'")
        .await
        .unwrap();
    site.database.run(&viewer, "servers_upsert", args.clone()).await.unwrap();
    site.database.owner.batch_execute("update rackhand.user_session set ended_at = now()").await.unwrap();
    let refused = site.database.run(&viewer, "servers_upsert", args).await.unwrap_err();
    assert_eq!(refused.code, "session-ended");
}

/// A refusal tells where somebody has which role, however many grants that takes.
#[tokio::test]
async fn a_refusal_names_the_roles_that_somebody_has() {
    let site = TestSite::new().await;
    let mut viewer = person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await;
    viewer["need"] = json!("admin");
    let refusal = async || {
        let args = json!({"site_id": site.id, "servers": []});
        site.database.run(&viewer, "servers_upsert", args).await.unwrap_err().detail
    };
    let grant = async |role: &str, at: &str| {
        let sql = format!(
            "insert into rackhand.user_grant (user_id, role, site_id) values ('{}', '{role}', {at})",
            viewer["user"].as_str().unwrap()
        );
        site.database.owner.batch_execute(&sql).await.unwrap();
    };
    let name = site
        .database
        .value(&format!("select to_jsonb(name) from rackhand.site where id = '{}'", site.id))
        .await;
    let name = name.as_str().unwrap();
    grant("operator", &format!("'{}'", site.id)).await;
    let both =
        format!("This needs the role admin; Vera Viewer is operator in site {name}. Ask an admin of {name}.");
    assert_eq!(refusal().await, both);
    grant("viewer", "null").await;
    let mixed = "This needs the role admin; Vera Viewer has at most the role operator. Ask an admin.";
    assert_eq!(refusal().await, mixed);
}

/// Any login may make functions in `public` of a database from before Postgres 15. One that fits a call
/// better than the function of Postgres would be run in its place, with the rights of whoever called.
#[tokio::test]
async fn the_owners_connection_runs_no_function_of_others() {
    let site = TestSite::new().await;
    let traps = [
        "jsonb_build_object(text, uuid) returns jsonb",
        "format(text, text) returns text",
        "pg_advisory_xact_lock(int8) returns void",
    ];
    let open = "grant create on schema public to rackhand_api; create table public.loot (who text);
        grant insert on public.loot to rackhand_api";
    site.database.owner.batch_execute(open).await.unwrap();
    for trap in traps {
        let body = "begin reset role; insert into public.loot values (current_user); return null; end";
        let body = if trap.ends_with("void") { body.replace("return null; ", "") } else { body.to_owned() };
        let trap = format!("create function public.{trap} language plpgsql as $trap$ {body} $trap$");
        site.database.api.batch_execute(&trap).await.unwrap();
    }
    // As it is where somebody has set it so.
    let first = format!("alter database {} set search_path = public, pg_catalog", site.database.name);
    site.database.owner.batch_execute(&first).await.unwrap();
    let owner = site.database.owner_url();
    rackhand_server::setup::create_admin(
        &owner,
        "eve@example.test",
        "Eve",
        "a password of Eve's own",
        rackhand_server::setup::Existing::Refuse,
    )
    .await
    .unwrap();
    rackhand_server::setup::migrate(&owner).await.unwrap();
    assert_eq!(site.database.value("select count(*) from public.loot").await, 0);

    let api = site.database.connect().await;
    let path: String = api.query_one("show search_path", &[]).await.unwrap().get(0);
    assert_eq!(path, "pg_catalog, pg_temp", "nor do the hosts' connections");
    let open = "select coalesce(jsonb_agg(p.proname), '[]') from pg_proc p
        where p.pronamespace = 'rackhand'::regnamespace and p.prosecdef
            and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)";
    assert_eq!(site.database.value(open).await, json!([]), "nor does a function with its owner's rights");
}
