//! The report protocol: duplicates, gaps, poisoned items. Nothing lost, nothing blocked.

use rackhand_tests::{
    TestSite,
    site::{event, finish, granted, item},
};
use serde_json::json;

#[tokio::test]
async fn duplicates_and_reordering_change_nothing() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);

    let answers = site
        .report(
            &executor,
            vec![
                item(&runs[0], 2, event("second")),
                item(&runs[0], 1, event("first")),
                item(&runs[1], 1, event("other run")),
                item(&runs[0], 3, event("third")),
            ],
        )
        .await;
    assert_eq!(answers[0]["code"], "sequence-gap");
    assert_eq!(answers[0]["expected_seq"], 1);
    assert_eq!(answers[1]["status"], "accepted");
    assert_eq!(answers[2]["status"], "accepted", "a gap in one run does not block its neighbour");
    assert_eq!(answers[3]["expected_seq"], 2);
    let rest = vec![
        item(&runs[0], 1, event("first")),
        item(&runs[0], 2, event("second")),
        item(&runs[0], 3, event("third")),
    ];
    for round in 0..2 {
        let answers = site.report(&executor, rest.clone()).await;
        let expected = if round == 0 { "accepted" } else { "duplicate" };
        assert_eq!(answers[0]["status"], "duplicate");
        assert_eq!(answers[2]["status"], expected);
    }
    assert_eq!(
        site.database
            .value(&format!(
                "select array_agg(message order by id) from rackhand.event
                where run_id = '{}' and kind = 'run.log'",
                runs[0].0
            ))
            .await,
        json!(["first", "second", "third"])
    );
}

#[tokio::test]
async fn a_poisoned_item_is_quarantined_and_its_neighbours_pass() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let answers = site
        .report(&executor, vec![
            item(&runs[0], 1, event("before")),
            item(&runs[0], 2, json!({"type": "effect", "id": "not a uuid", "object": "x"})),
            item(&runs[0], 3, json!({"type": "no such type"})),
            json!({"run_id": runs[0].0, "epoch": 1, "seq": 4, "quarantine": {"reason": "too large", "text": "…"}}),
            item(&runs[0], 5, event("after")),
            item(&runs[0], 6, finish("succeeded")),
        ])
        .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "quarantined", "quarantined", "quarantined", "accepted", "accepted"]);
    assert_eq!(
        site.database.value("select count(*) from rackhand.event where kind = 'report.quarantined'").await,
        3
    );
}

#[tokio::test]
async fn the_hash_chain_of_a_run_verifies_offline_and_shows_tampering() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let items = (1..=20).map(|seq| item(&runs[0], seq, event(&format!("line {seq}")))).collect();
    site.report(&executor, items).await;
    let broken = "select count(*) from (
            select hash, rackhand.link(lag(hash, 1, '') over (order by id), at, kind, level, actor, message, data) as due
            from rackhand.event where run_id is not null) c where hash <> due";
    assert_eq!(site.database.value(broken).await, 0);
    site.database
        .owner
        .execute("update rackhand.event set message = 'line 7 as it never was' where message = 'line 7'", &[])
        .await
        .unwrap();
    assert_eq!(site.database.value(broken).await, 1);
}

/// What a report leaves behind, without ids and times.
const LEFT_BEHIND: &str = "jsonb_build_object(
    'runs', (select jsonb_agg(jsonb_build_array(r.position, r.state, r.reason, r.detail, r.phase, r.percent, r.admitted,
            r.epoch, r.last_seq, r.settle, r.finish, r.intent, r.finished_at is null,
            exists (select from rackhand.lease l where l.run_id = r.id),
            exists (select from rackhand.ready d where d.run_id = r.id and d.owner = r.executor_id))
        order by r.position) from rackhand.run r),
    'events', (select jsonb_agg(jsonb_build_array(r.position, e.kind, e.level, e.message, e.actor, e.epoch, e.seq, e.late,
            e.data, e.trace_id = r.trace_id, e.job_id = r.job_id, e.server_id = r.server_id, e.site_id = r.site_id,
            e.user_id) order by r.position, e.id)
        from rackhand.event e join rackhand.run r on r.id = e.run_id),
    'job', (select jsonb_agg(jsonb_build_array(j.state, j.state_reason, j.open_runs, j.bad_runs)) from rackhand.job j),
    'slots', (select jsonb_agg(c.used) from rackhand.capacity c),
    'broken_links', (select count(*) from (
        select e.hash, rackhand.link(lag(e.hash, 1, '') over (partition by e.stream order by e.id), e.at, e.kind, e.level,
            e.actor, e.message, e.data) as due from rackhand.event e where e.run_id is not null) c where hash <> due),
    'heads', (select count(*) from rackhand.run r where r.head = (
        select e.hash from rackhand.event e where e.run_id = r.id order by e.id desc limit 1)))";

#[tokio::test]
async fn a_report_taken_at_once_leaves_what_one_taken_item_by_item_leaves() {
    let mut outcomes = vec![];
    for at_once in [true, false] {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        if !at_once {
            let off = "create or replace function rackhand.report_plain(items jsonb, me rackhand.executor, session uuid)
                returns table (index int, ended boolean, job uuid, bad boolean, freed text[])
                language plpgsql as $$ begin raise exception 'switched off'; end $$";
            site.database.owner.batch_execute(off).await.unwrap();
        }
        let executor = site.executor("one").await;
        let servers = site.servers(12).await;
        site.job("inventory", &servers, 20).await;
        let mut runs = granted(&site.lease(&executor, &[], 20).await);
        assert_eq!(runs.len(), 12);
        // In the order of the targets, whatever their ids.
        let order = "select jsonb_agg(id order by position) from rackhand.run";
        let order = site.database.value(order).await;
        runs.sort_by_key(|run| order.as_array().unwrap().iter().position(|id| id == run.0.as_str()));
        let effect = json!({"type": "effect", "id": "01920000-0000-7000-8000-00000000000e", "object": "host_power",
            "property": "state", "prior": "off", "wanted": "on", "state": "applied"});
        let ended = |detail: &str| {
            json!({"type": "finish", "outcome": "failed", "code": "device-refused", "detail": detail,
                "evidence": {"status": 400}})
        };
        let of_nobody = (String::from("01920000-0000-7000-8000-00000000dead"), 1);
        let stale = (runs[8].0.clone(), 7);
        let first = vec![
            item(&runs[0], 1, event("a")),
            item(&runs[1], 1, ended("said no")),
            item(&runs[0], 2, event("b")),
            item(&runs[0], 3, finish("succeeded")),
            item(&runs[2], 2, event("too early")),
            item(&runs[2], 1, event("in time")),
            item(&runs[3], 1, event("once")),
            item(&runs[3], 1, event("once")),
            item(&runs[3], 2, finish("no_change")),
            item(&runs[4], 1, effect),
            item(&runs[4], 2, finish("succeeded")),
            item(
                &runs[5],
                1,
                json!({"type": "phase", "phase": "read", "state": "running", "evidence": null}),
            ),
            item(&runs[5], 2, event("reading")),
            item(&runs[6], 1, finish("unknown")),
            item(&runs[7], 1, finish("cancelled")),
            item(&runs[7], 2, event("after the end")),
            item(&stale, 1, event("from the future")),
            item(&runs[9], 1, event("one")),
            item(&runs[9], 2, event("two")),
            item(&of_nobody, 1, finish("succeeded")),
        ];
        let second = vec![
            item(&runs[8], 1, event("fine")),
            item(&runs[9], 3, json!({"type": "event", "level": "info"})),
            item(&runs[9], 4, finish("succeeded")),
            item(&runs[10], 1, finish("no such outcome")),
            item(&runs[11], 1, ended("")),
        ];
        let third = vec![item(&runs[8], 2, finish("succeeded")), item(&runs[10], 2, finish("succeeded"))];
        let mut answers = vec![];
        for batch in [first, second, third] {
            answers.push(site.report(&executor, batch.clone()).await);
            // The answer was lost.
            answers.push(site.report(&executor, batch).await);
        }
        let left: serde_json::Value = site.database.value(&format!("select {LEFT_BEHIND}")).await;
        assert_eq!(left["broken_links"], 0);
        assert_eq!(left["heads"], 12);
        outcomes.push((answers, left));
    }
    let by_item = outcomes.pop().unwrap();
    let at_once = outcomes.pop().unwrap();
    for (at_once, by_item) in at_once.0.iter().zip(&by_item.0) {
        assert_eq!(at_once, by_item);
    }
    for part in ["runs", "events", "job", "slots"] {
        assert_eq!(at_once.1[part], by_item.1[part], "{part}");
    }
}
