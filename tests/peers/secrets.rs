//! Planted secrets, through a whole rollout with failures in it, are found nowhere they must not be:
//! database, logs, events and API bodies, refusals, process arguments and environments, and the executors'
//! own files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, Permissions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_tests::{
    StackConfig, TestStack,
    cli::CommandLine,
    logs::Logs,
    stack::{BMC_PASSWORD, binary},
};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::{Value, json};

const EMAIL: &str = "cleo@example.test";
const ADMIN_PASSWORD: &str = "Planted+Admin/Pass word=%42";

/// Each secret in every form in which it could be written down.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn new(planted: &BTreeMap<String, String>) -> Self {
        let mut forms = vec![];
        for (name, secret) in planted {
            assert!(secret.len() >= 16, "{name} is too short to be looked for");
            let bytes = secret.as_bytes();
            let mut add =
                |form: &str, text: String| forms.push((format!("{name}, {form}"), text.into_bytes()));
            add("plain", secret.clone());
            add("lower case", secret.to_lowercase());
            add("JSON", json!(secret).to_string().trim_matches('"').to_owned());
            add("URL-encoded", percent(bytes, false));
            add("form-encoded", percent(bytes, true));
            add("hex", hex::encode(bytes));
            add("HEX", hex::encode_upper(bytes));
            // Within a longer text it starts at any of three places of base64's groups.
            for skip in 0..3 {
                let whole = &bytes[skip..bytes.len() - (bytes.len() - skip) % 3];
                add("base64", STANDARD_NO_PAD.encode(whole));
                add("base64url", URL_SAFE_NO_PAD.encode(whole));
            }
        }
        Self(forms)
    }

    /// Names of the forms that are in `text`.
    fn found_in(&self, text: &[u8]) -> BTreeSet<&str> {
        let inside = |needle: &[u8]| {
            let first = needle[0];
            let mut rest = text;
            while let Some(at) = rest.iter().position(|byte| *byte == first) {
                if rest[at..].starts_with(needle) {
                    return true;
                }
                rest = &rest[at + 1..];
            }
            false
        };
        self.0.iter().filter(|(_, needle)| inside(needle)).map(|(name, _)| name.as_str()).collect()
    }

    fn absent(&self, place: &str, text: &[u8]) {
        let found = self.found_in(text);
        assert!(found.is_empty(), "{place} holds {found:?}");
    }
}

fn percent(bytes: &[u8], form: bool) -> String {
    let each = bytes.iter().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        b' ' if form => "+".to_owned(),
        byte => format!("%{byte:02X}"),
    });
    each.collect()
}

/// Arguments and environments of this process' descendants, looked at again and again.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start() -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (ends, into) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                for pid in descendants(std::process::id()) {
                    for file in ["cmdline", "environ"] {
                        let Ok(text) = std::fs::read(format!("/proc/{pid}/{file}")) else { continue };
                        let mut seen = into.lock().unwrap();
                        let before: &mut Vec<u8> = seen.entry(format!("{pid} {file}")).or_default();
                        // A process changes both when it starts a program.
                        if !text.is_empty() && !before.ends_with(&text) {
                            before.extend_from_slice(&text);
                        }
                    }
                }
                std::thread::park_timeout(Duration::from_millis(4));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    fn end(mut self) -> BTreeMap<String, Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `root` and all below it.
fn descendants(root: u32) -> BTreeSet<u32> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before it may hold spaces and brackets.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: u32| (pid, parent)));
    }
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return found;
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), into);
        } else {
            into.push(entry.path());
        }
    }
}

fn executor_files(stack: &TestStack) -> Vec<(String, Vec<u8>)> {
    let mut paths = vec![];
    for executor in &stack.executors {
        files(&executor.data, &mut paths);
        paths.push(executor.log.clone());
    }
    let read =
        paths.into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
    read.collect()
}

fn database_dump(stack: &TestStack) -> Vec<u8> {
    let url = stack.site.database.owner_url();
    let output = Command::new("pg_dump").args(["--dbname", &url]).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Status, headers and body of every operation that reads, and of refusals to bodies that hold secrets.
async fn api_answers(stack: &TestStack, planted: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut answers = vec![];
    let mut paths: Vec<String> = [
        "/v1/auth/me",
        "/v1/sessions",
        "/v1/users",
        "/v1/sites",
        "/v1/executors",
        "/v1/credentials",
        "/v1/servers?limit=500",
        "/v1/jobs?limit=500",
        "/v1/events?limit=1000",
        "/v1/health",
        "/v1/version",
        "/openapi.json",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("/v1/sites/{}", stack.site.id));
    paths.extend(stack.ids.values().map(|id| format!("/v1/servers/{id}")));
    for job in stack.get("/v1/jobs?limit=500").await["items"].as_array().unwrap() {
        let id = job["id"].as_str().unwrap();
        paths.extend([format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/runs?limit=500")]);
        for run in stack.get(&format!("/v1/jobs/{id}/runs?limit=500")).await["items"].as_array().unwrap() {
            paths.push(format!("/v1/runs/{}", run["id"].as_str().unwrap()));
        }
    }
    for path in paths {
        let url = stack.server.running.url.clone() + &path;
        let response = stack.server.client.get(url).bearer_auth(&stack.token).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        answers.push((path, whole(response).await));
    }
    for (name, secret) in planted {
        let bodies = [
            ("/v1/auth/login", json!({"email": EMAIL, "password": [secret]})),
            ("/v1/auth/login", json!({"email": EMAIL, "password": {"is": secret}})),
            ("/v1/auth/login", json!({"email": secret, "password": secret})),
            ("/v1/auth/login", json!({"email": EMAIL, "password": secret, "extra": secret})),
            ("/v1/auth/login", json!(secret)),
            ("/v1/auth/refresh", json!({"refresh_token": [secret]})),
            ("/v1/auth/refresh", json!({"refresh_token": format!("{secret}x")})),
            (
                "/v1/executor/enrol",
                json!({"token": secret, "name": "n", "signing_key": secret, "sealing_key": 1}),
            ),
            ("/v1/executor/token", json!({"executor_id": secret, "signature": secret})),
            (
                "/v1/credentials",
                json!({"site_id": stack.site.id, "name": "n", "version": 1,
                "sealed": format!("{secret:-<64}")}),
            ),
            ("/v1/credentials", json!({"site_id": secret, "sealed": [secret]})),
            ("/v1/users", json!({"email": secret, "name": "n", "password": [secret]})),
            ("/v1/jobs", json!({"site_id": stack.site.id, "kind": secret})),
        ];
        for (path, body) in bodies {
            // Cut short it is no JSON either.
            let text = body.to_string();
            for text in [&text, &text[..text.len() - 1]] {
                let request = stack.server.client.post(stack.server.running.url.clone() + path);
                let request = request.bearer_auth(&stack.token).header("content-type", "application/json");
                let response = request.body(text.to_owned()).send().await.unwrap();
                let status = response.status();
                assert!(status.is_client_error(), "{path} {name}: {status}");
                answers.push((format!("the refusal of {path} with {name}"), whole(response).await));
            }
        }
    }
    answers
}

async fn whole(response: reqwest::Response) -> String {
    let headers = format!("{:?}", response.headers());
    headers + "\n" + &response.text().await.unwrap()
}

async fn signed_in(stack: &TestStack) -> Value {
    let body = json!({"email": EMAIL, "password": ADMIN_PASSWORD});
    let answer = stack.server.call("POST", "/v1/auth/login", None, Some(&body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_of_a_whole_rollout_are_found_nowhere() {
    let logs = Logs::capture();
    let watch = Watch::start();
    let servers = vec![
        ServerSpec::new("good", Model::R650),
        ServerSpec::new("bad", Model::R750),
        ServerSpec::new("old", Model::R730),
        ServerSpec::new("locked", Model::R750),
    ];
    let mut stack = TestStack::start(StackConfig::new(servers)).await;
    let line = CommandLine::signed_in(&stack.site, &stack.server, EMAIL, ADMIN_PASSWORD).await;
    let session = signed_in(&stack).await;
    let renewal = json!({"refresh_token": session["refresh_token"]});
    let renewed = stack.server.call("POST", "/v1/auth/refresh", None, Some(&renewal)).await;

    let mut planted = BTreeMap::from([
        ("the BMC password".to_owned(), BMC_PASSWORD.to_owned()),
        ("Basic credentials of the BMCs".to_owned(), format!("root:{BMC_PASSWORD}")),
        ("the admin's password".to_owned(), ADMIN_PASSWORD.to_owned()),
    ]);
    for (name, token) in [
        ("a spent refresh token", &session["refresh_token"]),
        ("a refresh token", &renewed.body["refresh_token"]),
        ("an access token", &session["access_token"]),
    ] {
        planted.insert(name.to_owned(), token.as_str().unwrap().to_owned());
    }
    for (index, token) in stack.enrolment_tokens.iter().enumerate() {
        planted.insert(format!("enrolment token {index}"), token.clone());
    }

    // A rollout in which a flash fails, a BMC cuts connections, one loses its session and an executor dies.
    stack.lab.fault("bad", Fault::FlashFailsPr21, Times::Once).unwrap();
    stack.lab.fault("old", Fault::CutAfterAccept, Times::Once).unwrap();
    stack.lab.fault("good", Fault::SessionDies, Times::Once).unwrap();
    stack.lab.fault("locked", Fault::SessionTableFull, Times::Count(3)).unwrap();
    let job = stack.approved(stack.firmware("159", &["good", "bad", "old", "locked"])).await;
    stack
        .until("a flash begins", Duration::from_secs(60), async || !stack.lab.counters().flashes.is_empty())
        .await;
    let during = executor_files(&stack);
    stack.executors[0].kill();
    stack.ended(&job, Duration::from_secs(150)).await;
    stack.executors[0].start();
    let runs = stack.runs(&job).await;
    assert_eq!(runs["bad"]["state"], "failed", "{}", stack.story(&job).await);

    // A wrong password: what the BMC refuses is still a secret.
    let wrong = "another-planted-Pa55word";
    planted.insert("the wrong BMC password".to_owned(), wrong.to_owned());
    let bmc = stack.lab.bmc("good").unwrap().clone();
    let foreign = rackhand_tests::stack::ForeignBmc {
        name: "good again".to_owned(),
        url: bmc.url.replace("127.0.0.1", "localhost"),
        spki_sha256: bmc.spki_sha256,
        ipmi: None,
    };
    stack.register_bmcs("wrong", "root", wrong, &[foreign]).await;
    let targets = [stack.ids["good again"].clone()];
    let refused = stack.create(json!({"kind": "inventory", "params": {}, "targets": targets})).await;
    let done = stack.ended(&refused, Duration::from_secs(60)).await;
    assert_eq!(done["state"], "failed", "{}", stack.story(&refused).await);

    // The command line, with secrets on its standard input.
    let good = stack.lab.bmc("good").unwrap();
    let inspect =
        ["bmc", "inspect", &good.url, "--user", "root", "--password-stdin", "--pin", &good.spki_sha256];
    let mut told = vec![line.run(&inspect, BMC_PASSWORD).await, line.run(&inspect, wrong).await];
    let login = ["login", stack.server.running.url.as_str(), "--email", EMAIL, "--password-stdin"];
    told.push(line.run(&login, wrong).await);
    for verb in
        [&["servers", "list"][..], &["jobs", "show", &job], &["doctor"], &["events", "list", "--json"]]
    {
        told.push(line.run(verb, "").await);
    }

    let secrets = Secrets::new(&planted);
    // The search itself works.
    assert!(!secrets.found_in(format!("x{BMC_PASSWORD}").as_bytes()).is_empty());
    let basic = STANDARD_NO_PAD.encode(format!("root:{BMC_PASSWORD}"));
    assert!(!secrets.found_in(basic.as_bytes()).is_empty());

    for (place, answer) in api_answers(&stack, &planted).await {
        secrets.absent(&place, answer.as_bytes());
    }
    for output in &told {
        secrets.absent("the command line's output", &output.stdout);
        secrets.absent("the command line's messages", &output.stderr);
    }
    let dump = database_dump(&stack);
    assert!(dump.len() > 100_000 && String::from_utf8_lossy(&dump).contains(EMAIL), "a whole dump");
    secrets.absent("the database dump", &dump);
    let text = "pg_read_file(current_setting('data_directory') || '/../../log')";
    let postgres = stack.site.database.value(&format!("select {text}")).await;
    secrets.absent("Postgres' log", postgres.to_string().as_bytes());
    let log = logs.bytes();
    assert!(log.len() > 1000, "the server logs: {}", log.len());
    secrets.absent("the log of server and lab", &log);
    for (path, content) in during.iter().chain(&executor_files(&stack)) {
        secrets.absent(path, content);
        // A session at a BMC is as good as its password: sealed, address and all.
        let text = String::from_utf8_lossy(content);
        assert!(!text.contains("SessionService/Sessions/"), "{path} holds a session in plain text");
        assert!(!text.contains("X-Auth-Token"), "{path}");
    }
    assert!(during.iter().any(|(path, content)| path.contains("journal") && content.len() > 10_000));
    let seen = watch.end();
    let programs: BTreeSet<_> = seen.values().flat_map(|text| text.split(|byte| *byte == 0)).collect();
    for program in ["rackhand-executor", "rackhand"] {
        let suffix = format!("/{program}");
        assert!(programs.iter().any(|path| path.ends_with(suffix.as_bytes())), "{program} was never seen");
    }
    for (process, text) in &seen {
        secrets.absent(&format!("/proc/{process}"), text);
    }
}

/// Whoever forgets to seal is told so, and the database never sees it.
#[tokio::test]
async fn a_credential_that_is_not_sealed_gets_no_further_than_the_door() {
    let site = rackhand_tests::TestSite::new().await;
    let server = rackhand_tests::TestServer::start(&site).await;
    let plain = json!({"site_id": site.id, "name": "lab", "version": 1, "username": "root",
        "password": BMC_PASSWORD, "targets": []})
    .to_string();
    for sealed in [plain.clone(), format!("{BMC_PASSWORD:-<80}"), "QUJD".repeat(16) + "!"] {
        let body = json!({"site_id": site.id, "name": "lab", "version": 1, "sealed": sealed});
        let token = server.token(&site.admin);
        let refused = server.call("POST", "/v1/credentials", Some(&token), Some(&body)).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid-request"), "{refused:?}");
        assert!(!refused.body.to_string().contains(BMC_PASSWORD), "{refused:?}");
    }
    assert_eq!(site.database.value("select count(*) from rackhand.credential where name = 'lab'").await, 0);
}

/// Runs `rackhand-server` on a terminal of its own, and types this when it asks for a password; what the terminal
/// shows.
async fn types_a_password(arguments: &str, folder: &Path, typed: String) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::from(open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let end = || Stdio::from(terminal.try_clone().unwrap());
    // A session of its own, whose terminal this is.
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(binary("rackhand-server"))
        .args(arguments.split(' '))
        .current_dir(folder);
    let mut process =
        command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid (Debian: util-linux)");
    drop((command, terminal));
    let (mut keyboard, mut screen) = (File::from(master.try_clone().unwrap()), File::from(master));
    let (asks, asked) = tokio::sync::oneshot::channel();
    let shown = tokio::task::spawn_blocking(move || {
        let (mut shown, mut some, mut asks) = (Vec::new(), [0; 1024], Some(asks));
        // EIO once nobody has the terminal open any more (pty(7)).
        while let Ok(count @ 1..) = screen.read(&mut some) {
            shown.extend_from_slice(&some[..count]);
            if let Some(asks) = asks.take_if(|_| String::from_utf8_lossy(&shown).contains("Password:")) {
                asks.send(()).unwrap();
            }
        }
        String::from_utf8(shown).unwrap()
    });
    let answered = async {
        asked.await.unwrap();
        // The echo is turned off after the question.
        tokio::time::sleep(Duration::from_millis(500)).await;
        keyboard.write_all(typed.as_bytes()).unwrap();
        shown.await
    };
    let shown = tokio::time::timeout(Duration::from_secs(20), answered).await;
    let _ = process.kill();
    process.wait().unwrap();
    shown.expect("it waits for more than a line").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_a_fleet_admin_is_typed_unseen() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        "admin create --owner-url-file url --email cleo@example.test --name Cleo --password-stdin";
    let shown = types_a_password(arguments, folder.path(), format!("{ADMIN_PASSWORD}\n")).await;
    assert!(shown.contains("Password:") && shown.contains("--owner-url-file"), "{shown}");
    assert!(!shown.contains("Planted"), "{shown}");
}

/// `/proc/PID/mem` belongs to the user of a process that others may look into, else to root (proc(5)).
#[tokio::test]
async fn no_other_process_of_the_same_user_may_read_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let own = std::fs::metadata(folder.path()).unwrap().uid();
    // Root's own processes belong to root either way.
    let user = if own == 0 { 65_534 } else { own };
    for (name, arguments) in [
        ("rackhand-executor", "enrol --server https://127.0.0.1:1 --data data --name one --token-stdin"),
        (
            "rackhand-server",
            "admin create --owner-url-file url --email cleo@example.test --name Cleo --password-stdin",
        ),
    ] {
        let program = folder.path().join(name);
        std::fs::copy(binary(name), &program).unwrap();
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).current_dir(folder.path()).stdin(Stdio::piped());
        if own == 0 {
            command.uid(user);
        }
        // It waits for a secret on its standard input.
        let mut process = loop {
            match command.spawn() {
                // A child that another test has just forked still has the file open that was copied here.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                spawned => break spawned.unwrap(),
            }
        };
        let memory = format!("/proc/{}/mem", process.id());
        let started = Instant::now();
        let mut owner = user;
        while owner == user && started.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            owner = std::fs::metadata(&memory).unwrap().uid();
        }
        let lives = process.try_wait().unwrap().is_none();
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(lives, "{name} has ended");
        assert_ne!(owner, user, "{name} can be looked into");
    }
}
