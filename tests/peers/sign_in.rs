//! Sign-in over HTTP: rotating refresh tokens, browsers' cookies and their defence, the attempt limit, and
//! requests that are sent twice.

use rackhand_tests::{
    TestServer, TestSite,
    server::{Answer, answer, client},
};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

const EMAIL: &str = "ada@example.test";
const PASSWORD: &str = "a password of Ada's own";

async fn start() -> (TestSite, TestServer) {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    rackhand_server::setup::create_admin(
        &site.database.owner_url(),
        EMAIL,
        "Ada",
        PASSWORD,
        rackhand_server::setup::Existing::Refuse,
    )
    .await
    .expect("an admin");
    (site, server)
}

async fn login(server: &TestServer, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    server.call("POST", "/v1/auth/login", None, Some(&body)).await
}

async fn refresh(server: &TestServer, token: &Value) -> Answer {
    server.call("POST", "/v1/auth/refresh", None, Some(&json!({"refresh_token": token}))).await
}

async fn me(server: &TestServer, signed_in: &Answer) -> Answer {
    server.call("GET", "/v1/auth/me", signed_in.body["access_token"].as_str(), None).await
}

#[tokio::test]
async fn a_refresh_token_may_come_again_at_once_and_later_ends_the_session() {
    let (site, server) = start().await;
    let first = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(first.status, 200, "{first:?}");
    let spent = first.body["refresh_token"].clone();

    // Two tabs, or an answer that was lost: both get on.
    let (one, two) = tokio::join!(refresh(&server, &spent), refresh(&server, &spent));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (200, 200), "{one:?} {two:?}");
    assert_ne!(one.body["refresh_token"], two.body["refresh_token"]);
    assert_eq!(me(&server, &two).await.status, 200);

    // Past the grace the same token is a copy in somebody else's hands.
    let ago = "update rackhand.refresh_token set used_at = used_at - interval '11 seconds' \
        where used_at is not null";
    site.database.owner.execute(ago, &[]).await.unwrap();
    let copied = refresh(&server, &spent).await;
    assert_eq!((copied.status.as_u16(), copied.code()), (401, "refresh-reused"));
    for session in [&one, &two] {
        assert_eq!(me(&server, session).await.code(), "session-ended", "the whole session has ended");
        assert_eq!(refresh(&server, &session.body["refresh_token"]).await.code(), "session-ended");
    }
}

#[tokio::test]
async fn an_ancestor_is_refused_even_within_the_grace() {
    let (_site, server) = start().await;
    let first = login(&server, EMAIL, PASSWORD).await;
    let second = refresh(&server, &first.body["refresh_token"]).await;
    let third = refresh(&server, &second.body["refresh_token"]).await;
    assert_eq!(third.status, 200);
    let ancestor = refresh(&server, &first.body["refresh_token"]).await;
    assert_eq!(ancestor.code(), "refresh-reused", "only the immediate predecessor may come again");
    assert_eq!(refresh(&server, &json!("never issued")).await.code(), "session-ended");
    assert_eq!(refresh(&server, &Value::Null).await.code(), "not-signed-in");
}

fn post(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let request = client().post(format!("{}{path}", server.running.url));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

async fn send(request: RequestBuilder, body: &Value) -> (Answer, HeaderMap) {
    let response = request.json(body).send().await.unwrap();
    let headers = response.headers().clone();
    (answer(response).await, headers)
}

#[tokio::test]
async fn a_browser_gets_cookies_and_only_our_own_page_may_use_them() {
    let (site, server) = start().await;
    let ours = format!("https://{}", server.running.address);
    let browser = ("x-rackhand-client", "browser");
    let credentials = json!({"email": EMAIL, "password": PASSWORD});
    for headers in [vec![browser], vec![browser, ("origin", "https://evil.example")]] {
        let (refused, set) = send(post(&server, "/v1/auth/login", &headers), &credentials).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, "origin-refused"));
        assert!(set.get("set-cookie").is_none());
    }
    let page = [browser, ("origin", ours.as_str())];
    let (signed_in, set) = send(post(&server, "/v1/auth/login", &page), &credentials).await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    assert!(signed_in.body.get("access_token").is_none(), "no script can read a token");
    assert!(signed_in.body.get("refresh_token").is_none());
    let cookies: Vec<_> = set.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2);
    for cookie in &cookies {
        assert!(cookie.starts_with("__Host-"), "{cookie}");
        for attribute in ["; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"] {
            assert!(cookie.contains(attribute), "no {attribute} in {cookie}");
        }
    }
    let cookie =
        cookies.iter().map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ");
    let cookie = ("cookie", cookie.as_str());

    let read = client().get(format!("{}/v1/auth/me", server.running.url)).header(cookie.0, cookie.1);
    assert_eq!(read.send().await.unwrap().status(), 200, "reading needs the cookie alone");
    let site_of_job = json!({"name": "made by a browser"});
    let foreign = [
        vec![cookie],
        vec![cookie, ("origin", ours.as_str())],
        vec![cookie, browser],
        vec![cookie, browser, ("origin", "https://evil.example")],
        vec![cookie, browser, ("origin", "null")],
    ];
    for headers in &foreign {
        for path in ["/v1/sites", "/v1/auth/logout", "/v1/auth/refresh"] {
            let body = if path == "/v1/sites" { site_of_job.clone() } else { json!({}) };
            let (refused, _) = send(post(&server, path, headers), &body).await;
            assert_eq!(
                (refused.status.as_u16(), refused.code()),
                (403, "origin-refused"),
                "{path} {headers:?}"
            );
        }
    }
    assert_eq!(site.database.value("select count(*) from rackhand.site").await, 1, "nothing was made");
    let page = [vec![cookie], page.to_vec()].concat();
    let (made, _) = send(post(&server, "/v1/sites", &page), &site_of_job).await;
    assert_eq!(made.status, 201, "{made:?}");
    let (renewed, set) = send(post(&server, "/v1/auth/refresh", &page), &json!({})).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert_eq!(set.get_all("set-cookie").iter().count(), 2);
}

/// One attempt; a refusal by the limit says when to come again.
async fn attempt(server: &TestServer, email: &str, password: &str) -> (u16, Option<u32>) {
    let body = json!({"email": email, "password": password});
    let (answer, headers) = send(post(server, "/v1/auth/login", &[]), &body).await;
    let wait = headers.get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    if answer.status == 429 {
        assert_eq!(answer.code(), "login-limited");
        assert!(answer.body["trace_id"].is_string());
        assert!((1..=900).contains(&wait.expect("Retry-After")), "{wait:?}");
    }
    (answer.status.as_u16(), wait)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_limited_for_the_account_and_for_the_address() {
    let (_site, server) = start().await;
    for email in [EMAIL, "nobody@example.test"] {
        for count in 1..=8 {
            assert_eq!(attempt(&server, email, "a wrong password").await.0, 401, "{email} {count}");
        }
        assert_eq!(attempt(&server, email, "a wrong password").await.0, 429, "{email}, known or not");
        assert_eq!(
            attempt(&server, &email.to_uppercase(), "a wrong password").await.0,
            429,
            "the same account"
        );
    }
    assert_eq!(attempt(&server, EMAIL, PASSWORD).await.0, 429, "the right password does not help now");

    // Other accounts still may, until the address has had its share.
    let mut refused_at = None;
    for count in 17..=130 {
        let status = attempt(&server, &format!("guess-{count}@example.test"), "wrong").await.0;
        if status == 429 {
            refused_at = Some(count);
            break;
        }
        assert_eq!(status, 401);
    }
    assert_eq!(refused_at, Some(101), "a hundred attempts for one address");
}

#[tokio::test]
async fn a_job_that_is_sent_twice_is_made_once() {
    let (site, server) = start().await;
    let token = server.token(&site.admin);
    let servers = site.servers(2).await;
    let job = json!({"site_id": site.id, "kind": "power", "params": {"action": "on"}, "targets": servers,
        "reason": "a test"});
    let create = async |key: &str, job: &Value| {
        let request = client()
            .post(format!("{}/v1/jobs", server.running.url))
            .bearer_auth(&token)
            .header("idempotency-key", key);
        send(request, job).await.0
    };
    let (one, two) = tokio::join!(create("key-1", &job), create("key-1", &job));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (201, 201), "{one:?} {two:?}");
    assert_eq!(one.body["id"], two.body["id"], "the same job, however close together");
    let mut other = job.clone();
    other["params"]["action"] = json!("force_off");
    let mismatch = create("key-1", &other).await;
    assert_eq!((mismatch.status.as_u16(), mismatch.code()), (409, "idempotency-mismatch"));
    assert_ne!(create("key-2", &job).await.body["id"], one.body["id"]);
    assert_eq!(site.database.value("select count(*) from rackhand.job").await, 2);
    for bad in ["", &"k".repeat(201)] {
        assert_eq!(create(bad, &job).await.code(), "invalid-request");
    }
}
