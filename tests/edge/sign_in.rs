//! Sign-in at the edge: what it costs in workerd, and that its limit is one limit, whichever isolate or host
//! counts.

use rackhand_functions::auth::password;
use rackhand_tests::{
    TestDatabase,
    edge::Usage,
    host::{HostProcess, Kind},
    server::client,
};
use reqwest::{Client, Response};
use serde_json::json;

const EMAIL: &str = "ada@example.test";
const PASSWORD: &str = "correct horse battery";
/// Sign-ins that are measured.
const MEASURED: u32 = 20;
/// CPU of one, milliseconds: machines differ, an accident of ten times as much shows.
const MOST_CPU_MS: f64 = 400.0;
/// Wrong passwords for one account from one address in five minutes (`rackhand.login_begin`).
const ALLOWED: usize = 8;

async fn with_admin() -> TestDatabase {
    let database = TestDatabase::new().await;
    let hash = password::hash_with_salt(PASSWORD, &[3; 16]).unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "OWASP's minimum: {hash}");
    let admin = json!({"email": EMAIL, "name": "Ada", "password_hash": hash}).to_string();
    let made = "select rackhand.admin_create($1::text::jsonb)";
    database.owner.execute(made, &[&admin]).await.unwrap();
    database
}

async fn sign_in(client: &Client, host: &HostProcess, email: &str, password: &str) -> Response {
    let login = json!({"email": email, "password": password});
    client.post(format!("{}/v1/auth/login", host.url)).json(&login).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argon2_is_verified_in_workerd() {
    let database = with_admin().await;
    let host = HostProcess::start(Kind::Worker, &database).await;
    let client = client();
    let mut before = Usage::of(host.runtime_pid());
    for n in 0..=MEASURED {
        let answer = sign_in(&client, &host, EMAIL, PASSWORD).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        if n == 0 {
            // The first one compiles and connects.
            before = Usage::of(host.runtime_pid());
        }
    }
    let each = (Usage::of(host.runtime_pid()).cpu_ms - before.cpu_ms) / f64::from(MEASURED);
    println!("a sign-in costs {each:.0} ms of CPU in workerd");
    assert!(each < MOST_CPU_MS, "{each} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_limit_holds_over_isolates_and_hosts() {
    let database = with_admin().await;
    let (one, two, native) = tokio::join!(
        HostProcess::start(Kind::Worker, &database),
        HostProcess::start(Kind::Worker, &database),
        HostProcess::start(Kind::Server, &database)
    );
    let (client, hosts) = (client(), [&one, &two, &native]);
    for attempt in 0..ALLOWED {
        let host = hosts[attempt % hosts.len()];
        let answer = sign_in(&client, host, EMAIL, "wrong").await;
        assert_eq!(answer.status(), 401, "attempt {attempt} at {:?}", host.kind);
    }
    for host in hosts {
        // The right password no more than a wrong one.
        for password in ["wrong", PASSWORD] {
            let answer = sign_in(&client, host, EMAIL, password).await;
            assert_eq!(answer.status(), 429, "{:?}", host.kind);
            let wait: u32 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((240..=300).contains(&wait), "{wait} s");
            let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(body["code"], "login-limited", "{:?}", host.kind);
        }
        let other = sign_in(&client, host, "eve@example.test", "wrong").await;
        assert_eq!(other.status(), 401, "another account at {:?}", host.kind);
    }
}
