//! Authorization by enumeration: every operation of the OpenAPI document × anonymous, the other kind of
//! token, too small a role, another site, and one who may. What is not covered is a reviewed golden list.

use rackhand_tests::{TestServer, TestSite, site::granted, site::person};
use serde_json::{Value, json};

/// What stands in for the parameters of the document.
struct Sample {
    path: String,
    body: Option<Value>,
    /// The operation is about one object or site of the sample's site (else: a list, or the fleet).
    bound: bool,
}

struct Ids {
    site: String,
    server: String,
    job: String,
    run: String,
    executor: String,
    credential: String,
    user: String,
    grant: String,
}

fn sample(method: &str, path: &str, ids: &Ids) -> Option<Sample> {
    let reason = json!({"reason": "a test"});
    let (path, body, bound) = match (method, path) {
        (
            "get",
            "/v1/auth/me" | "/v1/sessions" | "/v1/users" | "/v1/sites" | "/v1/executors" | "/v1/credentials"
            | "/v1/servers" | "/v1/jobs",
        ) => (path.to_owned(), None, false),
        ("get", "/v1/audit/{tree}/checkpoints") => ("/v1/audit/audit/checkpoints".to_owned(), None, false),
        ("get", "/v1/audit/{tree}/records") => ("/v1/audit/audit/records?limit=1".to_owned(), None, false),
        ("get", "/v1/events") => ("/v1/events?limit=500".to_owned(), None, false),
        ("delete", "/v1/sessions/{id}") => (format!("/v1/sessions/{}", ids.run), None, false),
        ("post", "/v1/users") => {
            let body =
                json!({"email": "new@example.test", "name": "New", "password": "long enough for this"});
            (path.to_owned(), Some(body), false)
        }
        ("post", "/v1/users/{id}/grants") => {
            let body = json!({"role": "viewer", "site_id": ids.site});
            (format!("/v1/users/{}/grants", ids.user), Some(body), true)
        }
        ("patch", "/v1/users/{id}") => {
            (format!("/v1/users/{}", ids.user), Some(json!({"name": "Bea B. Bystander"})), false)
        }
        ("delete", "/v1/users/{id}/sessions") => (format!("/v1/users/{}/sessions", ids.user), None, false),
        ("post", "/v1/users/{id}/password-link") => {
            (format!("/v1/users/{}/password-link", ids.user), None, false)
        }
        ("post", "/v1/auth/password") => {
            let body = json!({"present": "a wrong one", "new": "long enough for this"});
            (path.to_owned(), Some(body), false)
        }
        ("delete", "/v1/users/{id}/grants/{grant_id}") => {
            (format!("/v1/users/{}/grants/{}", ids.user, ids.grant), None, true)
        }
        ("post", "/v1/sites") => (path.to_owned(), Some(json!({"name": "third"})), false),
        ("get", "/v1/sites/{id}") => (format!("/v1/sites/{}", ids.site), None, true),
        // Nobody may remove this one: it is in use.
        ("delete", "/v1/sites/{id}") => (format!("/v1/sites/{}", ids.site), None, true),
        ("put", "/v1/sites/{id}") => {
            let config = json!({"lease_ttl_ms": 60_000, "max_mutating_runs": 3, "hardware_paused": false,
                "second_person": false});
            (format!("/v1/sites/{}", ids.site), Some(json!({"config": config})), true)
        }
        ("post", "/v1/sites/{id}/enrolment-tokens") => {
            (format!("/v1/sites/{}/enrolment-tokens", ids.site), Some(json!({})), true)
        }
        ("delete", "/v1/executors/{id}") => (format!("/v1/executors/{}", ids.executor), None, true),
        ("post", "/v1/credentials") => {
            let body =
                json!({"site_id": ids.site, "name": "second", "version": 1, "sealed": "c2VhbGVk".repeat(12)});
            (path.to_owned(), Some(body), true)
        }
        ("post", "/v1/servers/bulk") => {
            let body = json!({"site_id": ids.site, "servers": [{"name": "n", "bmc_url": "https://10.1.1.1",
                "credential_id": ids.credential, "spki_sha256": null}]});
            (path.to_owned(), Some(body), true)
        }
        ("post", "/v1/servers/{id}/credential/try-again") => {
            (format!("/v1/servers/{}/credential/try-again", ids.server), None, true)
        }
        ("get" | "delete", "/v1/servers/{id}") => (format!("/v1/servers/{}", ids.server), None, true),
        ("post", "/v1/jobs") => {
            let body = json!({"site_id": ids.site, "kind": "inventory", "params": {}, "targets": [ids.server],
                "reason": "a test"});
            (path.to_owned(), Some(body), true)
        }
        ("get", "/v1/jobs/{id}") => (format!("/v1/jobs/{}", ids.job), None, true),
        ("get", "/v1/jobs/{id}/runs") => (format!("/v1/jobs/{}/runs", ids.job), None, true),
        ("post", "/v1/jobs/{id}/approve") => {
            (format!("/v1/jobs/{}/approve", ids.job), Some(json!({"digest": "0".repeat(64)})), true)
        }
        (
            "post",
            "/v1/jobs/{id}/cancel"
            | "/v1/jobs/{id}/pause"
            | "/v1/jobs/{id}/resume"
            | "/v1/jobs/{id}/retry-failed",
        ) => (path.replace("{id}", &ids.job), Some(reason), true),
        ("get", "/v1/runs/{id}") => (format!("/v1/runs/{}", ids.run), None, true),
        ("post", "/v1/runs/{id}/close") => (format!("/v1/runs/{}/close", ids.run), Some(reason), true),
        ("post", "/v1/executor/lease") => {
            let body =
                json!({"held": [], "capacity": 1, "kinds": ["inventory"], "wait_ms": 0, "version": "t"});
            (path.to_owned(), Some(body), false)
        }
        ("post", "/v1/executor/report") => (path.to_owned(), Some(json!({"items": []})), false),
        ("post", "/v1/executor/credential-attempt") => {
            let body =
                json!({"bmc_id": ids.run, "credential_id": ids.credential, "version": 1, "step": "reserve"});
            (path.to_owned(), Some(body), true)
        }
        ("post", "/v1/executor/site-key") => {
            let body = json!({"public_key": "A".repeat(44), "shares": []});
            (path.to_owned(), Some(body), false)
        }
        _ => return None,
    };
    Some(Sample { path, body, bound })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_who_may_not() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let executor = site.executor("one").await;
    let servers = site.servers(2).await;
    let job = site.job("inventory", &servers, 10).await;
    let runs = granted(&site.lease(&executor, &[], 1).await);
    let bystander = person(&site.database, "Bea Bystander", "viewer", Some(&site.id)).await;
    let other = site
        .admin(
            "site_create",
            json!({"name": "other", "config": {"lease_ttl_ms": 60_000,
        "max_mutating_runs": 1, "hardware_paused": false, "second_person": false}}),
        )
        .await;
    let grant = site
        .database
        .value(&format!(
            "select id from rackhand.user_grant where user_id = '{}'",
            bystander["user"].as_str().unwrap()
        ))
        .await;
    let ids = Ids {
        site: site.id.clone(),
        server: servers[1].clone(),
        job,
        run: runs[0].0.clone(),
        executor: executor.id.clone(),
        credential: site.credential.clone(),
        user: bystander["user"].as_str().unwrap().to_owned(),
        grant: grant.as_str().unwrap().to_owned(),
    };
    let viewer = server.token(&person(&site.database, "Vera Viewer", "viewer", Some(&site.id)).await);
    let site_admin = server.token(&person(&site.database, "Sid Siteadmin", "admin", Some(&site.id)).await);
    let stranger = server.token(&person(&site.database, "Sam Stranger", "admin", other["id"].as_str()).await);
    let fleet_admin = server.token(&site.admin);
    let machine = server.executor_token(&site, &executor);

    let document = rackhand_functions::document().unwrap();
    let mut uncovered = vec![];
    let mut covered = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(_, value)| value["responses"].is_object())
        {
            let role = operation["x-rackhand-role"].as_str().expect("every operation names its role");
            let name = format!("{} {path} ({role})", method.to_uppercase());
            let Some(Sample { path, body, bound }) = sample(method, path, &ids) else {
                uncovered.push(name);
                continue;
            };
            covered += 1;
            let call = async |token: Option<&str>| {
                server.call(&method.to_uppercase(), &path, token, body.as_ref()).await
            };
            assert_ne!(role, "anonymous", "{name} is open to all: it must stand on the golden list");

            let anonymous = call(None).await;
            assert_eq!(
                (anonymous.status.as_u16(), anonymous.code()),
                (401, "not-signed-in"),
                "{name}, anonymous"
            );
            let forged = call(Some("eyJhbGciOiJub25lIn0.e30.")).await;
            assert_eq!(forged.status, 401, "{name}, forged token");
            let wrong_kind = call(Some(if role == "executor" { &fleet_admin } else { &machine })).await;
            assert_eq!(wrong_kind.status, 401, "{name}, the other kind of token: {wrong_kind:?}");
            if matches!(role, "operator" | "admin") {
                let small = call(Some(&viewer)).await;
                assert_eq!((small.status.as_u16(), small.code()), (403, "forbidden-role"), "{name}, viewer");
                assert_eq!(small.body["needs_role"], role, "{name}: the denial names the role");
            }
            if role == "fleet admin" {
                for (token, who) in [(&viewer, "Vera Viewer"), (&site_admin, "Sid Siteadmin")] {
                    let small = call(Some(token)).await;
                    assert_eq!(
                        (small.status.as_u16(), small.code()),
                        (403, "forbidden-role"),
                        "{name}, {who}"
                    );
                    let detail = format!(
                        "This needs the role admin for the whole fleet; {who} has no role there. Ask an admin of the \
                         whole fleet."
                    );
                    assert_eq!(small.body["detail"], detail, "{name}");
                }
            }
            if role != "executor" {
                let foreign = call(Some(&stranger)).await;
                if bound {
                    assert!(
                        matches!(
                            (foreign.status.as_u16(), foreign.code()),
                            (404, "not-found") | (403, "forbidden-role")
                        ),
                        "{name}, admin of another site: {foreign:?}"
                    );
                    if method == "get"
                        || path.contains("/servers/")
                        || path.contains("/jobs/")
                        || path.contains("/runs/")
                    {
                        assert_eq!(foreign.status, 404, "{name}: what you may not see is not there");
                    }
                } else {
                    for id in [&ids.site, &ids.server, &ids.job, &ids.run, &ids.executor, &ids.credential] {
                        assert!(
                            !foreign.body.to_string().contains(id.as_str()),
                            "{name} shows another site: {foreign:?}"
                        );
                    }
                }
            }
            // One who may gets past the gate; these two would end the test's own objects.
            if !(method == "delete" && (path.contains("/executors/") || path.contains("/sessions/"))) {
                let token = match role {
                    "executor" => &machine,
                    "admin" if !bound => &fleet_admin,
                    "admin" => &site_admin,
                    _ => &fleet_admin,
                };
                let allowed = call(Some(token)).await;
                let gate = (path == "/v1/executor/credential-attempt" && allowed.status == 404)
                    || allowed.code() == "password-wrong";
                assert!(
                    !matches!(allowed.status.as_u16(), 401 | 403 | 404 | 500..) || gate,
                    "{name}, allowed: {allowed:?}"
                );
            }
        }
    }
    assert!(covered >= 30, "only {covered} operations were tried");
    uncovered.sort();
    insta::assert_snapshot!(uncovered.join("\n"));
}

/// What only an admin of the whole fleet may do is refused before the function that does it is called.
#[tokio::test]
async fn a_fleet_admin_is_required_whatever_the_function_does() {
    let site = TestSite::new().await;
    for (role, at) in [("viewer", None), ("admin", Some(site.id.as_str()))] {
        let mut scope = person(&site.database, &format!("Some {role}"), role, at).await;
        site.database.run(&scope, "me", json!({})).await.unwrap();
        scope["fleet"] = json!(true);
        let refused = site.database.run(&scope, "me", json!({})).await.unwrap_err();
        assert!(
            refused.detail.starts_with("This needs the role admin for the whole fleet"),
            "{}",
            refused.detail
        );
    }
    let mut admin = site.admin.clone();
    admin["fleet"] = json!(true);
    site.database.run(&admin, "me", json!({})).await.unwrap();
}
