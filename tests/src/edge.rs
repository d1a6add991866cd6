//! A site on one of the hosts, with what a fault, load or speed test of it calls and looks at.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    TestSite,
    host::{HostProcess, Kind, Options},
    server::{Answer, answer, client, executor_token, user_token},
    site::TestExecutor,
};

pub struct Edge {
    pub site: TestSite,
    pub host: HostProcess,
    pub client: Client,
    /// The fleet admin's access token.
    pub admin: String,
}

impl Edge {
    pub async fn start(kind: Kind) -> Self {
        Self::with(kind, TestSite::new().await, Options::default()).await
    }

    pub async fn with(kind: Kind, site: TestSite, options: Options) -> Self {
        let host = HostProcess::with(kind, &site.database, options).await;
        let admin = user_token(&host.keys, &site.admin);
        Self { site, host, client: client(), admin }
    }

    pub fn executor_token(&self, executor: &TestExecutor) -> String {
        executor_token(&self.host.keys, &self.site, executor)
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.host.url));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    /// As the fleet admin.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path, &self.admin)
    }

    /// An inventory job over `server`, made once for each key.
    pub fn job(&self, server: &str, key: &str) -> RequestBuilder {
        let job = json!({"site_id": self.site.id, "kind": "inventory", "params": {},
            "reason": "a test", "targets": [server]});
        self.request(Method::POST, "/v1/jobs", &self.admin).header("idempotency-key", key).json(&job)
    }

    /// Asks until it is answered with success; recovery takes no restart.
    pub async fn recovers(&self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let health = send(self.request(Method::GET, "/v1/health", "")).await;
            if health.status.is_success() {
                return;
            }
            assert!(Instant::now() < until, "no recovery: {health:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the host has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.host.log).unwrap_or_default()
    }

    /// Waits until the host has logged `text`: its log comes through a pipe, after the answer.
    ///
    /// # Panics
    /// When it has not within 5 seconds.
    pub async fn logs(&self, text: &str) {
        for _ in 0..100 {
            if self.log().contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the log does not say {text}: {}", self.log());
    }

    /// Connections to the database that the host holds now.
    pub async fn connections(&self) -> u64 {
        let row = self.site.database.api.query_one("select pg_backend_pid()", &[]).await.unwrap();
        let query = format!(
            "select count(*) from pg_stat_activity where datname = current_database()
                and usename = 'rackhand_api' and pid <> {}",
            row.get::<_, i32>(0)
        );
        self.site.database.value(&query).await.as_u64().unwrap()
    }
}

/// The answer, which must come.
pub async fn send(request: RequestBuilder) -> Answer {
    answer(request.send().await.expect("the host answers")).await
}

/// One 503 with the code of a database that is away, as problem+json.
pub fn assert_unavailable(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "database-unavailable"), "{answer:?}");
    assert_eq!(answer.body["status"], 503);
    assert!(answer.body["trace_id"].is_string(), "{answer:?}");
}

/// The JSON of an answer that must be a success.
pub fn body(answer: Answer) -> Value {
    assert!(answer.status.is_success(), "{answer:?}");
    answer.body
}

/// What a process has used: milliseconds of CPU and resident bytes, from `/proc` (proc(5): `stat` fields 14 and
/// 15 in ticks of 10 ms, `statm` field 2 in pages).
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu_ms: f64,
    pub resident: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let stat = read("stat");
        // The name of the program, in brackets, may hold anything.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        let pages: u64 = read("statm").split(' ').nth(1).unwrap().parse().unwrap();
        Self { cpu_ms: ticks * 10.0, resident: pages * 4096 }
    }
}
