//! `docs/deploy/database.md`, typed against Postgres as hosting providers offer it: TLS by an authority of
//! their own and nothing else, a login that may create roles and is no superuser, a pooler in transaction
//! mode in front; 15 and the newest there is.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod hosting;
mod program;

use std::time::{Duration, Instant};

use hosting::{Hosting, Version, Way};
use program::{ADMIN, PASSWORD, Program, TICK_TOKEN, run};
use rackhand_tests::server::{Answer, answer, client};
use serde_json::{Value, json};
use xtask::{login::Login, postgres::Postgres};

/// Fails with the words of whatever answered.
fn body(answer: Answer) -> Value {
    assert!(answer.status.is_success(), "{answer:?}");
    answer.body
}

async fn call(method: &str, url: String, token: &str, sent: Option<Value>) -> Answer {
    let mut request = client().request(method.parse().unwrap(), url);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(sent) = sent {
        request = request.json(&sent);
    }
    answer(request.send().await.expect("it answers")).await
}

/// The command with a URL in a file; panics with its words if it fails.
async fn migrate(hosting: &Hosting, url: &str, more: &[&str]) {
    let owner = hosting.file("owner-url", url);
    let arguments = [&["migrate", "--owner-url-file", owner.to_str().unwrap()], more].concat();
    run(&arguments, "").await.unwrap_or_else(|words| panic!("{words}"));
}

/// Roles, migrations, the password, the first person: what the guide says, by the way it says.
async fn install(hosting: &Hosting, way: Way, database: &str) {
    hosting.create_database(database);
    let url = hosting.owner_url(way, database);
    // Two at once, and one that finds nothing to do.
    tokio::join!(migrate(hosting, &url, &[]), migrate(hosting, &url, &[]));
    migrate(hosting, &url, &[]).await;
    hosting.as_owner(way, database, &format!("alter role rackhand_api password '{}'", hosting::API_PASSWORD));
    let owner = hosting.file("owner-url", &url);
    let create = [
        "admin",
        "create",
        "--owner-url-file",
        owner.to_str().unwrap(),
        "--email",
        ADMIN,
        "--name",
        "Ada",
        "--password-stdin",
    ];
    run(&create, PASSWORD).await.unwrap_or_else(|words| panic!("{way:?}: {words}"));
}

/// Signs in, changes something, reads it back; many at once, so that a pooler mixes them.
async fn serves(url: &str) -> String {
    let login = json!({"email": ADMIN, "password": PASSWORD});
    let signed_in = body(call("POST", format!("{url}/v1/auth/login"), "", Some(login)).await);
    let token = signed_in["access_token"].as_str().unwrap().to_owned();
    let name = format!("site-{}", url.rsplit(':').next().unwrap());
    let site = body(call("POST", format!("{url}/v1/sites"), &token, Some(json!({"name": name}))).await);
    let path = format!("{url}/v1/sites/{}", site["id"].as_str().unwrap());
    let reads: Vec<_> = (0..24)
        .map(|_| {
            let (path, token) = (path.clone(), token.clone());
            tokio::spawn(async move { body(call("GET", path, &token, None).await)["name"].clone() })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap(), json!(name));
    }
    token
}

async fn hears(program: &Program, expected: bool) {
    let until = Instant::now() + Duration::from_secs(15);
    // Deaf is what it is until it has heard something: that it stays so is in its log.
    while program.metric("rackhand_database_listening").await != f64::from(u8::from(expected))
        || (!expected && !program.log().contains("--listen-url-file"))
    {
        assert!(Instant::now() < until, "listening is not {expected}\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn both_hosts(version: Version, ways: [Way; 2]) {
    let hosting = Hosting::of(version);
    for way in ways {
        let database = match way {
            Way::Direct => "straight",
            Way::Pooler => "pooled",
        };
        install(hosting, way, database).await;
        let api = hosting.api_url(way, database);
        let native = Program::serve(&api, None).await;
        serves(&native.url).await;
        hears(&native, way == Way::Direct).await;
        drop(native);
        if way == Way::Pooler {
            let direct = hosting.api_url(Way::Direct, database);
            let native = Program::serve(&api, Some(&direct)).await;
            hears(&native, true).await;
        }
        let worker = hosting.worker(way, database);
        serves(&worker.url).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_15_straight_and_through_a_transaction_pooler() {
    both_hosts(Version::Fifteen, [Way::Direct, Way::Pooler]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_postgres_through_a_transaction_pooler_and_straight() {
    both_hosts(Version::Newest, [Way::Pooler, Way::Direct]).await;
}

/// Somebody who is not who the URL names, and somebody whom no known authority signed for.
#[tokio::test]
async fn a_certificate_that_does_not_fit_is_refused_before_the_password() {
    let hosting = Hosting::of(Version::Fifteen);
    let right = hosting.owner_url(Way::Direct, "postgres");
    let unknown = right.split("&sslrootcert").next().unwrap().to_owned();
    let another = right.replace("@db.example:", "@other.example:");
    let refused = right.clone() + "&sslmode=disable";
    for (url, words) in [(unknown, "certificate"), (another, "certificate"), (refused, "no encryption")] {
        let file = hosting.file("odd-url", &url);
        let outcome = run(&["migrate", "--roles-only", "--owner-url-file", file.to_str().unwrap()], "").await;
        let told = outcome.expect_err("refused");
        assert!(told.contains(words), "{told}");
    }
}

/// As many connections as there may be files beside its own; one more would be accepted and stay without an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_few_files_may_be_open_there_are_as_few_connections() {
    let hosting = Hosting::of(Version::Newest);
    install(hosting, Way::Direct, "few_files").await;
    let url = hosting.api_url(Way::Direct, "few_files");
    let program = Program::serve_with_files(&url, None, Some(160)).await;
    let address = program.url.strip_prefix("http://").unwrap();
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    assert!(client().get(format!("{}/v1/health", program.url)).send().await.is_err(), "refused at once");
    // 160 less those of the database and of the server itself.
    assert!((1.0..=16.0).contains(&program.metric("rackhand_connections").await), "{}", program.log());
    drop(held);
    hears(&program, true).await;
    body(call("GET", format!("{}/v1/health", program.url), "", None).await);
    assert!(!program.log().contains(" ERROR "), "{}", program.log());
}

/// The roles are those of the whole cluster, and nobody's lock spans its databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_databases_of_a_new_cluster_make_its_roles_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::create(&folder.path().join("cluster"), &folder.path().join("log")).unwrap();
    let mut installs = tokio::task::JoinSet::new();
    for n in 0..6 {
        let name = format!("one_of_several_{n}");
        postgres.run("postgres", &format!("create database {name}")).unwrap();
        let file = folder.path().join(&name);
        let Login { user, password, host, port, .. } = postgres.login(&name);
        std::fs::write(&file, format!("postgres://{user}:{password}@{host}:{port}/{name}")).unwrap();
        installs.spawn(async move {
            run(&["migrate", "--roles-only", "--owner-url-file", file.to_str().unwrap()], "").await
        });
    }
    while let Some(installed) = installs.join_next().await {
        installed.unwrap().unwrap_or_else(|words| panic!("{words}"));
    }
}

/// A move to another provider: the newer cluster counts its transactions from the beginning, and so below
/// those that the dump tells of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_into_a_younger_cluster_goes_on() {
    let (old, new) = (Hosting::of(Version::Fifteen), Hosting::of(Version::Newest));
    old.spend_transactions();
    install(old, Way::Direct, "moved").await;
    let program = Program::serve(&old.api_url(Way::Direct, "moved"), None).await;
    let token = serves(&program.url).await;
    seals(&program.url).await;
    let before = all_events(&program.url, &token, "").await;
    let told = before["items"].as_array().unwrap().len();
    assert!(told > 0);
    drop(program);

    new.create_database("moved");
    let url = new.owner_url(Way::Direct, "moved");
    migrate(new, &url, &["--roles-only"]).await;
    new.restore("moved", &old.dump("moved"));
    migrate(new, &url, &[]).await;
    new.as_owner(
        Way::Direct,
        "moved",
        &format!("alter role rackhand_api password '{}'", hosting::API_PASSWORD),
    );

    let program = Program::serve(&new.api_url(Way::Direct, "moved"), None).await;
    hears(&program, true).await;
    let history = all_events(&program.url, &token, "").await;
    let kept = &history["items"].as_array().unwrap()[..told];
    assert_eq!(kept, before["items"].as_array().unwrap(), "the whole history, in its order");
    // A client that goes on from its cursor is told what is new, and the seal goes on.
    let site = json!({"name": "after the move"});
    body(call("POST", format!("{}/v1/sites", program.url), &token, Some(site)).await);
    let news = all_events(&program.url, &token, before["cursor"].as_str().unwrap()).await;
    let kinds: Vec<_> = news["items"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    for kind in ["trail.era", "site.created"] {
        assert!(kinds.contains(&json!(kind)), "{kind} is not in {kinds:?}");
    }
    seals(&program.url).await;
}

async fn all_events(url: &str, token: &str, after: &str) -> Value {
    let after = if after.is_empty() { String::new() } else { format!("&after={after}") };
    body(call("GET", format!("{url}/v1/events?limit=1000{after}"), token, None).await)
}

/// Scheduled work, until something was sealed: what a transaction that still runs may precede has to wait.
async fn seals(url: &str) {
    let until = Instant::now() + Duration::from_secs(15);
    while body(call("POST", format!("{url}/v1/tick"), TICK_TOKEN, None).await)["sealed"].as_u64() == Some(0) {
        assert!(Instant::now() < until, "nothing is sealed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
