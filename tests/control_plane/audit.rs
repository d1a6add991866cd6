//! The sealed trail, judged by an auditor's program in another language: `docs/audit/auditor.py` gets what
//! `rackhand audit export` writes and nothing else.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use rackhand_ipmi_tests::venv;
use rackhand_tests::{
    TestServer, TestSite,
    cli::CommandLine,
    database::connect,
    site::{event, finish, granted, item},
};
use serde_json::{Value, json};

use crate::upkeep::{sealed, tick};

/// A person who may export, and their command line.
async fn auditor(site: &TestSite, server: &TestServer) -> CommandLine {
    CommandLine::signed_in(site, server, "auditor@example.test", "audits every single line").await
}

/// Exports the trail as an auditor does.
async fn export(line: &CommandLine) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("rackhand-test-audit-").tempdir().unwrap();
    export_into(line, directory.path()).await;
    directory
}

async fn export_into(line: &CommandLine, directory: &Path) -> Value {
    line.json(&["audit", "export", "--out", directory.to_str().unwrap(), "--json"], "").await
}

/// The auditor's program.
fn program(exports: &[&Path], options: &[&str]) -> Output {
    let bin = venv::environment("auditor", &["cryptography"]);
    let mut command = Command::new(bin.join("python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit/auditor.py")).args(exports).args(options);
    let output = command.output().unwrap();
    let broke = String::from_utf8_lossy(&output.stderr);
    assert!(broke.is_empty(), "the auditor's program broke: {broke}");
    output
}

/// The auditor's verdicts: for each export what it found, or what is wrong.
fn verdicts(exports: &[&Path], options: &[&str]) -> Vec<Result<String, String>> {
    let output = program(exports, &[options, &["--json"]].concat());
    let said: Vec<(bool, String)> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), said.iter().all(|(sound, _)| *sound));
    said.into_iter().map(|(sound, found)| if sound { Ok(found) } else { Err(found) }).collect()
}

fn verdict(export: &Path, options: &[&str]) -> Result<String, String> {
    verdicts(&[export], options).remove(0)
}

/// The newest checkpoint of an export, kept in a file of its own.
fn keep_head(export: &Path) -> String {
    let parts = std::fs::read_to_string(export.join("audit/checkpoints-000001.jsonl")).unwrap();
    let head = export.join("head");
    std::fs::write(&head, parts.lines().last().unwrap()).unwrap();
    head.to_str().unwrap().to_owned()
}

/// A site where much has happened, sealed in several parts.
async fn eventful() -> (TestSite, TestServer, CommandLine) {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    sealed(&site, &server).await;
    let executor = site.executor("one").await;
    let servers = site.servers(3).await;
    site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 5).await);
    let odd = json!({"type": "event", "level": "warn", "message": "a \u{1} \u{7f} \u{2028} \"line\" \\ ü 😀\n",
        "data": {"exact": 1.10, "large": 12_345_678_901_234_567_890_u64, "b": [1e3, null], "ab": "\u{8}\u{c}"}});
    site.report(&executor, vec![item(&runs[0], 1, event("said")), item(&runs[0], 2, odd)]).await;
    sealed(&site, &server).await;
    site.report(&executor, vec![item(&runs[0], 3, finish("succeeded")), item(&runs[1], 1, event("more"))])
        .await;
    site.job("power", &servers[..1], 1).await;
    let line = auditor(&site, &server).await;
    sealed(&site, &server).await;
    (site, server, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_verifies_an_export_offline_and_notices_every_change() {
    let (site, _server, line) = eventful().await;
    let sound = export(&line).await;
    let said = verdict(sound.path(), &[]).unwrap();
    assert!(said.contains("audit: ") && said.contains("lines: 3 records verified"), "{said}");
    let shown = String::from_utf8(program(&[sound.path()], &[]).stdout).unwrap();
    assert!(shown.contains(": sound\n  audit: "), "{shown}");
    assert!(shown.contains("  lines: 3 records verified, number 1 to 3 (20"), "{shown}");
    assert!(shown.contains("  Not verified: whether the end was cut off"), "{shown}");
    let mut changes = Vec::new();

    // Every column, of a row that was sealed, changed where a database administrator would: in its partition.
    let columns = site
        .database
        .value(
            "select jsonb_agg(jsonb_build_array(column_name, data_type) order by column_name)
                from information_schema.columns where table_schema = 'rackhand' and table_name = 'event'",
        )
        .await;
    for column in columns.as_array().unwrap() {
        let (name, kind) = (column[0].as_str().unwrap(), column[1].as_str().unwrap());
        let other = match (name, kind) {
            // A row of another tree is one less of this.
            ("tree", _) => "'lines'".to_owned(),
            (_, "uuid") => "'01920000-0000-7000-8000-00000000ffff'".to_owned(),
            (_, "bigint" | "integer") => format!("coalesce({name}, 0) + 1000"),
            (_, "boolean") => format!("not {name}"),
            (_, "jsonb") => "data || '{\"never\": true}'".to_owned(),
            (_, "text") => format!("{name} || '!'"),
            (_, "xid8") => format!("(({name}::text)::bigint - 1)::text::xid8"),
            (_, "timestamp with time zone") => format!("{name} + interval '1 microsecond'"),
            other => panic!("a column of a kind that this test does not know: {other:?}"),
        };
        let sql = format!(
            "update rackhand.event set {name} = {other} where id = (
                select min(id) from rackhand.event where kind = 'job.created')"
        );
        changes.push((name.to_owned(), sql));
    }
    let others = [
        ("a deleted row", "delete from rackhand.event where kind = 'run.leased' and n = 1"),
        ("a cut tail", "delete from rackhand.event where tree = 'audit' and kind = 'job.approved'"),
        ("a lost stream", "delete from rackhand.event where stream = (select id from rackhand.site)"),
        (
            "a swapped actor",
            "update rackhand.event set actor_id = (select id from rackhand.executor)
                where kind = 'site.created'",
        ),
        (
            "a line",
            "update rackhand.event set message = 'never said' where tree = 'lines' and message = 'said'",
        ),
        ("a checkpoint", "delete from rackhand.checkpoint where number = 2 and tree = 'audit'"),
    ];
    changes.extend(others.map(|(what, sql)| (what.to_owned(), sql.to_owned())));
    let mut exports = Vec::new();
    for (_, sql) in &changes {
        exports.push(tampered(&site, &line, sql).await);
    }
    exports.push(export(&line).await);
    let mut found = verdicts(&exports.iter().map(tempfile::TempDir::path).collect::<Vec<_>>(), &[]);
    assert_eq!(found.pop().unwrap(), Ok(said), "all of it was put back");
    for ((what, _), found) in changes.iter().zip(found) {
        let wrong = found.expect_err(what);
        assert!(wrong.starts_with("audit: ") || what == "a line", "{what}: {wrong}");
    }
}

/// An export while the harm of `sql` is done; afterwards it is undone.
async fn tampered(site: &TestSite, line: &CommandLine, sql: &str) -> tempfile::TempDir {
    let owner = &site.database.owner;
    let save = "create table tampered as select * from rackhand.event;
        create table tampered_checkpoints as select * from rackhand.checkpoint";
    owner.batch_execute(save).await.unwrap();
    let changed = owner.execute(sql, &[]).await.unwrap();
    assert!(changed > 0, "{sql}");
    let export = export(line).await;
    let restore = "delete from rackhand.event; insert into rackhand.event select * from tampered;
        delete from rackhand.checkpoint; insert into rackhand.checkpoint select * from tampered_checkpoints;
        drop table tampered, tampered_checkpoints";
    owner.batch_execute(restore).await.unwrap();
    export
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_a_head_notices_that_the_end_was_cut_with_its_checkpoints() {
    let (site, _server, line) = eventful().await;
    let kept = export(&line).await;
    let head = keep_head(kept.path());
    assert!(verdict(kept.path(), &["--head", &head]).is_ok());

    let cut = "delete from rackhand.checkpoint where tree = 'audit' and number = 3;
        delete from rackhand.event e using rackhand.checkpoint c where e.tree = 'audit' and c.tree = 'audit'
            and c.number = 2 and (e.era, e.xid, e.id) > (c.era, c.xid, c.event_id)";
    site.database.owner.batch_execute(cut).await.unwrap();
    let cut = export(&line).await;
    assert!(verdict(cut.path(), &[]).is_ok(), "by itself it is a shorter trail");
    for option in ["--head", "--from"] {
        let found = verdict(cut.path(), &[option, &head]).unwrap_err();
        assert!(found.contains("the tail is cut"), "{found}");
    }
    // And whoever goes on with an export notices at once, and loses nothing of it.
    let folder = kept.path().to_str().unwrap();
    let refused = line.run(&["audit", "export", "--out", folder], "").await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(6) && said.contains("cut or replaced since"), "{said}");
    assert!(verdict(kept.path(), &["--head", &head]).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_names_the_newest_head_that_its_records_match() {
    let (site, _server, line) = eventful().await;
    let out = tempfile::tempdir().unwrap();
    let heads = async |folder: &str| {
        let trees = export_into(&line, &out.path().join(folder)).await["trees"].clone();
        [0, 1].map(|tree| (trees[tree]["newest"].as_u64(), trees[tree]["head"]["number"].as_u64()))
    };
    assert_eq!(heads("sound").await, [(Some(3), Some(3)), (Some(2), Some(2))]);
    let signed = "select note from rackhand.checkpoint where tree = 'audit' and number = 3";
    let signed = site.database.value(signed).await.as_str().unwrap().to_owned();
    // What no key of the control plane has signed is no head, whatever its root is.
    let note = async |sql: &str| {
        let sql = format!("update rackhand.checkpoint set note = {sql} where tree = 'audit' and number = 3");
        assert_eq!(site.database.owner.execute(&sql, &[]).await.unwrap(), 1);
    };
    note("overlay(note placing 'AAAA' from length(note) - 20)").await;
    assert_eq!(heads("unsigned").await[0], (Some(3), Some(2)));
    note("''").await;
    assert_eq!(heads("empty").await[0], (Some(3), Some(2)));
    note(&format!("'{signed}'")).await;
    // The second checkpoint of the audit's covers it.
    let change = "update rackhand.event set message = 'never said' where kind = 'job.created' and id = (
        select min(id) from rackhand.event where kind = 'job.created')";
    assert_eq!(site.database.owner.execute(change, &[]).await.unwrap(), 1);
    assert_eq!(heads("changed").await, [(Some(3), Some(1)), (Some(2), Some(2))]);
    site.database
        .owner
        .execute("delete from rackhand.event where tree = 'audit' and n = 1", &[])
        .await
        .unwrap();
    assert_eq!(heads("deleted").await[0], (Some(3), None));
    let shown =
        line.ok(&["audit", "export", "--out", out.path().join("changed").to_str().unwrap()], "").await;
    assert!(
        shown.contains("match checkpoint 1 of ") && shown.contains(", and none beyond it up to 3"),
        "{shown}"
    );
}

/// Months of lines are no longer kept: who exports for the first time is told from where on the rest can be verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_export_after_months_were_dropped_says_from_where_on_it_is_sound() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let line = auditor(&site, &server).await;
    let owner = &site.database.owner;
    let old = "set role rackhand_owner; select rackhand.partitions_ahead('2020-01-15');
        insert into rackhand.event (tree, at, kind, level, message, actor_kind, data, stream, n)
            select 'lines', '2020-01-20', 'run.log', 'info', 'old', 'system', '{}', id, 1 from rackhand.site;
        reset role";
    owner.batch_execute(old).await.unwrap();
    let has_sealed = async |size: u32| {
        let all = format!("select max(size) >= {size} from rackhand.checkpoint where tree = 'lines'");
        while site.database.value(&all).await != json!(true) {
            tick(&server).await;
        }
    };
    has_sealed(1).await;
    let new = "insert into rackhand.event (tree, at, kind, level, message, actor_kind, data, stream, n)
        select 'lines', now(), 'run.log', 'info', 'new', 'system', '{}', id, 2 from rackhand.site";
    owner.batch_execute(new).await.unwrap();
    has_sealed(2).await;
    owner.batch_execute("update rackhand.checkpoint set at = now() - interval '2 days'").await.unwrap();
    let dropped = "select count(*) from rackhand.event where kind = 'trail.lines_dropped'
        and (data ->> 'records')::int > 0";
    let sealed_too = "select (select count(*) from rackhand.event where tree = 'audit')
        = (select max(size) from rackhand.checkpoint where tree = 'audit')";
    while site.database.value(dropped).await != 1 || site.database.value(sealed_too).await != json!(true) {
        tick(&server).await;
    }
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("trail");
    let lines = export_into(&line, &folder).await["trees"][1].clone();
    assert_eq!((&lines["from"], &lines["head"]["number"]), (&json!(1), &json!(2)), "{lines}");
    let shown = line.ok(&["audit", "export", "--out", folder.to_str().unwrap()], "").await;
    assert!(shown.contains("from checkpoint 1 on: the months before are no longer kept"), "{shown}");
    let found = verdict(&folder, &[]).unwrap_err();
    assert!(found.contains("months up to checkpoint 1 are no longer kept"), "{found}");
    let first = std::fs::read_to_string(folder.join("lines/checkpoints-000001.jsonl")).unwrap();
    let from = out.path().join("from");
    std::fs::write(&from, first.lines().next().unwrap()).unwrap();
    assert!(verdict(&folder, &["--from", from.to_str().unwrap()]).is_ok());
}

/// The parts of an export and what they hold.
fn parts(export: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(export.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_goes_on_where_the_last_one_ended() {
    let (site, server, line) = eventful().await;
    let export = export(&line).await;
    let (before, head) = (parts(export.path()), keep_head(export.path()));
    let names: Vec<_> = before.keys().map(String::as_str).collect();
    assert_eq!(names, ["checkpoints-000001.jsonl", "records-000001.jsonl"]);

    // In parts: what is open holds back events in the databases of the other tests.
    for begin in (1..5500).step_by(500) {
        let some = format!(
            "select count(rackhand.append_event('test', 'info', n::text, '{{}}'))
                from generate_series({begin}, {begin} + 499) n"
        );
        site.database.owner.batch_execute(&some).await.unwrap();
    }
    sealed(&site, &server).await;
    // An export that was interrupted has left something.
    std::fs::write(export.path().join("audit/records-000002.partial"), "{\"half\": ".repeat(9)).unwrap();
    let added = export_into(&line, export.path()).await;
    let after = parts(export.path());
    for (name, text) in &before {
        assert_eq!(after.get(name), Some(text), "{name} stays as it is");
    }
    let count = |name: &str| after[name].lines().count();
    assert_eq!((count("checkpoints-000002.jsonl"), count("records-000002.jsonl")), (1, 5000));
    let rest = count("records-000003.jsonl");
    assert!((500..600).contains(&rest), "{rest}");
    assert_eq!((after.len(), &added["trees"][0]["records"]), (5, &json!(5000 + rest)), "{added}");
    assert!(verdict(export.path(), &["--head", &head]).is_ok());
    let nothing = export_into(&line, export.path()).await;
    assert_eq!(nothing["trees"][0]["records"], 0);
    assert_eq!(parts(export.path()), after);

    // From a head on, what was verified before is not needed, and the rest is held to it.
    let edited = |name: &str, from: &str, to: &str| {
        let path = export.path().join("audit").join(name);
        let text = after[name].replacen(from, to, 1);
        assert_ne!(&text, &after[name]);
        std::fs::write(path, text).unwrap();
    };
    edited("records-000001.jsonl", "job.created", "job.deleted");
    let found = verdict(export.path(), &[]).unwrap_err();
    assert!(found.contains("records are not those that were sealed"), "{found}");
    std::fs::remove_file(export.path().join("audit/records-000001.jsonl")).unwrap();
    let found = verdict(export.path(), &["--from", &head]).unwrap();
    assert!(found.contains("verified before"), "{found}");
    edited("records-000002.jsonl", r#""message":"4000""#, r#""message":"4001""#);
    let found = verdict(export.path(), &["--from", &head]).unwrap_err();
    assert!(found.contains("records are not those that were sealed"), "{found}");

    // The folder of another deployment is left alone.
    let (_other_site, _other_server, other) = eventful().await;
    let folder = export.path().to_str().unwrap();
    let refused = other.run(&["audit", "export", "--out", folder], "").await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(6) && said.contains("Nothing was written"), "{said}");
}

#[tokio::test]
async fn a_record_has_every_column() {
    let site = TestSite::new().await;
    let missing = "select coalesce(jsonb_agg(column_name), '[]') from information_schema.columns
        where table_schema = 'rackhand' and table_name = 'event' and not (
            select rackhand.event_record(e)::jsonb from rackhand.event e limit 1) ? column_name";
    assert_eq!(site.database.value(missing).await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_sealed_in_order_though_their_transactions_overtake_each_other() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let line = auditor(&site, &server).await;
    let append = |message: &str| {
        format!(
            "select rackhand.append_event('test', 'info', '{message}', jsonb_build_object('site', '{}'))",
            site.id
        )
    };
    // The first takes its transaction's number, the second appends and commits, then the first appends.
    let early = connect(&site.database.owner_url()).await;
    early.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    site.database.owner.batch_execute(&append("second to begin")).await.unwrap();
    early.batch_execute(&append("first to begin")).await.unwrap();
    tick(&server).await;
    early.batch_execute("commit").await.unwrap();
    sealed(&site, &server).await;
    let order = site
        .database
        .value("select string_agg(message, ', ' order by n) from rackhand.event where kind = 'test'")
        .await;
    assert_eq!(order, "second to begin, first to begin", "numbered in the order of the lock");
    let all = "select (select count(*) from rackhand.event where tree = 'audit')
        = (select max(size) from rackhand.checkpoint where tree = 'audit')";
    while site.database.value(all).await == json!(false) {
        tick(&server).await;
    }
    assert!(verdict(export(&line).await.path(), &[]).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_skips_events_is_refused() {
    let site = TestSite::new().await;
    let ask = async |function: &str, args: Value| {
        site.database.run(&json!({"kind": "anonymous"}), function, args).await
    };
    // Transactions elsewhere hold the events back for a moment.
    let forge = async |cursor: Option<&str>, size: u64| loop {
        let due = ask("seal_due", json!({"tree": "audit", "limit": 100})).await.unwrap();
        let Some(last) = due["cursor"].as_str() else { continue };
        let forged = json!({"tree": "audit", "number": 1, "after": 0, "cursor": cursor.unwrap_or(last), "size": size,
            "root": "00", "frontier": [], "note": "", "vkey": "x"});
        return ask("seal_store", forged).await.unwrap_err().code;
    };
    for (cursor, size) in [(Some("999999999.1.1"), 3), (Some("1.999999999999.1"), 3), (None, 1000), (None, 0)]
    {
        assert_eq!(forge(cursor, size).await, "invalid-request", "{cursor:?} {size}");
    }
    let later = json!({"tree": "audit", "number": 2, "after": 1, "cursor": "1.1.1", "size": 1, "root": "00", "frontier": [],
        "note": "", "vkey": "x"});
    assert_eq!(ask("seal_store", later).await.unwrap(), false, "there is no first one");
}

/// Whoever has the password of the API's database role can store checkpoints. They stop neither the sealing
/// nor an audit, no key of theirs is published, and the trail says that it happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_store_as_a_checkpoint_is_refused_and_told() {
    let (site, server, line) = eventful().await;
    let ask = async |function: &str, args: Value| {
        site.database.run(&json!({"kind": "anonymous"}), function, args).await
    };
    for note in ["nobody", "rackhand/x/audit\n1\nAAAA\n\n\u{2014} mine AAAA\n"] {
        site.admin("site_create", json!({"name": format!("site-{}", note.len()), "config": {}})).await;
        site.database.shown().await;
        let due = ask("seal_due", json!({"tree": "audit", "limit": 10})).await.unwrap();
        let (number, leaves) =
            (due["newest"].as_u64().unwrap() + 1, due["leaves"].as_array().unwrap().len() as u64);
        let forged = json!({"tree": "audit", "number": number, "after": due["head"]["number"], "cursor": due["cursor"],
            "size": due["head"]["size"].as_u64().unwrap() + leaves, "root": "ab".repeat(32), "frontier": [],
            "note": note, "vkey": "mine+00000000+AAAA"});
        assert_eq!(ask("seal_store", forged.clone()).await, Ok(json!(true)));
        let mut again = forged;
        again["number"] = json!(number + 1);
        let code = ask("seal_store", again).await.unwrap_err().code;
        assert!(code.starts_with("SQLSTATE 23505"), "a note is stored once: {code}");
    }
    let told = "select jsonb_agg(data) from rackhand.event where kind = 'trail.checkpoint_refused'";
    assert_eq!(site.database.value(told).await, Value::Null);
    let is_sealed = "select exists (select from rackhand.event e join rackhand.checkpoint c
            on c.tree = 'audit' and not c.refused and (c.era, c.xid, c.event_id) >= (e.era, e.xid, e.id)
            where e.kind = 'trail.checkpoint_refused')";
    for _ in 0..100 {
        if site.database.value(is_sealed).await == json!(true) {
            break;
        }
        tick(&server).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.database.value(is_sealed).await, true);
    let told = site.database.value(told).await;
    assert_eq!(
        (&told[0]["tree"], told[0]["numbers"].as_array().unwrap().len()),
        (&json!("audit"), 2),
        "{told}"
    );

    let keys = server.call("GET", "/v1/audit/keys", None, None).await;
    let published = keys.body["checkpoints"].to_string();
    assert!(published.contains("rackhand/") && !published.contains("mine"), "{published}");
    let export = export(&line).await;
    let said = verdict(export.path(), &[]).unwrap();
    assert!(said.contains("2 checkpoints that someone else stored"), "{said}");
    // Without the record, an auditor does not take it.
    let hidden = "update rackhand.event set kind = 'trail.era' where kind = 'trail.checkpoint_refused'";
    assert!(verdict(tampered(&site, &line, hidden).await.path(), &[]).is_err());
}
