//! The process ends in the middle of what it does, or its callers do.

use std::time::Duration;

use rackhand_tests::{
    TestSite,
    edge::{Edge, body, send},
    host::{Kind, Options},
    site::granted,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::database::{lease, waiting};

/// Server-sent events as they come.
pub struct Stream {
    response: Response,
    text: String,
    /// The `id` of each event.
    pub seen: Vec<String>,
}

impl Stream {
    pub async fn open(edge: &Edge, last: &str) -> Self {
        let request = edge.get("/v1/events/stream").header("last-event-id", last);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success());
        Self { response, text: String::new(), seen: vec![] }
    }

    /// Reads on until so many events were seen, or the stream broke.
    pub async fn read(&mut self, count: usize) {
        while self.seen.len() < count {
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.response.chunk());
            let Ok(Some(chunk)) = chunk.await.expect("events come") else { return };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((one, rest)) = self.text.split_once("\n\n") {
                let id = one.lines().find_map(|line| line.strip_prefix("id: "));
                self.seen.extend(id.map(str::to_owned));
                self.text = rest.to_owned();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_during_a_long_poll_and_an_event_stream() {
    for kind in [Kind::Worker, Kind::Spin] {
        let mut edge = Edge::start(kind).await;
        let servers = edge.site.servers(3).await;
        let executor = edge.site.executor("one").await;
        let token = edge.executor_token(&executor);
        let page = body(send(edge.get("/v1/events?after=latest")).await);
        let start = page["cursor"].as_str().unwrap().to_owned();
        let mut stream = Stream::open(&edge, &start).await;
        edge.job(&servers[0], "first").send().await.unwrap();
        stream.read(1).await;
        // Takes the first run, so that the next poll waits.
        let request = || edge.request(Method::POST, "/v1/executor/lease", &token);
        let first = granted(&body(send(request().json(&lease(&[]))).await));
        assert_eq!(first.len(), 1);
        let mut long = lease(&first);
        long["wait_ms"] = json!(20_000);
        let poll = tokio::spawn(request().json(&long).send());
        // A write that is under way: nobody knows whether it was done.
        let blocker = rackhand_tests::database::connect(&edge.site.database.owner_url()).await;
        blocker.batch_execute("begin; lock table rackhand.job in exclusive mode").await.unwrap();
        let write = tokio::spawn(edge.job(&servers[1], "second").send());
        waiting(&edge, 1).await;

        edge.host.kill().await;
        assert!(poll.await.unwrap().is_err(), "{kind:?}");
        assert!(write.await.unwrap().is_err(), "{kind:?}");
        stream.read(usize::MAX).await;
        blocker.batch_execute("rollback").await.unwrap();
        edge.site.job("inventory", &servers[2..], 1).await;
        edge.host.restart().await;

        let again =
            [send(edge.job(&servers[1], "second")).await, send(edge.job(&servers[1], "second")).await];
        let [again, once_more] = again.map(|answer| body(answer)["id"].clone());
        assert_eq!(again, once_more);
        assert_eq!(edge.site.database.value("select count(*) from rackhand.job").await, 3, "{kind:?}");
        // The executor asks again, and is given what came meanwhile, each once.
        let second =
            granted(&body(send(edge.request(Method::POST, "/v1/executor/lease", &token).json(&long)).await));
        assert_eq!(second.len(), 2, "{kind:?}");
        let held = [first, second].concat();
        let third =
            body(send(edge.request(Method::POST, "/v1/executor/lease", &token).json(&lease(&held))).await);
        assert_eq!((granted(&third).len(), &third["lost"]), (0, &json!([])), "{kind:?}");
        // Every event once and in order, over both streams, also those that became final meanwhile.
        let path = format!("/v1/events?after={start}&limit=1000");
        let told = async || -> Vec<String> {
            body(send(edge.get(&path)).await)["items"].as_array().unwrap().iter().map(cursor).collect()
        };
        let final_so_far = told().await.len();
        let mut resumed = Stream::open(&edge, stream.seen.last().unwrap()).await;
        resumed.read(final_so_far - stream.seen.len()).await;
        let seen = [stream.seen, resumed.seen].concat();
        assert_eq!(seen, told().await[..seen.len()], "{kind:?}");
    }
}

pub fn cursor(event: &Value) -> String {
    event["cursor"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_hold_nothing_up() {
    for (kind, alone) in [(Kind::Worker, false), (Kind::Worker, true), (Kind::Spin, false)] {
        let options = Options { alone, max_wait: Some(Duration::from_secs(2)), ..Options::default() };
        let edge = Edge::with(kind, TestSite::new().await, options).await;
        let server = edge.site.servers(1).await.remove(0);
        // More than a session may hold, and nobody may have noticed yet that these callers have gone.
        for round in 0..60 {
            let poll = edge.get("/v1/events?after=latest&wait_ms=2000").send();
            assert!(tokio::time::timeout(Duration::from_millis(round % 20), poll).await.is_err());
            drop(Stream::open(&edge, "").await);
        }
        // Who still waits is woken.
        let poll = tokio::spawn(send(edge.get("/v1/events?after=latest&wait_ms=2000")));
        tokio::time::sleep(Duration::from_millis(300)).await;
        body(send(edge.job(&server, "one")).await);
        let events = body(poll.await.unwrap());
        assert!(!events["items"].as_array().unwrap().is_empty(), "{kind:?}: {events}");
        let connections = edge.connections().await;
        assert!(connections <= if kind == Kind::Worker { 5 } else { 16 }, "{kind:?}: {connections}");
        edge.recovers(Duration::from_secs(2)).await;
    }
}
