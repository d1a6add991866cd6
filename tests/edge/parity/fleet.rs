//! Recorded: executors join and sign in, credentials, servers.

use base64::Engine as _;
use ed25519_dalek::SigningKey;
use rackhand_schema::ErrorCode as Code;
use serde_json::{Value, json};

use super::{
    UNKNOWN,
    step::{Step, delete, get, post, sign},
};

/// Keys of the three executors.
const ONE: u8 = 1;
const TWO: u8 = 2;
const REX: u8 = 3;

const ONE_SESSION: &str = "01920000-0000-7000-8000-0000000000a1";
const TWO_SESSION: &str = "01920000-0000-7000-8000-0000000000b1";
const TWO_LATER: &str = "01920000-0000-7000-8000-0000000000b2";
const REX_SESSION: &str = "01920000-0000-7000-8000-0000000000c1";

pub fn steps() -> Vec<Step> {
    [enrolment(), signing_in(), site_key(), revocation(), credentials(), servers()].concat()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn enrol(name: &str, seed: u8) -> Value {
    let signing = SigningKey::from_bytes(&[seed; 32]).verifying_key();
    json!({"token": "${enrolment}", "name": name, "signing_key": base64(signing.as_bytes()),
        "sealing_key": base64(&[seed; 32])})
}

fn enrolment() -> Vec<Step> {
    let token = || {
        post("a token to join alpha", "/v1/sites/${alpha}/enrolment-tokens", json!({}))
            .by("ada")
            .ok(201)
            .keep("enrolment", "/token")
    };
    let join = |name: &'static str, as_name: &str, seed| {
        post(name, "/v1/executor/enrol", enrol(as_name, seed)).ok(201)
    };
    let mut weak = enrol("weak", ONE);
    weak["signing_key"] = json!(base64(&[0; 32]));
    let mut unknown = enrol("one", ONE);
    unknown["token"] = json!("a token nobody made");
    vec![
        token(),
        post("a token for no site", format!("/v1/sites/{UNKNOWN}/enrolment-tokens"), json!({}))
            .by("ada")
            .refused(Code::NotFound),
        post("an invented token", "/v1/executor/enrol", unknown).refused(Code::EnrolmentRefused),
        post("a weak key", "/v1/executor/enrol", weak).refused(Code::InvalidRequest),
        join("one joins", "one", ONE).keep("one_id", "/executor_id"),
        join("its token is used up", "more", TWO).refused(Code::EnrolmentRefused),
        token(),
        join("a name that is taken", "one", TWO).refused(Code::NameTaken),
        join("two joins", "two", TWO).keep("two_id", "/executor_id"),
        token(),
        join("rex joins", "rex", REX).keep("rex_id", "/executor_id"),
    ]
}

fn nonce(who: &str) -> Step {
    post(format!("a nonce for {who}"), "/v1/executor/nonce", json!({"executor_id": format!("${{{who}_id}}")}))
        .keep("nonce", "/nonce")
}

fn token(who: &str, session: &str) -> Step {
    let body = json!({"executor_id": format!("${{{who}_id}}"), "nonce": "${nonce}", "session_id": session,
        "signature": "${signature}"});
    post(format!("{who} signs in"), "/v1/executor/token", body)
}

fn signing_in() -> Vec<Step> {
    let mut forged = json!({"executor_id": "${one_id}", "nonce": "${nonce}", "session_id": ONE_SESSION});
    forged["signature"] = json!(base64(&[7; 64]));
    let mut stranger = forged.clone();
    stranger["executor_id"] = json!(UNKNOWN);
    vec![
        nonce("one"),
        post("a signature by nobody", "/v1/executor/token", forged).refused(Code::SignatureInvalid),
        nonce("one"),
        sign("one_id", ONE, ONE_SESSION),
        token("one", ONE_SESSION).keep("one", "/token"),
        token("one", ONE_SESSION).refused(Code::NonceInvalid),
        nonce("two"),
        sign("two_id", TWO, TWO_SESSION),
        token("two", TWO_SESSION).keep("superseded", "/token"),
        nonce("two"),
        sign("two_id", TWO, TWO_LATER),
        token("two", TWO_LATER).keep("two", "/token"),
        nonce("two"),
        sign("two_id", TWO, TWO_SESSION),
        token("two", TWO_SESSION).refused(Code::SessionSuperseded),
        post("a nonce for nobody", "/v1/executor/nonce", json!({"executor_id": UNKNOWN}))
            .keep("nonce", "/nonce"),
        post("which is of no use", "/v1/executor/token", stranger).refused(Code::ExecutorRevoked),
    ]
}

fn poll(name: &'static str, who: &str) -> Step {
    let body = json!({"held": [], "capacity": 0, "kinds": [], "wait_ms": 0, "version": "parity"});
    post(name, "/v1/executor/lease", body).by(who)
}

fn site_key() -> Vec<Step> {
    let key = |name: &'static str, public: u8, shares: Value| {
        post(name, "/v1/executor/site-key", json!({"public_key": base64(&[public; 32]), "shares": shares}))
            .ok(204)
    };
    let share = |who: &str| json!([{"executor_id": format!("${{{who}_id}}"), "sealed": base64(&[9; 80])}]);
    vec![
        key("one makes the site's key", 5, share("one")).by("one"),
        key("another key", 6, json!([])).by("one").refused(Code::SiteKeyConflict),
        key("two does not hold it yet", 5, json!([])).by("two").refused(Code::SiteKeyConflict),
        poll("one sees who waits for it", "one"),
        key("one shares it with two", 5, share("two")).by("one"),
        poll("two has it now", "two"),
    ]
}

fn revocation() -> Vec<Step> {
    vec![
        nonce("rex"),
        sign("rex_id", REX, REX_SESSION),
        token("rex", REX_SESSION).keep("revoked", "/token"),
        nonce("rex"),
        sign("rex_id", REX, REX_SESSION),
        delete("rex is revoked", "/v1/executors/${rex_id}").by("ada"),
        token("rex", REX_SESSION).refused(Code::ExecutorRevoked),
        get("executors", "/v1/executors?limit=2").by("vic").keep("executors_next", "/next"),
        get("more executors", "/v1/executors?limit=2&cursor=${executors_next}").by("vic"),
        get("executors of beta", "/v1/executors?site=${beta}").by("ada"),
        get("Otto sees none", "/v1/executors").by("otto"),
    ]
}

fn credentials() -> Vec<Step> {
    let put = |name: &'static str, site: &str, version: u32| {
        let body = json!({"site_id": site, "name": "bmc", "version": version, "sealed": base64(&[1; 100])});
        post(name, "/v1/credentials", body).by("olga").ok(201)
    };
    let for_one = |url: &str, bytes: usize| {
        json!({"site_id": "${alpha}", "name": "for one BMC", "version": 1, "sealed": base64(&vec![1; bytes]),
            "sealed_for": [{"url": url, "spki_sha256": "ab".repeat(32)}, {"url": "ipmi://10.0.0.99"}]})
    };
    let unsealed = json!({"site_id": "${alpha}", "name": "bmc", "version": 1,
        "sealed": r#"{"username":"root","password":"a password that must not get as far as the database"}"#});
    vec![
        put("a credential", "${alpha}", 1).keep("credential", "/id"),
        put("the same once more, as after a lost answer", "${alpha}", 1),
        put("a version too far", "${alpha}", 3).refused(Code::CredentialVersion),
        put("its next version", "${alpha}", 2),
        put("for no site", UNKNOWN, 1).refused(Code::NotFound),
        put("for a site she cannot see", "${beta}", 1).refused(Code::NotFound),
        post("one that is not sealed", "/v1/credentials", unsealed).by("olga").refused(Code::InvalidRequest),
        post("one that names its BMC", "/v1/credentials", for_one("https://10.0.0.99", 200))
            .by("olga")
            .ok(201)
            .keep("for_one", "/id"),
        post("one that names none", "/v1/credentials", for_one("http://10.0.0.99", 200))
            .by("olga")
            .refused(Code::InvalidRequest),
        post("one that names more than is sealed", "/v1/credentials", for_one("https://10.0.0.99", 100))
            .by("olga")
            .refused(Code::InvalidRequest),
        get("credentials", "/v1/credentials?site=${alpha}").by("vic"),
    ]
}

/// A server as it is registered; `last` is the end of its address.
pub fn server(name: &str, last: u32) -> Value {
    json!({"name": name, "bmc_url": format!("https://10.0.0.{last}"), "credential_id": "${credential}",
        "spki_sha256": "ab".repeat(32), "tags": ["rack-7", "prod"]})
}

pub fn register(name: &'static str, servers: Value) -> Step {
    post(name, "/v1/servers/bulk", json!({"site_id": "${alpha}", "servers": servers})).by("olga")
}

fn servers() -> Vec<Step> {
    let mut foreign = server("node-8", 8);
    foreign["credential_id"] = json!(UNKNOWN);
    let mut changed = server("node-2", 2);
    changed["tags"] = json!(["rack-8", "ünïcode ☃"]);
    let mut both = server("node-6", 6);
    both["ipmi"] = json!("10.0.0.6");
    let alone = json!({"name": "node-7", "bmc_url": "ipmi://10.0.0.7:6230"});
    let twice = json!({"name": "node-9", "bmc_url": "ipmi://10.0.0.6"});
    let bare = json!({"name": "node-3", "bmc_url": "https://10.0.0.3"});
    let first = json!([server("node-1", 1), server("node-2", 2), bare, server("node-4", 4),
        {"name": "node-5", "bmc_url": "http://10.0.0.5"}, foreign, server("node-9", 1),
        server("nul\0", 10), "no server at all", server("node-1", 1)]);
    vec![
        register("servers, good and bad", first)
            .keep("node1", "/ids/node-1")
            .keep("node2", "/ids/node-2")
            .keep("node3", "/ids/node-3")
            .keep("node4", "/ids/node-4"),
        register("one changed, one not", json!([server("node-1", 1), changed.clone()])),
        register("one with another address, one not", json!([server("node-1", 21), server("node-2", 2)])),
        post(
            "another address, as requested",
            "/v1/servers/bulk",
            json!({"site_id": "${alpha}", "servers": [server("node-1", 21)], "replace": true}),
        )
        .by("olga"),
        post(
            "and back",
            "/v1/servers/bulk",
            json!({"site_id": "${alpha}", "servers": [server("node-1", 1), changed], "replace": true}),
        )
        .by("olga"),
        post("for no site", "/v1/servers/bulk", json!({"site_id": UNKNOWN, "servers": [server("x", 1)]}))
            .by("olga")
            .refused(Code::NotFound),
        register("over IPMI, too, alone and twice", json!([both, alone, twice]))
            .keep("node6", "/ids/node-6")
            .keep("node7", "/ids/node-7"),
        register("none", json!([])).refused(Code::InvalidRequest),
        get("servers", "/v1/servers?limit=3&site=${alpha}").by("vic").keep("servers_next", "/next"),
        get("more servers", "/v1/servers?limit=3&site=${alpha}&cursor=${servers_next}").by("vic"),
        get("by name", "/v1/servers?q=NODE-2").by("vic"),
        get("by tag", "/v1/servers?tag=%C3%BCn%C3%AFcode%20%E2%98%83").by("vic"),
        get("by a NUL", "/v1/servers?q=%00&tag=%00&model=%00&generation=%00").by("vic"),
        get("by state", "/v1/servers?power=unknown&health=unknown&limit=1").by("vic"),
        get("by model and generation", "/v1/servers?model=R750&generation=idrac9").by("vic"),
        get("Otto's", "/v1/servers").by("otto"),
        get("one server", "/v1/servers/${node1}").by("vic"),
        get("one that Otto cannot see", "/v1/servers/${node1}").by("otto").refused(Code::NotFound),
        delete("its site stays", "/v1/sites/${alpha}").by("ada").refused(Code::SiteInUse),
        delete("one goes", "/v1/servers/${node4}").by("olga"),
        get("is gone", "/v1/servers/${node4}").by("vic").refused(Code::NotFound),
        get("one with two addresses", "/v1/servers/${node6}").by("vic"),
        delete("it goes", "/v1/servers/${node6}").by("olga"),
        delete("the one without Redfish, too", "/v1/servers/${node7}").by("olga"),
    ]
}
