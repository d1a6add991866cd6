//! Strangers against the native host, over HTTP/2 written by hand (RFC 9113).

use std::time::Duration;

use futures::StreamExt as _;
use rackhand_functions::{auth::token::SigningKeys, request::MAX_LEASE_BYTES};
use rackhand_server::{Config, Quiet, Running, Server};
use rackhand_tests::{
    TestDatabase, TestSite,
    server::{TestServer, client},
    site::{granted, person},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Preface and settings: how much this client takes of each answer.
fn preface(window: u32) -> Vec<u8> {
    let settings = [[0, 4].as_slice(), &window.to_be_bytes()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &settings)].concat()
}

/// A request's head: method by its static index, `:scheme http`, path, authority, `content-type: application/json`.
fn head(method: u8, path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [
        &[method, 0x86, 0x04],
        text(path).as_slice(),
        &[0x01],
        &text("x"),
        &[0x0f, 0x10],
        &text("application/json"),
    ]
    .concat()
}

/// Acknowledges settings and pings; true once the server has closed.
async fn polite_until_closed(stream: &mut TcpStream, at_most: Duration) -> bool {
    let talk = async {
        loop {
            let mut start = [0; 9];
            if stream.read_exact(&mut start).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            let answer = match (start[3], start[4] & 1) {
                (4, 0) => frame(4, 1, 0, &[]),
                (6, 0) => frame(6, 1, 0, &payload),
                _ => continue,
            };
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    };
    timeout(at_most, talk).await.is_ok()
}

/// The connection is never busy: it is the stream that may not be written to.
#[tokio::test]
async fn who_opens_no_window_is_let_go_as_well() {
    let database = TestDatabase::new().await;
    let mut config = Config::local(database.api_url(), SigningKeys::from_seed(&[7; 32]));
    config.quiet = Quiet { first: Duration::from_secs(2), between: Duration::from_secs(2) };
    let server = Server::start(config).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[preface(0), frame(1, 5, 1, &head(0x82, "/v1/health"))].concat()).await.unwrap();
    assert!(polite_until_closed(&mut stream, Duration::from_secs(20)).await, "it is still there");
}

/// One address, fewer connections than it may have (256), halves of bodies: nobody signs in any more, executors
/// neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_bodies_of_one_address_keep_nobody_else_from_signing_in() {
    let database = TestDatabase::new().await;
    let server =
        Server::start(Config::local(database.api_url(), SigningKeys::from_seed(&[7; 32]))).await.unwrap();
    let bodies = |size: usize| {
        let address = server.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&preface(65_535)).await.unwrap();
            // What the server allows has to arrive first.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut bytes = frame(4, 1, 0, &[]);
            for id in (1..128).step_by(2) {
                bytes.extend(frame(1, 4, id, &head(0x83, "/v1/auth/login")));
                bytes.extend(frame(0, 0, id, &vec![b' '; size]));
            }
            stream.write_all(&bytes).await.unwrap();
            stream
        }
    };
    let _large = futures::future::join_all((0..75).map(|_| bodies(15_800))).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    // What is left of the room.
    let _small = futures::future::join_all((0..12).map(|_| bodies(32))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let nonce = client().post(format!("{}/v1/executor/nonce", server.url));
    let executor = json!({"executor_id": "01920000-0000-7000-8000-000000000001"});
    let answer = nonce.json(&executor).send().await.unwrap();
    let status = answer.status();
    assert_eq!(status, 200, "{}", answer.text().await.unwrap());
}

/// All sites share the connections for executors: who waits for the row of its own session would hold one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_asked_for_by_one_executor_at_once_keep_no_other_from_its_own() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let (hostile, honest) = (site.executor("one").await, site.executor("two").await);
    // Not even let in by people.
    let joining = format!("update rackhand.executor set state = 'joining' where id = '{}'", hostile.id);
    site.database.owner.batch_execute(&joining).await.unwrap();
    let lease = json!({"held": [], "capacity": 0, "kinds": [], "wait_ms": 0, "version": "x"});
    let ask = |executor| {
        let request = server.client.post(format!("{}/v1/executor/lease", server.running.url));
        request.bearer_auth(server.executor_token(&site, executor)).json(&lease)
    };
    assert_eq!(ask(&hostile).send().await.unwrap().status(), 200);
    let mut owner = site.database.connect_owner().await;
    let holds = owner.transaction().await.unwrap();
    let session =
        format!("select from rackhand.executor_session where executor_id = '{}' for update", hostile.id);
    assert_eq!(holds.execute(&session, &[]).await.unwrap(), 1);
    let mut crowd: futures::stream::FuturesUnordered<_> =
        (0..40).map(|_| async { ask(&hostile).send().await.unwrap().status().as_u16() }).collect();
    for _ in 0..38 {
        assert_eq!(timeout(Duration::from_secs(20), crowd.next()).await.unwrap(), Some(429));
    }
    let answer = timeout(Duration::from_secs(4), ask(&honest).send()).await.expect("in time").unwrap();
    assert_eq!(answer.status(), 200);
    holds.rollback().await.unwrap();
    assert_eq!(crowd.collect::<Vec<_>>().await, [200, 200]);
}

/// Not even let in by people: each request for leases that waits for news would keep the room of its body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_wait_keep_no_other_executor_out() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let (hostile, honest) = (site.executor("one").await, site.executor("two").await);
    let joining = format!("update rackhand.executor set state = 'joining' where id = '{}'", hostile.id);
    site.database.owner.batch_execute(&joining).await.unwrap();
    let ask = |executor, wait: u32, bytes: usize| {
        let lease = json!({"held": [], "capacity": 0, "kinds": [], "wait_ms": wait, "version": "x"});
        let mut body = lease.to_string().into_bytes();
        body.resize(bytes, b' ');
        let request = server.client.post(format!("{}/v1/executor/lease", server.running.url));
        let request = request.header("content-type", "application/json");
        let request = request.bearer_auth(server.executor_token(&site, executor)).body(body).send();
        async { request.await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(&honest, 0, MAX_LEASE_BYTES).await, 200);
    let mut waiting = Vec::new();
    // Together more than the room of all executors.
    for _ in 0..130 {
        waiting.push(tokio::spawn(ask(&hostile, 20_000, MAX_LEASE_BYTES)));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&honest, 0, MAX_LEASE_BYTES).await, 200);
    assert!(!waiting.pop().unwrap().is_finished(), "the newest waits");
    for one in waiting {
        let status = timeout(Duration::from_secs(1), one).await.expect("a newer one waits").unwrap();
        assert!(status == 200 || status == 429, "{status}");
    }
    assert_eq!(ask(&honest, 0, MAX_LEASE_BYTES + 1).await, 413);
}

/// Whatever an executor asks for has a turn before it takes one of the connections that all executors share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_executor_asks_for_at_once_keeps_no_lease_waiting() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let (hostile, honest) = (site.executor("one").await, site.executor("two").await);
    // Each takes its time, as when rows are locked.
    let slow = ["credential_attempt", "site_key_set", "executor_report"].map(|name| {
        format!(
            "create or replace function rackhand.{name}(args jsonb) returns jsonb language sql \
             security definer set search_path = pg_catalog, pg_temp \
             as $$ select jsonb_build_object('results', '[]'::jsonb) from pg_sleep(0.5) $$;"
        )
    });
    site.database.owner.batch_execute(&slow.concat()).await.unwrap();
    let post = |executor, path: &str, body: serde_json::Value| {
        let request = server.client.post(format!("{}/v1/executor/{path}", server.running.url));
        let request = request.bearer_auth(server.executor_token(&site, executor)).json(&body).send();
        async { request.await.unwrap().status().as_u16() }
    };
    let lease = json!({"held": [], "capacity": 0, "kinds": [], "wait_ms": 0, "version": "x"});
    assert_eq!(post(&honest, "lease", lease.clone()).await, 200);
    let item =
        json!({"run_id": hostile.id, "epoch": 1, "seq": 1, "type": "event", "level": "info", "message": "m"});
    for (path, body) in [
        ("site-key", json!({"public_key": "A".repeat(44), "shares": []})),
        (
            "credential-attempt",
            json!({"bmc_id": hostile.id, "credential_id": hostile.id, "version": 1, "step": "reserve"}),
        ),
        ("report", json!({"items": [item]})),
    ] {
        let crowd: Vec<_> = (0..300).map(|_| tokio::spawn(post(&hostile, path, body.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(800)).await;
        for executor in [&honest, &hostile] {
            let answer = timeout(Duration::from_secs(2), post(executor, "lease", lease.clone())).await;
            assert_eq!(answer.ok(), Some(200), "beside {path}");
        }
        let done = crowd.iter().filter(|one| one.is_finished()).count();
        assert!((150..290).contains(&done), "{done}: the rest of {path} waits");
        for one in crowd {
            one.abort();
        }
    }
}

/// What an executor has to tell comes in order: it waits for what is under way, and is not refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_waits_for_the_one_before() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("power", &servers, 1).await;
    let (run, epoch) = granted(&site.lease(&executor, &[], 1).await).remove(0);
    let mut owner = site.database.connect_owner().await;
    let holds = owner.transaction().await.unwrap();
    holds.execute("select from rackhand.run for update", &[]).await.unwrap();
    let told = (1..=3).map(|seq| {
        let item = json!({"run_id": run, "epoch": epoch, "seq": seq, "type": "event", "level": "info", "message": "m"});
        let request = server.client.post(format!("{}/v1/executor/report", server.running.url));
        let request = request.bearer_auth(server.executor_token(&site, &executor));
        let request = request.json(&json!({"items": [item]})).send();
        async move {
            tokio::time::sleep(Duration::from_millis(200 * seq)).await;
            request.await.unwrap().json::<serde_json::Value>().await.unwrap()
        }
    });
    let told = tokio::spawn(futures::future::join_all(told.collect::<Vec<_>>()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!told.is_finished());
    holds.rollback().await.unwrap();
    for answer in told.await.unwrap() {
        assert_eq!(answer["results"][0]["status"], "accepted", "{answer}");
    }
}

/// Connections of one stranger, each with 64 requests whose answers nobody takes.
async fn untaken(url: &str, path: &str, connections: usize) -> Vec<TcpStream> {
    let address = url.trim_start_matches("http://");
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut bytes = [preface(0), frame(4, 1, 0, &[])].concat();
        for id in (1..128).step_by(2) {
            bytes.extend(frame(1, 5, id, &head(0x82, path)));
        }
        stream.write_all(&bytes).await.unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    streams
}

/// The program itself, which may open 600 files, and takes some 440 connections then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_hold_neither_files_nor_memory() {
    let database = TestDatabase::new().await;
    let folder = std::env::temp_dir().join(format!("rackhand-untaken-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "<app>").unwrap();
    std::fs::write(folder.join("key"), "07".repeat(32)).unwrap();
    std::fs::write(folder.join("url"), database.api_url()).unwrap();
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../rackhand-server");
    let command = format!(
        "ulimit -n 600; exec {} --listen 127.0.0.1:0 --database-url-file {1}/url --signing-key-file {1}/key --ui-dir {1}",
        program.display(),
        folder.display()
    );
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    tokio::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = ready["url"].as_str().unwrap();
    let about = |what: &str| format!("/proc/{}/{what}", child.id().unwrap());
    let resident_mib = || {
        let status = std::fs::read_to_string(about("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    };
    let health = || client().get(format!("{url}/v1/health")).timeout(Duration::from_secs(5)).send();
    assert_eq!(health().await.unwrap().status(), 200);
    for there in ["/", "/openapi.json"] {
        assert_eq!(client().get(format!("{url}{there}")).send().await.unwrap().status(), 200, "{there}");
    }
    let files = || std::fs::read_dir(about("fd")).unwrap().count();
    let before = (files(), resident_mib());
    let _pages = untaken(url, "/", 12).await;
    assert_eq!(health().await.unwrap().status(), 200);
    let _documents = untaken(url, "/openapi.json", 16).await;
    let more = (files() - before.0, resident_mib().saturating_sub(before.1));
    println!("more files, 28 of them connections, and MiB: {more:?}");
    assert!(more.0 < 64 && more.1 < 32, "more files, 28 of them connections, and MiB: {more:?}");
}

/// What counts is when something of the answer was last taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_never_taken_ends_whatever_else_is_asked() {
    let database = TestDatabase::new().await;
    let mut config = Config::local(database.api_url(), SigningKeys::from_seed(&[7; 32]));
    config.quiet = Quiet { first: Duration::from_secs(2), between: Duration::from_secs(2) };
    let server = Server::start(config).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = |id: u32| frame(1, 5, id, &head(0x82, "/openapi.json"));
    stream.write_all(&[preface(0), frame(4, 1, 0, &[]), request(1)].concat()).await.unwrap();
    let asks = async {
        for id in (3..43).step_by(2) {
            // Asked for and given up at once.
            let bytes = [request(id), frame(3, 0, id, &8_u32.to_be_bytes())].concat();
            let mut some = [0; 4096];
            if stream.write_all(&bytes).await.is_err() {
                return true;
            }
            let read = timeout(Duration::from_millis(500), stream.read(&mut some)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        false
    };
    assert!(asks.await, "after five times as long, stream 1 and its answer are still held");
}

/// The connection is a trusted proxy's: the stream is reset, and the next one is answered over the same connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_a_proxys_client_does_not_take_ends_alone() {
    let database = TestDatabase::new().await;
    let mut config = Config::local(database.api_url(), SigningKeys::from_seed(&[7; 32]));
    config.quiet = Quiet { first: Duration::from_secs(2), between: Duration::from_secs(2) };
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = Server::start(config).await.unwrap();
    // Also where some of it may leave, and where the whole answer is small.
    for (path, window) in
        [("/openapi.json", 0), ("/openapi.json", 1), ("/openapi.json", 20_000), ("/v1/version", 1)]
    {
        is_reset_alone(&server, path, window).await;
    }
}

async fn is_reset_alone(server: &Running, path: &str, window: u32) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = |id: u32, path: &str| frame(1, 5, id, &head(0x82, path));
    stream.write_all(&[preface(window), frame(4, 1, 0, &[]), request(1, path)].concat()).await.unwrap();
    let (mut reset, mut answered) = (false, false);
    let talk = async {
        while !answered {
            let mut start = [0; 9];
            stream.read_exact(&mut start).await.expect("the connection stays");
            let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            let id = u32::from_be_bytes([start[5], start[6], start[7], start[8]]);
            if (start[3], id) == (3, 1) {
                reset = true;
                stream.write_all(&request(3, "/v1/version")).await.unwrap();
            }
            answered = reset && (start[3], id) == (1, 3);
        }
    };
    timeout(Duration::from_secs(20), talk).await.expect("stream 1 is reset, stream 3 is answered");
}

/// A thousand events of nearly 1 KiB: a whole page of them takes its time.
async fn site_of_long_lines() -> (TestSite, TestServer) {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let lines = format!(
        "insert into rackhand.event (tree, at, kind, level, message, actor_kind, site_id, data, stream, n) \
         select 'lines', now(), 'run.log', 'info', repeat('m', 900), 'executor', '{}', 'null', '{}', i \
         from generate_series(1, 1000) i",
        site.id, site.id
    );
    site.database.owner.batch_execute(&lines).await.unwrap();
    (site, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_one_viewer_slows_nobody_else() {
    let (site, server) = site_of_long_lines().await;
    let viewer = person(&site.database, "Vera", "viewer", Some(&site.id)).await;
    let (url, token) = (&server.running.url, server.token(&viewer));
    let crowd: Vec<_> = (0..2000)
        .map(|_| {
            let request = server.client.get(format!("{url}/v1/events?limit=1000")).bearer_auth(&token);
            tokio::spawn(async move { request.send().await.map(|answer| answer.status().as_u16()).ok() })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut took = Vec::new();
    for _ in 0..4 {
        let began = tokio::time::Instant::now();
        let request = server.client.get(format!("{url}/v1/sites")).bearer_auth(server.token(&site.admin));
        took.push((request.send().await.unwrap().status().as_u16(), began.elapsed().as_millis()));
    }
    let crowd: Vec<_> = futures::future::join_all(crowd).await.into_iter().map(Result::unwrap).collect();
    let [answered, refused] =
        [200, 429].map(|status| crowd.iter().filter(|one| **one == Some(status)).count());
    println!("the admin: {took:?}; the crowd: {answered} answered, {refused} refused");
    assert!(took.iter().all(|(status, ms)| *status == 200 && *ms < 2_000), "{took:?}");
    assert!(refused > 0 && answered + refused == 2000, "{answered} answered, {refused} refused");
}

/// One stream looks for all that see the same, and holds the others up meanwhile: it must not wait in its own
/// person's line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_one_viewer_stops_no_stream_of_others() {
    let (site, server) = site_of_long_lines().await;
    let [vera, otto] = [
        person(&site.database, "Vera", "viewer", Some(&site.id)).await,
        person(&site.database, "Otto", "viewer", Some(&site.id)).await,
    ];
    let url = &server.running.url;
    let newest =
        server.call("GET", "/v1/events?before=latest&limit=1", Some(&server.token(&otto)), None).await;
    let newest = newest.body["items"][0]["cursor"].as_str().unwrap().to_owned();
    let stream = async |token: String| {
        let request = server.client.get(format!("{url}/v1/events/stream?after={newest}")).bearer_auth(token);
        request.send().await.unwrap().bytes_stream()
    };
    // First hers, so that one of hers looks.
    let mut hers = Vec::new();
    for _ in 0..16 {
        hers.push(stream(server.token(&vera)).await);
    }
    let mut his = stream(server.token(&otto)).await;
    let taken =
        tokio::spawn(futures::future::join_all(hers.into_iter().map(|one| one.for_each(async |_| ()))));
    let crowd: Vec<_> = (0..110)
        .map(|_| {
            let request =
                server.client.get(format!("{url}/v1/events?limit=1000")).bearer_auth(server.token(&vera));
            tokio::spawn(async move {
                loop {
                    drop(request.try_clone().unwrap().send().await);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let append = async |number: u32| {
        let event = format!(
            "select rackhand.append_event('test', 'info', 'number {number}', jsonb_build_object('site', '{}'))",
            site.id
        );
        site.database.owner.batch_execute(&event).await.unwrap();
    };
    let mut took = Vec::new();
    for number in 0..6 {
        let began = tokio::time::Instant::now();
        append(number).await;
        let told = async {
            let mut text = String::new();
            while !text.contains(&format!("number {number}")) {
                text.push_str(&String::from_utf8_lossy(&his.next().await.unwrap().unwrap()));
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told).await;
        took.push((told.is_ok(), began.elapsed().as_millis()));
    }
    println!("events reach the other viewer after {took:?} ms");
    assert!(took.iter().all(|(told, ms)| *told && *ms < 3000), "{took:?}");
    // Whoever joins does not wait for a look of hers that waits in her own line.
    drop(his);
    let mut joined = Vec::new();
    for number in 6..14 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = tokio::time::Instant::now();
        let mut his = stream(server.token(&otto)).await;
        let mut text = String::new();
        while !text.contains("number 5") {
            text.push_str(&String::from_utf8_lossy(&his.next().await.unwrap().unwrap()));
        }
        append(number).await;
        while !text.contains(&format!("number {number}")) {
            text.push_str(&String::from_utf8_lossy(&his.next().await.unwrap().unwrap()));
        }
        joined.push(began.elapsed().as_millis());
    }
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    taken.abort();
    joined.sort_unstable();
    println!("who joins is told after {joined:?} ms");
    assert!(joined[joined.len() / 2] < 700, "{joined:?}");
}
