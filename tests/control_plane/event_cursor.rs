//! The event cursor: a reader beside many interleaved committers misses nothing and sees nothing twice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rackhand_tests::{TestSite, database::connect, site::person};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_fifty_interleaved_committers_misses_nothing() {
    const WRITERS: usize = 50;
    const EACH: usize = 20;
    let site = TestSite::new().await;
    let finished = Arc::new(AtomicUsize::new(0));
    let start =
        site.database.run(&site.admin, "events_after", json!({"after": "latest", "limit": 1})).await.unwrap();
    for writer in 0..WRITERS {
        let client = rackhand_tests::database::connect(&site.database.owner_url()).await;
        let finished = Arc::clone(&finished);
        let site_id = site.id.clone();
        tokio::spawn(async move {
            for round in 0..EACH {
                // Ids are drawn early and committed late and out of order.
                client.batch_execute("begin").await.unwrap();
                client
                    .execute(
                        "select rackhand.append_event('test', 'info', $1, jsonb_build_object('site', $2::text,
                            'user', rackhand.uuid_v7()))",
                        &[&format!("{writer}/{round}"), &site_id],
                    )
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_micros(((writer * 7 + round * 13) % 23) as u64 * 300))
                    .await;
                client.batch_execute(if round % 7 == 3 { "rollback" } else { "commit" }).await.unwrap();
            }
            finished.fetch_add(1, Ordering::SeqCst);
        });
    }
    let mut cursor = start["cursor"].clone();
    let mut seen = BTreeSet::new();
    loop {
        // A transaction of another test holds the horizon back as well (ids are cluster-wide), so an empty
        // page is no proof of the end: the last writer's last event must have been visible before it.
        let settled =
            "select pg_snapshot_xmin(pg_current_snapshot()) > (select max(xid) from rackhand.event)";
        let complete =
            finished.load(Ordering::SeqCst) == WRITERS && site.database.value(settled).await == true;
        let page = site
            .database
            .run(&site.admin, "events_after", json!({"after": cursor, "site": site.id, "limit": 37}))
            .await
            .unwrap();
        cursor = page["cursor"].clone();
        let items = page["items"].as_array().unwrap();
        // Another test's transaction may hold `latest` back to before this test's own set-up.
        for item in items.iter().filter(|item| item["kind"] == "test") {
            assert!(seen.insert(item["message"].as_str().unwrap().to_owned()), "seen twice: {item}");
        }
        if complete && items.is_empty() {
            break;
        }
    }
    let expected: BTreeSet<_> = (0..WRITERS)
        .flat_map(|writer| {
            (0..EACH).filter(|round| round % 7 != 3).map(move |round| format!("{writer}/{round}"))
        })
        .collect();
    let missed: Vec<_> = expected.difference(&seen).collect();
    let stored = "select jsonb_agg(era || '.' || xid || '.' || id || ' ' || message order by id) from rackhand.event where kind = 'test'";
    assert!(missed.is_empty(), "missed {missed:?} at cursor {cursor}: {}", site.database.value(stored).await);
    assert_eq!(seen.len(), expected.len(), "rolled-back events were shown");
}

#[tokio::test]
async fn a_hostile_cursor_is_refused_by_code() {
    let site = TestSite::new().await;
    for cursor in
        ["1", "x.y", "1.2", "-1.2.3", "1.99999999999999999999999.1", "1.2.3.4", "1.1.1; drop table event"]
    {
        for side in ["after", "before"] {
            let refused = site
                .database
                .run(&site.admin, "events_after", json!({side: cursor, "limit": 1}))
                .await
                .unwrap_err();
            assert_eq!(refused.code, "invalid-request", "{side} {cursor}");
        }
    }
}

#[tokio::test]
async fn newest_first_pages_back_to_the_first_event_and_its_top_is_where_following_begins() {
    let site = TestSite::new().await;
    let append = |from: usize, to: usize| {
        let site = &site;
        async move {
            for index in from..to {
                let sql = format!(
                    "select rackhand.append_event('test', 'info', '{index}', jsonb_build_object('site', '{}'))",
                    site.id
                );
                site.database.owner.batch_execute(&sql).await.unwrap();
            }
        }
    };
    append(0, 10).await;
    let ask = async |args: serde_json::Value| {
        let mut args = args;
        args["site"] = json!(site.id);
        args["limit"] = json!(4);
        site.database.run(&site.admin, "events_after", args).await.unwrap()
    };
    let words = |page: &serde_json::Value| -> Vec<usize> {
        let items = page["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "test");
        items.map(|item| item["message"].as_str().unwrap().parse().unwrap()).collect()
    };
    // Other tests' transactions hold the horizon back for a moment.
    let first = loop {
        let page = ask(json!({"before": "latest"})).await;
        if words(&page).first() == Some(&9) {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(words(&first), [9, 8, 7, 6]);
    append(10, 12).await;
    let (mut seen, mut cursor) = (words(&first), first["cursor"].clone());
    loop {
        let page = ask(json!({"before": cursor})).await;
        if page["items"].as_array().unwrap().is_empty() {
            assert_eq!(page["cursor"], cursor, "the end stays the end");
            break;
        }
        seen.extend(words(&page));
        cursor = page["cursor"].clone();
    }
    assert_eq!(seen, (0..10).rev().collect::<Vec<_>>(), "each once, the later ones not in between");
    let mut after = first["items"][0]["cursor"].clone();
    let mut later = Vec::new();
    while later.len() < 2 {
        let page = ask(json!({"after": after})).await;
        later.extend(words(&page));
        after = page["cursor"].clone();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(later, [10, 11]);
}

#[tokio::test]
async fn an_empty_page_goes_on_from_the_horizon_and_says_what_waits_behind_it() {
    let site = TestSite::new().await;
    let other = site
        .admin(
            "site_create",
            json!({"name": "other", "config": {"lease_ttl_ms": 1000,
        "max_mutating_runs": 1, "hardware_paused": false, "second_person": false}}),
        )
        .await;
    let viewer = person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await;
    let ask = async |after: &serde_json::Value| {
        site.database.run(&viewer, "events_after", json!({"after": after, "limit": 1000})).await.unwrap()
    };
    let append = |site: &str| {
        format!("select rackhand.append_event('test', 'info', 'new', jsonb_build_object('site', '{site}'))")
    };
    site.database.shown().await;
    let first = ask(&json!("latest")).await;
    assert_eq!(first["sites"], json!([site.id]), "whose events it has to be woken for");
    site.database.owner.batch_execute(&append(other["id"].as_str().unwrap())).await.unwrap();
    let later = loop {
        let page = ask(&first["cursor"]).await;
        assert_eq!(page["items"], json!([]));
        if page["cursor"] != first["cursor"] {
            break page;
        }
    };
    assert_eq!(later["held"], false, "events of other sites hold nobody up");
    // An older transaction is still open when an event of this site is committed.
    let older = connect(&site.database.owner_url()).await;
    older.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    site.database.owner.batch_execute(&append(&site.id)).await.unwrap();
    let page = ask(&later["cursor"]).await;
    assert_eq!((&page["items"], &page["held"]), (&json!([]), &json!(true)));
    older.batch_execute("commit").await.unwrap();
    loop {
        let page = ask(&page["cursor"]).await;
        if page["held"] == false {
            assert_eq!(page["items"][0]["message"], "new");
            break;
        }
    }
}

/// Where Postgres does not tell that it was set back, a cursor from then lies ahead of everything.
#[tokio::test]
async fn a_cursor_of_a_history_that_was_undone_is_told_everything_again() {
    let site = TestSite::new().await;
    let cursor = site
        .database
        .value("select to_jsonb('1.' || (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000) || '.9')")
        .await;
    site.servers(3).await;
    site.database.shown().await;
    let page = site.admin("events_after", json!({"after": cursor, "limit": 100})).await;
    let told = page["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "server.registered");
    assert_eq!(told.count(), 3, "{page}");
    let next = site.admin("events_after", json!({"after": page["cursor"], "limit": 100})).await;
    assert_eq!(next["items"], json!([]), "and once only");
    let export = json!({"tree": "audit", "after": cursor, "limit": 100});
    let refused = site.database.run(&site.admin, "audit_records", export).await.unwrap_err();
    assert_eq!(refused.code, "invalid-request");
}
