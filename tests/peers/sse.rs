//! The event stream as a browser uses it: it goes on where it ended, ends with its token, and shows no other
//! site's events.

use std::time::{Duration, Instant};

use rackhand_tests::{
    TestServer, TestSite,
    server::client,
    site::{event, granted, item, person},
};
use reqwest::Response;
use serde_json::{Value, json};

/// What a stream has sent, event by event.
struct Stream {
    response: Response,
    text: String,
    /// Of the last complete event.
    last_id: Option<String>,
}

impl Stream {
    async fn open(server: &TestServer, token: &str, query: &str, last_id: Option<&str>) -> Self {
        let mut request =
            client().get(format!("{}/v1/events/stream{query}", server.running.url)).bearer_auth(token);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new(), last_id: None }
    }

    /// The next event's data; `None` when the stream has ended or nothing came in time.
    async fn next(&mut self, within: Duration) -> Option<Value> {
        let deadline = Instant::now() + within;
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                if let Some(data) = field("data: ") {
                    self.last_id = field("id: ").map(str::to_owned);
                    let event: Value = serde_json::from_str(data).unwrap();
                    assert_eq!(field("event: "), event["kind"].as_str());
                    return Some(event);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.text += std::str::from_utf8(&chunk).unwrap(),
                Ok(Ok(None) | Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// A site whose run writes numbered lines.
struct Writer {
    site: TestSite,
    executor: rackhand_tests::site::TestExecutor,
    run: (String, u64),
}

impl Writer {
    async fn new() -> Self {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let executor = site.executor("one").await;
        let servers = site.servers(1).await;
        site.job("inventory", &servers, 10).await;
        let run = granted(&site.lease(&executor, &[], 1).await)[0].clone();
        Self { site, executor, run }
    }

    async fn write(&self, number: u64) {
        let answers =
            self.site.report(&self.executor, vec![item(&self.run, number, event(&number.to_string()))]).await;
        assert_eq!(answers[0]["status"], "accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_again_and_again_misses_and_repeats_nothing() {
    const LINES: u64 = 240;
    let writer = Writer::new().await;
    let server = TestServer::start(&writer.site).await;
    let token = server.token(&writer.site.admin);
    let query = format!("?run={}", writer.run.0);

    let reading = async {
        let (mut seen, mut last, mut connections) = (Vec::new(), None::<String>, 0_usize);
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.len() < usize::try_from(LINES).unwrap() && Instant::now() < deadline {
            connections += 1;
            let mut stream = Stream::open(&server, &token, &query, last.as_deref()).await;
            // Each connection takes another number of events, then is dropped without a word.
            for _ in 0..(connections * 7 % 23 + 1) {
                let Some(event) = stream.next(Duration::from_secs(2)).await else { break };
                last = stream.last_id.clone();
                if event["kind"] == "run.log" {
                    seen.push(event["message"].as_str().unwrap().parse::<u64>().unwrap());
                }
            }
        }
        (seen, connections)
    };
    let writing = async {
        for number in 1..=LINES {
            writer.write(number).await;
            if number % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let ((seen, connections), ()) = tokio::join!(reading, writing);
    assert_eq!(seen, (1..=LINES).collect::<Vec<_>>());
    assert!(connections > 10, "only {connections} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_token_and_a_new_one_goes_on() {
    let writer = Writer::new().await;
    let server = TestServer::start(&writer.site).await;
    let id = |name: &str| writer.site.admin[name].as_str().unwrap();
    // Signed almost ten minutes ago: it has three seconds left.
    let now = rackhand_tests::server::now();
    let ending = server
        .keys
        .sign_user(id("user").parse().unwrap(), id("session").parse().unwrap(), now - 597)
        .unwrap();
    let mut stream = Stream::open(&server, &ending, "?after=latest", None).await;
    writer.write(1).await;
    assert_eq!(stream.next(Duration::from_secs(2)).await.unwrap()["message"], "1");
    let began = Instant::now();
    assert!(stream.next(Duration::from_secs(10)).await.is_none(), "nothing more comes");
    assert!(began.elapsed() < Duration::from_secs(6), "it ended by itself: {:?}", began.elapsed());
    assert!(stream.response.chunk().await.unwrap().is_none(), "it ended in order");
    writer.write(2).await;
    let fresh = server.token(&writer.site.admin);
    let mut stream = Stream::open(&server, &fresh, "", stream.last_id.as_deref()).await;
    assert_eq!(stream.next(Duration::from_secs(2)).await.unwrap()["message"], "2", "nothing was missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sites_events_are_never_shown() {
    let writer = Writer::new().await;
    let server = TestServer::start(&writer.site).await;
    let config = json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 1, "hardware_paused": false,
        "second_person": false});
    let other = writer.site.admin("site_create", json!({"name": "other", "config": config})).await;
    let other = other["id"].as_str().unwrap();
    let stranger = person(&writer.site.database, "Sam Stranger", "admin", Some(other)).await;
    let token = server.token(&stranger);
    let ours = &writer.site.id;
    let mut written = 0;
    let run = &writer.run.0;
    let queries = ["?after=latest", "", &format!("?site={ours}"), &format!("?run={run}")].map(str::to_owned);
    for query in queries {
        let mut stream = Stream::open(&server, &token, &query, None).await;
        written += 1;
        writer.write(written).await;
        let path = format!("/v1/sites/{other}/enrolment-tokens");
        let made = server.call("POST", &path, Some(&token), Some(&json!({}))).await;
        assert!(made.status.is_success(), "{made:?}");
        while let Some(event) = stream.next(Duration::from_secs(1)).await {
            assert_ne!(event["kind"], "run.log", "{query}: {event}");
            assert_ne!(event["site_id"], json!(ours), "{query}: {event}");
            assert!(!event.to_string().contains(&writer.run.0), "{query}: {event}");
        }
    }
}
