//! The lock order: whoever locks several servers or BMCs does it by their ids. So who has to wait for the
//! first of them holds none of the others, and no two writers wait for each other.

use std::time::Duration;

use rackhand_tests::{
    TestSite,
    database::run,
    site::{granted, item, lease_args, person},
};
use serde_json::{Value, json};

const SERVERS: usize = 6;

/// A batch whose names are in the opposite order of the ids that it gets, one call each.
fn batch(site: &TestSite, numbers: impl Iterator<Item = usize>, tag: &str, port: usize) -> Value {
    let servers: Vec<Value> = numbers
        .map(|number| {
            json!({"index": number, "name": format!("node-{number}"), "bmc_url":
                format!("https://10.0.0.1:{}", port + number), "credential_id": site.credential,
                "spki_sha256": "00".repeat(32), "tags": [tag]})
        })
        .collect();
    json!({"site_id": site.id, "servers": servers, "replace": true})
}

/// `statement` while another transaction holds the first row of `table`: it waits, and all the other rows are
/// free.
async fn waits_for_the_first_and_holds_no_other(
    site: &TestSite,
    table: &str,
    scope: &Value,
    statement: &str,
    args: Value,
) -> Value {
    let (holder, caller) = (site.database.connect_owner().await, site.database.connect().await);
    holder.batch_execute("begin").await.unwrap();
    let first = format!("select id from rackhand.{table} order by id limit 1 for update");
    holder.execute(&first, &[]).await.unwrap();
    let pid: i32 = caller.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let (scope, name) = (scope.clone(), statement.to_owned());
    let call = tokio::spawn(async move { run(&caller, &scope, &name, args).await });
    while site.database.value(&format!("select to_jsonb(cardinality(pg_blocking_pids({pid})))")).await == 0 {
        assert!(!call.is_finished(), "{statement} did not wait for {table}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let free = format!(
        "with free as (select id from rackhand.{table} for update skip locked)
            select to_jsonb(count(*)) from free"
    );
    assert_eq!(site.database.value(&free).await, SERVERS - 1, "{statement} holds others of {table}");
    holder.batch_execute("rollback").await.unwrap();
    call.await.unwrap().unwrap()
}

#[tokio::test]
async fn writers_lock_servers_and_bmcs_by_their_ids() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let mut ids: Vec<String> = Vec::new();
    for number in (0..SERVERS).rev() {
        let stored = site.admin("servers_upsert", batch(&site, number..=number, "new", 1000)).await;
        ids.extend(stored["ids"].as_object().unwrap().values().map(|id| id.as_str().unwrap().to_owned()));
    }
    ids.reverse();
    // A job over the last ids first.
    let target = |id: &String, machine: &Value| {
        json!({"server_id": id, "server": "node", "blockers": [],
        "warnings": [], "estimated_minutes": 1, "steps": [{"step": "read_inventory"}], "machine": machine[id]})
    };
    let job = async || {
        let machine = site
            .database
            .value("select jsonb_object_agg(b.server_id, rackhand.machine_json(b)) from rackhand.bmc b")
            .await;
        json!({"site_id": site.id, "kind": "inventory", "params": {}, "mutating": false,
            "policy": {"max_parallel": 1000, "pause_after_failures": 0}, "reason": "a test",
            "plan": {"digest": "d", "estimated_minutes": 1,
                "targets": ids.iter().map(|id| target(id, &machine)).collect::<Vec<_>>()}})
    };
    for table in ["server", "bmc"] {
        for (tag, port) in [("tagged", 1000), ("moved", 2000)] {
            let changed = batch(&site, 0..SERVERS, &format!("{tag} {table}"), port);
            let done =
                waits_for_the_first_and_holds_no_other(&site, table, &site.admin, "servers_upsert", changed)
                    .await;
            assert_eq!(done["changed"], SERVERS);
        }
        let made = job().await;
        waits_for_the_first_and_holds_no_other(&site, table, &site.admin, "job_create", made).await;
        if table == "server" {
            let over = "delete from rackhand.waiting; update rackhand.run set state = 'cancelled', finished_at = now()";
            site.database.owner.batch_execute(over).await.unwrap();
        }
    }
    let lease = lease_args(&[], SERVERS as u32);
    let answer =
        waits_for_the_first_and_holds_no_other(&site, "bmc", &executor.scope, "executor_lease", lease).await;
    let held = granted(&answer);
    assert_eq!(held.len(), SERVERS);
    let inventory = json!({"type": "inventory", "power": "on", "health": "ok", "components": [],
        "capabilities": [], "unreadable": {}});
    let items: Vec<Value> = (0..)
        .zip(&held)
        .map(|(index, run)| {
            let mut item = item(run, 1, inventory.clone());
            item["index"] = json!(index);
            item
        })
        .collect();
    let report = json!({"items": items});
    waits_for_the_first_and_holds_no_other(&site, "server", &executor.scope, "executor_report", report).await;
}

#[tokio::test]
async fn a_registration_that_stays_as_it_is_waits_for_nobody() {
    let site = TestSite::new().await;
    site.admin("servers_upsert", batch(&site, 0..SERVERS, "same", 1000)).await;
    let holder = site.database.connect_owner().await;
    holder
        .batch_execute("begin; select from rackhand.bmc for update; select from rackhand.server for update")
        .await
        .unwrap();
    let again = site.admin("servers_upsert", batch(&site, 0..SERVERS, "same", 1000));
    let done = tokio::time::timeout(Duration::from_secs(5), again).await.expect("it waits");
    assert_eq!(done["unchanged"], SERVERS);
    holder.batch_execute("rollback").await.unwrap();
}

/// Of accounts, in the order in which they are locked.
const OF_ACCOUNTS: [&str; 4] = ["users", "password_reset", "user_session", "login_limit"];

/// Whoever waits for one table of accounts holds no row of those that come after it: so no two wait for each other.
#[tokio::test]
async fn accounts_are_locked_in_one_order() {
    let site = TestSite::new().await;
    let bea = person(&site.database, "Bea", "viewer", None).await;
    let id = &bea["user"];
    let text = id.as_str().unwrap();
    site.database
        .owner
        .batch_execute(&format!(
            "update rackhand.users set password_hash = 'h' where id = '{text}';
            insert into rackhand.user_session (user_id, family, expires_at, network)
                select '{text}', decode(family, 'hex'), now() + interval '1 day', '192.0.2.1'
                from unnest(array['aa', 'bb', 'cc']) as family"
        ))
        .await
        .unwrap();
    site.admin("password_reset_create", json!({"id": id, "token_hash": "ab", "ttl_s": 600})).await;
    let counts = format!(
        "insert into rackhand.login_limit select key, 1, now() + interval '1 day' from (
            select 'account ' || rackhand.login_account('bea@example.test') || place
                from unnest(array[' from 192.0.2.1', '', ' from 192.0.2.2']) as place
            union all values ('address 192.0.2.1'), ('change {text}')) as counted (key)"
    );
    site.database.owner.batch_execute(&counts).await.unwrap();
    let stranger = json!({"kind": "anonymous", "address": "192.0.2.1"});
    let calls = [
        (&stranger, "password_reset_finish", json!({"token_hash": "ab", "password_hash": "x"})),
        (&bea, "password_change_finish", json!({"fitted": "h", "password_hash": "x"})),
        (&site.admin, "password_reset_create", json!({"id": id, "token_hash": "ac", "ttl_s": 600})),
        (&site.admin, "user_update", json!({"id": id, "disabled": true})),
        (&site.admin, "user_sessions_end", json!({"id": id})),
        (&bea, "user_sessions_end", json!({"id": id})),
        (
            &stranger,
            "login_finish",
            json!({"email": "bea@example.test", "user_id": id, "fitted": "h", "family": "dd",
                "refresh_hash": "dd", "former": "aa", "user_agent": "", "ttl_s": 600}),
        ),
    ];
    let (holder, caller) = (site.database.connect_owner().await, site.database.connect().await);
    let pid: i32 = caller.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let waits = format!("select to_jsonb(cardinality(pg_blocking_pids({pid})) > 0)");
    let mut waited = 0;
    for (place, table) in OF_ACCOUNTS.iter().enumerate() {
        for (scope, name, args) in &calls {
            caller.batch_execute("begin").await.unwrap();
            holder
                .batch_execute(&format!("begin; select from rackhand.{table} for no key update"))
                .await
                .unwrap();
            let call = run(&caller, scope, name, args.clone());
            let look = async {
                while site.database.value(&waits).await != true {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let mut call = std::pin::pin!(call);
            let done = tokio::select! {
                done = &mut call => Some(done),
                () = look => None,
            };
            if done.is_none() {
                waited += 1;
                for later in &OF_ACCOUNTS[place + 1..] {
                    let free = format!(
                        "with free as (select from rackhand.{later} for update skip locked)
                            select to_jsonb((select count(*) from free) = (select count(*) from rackhand.{later}))"
                    );
                    assert_eq!(
                        site.database.value(&free).await,
                        true,
                        "{name} waits for {table}, holds {later}"
                    );
                }
            }
            holder.batch_execute("rollback").await.unwrap();
            let done = match done {
                Some(done) => done,
                None => call.await,
            };
            assert!(done.is_ok(), "{name}: {done:?}");
            caller.batch_execute("rollback").await.unwrap();
        }
    }
    assert!(waited >= 16, "only {waited} calls had to wait");
}

/// Two admins who make a link for each other at the same moment: neither waits for the other's row.
#[tokio::test]
async fn admins_make_links_for_each_other() {
    let site = TestSite::new().await;
    let bea = person(&site.database, "Bea", "admin", None).await;
    let (one, other) = (site.database.connect().await, site.database.connect().await);
    one.batch_execute("begin").await.unwrap();
    other.batch_execute("begin").await.unwrap();
    let link = |who: &Value, hash: &str| json!({"id": who["user"], "token_hash": hash, "ttl_s": 60});
    run(&one, &site.admin, "password_reset_create", link(&bea, "ab")).await.unwrap();
    let second = run(&other, &bea, "password_reset_create", link(&site.admin, "ac"));
    tokio::time::timeout(Duration::from_secs(10), second).await.expect("it waits").unwrap();
}
