//! One list of requests and expected answers, replayed against the three hosts.
//!
//! The list is what was recorded by hand ([`people`], [`fleet`], [`work`]) and what follows from the OpenAPI
//! document ([`derived`]). Each host gets its own database and the same list; the answers are compared but
//! for ids, times and tokens ([`normal`]): status, headers and body. Every operation must succeed once and
//! refuse with each code that the document lists for it.

mod derived;
mod document;
mod fleet;
mod normal;
mod people;
mod replay;
mod step;
mod transport;
mod work;

use std::collections::BTreeSet;

use rackhand_functions::auth::password;
use rackhand_tests::{
    TestDatabase,
    host::{HostProcess, Kind},
};
use serde_json::json;

use self::{
    document::{Operation, operation_of, operations},
    replay::{Answered, Replay},
};

/// An id that nothing has.
const UNKNOWN: &str = "01920000-0000-7000-8000-00000000dead";

/// Codes of the document that the list does not provoke, and why not. Operations that never ask the database
/// cannot miss it either: [`derived::WITHOUT_DATABASE`].
const NOT_PROVOKED: [(&str, &str, &str); 12] = [
    ("POST /v1/auth/password", "login-limited", TESTED_ALONE),
    ("POST /v1/auth/password-choice", "login-limited", TESTED_ALONE),
    ("POST /v1/auth/refresh", "login-limited", "takes sixteen at once; `tests/control_plane/identity.rs`"),
    ("POST /v1/executor/token", "database-unavailable", NONCE_FIRST),
    ("POST /v1/executor/token", "login-limited", "takes sixty starts; `tests/control_plane/bounds.rs`"),
    ("POST /v1/executor/token", "internal", NONCE_FIRST),
    ("POST /v1/servers/{id}/credential/try-again", "invalid-request", NOTHING_TO_BE_WRONG),
    ("POST /v1/users/{id}/password-link", "invalid-request", NOTHING_TO_BE_WRONG),
    ("DELETE /v1/users/{id}/sessions", "forbidden-role", "everybody may end their own"),
    ("GET /v1/users", "not-found", FLEET_WIDE),
    ("POST /v1/users", "not-found", FLEET_WIDE),
    ("POST /v1/sites", "not-found", FLEET_WIDE),
];
/// Codes that no step can provoke on every host, whatever the operation, and why.
const NOWHERE_PROVOKED: [(&str, &str); 7] = [
    (
        "request-timeout",
        "takes half a minute; `tests/peers/native.rs`, the platforms have limits of their own",
    ),
    ("login-busy", "takes a crowd of sign-ins; tested beside the workers of the native host"),
    ("too-many-requests", "takes a crowd, and the native host; `tests/peers/crowds.rs`"),
    ("server-busy", "takes many bodies at once; tested in `functions/core`"),
    ("lease-busy", "takes many requests for leases at once; `tests/control_plane/leases.rs`"),
    ("report-busy", "takes many reports at once; `tests/control_plane/report.rs`, `tests/peers/crowds.rs`"),
    ("too-many-streams", "counted for each process; tested in `functions/core`"),
];
const TESTED_ALONE: &str = "it would lock out the people of the other steps; `tests/control_plane`";
const NONCE_FIRST: &str =
    "the nonce of the example is too old by then, which is seen before the database is asked";
const NOTHING_TO_BE_WRONG: &str = "it takes neither a body nor parameters besides its id";
const FLEET_WIDE: &str =
    "it names nothing that might not exist; the document lists the code for every role above viewer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_answer_alike() {
    let operations = operations();
    let recorded = [people::steps(), fleet::steps(), work::steps(), people::login_limit()].concat();
    let steps = [recorded.clone(), derived::steps(&operations, &recorded)].concat();
    let (native, worker, spin) = tokio::join!(
        answers(Kind::Server, &steps),
        answers(Kind::Worker, &steps),
        answers(Kind::Spin, &steps)
    );
    let wrong: Vec<_> = [&native, &worker, &spin].into_iter().flat_map(|(_, wrong)| wrong.clone()).collect();
    assert!(wrong.is_empty(), "{} answers are not the expected ones\n{}", wrong.len(), wrong.join("\n\n"));
    let [native, worker, spin] = [native, worker, spin].map(|(answered, _)| answered);
    let different =
        [differences(&native, &worker, Kind::Worker), differences(&native, &spin, Kind::Spin)].concat();
    assert!(
        different.is_empty(),
        "{} differences (built from one source? cargo xtask edge build)\n{}",
        different.len(),
        first(&different)
    );
    let uncovered = uncovered(&operations, &native);
    assert!(uncovered.is_empty(), "{}", uncovered.join("\n"));
    println!("parity: {} requests, {} operations, three hosts", native.len(), operations.len());
}

async fn answers(kind: Kind, steps: &[step::Step]) -> (Vec<Answered>, Vec<String>) {
    let database = TestDatabase::new().await;
    let hash = password::hash_with_salt(people::PASSWORD, &[3; 16]).unwrap();
    let admin = json!({"email": people::ADMIN, "name": "Ada Admin", "password_hash": hash}).to_string();
    let made = "select rackhand.admin_create($1::text::jsonb)";
    database.owner.execute(made, &[&admin]).await.unwrap();
    let host = HostProcess::start(kind, &database).await;
    let sent_otherwise = transport::wrong(&host).await;
    let mut replay = Replay::new(&host, &database);
    let began = std::time::Instant::now();
    replay.all(steps).await;
    println!("{kind:?}: {:?}", began.elapsed());
    (replay.transcript, [sent_otherwise, replay.wrong].concat())
}

fn first(all: &[String]) -> String {
    all.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n\n")
}

/// What the other host answers differently from the native one.
fn differences(native: &[Answered], other: &[Answered], kind: Kind) -> Vec<String> {
    let mut found = Vec::new();
    for (ours, theirs) in native.iter().zip(other) {
        for (what, native, other) in [
            ("status", ours.status.to_string(), theirs.status.to_string()),
            ("headers", ours.headers.join("\n"), theirs.headers.join("\n")),
            ("body", ours.body.clone(), theirs.body.clone()),
        ] {
            if native != other {
                // From a little before the first difference on.
                let same = native.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
                let part =
                    |text: &str| text.chars().skip(same.saturating_sub(60)).take(300).collect::<String>();
                let (native, other) = (part(&native), part(&other));
                found.push(format!("{}: {what}\n  Server: …{native}\n  {kind:?}: …{other}", ours.step));
            }
        }
    }
    found
}

/// Operations without a success, and listed codes that no step provoked.
fn uncovered(operations: &[Operation], answered: &[Answered]) -> Vec<String> {
    let mut succeeded = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for one in answered {
        let Some(operation) = operation_of(operations, one.method, &one.path) else { continue };
        match &one.code {
            Some(code) => _ = refused.insert((operation.name.as_str(), code.as_str())),
            None => _ = succeeded.insert(operation.name.as_str()),
        }
    }
    let mut found = Vec::new();
    for operation in operations {
        let name = operation.name.as_str();
        if !succeeded.contains(name) {
            found.push(format!("{name} never succeeds"));
        }
        for code in &operation.errors {
            let of_database = matches!(code.as_str(), "database-unavailable" | "internal");
            let excused = NOWHERE_PROVOKED.iter().any(|(what, _)| what == code)
                || NOT_PROVOKED.iter().any(|(of, what, _)| (*of, *what) == (name, code))
                || (of_database && derived::WITHOUT_DATABASE.contains(&name));
            match (refused.contains(&(name, code.as_str())), excused) {
                (false, false) => found.push(format!("{name} never refuses with {code}")),
                (true, true) => {
                    found.push(format!("{name} refuses with {code}: take it from the exceptions"))
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_difference_names_its_step_and_place() {
    let one = Answered {
        step: "health".to_owned(),
        method: "GET",
        path: "/v1/health".to_owned(),
        status: 200,
        code: None,
        headers: vec!["cache-control: no-store".to_owned()],
        body: "{}".to_owned(),
    };
    let other = Answered { headers: vec![], ..one.clone() };
    let (one, other) = ([one], [other]);
    assert!(differences(&one, &one, Kind::Worker).is_empty());
    let found = differences(&one, &other, Kind::Worker);
    assert_eq!(found, ["health: headers\n  Server: …cache-control: no-store\n  Worker: …"]);
}
