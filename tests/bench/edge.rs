//! The same requests on the three hosts: native, the Worker in workerd, the Spin component under jco. Each
//! has a database of its own in the same cluster, with the same content.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rackhand_tests::{
    TestSite,
    edge::{Edge, Usage, send},
    host::{Kind, Options},
    load,
    site::{event, granted, item},
};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

/// For each work, host and number of clients.
const SPAN: Duration = Duration::from_secs(3);
const CLIENTS: [usize; 2] = [1, 16];
const SERVERS: usize = 100;
/// Requests for the cost of a connection.
const SAMPLES: usize = 100;
/// Requests for the Worker's memory.
const REQUESTS: usize = 50_000;

/// Markdown.
pub async fn measure() -> String {
    let mut table = "| request | clients | native server | Worker in workerd | Spin component under jco |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    let mut cells = vec![];
    for kind in [Kind::Server, Kind::Worker, Kind::Spin] {
        eprintln!("edge: {kind:?}");
        cells.push(on(kind).await);
    }
    for (row, work) in Work::ALL.iter().flat_map(|work| CLIENTS.map(|clients| (*work, clients))).enumerate() {
        let (work, clients) = work;
        let [native, worker, spin] = [0, 1, 2].map(|host| cells[host][row].as_str());
        table += &format!("| {} | {clients} | {native} | {worker} | {spin} |\n", work.name());
    }
    eprintln!("edge: connections of the Worker");
    let connections = connections().await;
    eprintln!("edge: memory of the Worker");
    let resident = load::resident(REQUESTS).await;
    let [first, half, last] = [0, 4, 9].map(|tenth: usize| resident[tenth]);
    format!(
        "{table}\n{connections}\nMemory of the Worker over {REQUESTS} requests, of which three in ten are given up by \
         who sent them: {first} MiB resident after a tenth, {half} MiB after half of them, {last} MiB at the end; the \
         JavaScript heap may take 64 MiB.\n"
    )
}

#[derive(Clone, Copy)]
enum Work {
    Health,
    List,
    Lease,
    Report,
}

impl Work {
    const ALL: [Self; 4] = [Self::Health, Self::List, Self::Lease, Self::Report];

    const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::List => "list of 100 servers",
            Self::Lease => "lease, nothing new",
            Self::Report => "report of one event",
        }
    }
}

/// What a client of its own needs: an executor with a run.
struct Client {
    token: String,
    run: (String, u64),
    /// The last report's number.
    seq: AtomicU64,
}

/// A cell for each work and number of clients.
async fn on(kind: Kind) -> Vec<String> {
    let site = TestSite::with(json!({"lease_ttl_ms": 600_000})).await;
    let edge = Arc::new(Edge::with(kind, site, Options::default()).await);
    let servers = edge.site.servers(SERVERS).await;
    edge.site.job("inventory", &servers, 1000).await;
    let mut clients = vec![];
    for index in 0..CLIENTS[1] {
        let executor = edge.site.executor(&format!("executor-{index}")).await;
        let runs = granted(&edge.site.lease(&executor, &[], 1).await);
        clients.push(Arc::new(Client {
            token: edge.executor_token(&executor),
            run: runs[0].clone(),
            seq: AtomicU64::new(0),
        }));
    }
    let mut cells = vec![];
    for work in Work::ALL {
        for count in CLIENTS {
            let tasks: Vec<_> = clients[..count]
                .iter()
                .map(|client| tokio::spawn(ask(Arc::clone(&edge), Arc::clone(client), work)))
                .collect();
            let mut took = vec![];
            for task in tasks {
                took.extend(task.await.unwrap());
            }
            took.sort_unstable();
            let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
            let rate = took.len() as f64 / SPAN.as_secs_f64();
            cells.push(format!("{rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms", at(50), at(99)));
        }
    }
    cells
}

/// One client, one request after the other.
async fn ask(edge: Arc<Edge>, client: Arc<Client>, work: Work) -> Vec<Duration> {
    let request = || -> RequestBuilder {
        match work {
            Work::Health => edge.request(Method::GET, "/v1/health", ""),
            Work::List => edge.get("/v1/servers?limit=100"),
            Work::Lease => {
                let held = json!([{"run_id": client.run.0, "epoch": client.run.1}]);
                let body = json!({"held": held, "capacity": 0, "kinds": ["inventory"], "wait_ms": 0, "version": "b"});
                edge.request(Method::POST, "/v1/executor/lease", &client.token).json(&body)
            }
            Work::Report => {
                let seq = client.seq.fetch_add(1, Ordering::Relaxed) + 1;
                let items = [item(&client.run, seq, event("a line"))];
                edge.request(Method::POST, "/v1/executor/report", &client.token)
                    .json(&json!({"items": items}))
            }
        }
    };
    for _ in 0..5 {
        send(request()).await;
    }
    let (began, mut took) = (Instant::now(), vec![]);
    while began.elapsed() < SPAN {
        let sent = Instant::now();
        let answer = send(request()).await;
        took.push(sent.elapsed());
        assert!(answer.status.is_success(), "{answer:?}");
    }
    took
}

/// A statement over a connection that is held, and over one that must be made first: what a Worker that
/// connects in each request would pay.
async fn connections() -> String {
    let edge = Edge::start(Kind::Worker).await;
    let health = || send(edge.request(Method::GET, "/v1/health", ""));
    let pid = edge.host.runtime_pid();
    let mut rows = vec![];
    for fresh in [false, true] {
        for _ in 0..5 {
            health().await;
        }
        let (mut took, mut cpu) = (vec![], 0.0);
        for _ in 0..SAMPLES {
            if fresh {
                let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where application_name = 'rackhand-worker' and datname = current_database()";
                edge.site.database.value(end).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let (before, sent) = (Usage::of(pid).cpu_ms, Instant::now());
            assert!(health().await.status.is_success());
            took.push(sent.elapsed());
            cpu += Usage::of(pid).cpu_ms - before;
        }
        took.sort_unstable();
        let p50 = took[took.len() / 2].as_secs_f64() * 1e3;
        let what = if fresh { "made for the request" } else { "held in the Durable Object" };
        rows.push(format!("| {what} | {p50:.1} ms | {:.1} ms |", cpu / SAMPLES as f64));
    }
    format!(
        "| connection to Postgres, health on the Worker | p50 | CPU of workerd |\n|---|---|---|\n{}\n",
        rows.join("\n")
    )
}
