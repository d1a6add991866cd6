//! Requests of two sites, interleaved over the connections that a host keeps, never see each other's rows;
//! also where some are refused, held open, or given up by the client in the middle.
//!
//! Whatever belongs to a site carries its id or name, so a leak is the other site's mark anywhere in an
//! answer. That this finds one is shown by a database which keeps the first scope that a connection had.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rackhand_tests::{
    TestSite,
    edge::{Edge, send},
    host::{Kind, Options},
    server::{now, user_token},
    site::{lease_args, person},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Mutex;

const REQUESTS: usize = 400;
const AT_ONCE: usize = 16;
/// Enough to find the fault that is put in.
const WITH_FAULT: usize = 64;

/// One site, and who asks in its name.
struct Side {
    site: String,
    name: &'static str,
    token: String,
    executor: String,
    /// An executor asks for leases once at a time; a newer request would end the former one.
    asks: Mutex<()>,
    servers: Vec<String>,
}

struct Two {
    edge: Edge,
    sides: [Side; 2],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_never_see_each_other() {
    let hyperdrive = Options { hyperdrive: true, ..Options::default() };
    tokio::join!(
        apart(Kind::Server, Options::default()),
        apart(Kind::Worker, Options::default()),
        apart(Kind::Worker, hyperdrive),
        apart(Kind::Spin, Options::default()),
    );
}

async fn apart(kind: Kind, options: Options) {
    let two = Arc::new(Two::start(kind, options).await);
    let leaks = two.storm(REQUESTS).await;
    assert!(leaks.is_empty(), "{kind:?}: {} leaks\n{}", leaks.len(), leaks.join("\n"));
    let torn = "select count(*) from (select site_id from rackhand.server group by 1 having count(distinct tags) > 1) t";
    assert_eq!(
        two.edge.site.database.value(torn).await,
        0,
        "{kind:?}: a write that was given up is half done"
    );
    println!("{kind:?}: {REQUESTS} requests over {} connections", two.edge.connections().await);
    two.edge.site.database.owner.batch_execute(KEEPS_SCOPE).await.unwrap();
    let leaks = two.storm(WITH_FAULT).await;
    let noticed = leaks.iter().any(|leak| leak.contains(FOREIGN));
    assert!(noticed, "{kind:?}: a connection that keeps its scope was not noticed: {leaks:?}");
}

const FOREIGN: &str = "foreign rows";

/// A connection goes on with the first scope it saw.
const KEEPS_SCOPE: &str = "
    alter function rackhand.enter(jsonb) rename to enter_rightly;
    create function rackhand.enter(scope jsonb) returns void language plpgsql security definer as $$
    declare
        kept text := nullif(current_setting('rackhand.kept', true), '');
    begin
        perform rackhand.enter_rightly(scope);
        if kept is not null then
            perform set_config('rackhand.sites', kept, true);
        elsif current_setting('rackhand.sites') <> '{}' then
            perform set_config('rackhand.kept', current_setting('rackhand.sites'), false);
        end if;
    end $$";

impl Two {
    async fn start(kind: Kind, options: Options) -> Self {
        let site = TestSite::new().await;
        let beta = site.admin(
            "site_create",
            json!({"name": "beta", "config": {"lease_ttl_ms": 30_000,
            "max_mutating_runs": 16, "hardware_paused": false, "second_person": false}}),
        );
        let beta = beta.await["id"].as_str().unwrap().to_owned();
        let alpha = site.id.clone();
        let edge = Edge::with(kind, site, options).await;
        let sides = [edge.side("alpha", alpha).await, edge.side("beta", beta).await];
        Self { edge, sides }
    }

    /// What was seen that must not be.
    async fn storm(self: &Arc<Self>, requests: usize) -> Vec<String> {
        let next = Arc::new(AtomicUsize::new(0));
        let clients = (0..AT_ONCE).map(|_| {
            let (two, next) = (Arc::clone(self), Arc::clone(&next));
            tokio::spawn(async move {
                let mut leaks = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return leaks;
                    }
                    leaks.extend(two.one(n).await);
                }
            })
        });
        let mut leaks = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            leaks.extend(client.await.unwrap());
        }
        leaks
    }

    async fn one(&self, n: usize) -> Option<String> {
        let (us, them) = (&self.sides[n % 2], &self.sides[(n + 1) % 2]);
        let get = |path: &str| self.edge.request(Method::GET, path, &us.token);
        let post = |path: &str, body: Value| self.edge.request(Method::POST, path, &us.token).json(&body);
        let theirs = them.servers[n % them.servers.len()].as_str();
        // The kinds change sides from round to round.
        let (request, expected) = match (n / 2) % 10 {
            0 => (get("/v1/servers"), 200),
            1 => (get("/v1/events?limit=200"), 200),
            2 => (get("/v1/jobs"), 200),
            3 => (get(&format!("/v1/servers/{theirs}")), 404),
            4 => (post("/v1/jobs", job(&them.site, theirs)), 404),
            5 => (post("/v1/jobs", job(&us.site, theirs)), 422),
            6 => (get("/v1/events?after=latest&wait_ms=60"), 200),
            7 => {
                let _turn = us.asks.lock().await;
                return self.judge(n, 200, self.poll(us)).await;
            }
            8 => (get("/v1/sites"), 200),
            _ => return self.give_up(n, us).await,
        };
        self.judge(n, expected, request).await
    }

    async fn judge(&self, n: usize, expected: u16, request: RequestBuilder) -> Option<String> {
        let (us, them) = (&self.sides[n % 2], &self.sides[(n + 1) % 2]);
        let theirs = them.servers[n % them.servers.len()].as_str();
        let answer = send(request).await;
        let text = answer.body.to_string();
        // A plan over their server names the id that was asked for.
        let asked_for = if expected == 422 { theirs } else { "" };
        let seen = [them.site.as_str(), them.name].iter().any(|mark| text.contains(mark))
            || them.servers.iter().any(|id| text.contains(id) && id != asked_for);
        let what = if seen { FOREIGN } else { "another answer" };
        (seen || answer.status != expected).then(|| {
            format!("{n} as {}: {what}: {} instead of {expected}: {text:.300}", us.name, answer.status)
        })
    }

    fn poll(&self, us: &Side) -> RequestBuilder {
        let mut request = lease_args(&[], 0);
        request["wait_ms"] = json!(40);
        self.edge.request(Method::POST, "/v1/executor/lease", &us.executor).json(&request)
    }

    /// A write or a long poll that the client gives up after a few milliseconds, wherever it is then.
    async fn give_up(&self, n: usize, us: &Side) -> Option<String> {
        if (n / 20).is_multiple_of(3) {
            let poll =
                self.edge.request(Method::GET, "/v1/events?after=latest&wait_ms=5000", &us.token).send();
            let _ = tokio::time::timeout(Duration::from_millis(30), poll).await;
            return None;
        }
        let servers: Vec<_> = (0..20).map(|index| server(us.name, index, n)).collect();
        let write = json!({"site_id": us.site, "servers": servers});
        let request = self.edge.request(Method::POST, "/v1/servers/bulk", &us.token).json(&write).send();
        let patience = Duration::from_millis((n / 20 % 8) as u64);
        let _ = tokio::time::timeout(patience, request).await;
        None
    }
}

fn server(site: &str, index: usize, tag: usize) -> Value {
    json!({"name": format!("{site}-{index}"), "bmc_url": format!("https://10.0.0.{index}"),
        "tags": [format!("{site}-tag-{tag}")]})
}

fn job(site: &str, target: &str) -> Value {
    json!({"site_id": site, "kind": "power", "params": {"action": "on"}, "reason": "a test", "targets": [target]})
}

trait SideOf {
    async fn side(&self, name: &'static str, site: String) -> Side;
}

impl SideOf for Edge {
    async fn side(&self, name: &'static str, site: String) -> Side {
        let database = &self.site.database;
        let operator = person(database, &format!("{name} operator"), "operator", Some(&site)).await;
        let token = user_token(&self.host.keys, &operator);
        let servers: Vec<_> = (0..20).map(|index| server(name, index, 0)).collect();
        let made = self.request(Method::POST, "/v1/servers/bulk", &token);
        let made = send(made.json(&json!({"site_id": site, "servers": servers}))).await.body;
        let servers: Vec<_> =
            made["ids"].as_object().unwrap().values().map(|id| id.as_str().unwrap().to_owned()).collect();
        let planned = self.request(Method::POST, "/v1/jobs", &token).json(&job(&site, &servers[0]));
        assert_eq!(send(planned).await.status, 201);
        // Two executors, of which the first hears of the second.
        let executor =
            "insert into rackhand.executor (site_id, name, state, signing_key, sealing_key, fingerprint)
            values ($1::text::uuid, $2 || '-executor', 'active', 'k', 's', $2),
                ($1::text::uuid, $2 || '-joining', 'joining', 'k', 's', $2) returning id::text";
        let made = database.owner.query(executor, &[&site, &name]).await.unwrap();
        let id: &str = made[0].get(0);
        let session = uuid::Uuid::now_v7();
        let args = json!({"executor_id": id, "session_id": session, "nonce": session});
        database.run(&json!({"kind": "anonymous"}), "executor_session_start", args).await.unwrap();
        let ids = (id.parse().unwrap(), session.to_string().parse().unwrap(), site.parse().unwrap());
        let executor = self.host.keys.sign_executor(ids.0, ids.1, ids.2, now()).unwrap();
        Side { site, name, token, executor, asks: Mutex::default(), servers }
    }
}
