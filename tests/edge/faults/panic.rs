//! A panic of the Rust code: one 500, and the next request is as if nothing had been.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rackhand_tests::{
    TestSite,
    server::{answer, client, user_token},
};
use serde_json::{Value, json};
use xtask::edge;

struct Broken {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

impl Broken {
    fn start(database_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("settings.json");
        let bindings = json!({"SIGNING_KEY": KEY, "DATABASE_URL": database_url, "MAX_WAIT_MS": "2000"});
        std::fs::write(&settings, json!({"bindings": bindings}).to_string()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/edge/faults/panic.mjs");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new("node")
            .args([script.as_ref(), edge::worker_folder().as_os_str(), settings.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default())
        });
        Self { child, url: ready["url"].as_str().unwrap().to_owned(), _folder: folder }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_one_internal_error() {
    let site = TestSite::new().await;
    let worker = Broken::start(&site.database.api_url());
    let keys = rackhand_functions::auth::token::SigningKeys::from_text(KEY).unwrap();
    let token = user_token(&keys, &site.admin);
    let client = client();
    let get = async |path: &str, broken: bool| {
        let mut request = client.get(format!("{}{path}", worker.url)).bearer_auth(&token);
        if broken {
            request = request.header("x-broken", "1");
        }
        answer(request.timeout(Duration::from_secs(10)).send().await.unwrap()).await
    };
    for _ in 0..3 {
        assert_eq!(get("/v1/health", false).await.body, json!({"status": "ok"}));
        // Whoever shares the instance is answered too, soon.
        let began = Instant::now();
        let (waiting, panicked) = tokio::join!(get("/v1/events?after=latest&wait_ms=1500", false), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            get("/v1/version", true).await
        });
        assert_eq!((panicked.status.as_u16(), panicked.code()), (500, "internal"), "{panicked:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        println!("beside the panic: {} after {:?}", waiting.status, began.elapsed());
        assert!(waiting.status.is_success() || waiting.code() == "internal", "{waiting:?}");
        assert_eq!(get("/v1/health", false).await.body, json!({"status": "ok"}));
        assert!(get("/v1/servers", false).await.status.is_success());
    }
}
