//! Recorded: the service's own pages, sign-in and sessions, users and their roles.

use rackhand_schema::ErrorCode as Code;
use serde_json::{Value, json};

use super::{
    UNKNOWN,
    step::{Body, Step, any, delete, get, post, put},
};

/// Of everybody in the list.
pub const PASSWORD: &str = "correct horse battery";
pub const ADMIN: &str = "ada@example.test";

const LOGIN: &str = "/v1/auth/login";
const REFRESH: &str = "/v1/auth/refresh";
const AGENT: &str = "parity/1";

pub fn steps() -> Vec<Step> {
    [service(), signing_in(), browser(), users_and_sites(), roles(), sessions(), passwords()].concat()
}

/// What stands at the very end: it shuts an account out.
pub fn login_limit() -> Vec<Step> {
    let wrong = json!({"email": "guessed@example.test", "password": "wrong"});
    let mut steps: Vec<_> = (1..=8)
        .map(|n| post(format!("guess {n}"), LOGIN, wrong.clone()).refused(Code::InvalidCredentials))
        .collect();
    steps.push(post("guess once too often", LOGIN, wrong).refused(Code::LoginLimited));
    steps
}

fn login(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

fn sign_in(who: &'static str) -> Step {
    let email = format!("{who}@example.test");
    post(format!("{who} signs in"), LOGIN, login(&email, PASSWORD))
        .header("user-agent", AGENT)
        .keep(who, "/access_token")
}

fn service() -> Vec<Step> {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    vec![
        get("health", "/v1/health"),
        get("a trace that is given goes on", "/v1/version")
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")),
        get("a trace of zeros does not", "/v1/version")
            .header("traceparent", format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))),
        get("the document", "/openapi.json"),
        get("the pages", "/docs"),
        get("an error's page", "/errors/plan-stale"),
        get("no such error", "/errors/no-such-code").refused(Code::NotFound),
        get("no such address", "/v1/nowhere").refused(Code::NotFound),
        get("an empty segment", "/v1//health").refused(Code::NotFound),
        get("a slash too many", "/v1/health/").refused(Code::NotFound),
        get("an address with odd characters", "/v1/sites/%ff%fe%00?x=%zz")
            .by("tick")
            .refused(Code::NotSignedIn),
        get("a slash within a segment", "/v1/sites/a%2Fb").by("tick").refused(Code::NotSignedIn),
        get("a query that means nothing", "/v1/version?%ff&&=x&x=%zz"),
        any("HEAD", "only the headers", "/v1/version"),
        any("HEAD", "only the headers of a refusal", "/v1/auth/me").refused(Code::NotSignedIn),
        any("OPTIONS", "no page of another origin is let in", "/v1/sites")
            .header("origin", "https://elsewhere.example")
            .header("access-control-request-method", "POST")
            .refused(Code::MethodNotAllowed),
    ]
}

fn signing_in() -> Vec<Step> {
    let token = |name: &str| json!({"refresh_token": format!("${{{name}}}")});
    vec![
        sign_in("ada").keep("ada_refresh", "/refresh_token").keep("ada_id", "/user/id"),
        post("a wrong password", LOGIN, login(ADMIN, "wrong")).refused(Code::InvalidCredentials),
        post("an unknown account", LOGIN, login("nobody@example.test", "wrong"))
            .refused(Code::InvalidCredentials),
        post("e-mail in capitals", LOGIN, login("ADA@Example.Test", PASSWORD)),
        post("an empty password", LOGIN, login(ADMIN, "")).refused(Code::InvalidRequest),
        post("a NUL in the e-mail", LOGIN, login("a\0da@example.test", "x")).refused(Code::InvalidRequest),
        get("who am I", "/v1/auth/me").by("ada").keep("ada_grant", "/grants/0/id"),
        get("the scheme in another case", "/v1/auth/me").header("authorization", "bEARER   ${ada}"),
        get("another scheme", "/v1/auth/me")
            .header("authorization", "Basic ${ada}")
            .refused(Code::NotSignedIn),
        get("a forged token", "/v1/auth/me")
            .header("authorization", "Bearer ${ada}x")
            .refused(Code::NotSignedIn),
        post("renew", REFRESH, token("ada_refresh")).keep("second", "/refresh_token"),
        post("renew once more within seconds", REFRESH, token("ada_refresh"))
            .keep("sibling", "/refresh_token"),
        post("go on with the second", REFRESH, token("second")).keep("third", "/refresh_token"),
        post("a token that was copied", REFRESH, token("ada_refresh")).refused(Code::RefreshReused),
        post("ends the session for all", REFRESH, token("third")).refused(Code::SessionEnded),
        get("its access token too", "/v1/auth/me").by("ada").refused(Code::SessionEnded),
        post("an unknown token", REFRESH, json!({"refresh_token": "x".repeat(43)}))
            .refused(Code::SessionEnded),
        post("no token at all", REFRESH, json!({})).refused(Code::NotSignedIn),
        sign_in("ada").keep("ended", "/access_token"),
        post("sign out", "/v1/auth/logout", json!(null)).by("ended").body(Body::None).ok(204),
        sign_in("ada"),
    ]
}

/// As our page in a browser, which has the tokens in cookies.
fn browser() -> Vec<Step> {
    let ours =
        |step: Step| step.header("x-rackhand-client", "browser").header("origin", "http://${authority}");
    let cookie = |step: Step, name: &str| step.header("cookie", format!("theme=dark; ${{{name}}}"));
    let sign_in =
        || post("a browser signs in", LOGIN, login(ADMIN, PASSWORD)).header("x-rackhand-client", "browser");
    let renew = |name: &'static str| cookie(post(name, REFRESH, json!({})), "refresh_cookie");
    let sign_out = |name: &'static str| cookie(any("POST", name, "/v1/auth/logout"), "access_cookie");
    vec![
        sign_in().refused(Code::OriginRefused),
        sign_in().header("origin", "https://elsewhere.example").refused(Code::OriginRefused),
        sign_in().header("origin", "null").refused(Code::OriginRefused),
        sign_in()
            .header("origin", "http://${authority}")
            .keep_cookie("access_cookie", "__Host-rackhand_access")
            .keep_cookie("refresh_cookie", "__Host-rackhand_refresh"),
        cookie(get("a page reads by its cookie", "/v1/auth/me"), "access_cookie"),
        renew("a cookie alone renews nothing").refused(Code::OriginRefused),
        ours(renew("a page renews")).keep_cookie("access_cookie", "__Host-rackhand_access"),
        sign_out("a cookie alone signs nobody out").refused(Code::OriginRefused),
        ours(sign_out("a page signs out")).ok(204),
        cookie(get("the cookie is worth nothing now", "/v1/auth/me"), "access_cookie")
            .refused(Code::SessionEnded),
    ]
}

fn users_and_sites() -> Vec<Step> {
    let user = |name: &str, email: &str| json!({"name": name, "email": email, "password": PASSWORD});
    let site =
        |name: &str| json!({"name": name, "config": {"lease_ttl_ms": 600_000, "max_mutating_runs": 16}});
    let config = json!({"config": {"lease_ttl_ms": 600_000, "max_mutating_runs": 16, "second_person": true}});
    let change = |name: &'static str| put(name, "/v1/sites/${alpha}", config.clone()).by("ada");
    vec![
        post("Olga", "/v1/users", user("Olga Operator", "olga@example.test"))
            .by("ada")
            .ok(201)
            .keep("olga_id", "/id"),
        post("Vic", "/v1/users", user("Víc Vïewer ☂", "Vic@example.test"))
            .by("ada")
            .ok(201)
            .keep("vic_id", "/id"),
        post("Otto", "/v1/users", user("Otto", "otto@example.test")).by("ada").ok(201).keep("otto_id", "/id"),
        post("Olga again", "/v1/users", user("Olga", "OLGA@example.test")).by("ada").refused(Code::NameTaken),
        post("no e-mail", "/v1/users", user("X", "not an address")).by("ada").refused(Code::InvalidRequest),
        get("users", "/v1/users?limit=2").by("ada").keep("users_next", "/next"),
        get("more users", "/v1/users?limit=2&cursor=${users_next}").by("ada"),
        post("site alpha", "/v1/sites", site("alpha")).by("ada").ok(201).keep("alpha", "/id"),
        post("site beta", "/v1/sites", site("beta")).by("ada").ok(201).keep("beta", "/id"),
        post("alpha again", "/v1/sites", site("alpha")).by("ada").refused(Code::NameTaken),
        post("a mistyped site", "/v1/sites", site("alhpa")).by("ada").ok(201).keep("alhpa", "/id"),
        delete("it goes", "/v1/sites/${alhpa}").by("ada"),
        get("it is gone", "/v1/sites/${alhpa}").by("ada").refused(Code::NotFound),
        delete("once", "/v1/sites/${alhpa}").by("ada").refused(Code::NotFound),
        post("an impossible lease", "/v1/sites", json!({"name": "x", "config": {"lease_ttl_ms": 1}}))
            .by("ada")
            .refused(Code::InvalidRequest),
        get("sites", "/v1/sites?limit=1").by("ada").keep("sites_next", "/next"),
        get("more sites", "/v1/sites?limit=1&cursor=${sites_next}").by("ada"),
        get("one site", "/v1/sites/${alpha}").by("ada").keep("version", "/version"),
        change("a change of what was read").header("if-match", "\"${version}\""),
        change("a change of what was read before")
            .header("if-match", "\"${version}\"")
            .refused(Code::VersionConflict),
        change("a change of no version").header("if-match", "W/x").refused(Code::InvalidRequest),
        change("a change of any version").header("if-match", "*"),
    ]
}

fn roles() -> Vec<Step> {
    let grant = |name: &'static str, user: &str, role: &str, site: Value| {
        post(name, format!("/v1/users/${{{user}}}/grants"), json!({"role": role, "site_id": site}))
            .by("ada")
            .ok(201)
    };
    vec![
        grant("Olga operates alpha", "olga_id", "operator", json!("${alpha}")),
        grant("and still does", "olga_id", "operator", json!("${alpha}")),
        grant("Vic watches alpha", "vic_id", "viewer", json!("${alpha}")),
        grant("Otto operates beta", "otto_id", "operator", json!("${beta}")),
        grant("and all of it", "otto_id", "viewer", json!(null)).keep("too_much", "/id"),
        delete("which was too much", "/v1/users/${otto_id}/grants/${too_much}").by("ada"),
        delete("the last admin stays", "/v1/users/${ada_id}/grants/${ada_grant}")
            .by("ada")
            .refused(Code::InvalidRequest),
        grant("a role in no site", "otto_id", "viewer", json!(UNKNOWN)).refused(Code::NotFound),
        grant("a role there is not", "otto_id", "emperor", json!(null)).refused(Code::InvalidRequest),
        sign_in("olga"),
        sign_in("vic"),
        sign_in("otto"),
        get("what Vic sees of sites", "/v1/sites").by("vic"),
        get("what Otto sees of alpha", "/v1/sites/${alpha}").by("otto").refused(Code::NotFound),
        put("Olga is no admin", "/v1/sites/${alpha}", json!({"config": {}}))
            .by("olga")
            .refused(Code::ForbiddenRole),
        get("Olga may not see users", "/v1/users").by("olga").refused(Code::ForbiddenRole),
    ]
}

/// One without a password is given a link, chooses one, changes it and leaves.
fn passwords() -> Vec<Step> {
    let choose = |name: &'static str| {
        post(name, "/v1/auth/password-choice", json!({"token": "${link}", "password": PASSWORD}))
    };
    let change = |name: &'static str, present: &str| {
        post(name, "/v1/auth/password", json!({"present": present, "new": "another one of Nan's"})).by("nan")
    };
    vec![
        post("Nan", "/v1/users", json!({"name": "Nan", "email": "nan@example.test"}))
            .by("ada")
            .ok(201)
            .keep("nan_id", "/id"),
        any("POST", "a link for Nan", "/v1/users/${nan_id}/password-link")
            .by("ada")
            .ok(201)
            .keep("link", "/token"),
        choose("she chooses a password").ok(204),
        choose("once").refused(Code::ResetRefused),
        sign_in("nan"),
        change("not by guessing", "a guess").refused(Code::PasswordWrong),
        change("she changes it", PASSWORD).ok(204),
        delete("and ends her other sessions", "/v1/users/${nan_id}/sessions").by("nan"),
        any("PATCH", "she leaves", "/v1/users/${nan_id}").by("ada").json(json!({"disabled": true})),
        get("and is out", "/v1/auth/me").by("nan").refused(Code::SessionEnded),
    ]
}

fn sessions() -> Vec<Step> {
    let again =
        post("Olga elsewhere", LOGIN, login("olga@example.test", PASSWORD)).header("user-agent", "parity/2");
    vec![
        again,
        get("her sessions", "/v1/sessions")
            .by("olga")
            .keep("elsewhere", "/items/0/id")
            .keep("here", "/items/1/id"),
        get("as an admin sees them", "/v1/sessions?user=${olga_id}").by("ada"),
        get("as nobody else does", "/v1/sessions?user=${olga_id}").by("vic").refused(Code::ForbiddenRole),
        delete("Vic cannot end hers", "/v1/sessions/${elsewhere}").by("vic").refused(Code::NotFound),
        delete("she can", "/v1/sessions/${elsewhere}").by("olga"),
        get("one is left", "/v1/sessions").by("olga"),
    ]
}
