//! Strangers against the native host, over HTTP/2 written by hand (RFC 9113).

use std::time::Duration;

use futures::StreamExt as _;
use rackhand_functions::auth::token::SigningKeys;
use rackhand_server::{Config, Quiet, Server};
use rackhand_tests::{
    TestDatabase, TestSite,
    server::{TestServer, client},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
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

/// One address, fewer connections than it may have (256), halves of bodies: nobody signs in any more, executors neither.
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
