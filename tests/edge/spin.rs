//! What only the Spin component's variables decide.

use rackhand_tests::{
    TestDatabase,
    host::{HostProcess, Kind, Options},
    server::client,
};
use serde_json::json;

/// Wrong passwords for one account from one address in five minutes (`rackhand.login_begin`).
const ALLOWED: usize = 8;

async fn start(database: &TestDatabase, variables: &[(&'static str, &'static str)]) -> HostProcess {
    let options = Options { variables: variables.to_vec(), ..Options::default() };
    HostProcess::with(Kind::Spin, database, options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let database = TestDatabase::new().await;
    let host = start(&database, &[("trusted_proxies", "10.0.0.0/8, 127.0.0.1")]).await;
    let attempt = async |client_address: &str| {
        let login = json!({"email": "ada@example.test", "password": "a wrong password"});
        let request = client().post(format!("{}/v1/auth/login", host.url)).json(&login);
        request.header("x-forwarded-for", client_address).send().await.unwrap().status().as_u16()
    };
    for _ in 0..ALLOWED {
        assert_eq!(attempt("198.51.100.1").await, 401);
    }
    assert_eq!(attempt("198.51.100.1").await, 429);
    assert_eq!(attempt("1.2.3.4, 198.51.100.1").await, 429, "what a client invents is not believed");
    assert_eq!(attempt("198.51.100.2").await, 401, "another client of the same proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_host_that_is_not_the_urls_is_named_in_the_log() {
    let database = TestDatabase::new().await;
    let host = start(&database, &[("database_host", "db.example:5432")]).await;
    let health = client().get(format!("{}/v1/health", host.url)).send().await.unwrap();
    assert_eq!(health.status(), 500);
    let log = std::fs::read_to_string(&host.log).unwrap();
    assert!(log.contains("the variable `database_host`"), "{log}");
}
