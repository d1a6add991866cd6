//! Accounts over HTTP: who is kept out and who is not, sessions that end, passwords that are chosen and
//! changed.

use std::time::{Duration, Instant};

use rackhand_server::setup::{self, Existing};
use rackhand_tests::{
    TestServer, TestSite,
    database::run as run_on,
    server::{Answer, answer, client},
    site::person,
};
use serde_json::{Value, json};

const EMAIL: &str = "ada@example.test";
const PASSWORD: &str = "a password of Ada's own";

async fn start() -> (TestSite, TestServer) {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    let owner = site.database.owner_url();
    setup::create_admin(&owner, EMAIL, "Ada", PASSWORD, Existing::Refuse).await.unwrap();
    (site, server)
}

async fn login(server: &TestServer, email: &str, password: &str) -> Answer {
    server.call("POST", "/v1/auth/login", None, Some(&json!({"email": email, "password": password}))).await
}

fn token(signed_in: &Answer) -> Option<&str> {
    signed_in.body["access_token"].as_str()
}

async fn me(server: &TestServer, signed_in: &Answer) -> u16 {
    server.call("GET", "/v1/auth/me", token(signed_in), None).await.status.as_u16()
}

/// One attempt in the database alone, from an address: whether it was counted or refused.
async fn attempt(site: &TestSite, address: &str, email: &str) -> bool {
    let scope = json!({"kind": "anonymous", "address": address});
    match site.database.run(&scope, "login_begin", json!({"email": email})).await {
        Ok(_) => true,
        Err(refused) => {
            assert_eq!(refused.code, "login-limited");
            false
        }
    }
}

#[tokio::test]
async fn an_ipv6_network_is_one_address() {
    let site = TestSite::new().await;
    let mut passed = 0;
    for n in 0..110 {
        let address = format!("2001:db8:0:1::{n:x}");
        passed += u32::from(attempt(&site, &address, &format!("guess-{n}@example.test")).await);
    }
    assert_eq!(passed, 100, "however many addresses it has");
    assert!(attempt(&site, "2001:db8:0:2::1", "other@example.test").await, "the next network may");
    let mut passed = 0;
    for n in 0..310 {
        let address = format!("2001:db8:0:{:x}::1", 16 + n);
        passed += u32::from(attempt(&site, &address, &format!("far-{n}@example.test")).await);
    }
    assert_eq!(passed, 299, "four hundred for the /48 around it");
    assert!(attempt(&site, "not an address", "x@example.test").await);
}

#[tokio::test]
async fn strangers_do_not_keep_a_person_out_of_where_they_signed_in_before() {
    let (site, server) = start().await;
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
    let mut n = 0;
    while attempt(&site, &format!("203.0.113.{}", n % 250), EMAIL).await {
        n += 1;
        assert!(n <= 100, "the account has a limit");
    }
    assert!(!attempt(&site, "198.51.100.1", EMAIL).await, "from anywhere else the account is closed");
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200, "known from here");
    // An admin opens it for everywhere.
    let id = site.database.value(&format!("select id from rackhand.users where email = '{EMAIL}'")).await;
    let link = json!({"id": id, "token_hash": "ab", "ttl_s": 60});
    site.admin("password_reset_create", link).await;
    assert!(attempt(&site, "198.51.100.1", EMAIL).await);
}

/// A session that is ended for its person's safety may have been a thief's.
#[tokio::test]
async fn a_network_is_not_known_by_a_session_that_may_have_been_a_thiefs() {
    let (site, server) = start().await;
    let hash =
        format!("select jsonb_build_array(id, password_hash) from rackhand.users where email = '{EMAIL}'");
    let hash = site.database.value(&hash).await;
    let sign_in = async |n: u8| {
        let scope = json!({"kind": "anonymous", "address": format!("203.0.113.{n}")});
        let (family, ttl) = (format!("{n:02x}"), 600);
        let finish = json!({"email": EMAIL, "user_id": hash[0], "fitted": hash[1], "family": family,
            "refresh_hash": family, "user_agent": "", "ttl_s": ttl});
        let made = site.database.run(&scope, "login_finish", finish).await.unwrap();
        made["session_id"].clone()
    };
    let known = async |n: u8| {
        let known = format!(
            "select rackhand.login_known({}, '203.0.113.{n}')",
            hash[0].to_string().replace('"', "'")
        );
        site.database.value(&known).await == true
    };
    let anonymous = json!({"kind": "anonymous"});

    let (left, ended) = (sign_in(1).await, sign_in(2).await);
    sign_in(3).await;
    site.database.run(&anonymous, "logout", json!({"session": left})).await.unwrap();
    site.admin("session_end", json!({"id": ended})).await;
    let reuse = json!({"family": "03", "hash": "ff", "next_hash": "fe", "idle_s": 600});
    let reuse = site.database.run(&anonymous, "session_refresh", reuse).await.unwrap();
    assert_eq!(reuse["refused"], "refresh-reused");
    assert_eq!((known(1).await, known(2).await, known(3).await), (true, false, false));

    // A new password leaves the network from where it was set.
    let here = sign_in(4).await;
    sign_in(5).await;
    let scope = json!({"kind": "user", "user": hash[0], "session": here});
    let change = json!({"fitted": hash[1], "password_hash": hash[1]});
    site.database.run(&scope, "password_change_finish", change).await.unwrap();
    assert_eq!((known(1).await, known(4).await, known(5).await), (false, true, false));
    site.admin("password_reset_create", json!({"id": hash[0], "token_hash": "cc", "ttl_s": 60})).await;
    let chosen = json!({"token_hash": "cc", "password_hash": hash[1]});
    site.database.run(&anonymous, "password_reset_finish", chosen).await.unwrap();
    assert!(!known(4).await);
    sign_in(6).await;
    site.admin("user_sessions_end", json!({"id": hash[0]})).await;
    assert!(!known(6).await);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
}

/// One password on every account, from many networks.
#[tokio::test]
async fn passwords_are_not_tried_on_all_accounts_and_who_is_known_still_gets_in() {
    let (site, server) = start().await;
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
    let count = async |key: &str| {
        let sql = format!("select coalesce(sum(failures), 0) from rackhand.login_limit where key = '{key}'");
        site.database.value(&sql).await.as_u64().unwrap()
    };
    assert_eq!(count("strangers").await, 0, "what succeeded is taken back");

    // From one network: beyond the count of five minutes there is one for the day.
    assert!(attempt(&site, "192.0.2.1", "person-1@example.test").await);
    let later = "update rackhand.login_limit set failures = 495 where key = 'day 192.0.2.1'";
    site.database.owner.batch_execute(later).await.unwrap();
    let mut passed = 0;
    for n in 0..10 {
        passed += u32::from(attempt(&site, "192.0.2.1", &format!("person-{n}@example.test")).await);
    }
    assert_eq!((passed, count("strangers").await), (5, 6));
    assert!(attempt(&site, "192.0.2.2", "person-600@example.test").await, "the next one may");

    // From many: over all of them.
    let many = "update rackhand.login_limit set failures = 1990 where key = 'strangers'";
    site.database.owner.batch_execute(many).await.unwrap();
    let mut passed = 0;
    for n in 0..20 {
        passed +=
            u32::from(attempt(&site, &format!("198.51.100.{n}"), &format!("far-{n}@example.test")).await);
    }
    assert_eq!((passed, count("strangers").await), (10, 2000));
    let refused = login(&server, "nobody@example.test", PASSWORD).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "login-limited"));

    // Who has signed in from a network before is not held up there, and takes nothing back for others.
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
    assert_eq!(count("strangers").await, 2000);
    // From elsewhere they are, a day after their account was made, until an admin lets them in.
    let past = "update rackhand.users set welcome_at = now() - interval '25 hours'";
    site.database.owner.batch_execute(past).await.unwrap();
    assert!(!attempt(&site, "203.0.113.9", EMAIL).await);
    let id = site.database.value(&format!("select id from rackhand.users where email = '{EMAIL}'")).await;
    site.admin("password_reset_create", json!({"id": id, "token_hash": "ab", "ttl_s": 60})).await;
    assert!(attempt(&site, "203.0.113.9", EMAIL).await);
    assert!(!attempt(&site, "203.0.113.10", "person-1@example.test").await, "nobody else is");
}

#[tokio::test]
async fn a_sign_in_names_the_account_and_is_its_own_doing() {
    let (site, server) = start().await;
    assert_eq!(login(&server, EMAIL, "not it").await.status, 401);
    assert_eq!(login(&server, "nobody@example.test", "not it").await.status, 401);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
    site.executor("one").await;
    let events = "select jsonb_agg(jsonb_build_array(e.message, e.actor_kind, coalesce(u.name, x.name),
            e.actor_session is not null) order by e.id)
        from rackhand.event e left join rackhand.users u on u.id = e.actor_id
        left join rackhand.executor x on x.id = e.actor_id
        where e.kind like 'login.%' or e.kind = 'executor.started'";
    assert_eq!(
        site.database.value(events).await,
        json!([
            ["Sign-in of {user} refused: wrong password", "anonymous", null, false],
            ["Sign-in to an unknown account refused", "anonymous", null, false],
            ["{user} signed in", "user", "Ada", true],
            ["Executor one signed in", "executor", "one", true],
        ])
    );
}

#[tokio::test]
async fn signing_out_needs_no_living_access_token() {
    let (site, server) = start().await;
    let signed_in = login(&server, EMAIL, PASSWORD).await;
    let refresh = &signed_in.body["refresh_token"];
    let out = json!({"refresh_token": refresh});
    assert_eq!(server.call("POST", "/v1/auth/logout", None, Some(&out)).await.status, 204);
    assert_eq!(me(&server, &signed_in).await, 401);
    let renewed = server.call("POST", "/v1/auth/refresh", None, Some(&out)).await;
    assert_eq!(renewed.code(), "session-ended");
    // By access token alone, with nothing at all, and with what nobody knows: there is nothing left to end.
    let signed_in = login(&server, EMAIL, PASSWORD).await;
    assert_eq!(server.call("POST", "/v1/auth/logout", token(&signed_in), None).await.status, 204);
    assert_eq!(me(&server, &signed_in).await, 401);
    for body in [json!({}), json!({"refresh_token": "x".repeat(43)})] {
        assert_eq!(server.call("POST", "/v1/auth/logout", Some("expired"), Some(&body)).await.status, 204);
    }
    // The token was the proof: its user did it.
    let events = "select jsonb_agg(jsonb_build_array(e.message, e.actor_kind, u.name, e.user_id = u.id,
            e.actor_session::text = e.data ->> 'session') order by e.id)
        from rackhand.event e left join rackhand.users u on u.id = e.actor_id where e.kind = 'session.ended'";
    let out = json!(["Signed out", "user", "Ada", true, true]);
    assert_eq!(site.database.value(events).await, json!([out, out]));
}

/// As our page sends it; its cookies.
async fn browser(server: &TestServer, path: &str, cookies: &str, body: &Value) -> (Answer, Vec<String>) {
    let response = client()
        .post(format!("{}{path}", server.running.url))
        .header("x-rackhand-client", "browser")
        .header("origin", server.running.url.clone())
        .header("cookie", cookies)
        .json(body)
        .send()
        .await
        .unwrap();
    let set = response
        .headers()
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    (answer(response).await, set)
}

fn jar(set: &[String]) -> String {
    set.iter().map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_browser_is_signed_out_by_what_it_has_left_and_has_one_session() {
    let (site, server) = start().await;
    let credentials = json!({"email": EMAIL, "password": PASSWORD});
    let living = "select count(*) from rackhand.user_session s join rackhand.users u on u.id = s.user_id
        where s.ended_at is null and u.email = 'ada@example.test'";
    let (_, first) = browser(&server, "/v1/auth/login", "", &credentials).await;
    let (_, second) = browser(&server, "/v1/auth/login", &jar(&first), &credentials).await;
    assert_eq!(site.database.value(living).await, 1, "the browser's former session has ended");
    let by = "select u.name from rackhand.event e join rackhand.users u on u.id = e.actor_id
        where e.kind = 'session.ended' and e.actor_kind = 'user'";
    assert_eq!(site.database.value(by).await, "Ada");

    // The access cookie has expired: the browser does not send it any more.
    let refresh = jar(&second).split("; ").find(|cookie| cookie.contains("refresh")).unwrap().to_owned();
    let (out, set) = browser(&server, "/v1/auth/logout", &refresh, &json!({})).await;
    assert_eq!(out.status, 204, "{out:?}");
    assert!(set.len() == 2 && set.iter().all(|cookie| cookie.contains("Max-Age=0")), "{set:?}");
    assert_eq!(site.database.value(living).await, 0);
    let (again, set) = browser(&server, "/v1/auth/logout", &refresh, &json!({})).await;
    assert_eq!((again.status.as_u16(), set.len()), (204, 2), "the cookies go whatever is left to end");
}

#[tokio::test]
async fn a_session_that_is_not_used_ends() {
    let (site, server) = start().await;
    let signed_in = login(&server, EMAIL, PASSWORD).await;
    let renew = json!({"refresh_token": signed_in.body["refresh_token"]});
    let idle = async |hours: u32| {
        let ago = format!("update rackhand.user_session set seen_at = now() - interval '{hours} hours'");
        site.database.owner.execute(&ago, &[]).await.unwrap();
    };
    idle(23).await;
    let renewed = server.call("POST", "/v1/auth/refresh", None, Some(&renew)).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    idle(25).await;
    let renew = json!({"refresh_token": renewed.body["refresh_token"]});
    let ended = server.call("POST", "/v1/auth/refresh", None, Some(&renew)).await;
    assert_eq!(ended.code(), "session-ended");
    assert_eq!(me(&server, &renewed).await, 401, "its access token too");
}

#[tokio::test]
async fn a_person_chooses_a_password_by_link_and_changes_it() {
    let (_site, server) = start().await;
    let admin = login(&server, EMAIL, PASSWORD).await;
    let call = async |method: &str, path: &str, who: Option<&str>, body: Value| {
        server.call(method, path, who, (!body.is_null()).then_some(&body)).await
    };
    let new = json!({"email": "bea@example.test", "name": "Bea"});
    let bea = call("POST", "/v1/users", token(&admin), new).await;
    assert_eq!(bea.status, 201, "{bea:?}");
    let id = bea.body["id"].as_str().unwrap();
    assert_eq!(login(&server, "bea@example.test", "anything at all").await.code(), "invalid-credentials");

    let link = |id: &str| format!("/v1/users/{id}/password-link");
    let former = call("POST", &link(id), token(&admin), Value::Null).await;
    let link = call("POST", &link(id), token(&admin), Value::Null).await;
    let choose = |made: &Answer, password: &str| json!({"token": made.body["token"], "password": password});
    let path = "/v1/auth/password-choice";
    let common = call("POST", path, None, choose(&link, "Password2026!")).await;
    assert_eq!(common.code(), "invalid-request", "{common:?}");
    assert_eq!(call("POST", path, None, choose(&former, "Bea's own password")).await.code(), "reset-refused");
    assert_eq!(call("POST", path, None, choose(&link, "Bea's own password")).await.status, 204);
    assert_eq!(
        call("POST", path, None, choose(&link, "somebody else's")).await.code(),
        "reset-refused",
        "once"
    );

    let (one, two) = (
        login(&server, "bea@example.test", "Bea's own password").await,
        login(&server, "bea@example.test", "Bea's own password").await,
    );
    let change = |present: &str| json!({"present": present, "new": "another one of Bea's"});
    let path = "/v1/auth/password";
    assert_eq!(call("POST", path, token(&one), change("a guess")).await.code(), "password-wrong");
    assert_eq!(call("POST", path, token(&one), change("Bea's own password")).await.status, 204);
    assert_eq!(
        (me(&server, &one).await, me(&server, &two).await),
        (200, 401),
        "the other sessions have ended"
    );
    assert_eq!(login(&server, "bea@example.test", "Bea's own password").await.status, 401);

    // Guessing behind an unlocked screen is counted, too.
    let mut status = 403;
    for _ in 0..9 {
        status = call("POST", path, token(&one), change("a guess")).await.status.as_u16();
    }
    assert_eq!(status, 429);
}

/// Comparing a password takes a while, in which someone may set another one.
#[tokio::test]
async fn a_password_that_was_changed_while_it_was_compared_does_nothing() {
    let (site, server) = start().await;
    let anonymous = json!({"kind": "anonymous", "address": "203.0.113.5"});
    let begun = async || site.database.run(&anonymous, "login_begin", json!({"email": EMAIL})).await.unwrap();
    let finish = |known: &Value, family: &str| {
        json!({"email": EMAIL, "user_id": known["user_id"], "fitted": known["password_hash"], "family": family,
            "refresh_hash": family, "user_agent": "", "ttl_s": 60})
    };
    let former = begun().await;
    let ada = login(&server, EMAIL, PASSWORD).await;
    let change = json!({"present": PASSWORD, "new": "another one of Ada's"});
    assert_eq!(server.call("POST", "/v1/auth/password", token(&ada), Some(&change)).await.status, 204);
    let late = site.database.run(&anonymous, "login_finish", finish(&former, "aa")).await;
    assert_eq!(late, Ok(Value::Null), "signed in with the former password");

    // Nor does it change the password.
    let session = format!(
        "select id from rackhand.user_session where user_id = '{}'",
        former["user_id"].as_str().unwrap()
    );
    let scope =
        json!({"kind": "user", "user": former["user_id"], "session": site.database.value(&session).await});
    let late = json!({"fitted": former["password_hash"], "password_hash": "x"});
    let late = site.database.run(&scope, "password_change_finish", late).await;
    assert_eq!(late.unwrap_err().code, "password-wrong");
    assert_eq!(login(&server, EMAIL, "another one of Ada's").await.status, 200);

    // A change that is not committed yet is waited for.
    let known = begun().await;
    let mut owner = site.database.connect_owner().await;
    let changing = owner.transaction().await.unwrap();
    changing.execute("update rackhand.users set password_hash = 'x'", &[]).await.unwrap();
    let connection = site.database.connect().await;
    let signs_in = run_on(&connection, &anonymous, "login_finish", finish(&known, "bb"));
    let changed = async {
        site.database.until_waiting(1).await;
        changing.commit().await.unwrap();
    };
    let waited =
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(signs_in, changed).0 }).await;
    assert_eq!(waited.expect("waits for the change"), Ok(Value::Null));
}

#[tokio::test]
async fn who_leaves_is_out_at_once_and_the_last_admin_stays() {
    let (site, server) = start().await;
    let admin = login(&server, EMAIL, PASSWORD).await;
    let only = "delete from rackhand.user_grant g using rackhand.users u
        where u.id = g.user_id and u.email <> 'ada@example.test'";
    site.database.owner.execute(only, &[]).await.unwrap();
    let new = json!({"email": "bea@example.test", "name": "Bea", "password": "Bea's own password"});
    let bea = server.call("POST", "/v1/users", token(&admin), Some(&new)).await;
    let path = format!("/v1/users/{}", bea.body["id"].as_str().unwrap());
    let signed_in = login(&server, "bea@example.test", "Bea's own password").await;
    let disabled = |value: bool| json!({"disabled": value});
    let gone = server.call("PATCH", &path, token(&admin), Some(&disabled(true))).await;
    assert_eq!(gone.body["disabled"], true, "{gone:?}");
    assert_eq!(me(&server, &signed_in).await, 401);
    assert_eq!(login(&server, "bea@example.test", "Bea's own password").await.status, 401);
    server.call("PATCH", &path, token(&admin), Some(&disabled(false))).await;
    let back = login(&server, "bea@example.test", "Bea's own password").await;
    assert_eq!(back.status, 200);
    let ended = server.call("DELETE", &format!("{path}/sessions"), token(&admin), None).await;
    assert_eq!((ended.status.as_u16(), me(&server, &back).await), (204, 401));

    let ada = format!("/v1/users/{}", admin.body["user"]["id"].as_str().unwrap());
    let last = server.call("PATCH", &ada, token(&admin), Some(&disabled(true))).await;
    assert_eq!(last.code(), "invalid-request", "{last:?}");
    assert_eq!(me(&server, &admin).await, 200);
}

/// Whoever leaves, or is an admin no longer, takes no way in along: no executor, no account of another
/// person.
#[tokio::test]
async fn what_a_former_admin_has_handed_out_lets_nobody_in() {
    let site = TestSite::new().await;
    let anonymous = json!({"kind": "anonymous"});
    let fleet_admin = "select id from rackhand.user_grant where user_id = ";
    for (n, leaves) in [true, false].into_iter().enumerate() {
        let who = person(&site.database, &format!("leaver-{n}"), "admin", None).await;
        let (token, link) = (format!("aa0{n}"), format!("bb0{n}"));
        let handed = json!({"site_id": site.id, "token_hash": token, "ttl_s": 3600});
        site.database.run(&who, "enrolment_token_create", handed).await.unwrap();
        let handed = json!({"id": site.admin["user"], "token_hash": link, "ttl_s": 3600});
        site.database.run(&who, "password_reset_create", handed).await.unwrap();
        let begun = json!({"token_hash": link});
        assert_eq!(
            site.database.run(&anonymous, "password_reset_begin", begun.clone()).await,
            Ok(json!(true))
        );
        if leaves {
            site.admin("user_update", json!({"id": who["user"], "disabled": true})).await;
        } else {
            let grant =
                site.database.value(&format!("{fleet_admin} '{}'", who["user"].as_str().unwrap())).await;
            site.admin("grant_delete", json!({"user_id": who["user"], "id": grant})).await;
        }
        let executor = json!({"token_hash": token, "name": format!("theirs-{n}"), "signing_key": "k", "sealing_key": "s",
            "fingerprint": "f"});
        let enrolled = site.database.run(&anonymous, "executor_enrol", executor).await;
        assert_eq!(enrolled.unwrap_err().code, "enrolment-refused");
        assert_eq!(site.database.run(&anonymous, "password_reset_begin", begun).await, Ok(json!(false)));
        let chosen = json!({"token_hash": link, "password_hash": "x"});
        let chosen = site.database.run(&anonymous, "password_reset_finish", chosen).await;
        assert_eq!(chosen.unwrap_err().code, "reset-refused");
    }
}

/// The answer to an enrolment may be lost: the same keys under the same name are the same executor, with the same token
/// or another one, and nobody else gets in with a token that is used.
#[tokio::test]
async fn an_enrolment_that_is_repeated_enrols_once() {
    let site = TestSite::new().await;
    let anonymous = json!({"kind": "anonymous"});
    for token in ["aa00", "aa01", "aa02"] {
        let made = json!({"site_id": site.id, "token_hash": token, "ttl_s": 3600});
        site.admin("enrolment_token_create", made).await;
    }
    let enrol_with = async |token: &str, name: &str, signing: &str, sealing: &str| {
        let executor = json!({"token_hash": token, "name": name, "signing_key": signing, "sealing_key": sealing,
            "fingerprint": "f"});
        site.database.run(&anonymous, "executor_enrol", executor).await.map_err(|refused| refused.code)
    };
    let enrol = async |token: &str, name: &str, signing: &str| enrol_with(token, name, signing, "s").await;
    let first = enrol("aa00", "one", "k").await.unwrap();
    assert!(first["executor_id"].is_string() && first["site"].is_string(), "{first}");
    for token in ["aa00", "aa01", "aa01"] {
        assert_eq!(enrol(token, "one", "k").await, Ok(first.clone()), "{token}");
    }
    for (token, name, signing, code) in [
        ("aa00", "one", "other", "enrolment-refused"),
        ("aa00", "two", "k", "enrolment-refused"),
        ("aa01", "two", "k", "enrolment-refused"),
        ("aa02", "one", "other", "name-taken"),
        ("aa03", "one", "k", "enrolment-refused"),
    ] {
        assert_eq!(enrol(token, name, signing).await, Err(code.to_owned()), "{token} {name} {signing}");
    }
    for (token, code) in [("aa00", "enrolment-refused"), ("aa02", "name-taken")] {
        assert_eq!(
            enrol_with(token, "one", "k", "other").await,
            Err(code.to_owned()),
            "{token}, another sealing key"
        );
    }
    let enrolled = "select count(*)::int from rackhand.event where kind = 'executor.enrolled'";
    assert_eq!(site.database.value(enrolled).await, 2, "one for each token");
    site.admin("executor_revoke", json!({"id": first["executor_id"]})).await;
    assert_eq!(enrol("aa01", "one", "k").await, Err("enrolment-refused".to_owned()));
}

/// A session may be renewed as often as its person likes, and an old token is known for one without a row of
/// its own.
#[tokio::test]
async fn a_session_leaves_no_trail_of_tokens() {
    let (site, server) = start().await;
    let renew = async |token: &Value| {
        server.call("POST", "/v1/auth/refresh", None, Some(&json!({"refresh_token": token}))).await
    };
    let first = login(&server, EMAIL, PASSWORD).await.body["refresh_token"].clone();
    let mut last = first.clone();
    for _ in 0..40 {
        last = renew(&last).await.body["refresh_token"].clone();
    }
    // The answer was lost, again and again.
    let mut siblings = 1;
    renew(&last).await;
    let limited = loop {
        let sibling = renew(&last).await;
        if sibling.status != 200 {
            break sibling;
        }
        siblings += 1;
    };
    assert_eq!((limited.code(), siblings), ("login-limited", 16));
    assert_eq!(site.database.value("select count(*) from rackhand.refresh_token").await, 17);
    assert_eq!(renew(&first).await.code(), "refresh-reused");
    assert_eq!(renew(&last).await.code(), "session-ended", "all of it has ended");
}

/// The one function of its kind that would have asked nobody.
#[tokio::test]
async fn sessions_are_shown_to_nobody_in_particular() {
    let site = TestSite::new().await;
    let user = &site.admin["user"];
    let refused = site
        .database
        .run(&json!({"kind": "anonymous"}), "sessions", json!({"user": user}))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "forbidden-role");
}

#[tokio::test]
async fn a_password_of_any_length_is_answered() {
    let site = TestSite::new().await;
    let server = TestServer::start(&site).await;
    for password in ["qwertyuiopasdfghjkl".repeat(53) + "zz", "test".repeat(400_000)] {
        let body = json!({"token": "0123456789abcdef", "password": password});
        let answer = server.call("POST", "/v1/auth/password-choice", None, Some(&body)).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
}

#[tokio::test]
async fn the_first_admin_has_what_the_api_would_take() {
    let site = TestSite::new().await;
    let create = async |email, name, password| {
        setup::create_admin(&site.database.owner_url(), email, name, password, Existing::Refuse).await
    };
    for (email, name, password) in [
        (EMAIL, "Ada", "password1234"),
        (EMAIL, "Ada", "short"),
        (EMAIL, "a\u{202e}da", PASSWORD),
        ("ada", "Ada", PASSWORD),
    ] {
        let refused = create(email, name, password).await.unwrap_err().to_string();
        assert!(!refused.contains(password), "{refused}");
    }
    let made = format!("select count(*) from rackhand.users where email = '{EMAIL}'");
    assert_eq!(site.database.value(&made).await, 0);
    create(EMAIL, "Ada", PASSWORD).await.unwrap();
    assert_eq!(site.database.value(&made).await, 1);
}

#[tokio::test]
async fn an_account_that_exists_keeps_its_password_unless_a_reset_is_requested() {
    const ANOTHER: &str = "another phrase for Ada, much later";
    let (site, server) = start().await;
    let owner = site.database.owner_url();
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);
    let refused = setup::create_admin(&owner, &EMAIL.to_uppercase(), "Eve", ANOTHER, Existing::Refuse)
        .await
        .unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("nothing was changed") && said.contains("--reset-password"), "{said}");
    let open = "select count(*) from rackhand.user_session s join rackhand.users u on u.id = s.user_id
        where s.ended_at is null and u.email = 'ada@example.test'";
    assert_eq!(site.database.value(open).await, 1);
    assert_eq!(login(&server, EMAIL, ANOTHER).await.status, 401);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 200);

    setup::create_admin(&owner, EMAIL, "Ada", ANOTHER, Existing::Reset).await.unwrap();
    assert_eq!(site.database.value(open).await, 0);
    assert_eq!(login(&server, EMAIL, PASSWORD).await.status, 401);
    assert_eq!(login(&server, EMAIL, ANOTHER).await.status, 200);
}

#[tokio::test]
async fn a_session_that_has_ended_does_not_end_again_in_the_audit() {
    let site = TestSite::new().await;
    let viewer = rackhand_tests::site::person(&site.database, "Vera Viewer", "viewer", None).await;
    for _ in 0..2 {
        site.admin("session_end", json!({"id": viewer["session"]})).await;
        site.admin("user_sessions_end", json!({"id": viewer["user"]})).await;
        site.admin("user_sessions_end", json!({"id": site.admin["user"]})).await;
    }
    let ended = "select count(*) from rackhand.event where kind = 'session.ended'";
    assert_eq!(site.database.value(ended).await, 1);
}

/// The name stands in what people read, not in the record, from which it could not be erased.
#[tokio::test]
async fn events_about_people_say_whom_and_what() {
    let (site, server) = start().await;
    let token = server.token(&site.admin);
    let post = async |path: &str, body: Value| {
        let answer = server.call("POST", path, Some(&token), Some(&body)).await;
        assert!(answer.status.is_success(), "{path} {answer:?}");
        answer.body
    };
    let ann = json!({"email": "ann@example.test", "name": "Ann Example"});
    let ann = post("/v1/users", ann).await;
    let ann = ann["id"].as_str().unwrap().to_owned();
    let grants = format!("/v1/users/{ann}/grants");
    for site_id in [json!(site.id), Value::Null] {
        let grant = post(&grants, json!({"role": "operator", "site_id": site_id})).await;
        let path = format!("{grants}/{}", grant["id"].as_str().unwrap());
        assert_eq!(server.call("DELETE", &path, Some(&token), None).await.status, 204);
    }
    site.admin("user_update", json!({"id": ann, "disabled": true})).await;
    // Behind transactions of other tests, what is committed shows a little later.
    let until = Instant::now() + Duration::from_secs(20);
    let page = loop {
        let page = server.call("GET", "/v1/events?before=latest&limit=6", Some(&token), None).await;
        if page.body["items"][0]["kind"] == "user.changed" || Instant::now() > until {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut said: Vec<_> = page.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["message"].as_str().unwrap())
        .collect();
    said.reverse();
    assert_eq!(
        said,
        [
            "User Ann Example created",
            "Ann Example became operator of site lab",
            "Removed the role operator of Ann Example for site lab",
            "Ann Example became operator of the fleet",
            "Removed the role operator of Ann Example for the fleet",
            "User Ann Example disabled",
        ]
    );
    let named = "select count(*) from rackhand.event where message like '%Ann%' or data::text like '%Ann%'";
    assert_eq!(site.database.value(named).await, 0);
    let gone = format!("delete from rackhand.users where id = '{ann}'");
    site.database.owner.execute(&gone, &[]).await.unwrap();
    let page = server.call("GET", "/v1/events?before=latest&limit=1", Some(&token), None).await;
    assert_eq!(page.body["items"][0]["message"], "User (no longer known) disabled");
}
