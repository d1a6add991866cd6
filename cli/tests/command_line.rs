//! The command as a process: help, exit codes and error texts, against a small canned server.
//!
//! `INSTA_UPDATE=always cargo test -p rackhand` writes the golden files anew.

#![expect(clippy::unwrap_used, reason = "a test: a failed precondition may panic")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
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
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
}

fn problem(code: &str, status: u16, detail: &str) -> Value {
    let title = rackhand_schema::ErrorCode::parse(code).unwrap().title();
    json!({"type": format!("/errors/{code}"), "title": title, "status": status, "code": code, "detail": detail})
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
fn wrong_usage_ends_2() {
    let home = Home::new();
    for arguments in [
        &["servers", "explode"][..],
        &["login", "http://rackhand.example", "--email", "a@b.c", "--password-stdin"],
        &["login", "https://rackhand.example", "--email", "a@b.c"],
        &["bmc", "inspect", "http://10.0.0.1", "--user", "root", "--password-stdin"],
        &["bmc", "inspect", "https://127.0.0.1", "--user", "root", "--password-stdin", "--pin", "xyz"],
        &["servers", "list", "--json", "-o", "csv"],
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
    let output = Home::new().run(&["version", "--api", "http://127.0.0.1:1"], "");
    insta::assert_snapshot!(story(&output, None), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot reach http://127.0.0.1:1: Connection refused (os error 111)
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
    error: E-mail or password is wrong [invalid-credentials]: E-mail or password is wrong.
    ");
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
    let mut refusal = problem("forbidden-role", 403, "Approving needs operator.");
    refusal["needs_role"] = json!("operator");
    let job = "01920000-0000-7000-8000-000000000009";
    let approve = format!("POST /v1/jobs/{job}/approve");
    let server = Canned::start(&[
        ("POST /v1/auth/login", 200, signed_in(1)),
        (&approve, 403, refusal),
        (&approve, 409, problem("plan-stale", 409, "bmc-03 has BIOS 1.9.0 now.")),
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
                   "refused": [{"index": 1, "detail": "bmc_url: a BMC address starts with https://"}]}),
        ),
    ]);
    let home = Home::new();
    home.login(&server);
    let file = home.0.path().join("servers.json");
    std::fs::write(
        &file,
        json!([{"name": "bmc-01", "bmc_url": "https://10.0.0.1"}, {"name": "x"}]).to_string(),
    )
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
    let wrong = home.run(&[&set[..], &["--site-key", "AAAA"]].concat(), "planted-password\n");
    assert_eq!(wrong.status.code(), Some(6), "{}", String::from_utf8_lossy(&wrong.stderr));
    assert!(!server.seen().iter().any(|line| line.starts_with("POST /v1/credentials")));
    let right = home.run(&[&set[..], &["--site-key", key]].concat(), "planted-password\n");
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));
    assert!(!server.seen().iter().any(|line| line.contains("planted")), "the password left sealed only");
}

#[test]
fn completions_name_the_nouns() {
    let output = Home::new().run(&["completions", "bash"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("executors"));
}
