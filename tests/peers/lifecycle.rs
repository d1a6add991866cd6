//! An executor's life over HTTP, as bytes: it joins, signs in by nonce and signature, reports what BMCs put
//! into its log lines, and is superseded by its own next process.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use rackhand_schema::executor::{audience, token_message};
use rackhand_tests::{
    TestServer, TestSite,
    server::{Answer, answer},
    site::granted,
};
use serde_json::{Value, json};
use uuid::Uuid;

struct Joined {
    id: String,
    key: SigningKey,
}

/// Enrols over HTTP with a key of its own.
async fn join(site: &TestSite, server: &TestServer, name: &str, seed: u8) -> Joined {
    let admin = server.token(&site.admin);
    let path = format!("/v1/sites/{}/enrolment-tokens", site.id);
    let made = server.call("POST", &path, Some(&admin), Some(&json!({}))).await;
    let key = SigningKey::from_bytes(&[seed; 32]);
    let enrol = json!({"token": made.body["token"], "name": name,
        "signing_key": STANDARD.encode(key.verifying_key().as_bytes()),
        "sealing_key": STANDARD.encode([seed; 32])});
    let enrolled = server.call("POST", "/v1/executor/enrol", None, Some(&enrol)).await;
    assert_eq!(enrolled.status, 201, "{enrolled:?}");
    let again = server.call("POST", "/v1/executor/enrol", None, Some(&enrol)).await;
    assert_eq!(again.body, enrolled.body, "whose answer was lost asks again");
    let mut another = enrol;
    another["signing_key"] =
        STANDARD.encode(SigningKey::from_bytes(&[99; 32]).verifying_key().as_bytes()).into();
    let another = server.call("POST", "/v1/executor/enrol", None, Some(&another)).await;
    assert_eq!((another.status.as_u16(), another.code()), (401, "enrolment-refused"), "a token is good once");
    Joined { id: enrolled.body["executor_id"].as_str().unwrap().to_owned(), key }
}

async fn nonce(server: &TestServer, executor: &str) -> String {
    let body = json!({"executor_id": executor});
    let answer = server.call("POST", "/v1/executor/nonce", None, Some(&body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["nonce"].as_str().unwrap().to_owned()
}

fn signed(server: &TestServer, key: &SigningKey, executor: &str, nonce: &str, session: Uuid) -> Value {
    signed_for(&audience(&server.running.url), key, executor, nonce, session)
}

fn signed_for(called: &str, key: &SigningKey, executor: &str, nonce: &str, session: Uuid) -> Value {
    let message =
        token_message(called, nonce, executor.parse().unwrap(), session.to_string().parse().unwrap());
    json!({"executor_id": executor, "nonce": nonce, "session_id": session, "resumes": [],
        "signature": STANDARD.encode(key.sign(message.as_bytes()).to_bytes())})
}

async fn token(server: &TestServer, request: &Value) -> Answer {
    server.call("POST", "/v1/executor/token", None, Some(request)).await
}

#[tokio::test]
async fn a_nonce_counts_once_and_only_for_the_key_that_enrolled() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let (one, two) = (join(&site, &server, "one", 3).await, join(&site, &server, "two", 4).await);
    let session = Uuid::now_v7();

    let forged = signed(&server, &two.key, &one.id, &nonce(&server, &one.id).await, session);
    let answer = token(&server, &forged).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "signature-invalid"));
    // The forger has used nothing up, and however many others ask for one, this one stays good.
    for _ in 0..30 {
        nonce(&server, &one.id).await;
    }
    let rightful = signed(&server, &one.key, &one.id, forged["nonce"].as_str().unwrap(), session);
    assert_eq!(token(&server, &rightful).await.status, 200);
    assert_eq!(token(&server, &rightful).await.code(), "nonce-invalid", "once");

    // A signature for another session, another executor or nothing at all.
    let mut other_session = signed(&server, &one.key, &one.id, &nonce(&server, &one.id).await, session);
    other_session["session_id"] = json!(Uuid::now_v7());
    assert_eq!(token(&server, &other_session).await.code(), "signature-invalid");
    // Whoever was called evil.example may pass on what it got, and call us so.
    let relayed = signed_for("evil.example", &one.key, &one.id, &nonce(&server, &one.id).await, session);
    let request = server.client.post(format!("{}/v1/executor/token", server.running.url));
    let relayed = request.header("host", "evil.example").json(&relayed).send().await.unwrap();
    let relayed = rackhand_tests::server::answer(relayed).await;
    assert_eq!(relayed.code(), "signature-invalid");
    assert!(relayed.body["detail"].as_str().unwrap().contains("public URL"), "{relayed:?}");
    let elsewhere = signed_for("evil.example", &one.key, &one.id, &nonce(&server, &one.id).await, session);
    assert_eq!(
        token(&server, &elsewhere).await.code(),
        "signature-invalid",
        "passed on by another control plane"
    );
    let mut empty = signed(&server, &one.key, &one.id, &nonce(&server, &one.id).await, session);
    empty["signature"] = json!("");
    assert_eq!(token(&server, &empty).await.code(), "signature-invalid");
    let stolen = signed(&server, &one.key, &one.id, &nonce(&server, &two.id).await, session);
    assert_eq!(token(&server, &stolen).await.code(), "nonce-invalid", "a nonce of another executor");
    assert_eq!(
        token(&server, &signed(&server, &one.key, &one.id, "invented", session)).await.code(),
        "nonce-invalid"
    );

    let good = signed(&server, &one.key, &one.id, &nonce(&server, &one.id).await, session);
    assert_eq!(token(&server, &good).await.status, 200);
    let replayed = token(&server, &good).await;
    assert_eq!((replayed.status.as_u16(), replayed.code()), (401, "nonce-invalid"));

    let admin = server.token(&site.admin);
    let revoked = server.call("DELETE", &format!("/v1/executors/{}", one.id), Some(&admin), None).await;
    assert!(revoked.status.is_success(), "{revoked:?}");
    let answer =
        token(&server, &signed(&server, &one.key, &one.id, &nonce(&server, &one.id).await, session)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "executor-revoked"));
}

#[tokio::test]
async fn the_token_of_a_superseded_session_is_refused() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let joined = join(&site, &server, "one", 5).await;
    let mut tokens = vec![];
    for _ in 0..2 {
        let request =
            signed(&server, &joined.key, &joined.id, &nonce(&server, &joined.id).await, Uuid::now_v7());
        let answer = token(&server, &request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        tokens.push(answer.body["token"].as_str().unwrap().to_owned());
    }
    site.database.owner.execute("update rackhand.executor set state = 'active'", &[]).await.unwrap();
    let lease = json!({"held": [], "capacity": 1, "kinds": ["inventory"], "wait_ms": 0, "version": "t"});
    let event = json!({"run_id": Uuid::now_v7(), "epoch": 1, "seq": 1, "type": "event", "level": "info",
        "message": "hello"});
    for (path, body) in [("/v1/executor/lease", lease), ("/v1/executor/report", json!({"items": [event]}))] {
        let old = server.call("POST", path, Some(&tokens[0]), Some(&body)).await;
        assert_eq!((old.status.as_u16(), old.code()), (409, "session-superseded"), "{path}");
        assert_eq!(server.call("POST", path, Some(&tokens[1]), Some(&body)).await.status, 200, "{path}");
    }
    let person = server.call("GET", "/v1/jobs", Some(&tokens[1]), None).await;
    assert_eq!(person.status, 401, "an executor's token is no person's");
}

/// Sends bytes as they are.
async fn report(server: &TestServer, token: &str, body: Vec<u8>) -> Answer {
    let request = server
        .client
        .post(format!("{}/v1/executor/report", server.running.url))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body(body);
    answer(request.send().await.unwrap()).await
}

#[tokio::test]
async fn bad_events_among_good_ones_lose_and_block_nothing() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(1).await;
    site.job("inventory", &servers, 10).await;
    let (run, epoch) = granted(&site.lease(&executor, &[], 5).await)[0].clone();
    let token = server.executor_token(&site, &executor);

    let event = |seq: u64, message: &[u8]| -> Vec<u8> {
        let head = format!(
            r#"{{"run_id":"{run}","epoch":{epoch},"seq":{seq},"type":"event","level":"info","message":""#
        );
        [head.as_bytes(), message, br#""}"#].concat()
    };
    let items = [
        event(1, b"first"),
        event(2, br"an escaped NUL \u0000 in it"),
        event(3, b"a raw NUL \x00 in it"),
        event(4, br"half a pair \ud83d alone"),
        event(5, br"the other half \ude00 alone"),
        event(6, br"a whole pair \ud83d\ude00 stays"),
        event(7, b"raw control \x07\x1b[31m and tab \t"),
        event(8, b"not UTF-8 \xff\xfe\xc3"),
        format!(r#"{{"run_id":"{run}","epoch":{epoch},"seq":9,"type":"from_the_future"}}"#).into_bytes(),
        event(10, "x".repeat(70_000).as_bytes()),
        br#"{"seq":"what is this"}"#.to_vec(),
        event(11, "ünï©ödé".as_bytes()),
        event(12, b"last"),
    ];
    let body = [br#"{"items":["#.as_slice(), &items.join(&b','), b"]}"].concat();
    let answer = report(&server, &token, body.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let statuses: Vec<_> = answer.body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = ["accepted"; 13];
    (expected[8], expected[9], expected[10]) = ("quarantined", "quarantined", "refused");
    assert_eq!(statuses, expected);

    // The answer was lost: the same again changes nothing.
    let again = report(&server, &token, body).await;
    for (index, result) in again.body["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(result["status"], if index == 10 { "refused" } else { "duplicate" }, "{index}: {again:?}");
    }

    let admin = server.token(&site.admin);
    let page = server.call("GET", &format!("/v1/events?run={run}&limit=100"), Some(&admin), None).await;
    let messages: Vec<_> = page.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "run.log")
        .map(|event| event["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages.len(), 10, "{messages:?}");
    assert_eq!((messages[0], messages[9]), ("first", "last"));
    assert_eq!(messages[1], r"an escaped NUL \u0000 in it");
    assert_eq!(messages[3], r"half a pair \ud83d alone");
    assert_eq!(messages[5], "a whole pair 😀 stays");
    assert!(messages[7].starts_with("not UTF-8 \u{fffd}"), "{}", messages[7]);
    assert_eq!(messages[8], "ünï©ödé");
    let quarantined =
        site.database.value("select count(*) from rackhand.event where kind = 'report.quarantined'").await;
    assert_eq!(quarantined, 2);
}

#[tokio::test]
async fn what_is_no_report_is_refused_as_a_whole() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let token = server.executor_token(&site, &executor);
    for (body, code) in [
        (&b""[..], "malformed-json"),
        (b"{", "malformed-json"),
        (b"\x00", "malformed-json"),
        (b"[]", "invalid-request"),
        (br#"{"items":{}}"#, "invalid-request"),
        (br#"{"items":null}"#, "invalid-request"),
    ] {
        let answer = report(&server, &token, body.to_vec()).await;
        assert_eq!(answer.code(), code, "{}", String::from_utf8_lossy(body));
    }
}
