//! The native host: its connections to Postgres and to clients, what it shows, and how it starts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rackhand_functions::auth::token::SigningKeys;
use rackhand_server::{Config, Most, Quiet, Running, Server, StartError, chain, setup};
use rackhand_tests::{
    TestDatabase, TestSite,
    database::connect,
    server::{client, user_token},
    site::person,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

fn config(url: String) -> Config {
    Config::local(url, SigningKeys::from_seed(&[7; 32]))
}

async fn start(config: Config) -> Running {
    Server::start(config).await.map_err(|error| chain(&error)).expect("it starts")
}

/// Waits until `query` answers true as superuser.
async fn becomes(database: &TestDatabase, query: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while database.value(query).await != json!(true) {
        assert!(Instant::now() < until, "not in 10 s: {query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process ids of the server's statements that wait for a lock.
const BLOCKED: &str = "array(select pid from pg_stat_activity where wait_event_type = 'Lock' \
    and application_name = 'rackhand-server' and datname = current_database())";

/// A server with two connections for people, of which the listener's proof has used one, and one for executors.
struct Narrow {
    site: TestSite,
    keys: SigningKeys,
    server: Running,
}

impl Narrow {
    async fn start() -> Self {
        let site = TestSite::new().await;
        let mut config = config(site.database.api_url());
        config.database_connections = 3;
        let keys = config.signing_keys.clone();
        let narrow = Self { server: start(config).await, site, keys };
        assert_eq!(narrow.sites().send().await.unwrap().status(), 200);
        narrow
    }

    /// A request for the list of sites.
    fn sites(&self) -> reqwest::RequestBuilder {
        self.sites_for(&self.site.admin)
    }

    fn sites_for(&self, person: &Value) -> reqwest::RequestBuilder {
        let url = format!("{}/v1/sites", self.server.url);
        client().get(url).bearer_auth(user_token(&self.keys, person))
    }

    /// A connection that holds the table of sites until it commits. Not the one that looks: pg_stat_activity stands
    /// still within a transaction.
    async fn lock(&self) -> tokio_postgres::Client {
        let other = connect(&self.site.database.owner_url()).await;
        other.batch_execute("begin; lock table rackhand.site").await.unwrap();
        other
    }

    async fn has_blocked(&self, statements: u32) {
        becomes(&self.site.database, &format!("select cardinality({BLOCKED}) = {statements}")).await;
    }
}

#[tokio::test]
async fn a_dropped_request_leaves_no_statement_behind() {
    let narrow = Narrow::start().await;
    // Of two connections one person has one.
    let viewer = person(&narrow.site.database, "Vic Viewer", "viewer", Some(&narrow.site.id)).await;
    let other = narrow.lock().await;
    let held = [narrow.sites(), narrow.sites_for(&viewer)].map(|request| tokio::spawn(request.send()));
    narrow.has_blocked(2).await;
    for request in held {
        request.abort();
    }
    // The table is still locked: only a cancel ends them.
    narrow.has_blocked(0).await;
    other.batch_execute("commit").await.unwrap();
    let began = Instant::now();
    assert_eq!(narrow.sites().send().await.unwrap().status(), 200);
    assert!(began.elapsed() < Duration::from_secs(2), "the pool has its places back: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_dropped_request_whose_statement_ends_soon_keeps_its_connection() {
    let narrow = Narrow::start().await;
    let database = &narrow.site.database;
    let other = narrow.lock().await;
    let held = tokio::spawn(narrow.sites().send());
    narrow.has_blocked(1).await;
    let backend = database.value(&format!("select ({BLOCKED})[1]")).await;
    held.abort();
    // The server has noticed by then, and has not lost its patience.
    tokio::time::sleep(Duration::from_millis(50)).await;
    other.batch_execute("commit").await.unwrap();
    assert_eq!(narrow.sites().send().await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lives =
        format!("select exists (select from pg_stat_activity where pid = {backend} and state = 'idle')");
    assert_eq!(database.value(&lives).await, json!(true));
}

#[tokio::test]
async fn a_trickled_body_ends_at_its_limit() {
    let database = TestDatabase::new().await;
    let mut config = config(database.api_url());
    config.body_limit = Duration::from_millis(300);
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    let (mut from, mut to) = stream.split();
    let trickle = async {
        // Ends with an error when the server has closed.
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    let read = async {
        let _ = tokio::time::timeout(Duration::from_secs(10), from.read_to_end(&mut answer)).await;
    };
    tokio::select! {
        () = read => {}
        () = async { trickle.await; std::future::pending().await } => {}
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("request-timeout"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let database = TestDatabase::new().await;
    let mut config = config(database.api_url());
    config.connections = Most { all: 3, per_address: 3 };
    config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = start(config).await;
    let health = || async {
        let answer = client().get(format!("{}/v1/health", server.url)).send().await;
        answer.map(|answer| answer.status().as_u16()).ok()
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(health().await, None, "a fourth");
    let shown =
        client().get(server.metrics_url.as_ref().unwrap()).send().await.unwrap().text().await.unwrap();
    assert!(
        shown.contains("\nrackhand_connections 3\n") && !shown.contains("\nrackhand_connections_refused 0\n")
    );
    held.pop();
    let until = Instant::now() + Duration::from_secs(5);
    while health().await != Some(200) {
        assert!(Instant::now() < until, "one ended, and still nobody is let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// hyper tells HTTP/1 from 2 by the first bytes, and waits for them without a timer.
#[tokio::test]
async fn a_connection_over_which_nothing_is_asked_is_ended() {
    let database = TestDatabase::new().await;
    let mut config = config(database.api_url());
    let quiet = Duration::from_millis(500);
    config.quiet = Quiet { first: quiet, between: quiet };
    let server = start(config).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let get = b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n";
    let sent: [(&str, &[u8]); 4] = [
        ("silent", b""),
        ("half of a preface", &preface[..16]),
        ("HTTP/2 without a request", preface),
        ("HTTP/1 after an answer", get),
    ];
    for (name, bytes) in sent {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{name}: still open");
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), bytes == get, "{name}");
    }
    // What is under way counts, however long it takes.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(quiet * 3).await;
    stream.write_all(b"}").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 422");
}

#[tokio::test]
async fn metrics_are_shown_on_their_own_listener_only() {
    let database = TestDatabase::new().await;
    let mut config = config(database.api_url());
    assert_eq!(start(config.clone()).await.metrics_url, None, "unless asked for there are none");
    config.metrics_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = start(config).await;
    let get = |url: String| async { client().get(url).send().await.unwrap() };
    assert_eq!(get(format!("{}/metrics", server.url)).await.status(), 404);
    let shown = get(server.metrics_url.clone().unwrap()).await;
    assert_eq!(shown.status(), 200);
    assert!(shown.text().await.unwrap().contains("rackhand_http_requests_in_flight"));
    let api = server.metrics_url.as_ref().unwrap().replace("/metrics", "/v1/health");
    assert_eq!(get(api).await.status(), 404, "and nothing else is there");
}

#[tokio::test]
async fn https_in_front_of_it_is_kept_to() {
    let database = TestDatabase::new().await;
    let hsts = async |config: Config| {
        let server = start(config).await;
        let answer = client().get(format!("{}/v1/health", server.url)).send().await.unwrap();
        answer.headers().get("strict-transport-security").cloned()
    };
    let mut config = config(database.api_url());
    assert_eq!(hsts(config.clone()).await, None);
    config.public_url = Some("https://rackhand.example".to_owned());
    assert!(hsts(config).await.is_some());
}

#[tokio::test]
async fn a_database_that_refuses_ends_the_start_with_the_reason() {
    let database = TestDatabase::new().await;
    let refusal = async |url: String| match Server::start(config(url)).await {
        Err(error @ StartError::Refused(_)) => chain(&error),
        Err(error) => panic!("another error: {}", chain(&error)),
        Ok(_) => panic!("it started"),
    };
    let (_, place) = database.api_url().rsplit_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let wrong = refusal(format!("postgres://rackhand_api:wrong@{place}")).await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    assert!(!wrong.contains("wrong@"), "{wrong}");
    let missing = refusal(database.api_url().replace(&database.name, "no_such")).await;
    assert!(missing.contains("no_such"), "{missing}");
    let empty = refusal(database.api_url().replace(&database.name, "postgres")).await;
    assert!(empty.contains("rackhand-server migrate"), "{empty}");
}

/// Somebody between us and the database says that it speaks no TLS.
#[tokio::test]
async fn beyond_this_machine_the_owner_speaks_tls_or_not_at_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; 8];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        stream.read_to_end(&mut said).await.unwrap();
        said
    });
    let url = format!("postgres://owner:secret@db.example:{port}/postgres?hostaddr=127.0.0.1");
    let error = setup::migrate(&url).await.unwrap_err();
    assert!(chain(&error).contains("TLS"), "{}", chain(&error));
    // SSLRequest (PostgreSQL documentation, "Message Formats"), and not a byte more.
    assert_eq!(said.await.unwrap(), [0, 0, 0, 8, 4, 210, 22, 47]);
}

#[tokio::test]
async fn a_migration_that_waits_for_a_table_lets_others_pass() {
    let database = TestDatabase::new().await;
    database.owner.batch_execute("begin; lock table rackhand.migration").await.unwrap();
    let url = database.owner_url();
    let migration = tokio::spawn(async move { setup::migrate(&url).await });
    let waits = "select exists (select from pg_locks join pg_database d on d.oid = database \
        where not granted and d.datname = current_database())";
    becomes(&database, waits).await;
    becomes(&database, &format!("select not ({waits})")).await;
    assert!(!migration.is_finished(), "it tries again");
    database.owner.batch_execute("commit").await.unwrap();
    migration.await.unwrap().map_err(|error| chain(&error)).unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_left_alone() {
    let database = TestDatabase::new().await;
    let insert = "insert into rackhand.migration (version, name, sha256) values (9999, 'later', '')";
    database.owner.batch_execute(insert).await.unwrap();
    let error = setup::migrate(&database.owner_url()).await.unwrap_err();
    assert!(matches!(error, setup::SetupError::Newer(9999)), "{}", chain(&error));
    let edited =
        "delete from rackhand.migration where version = 9999; update rackhand.migration set sha256 = ''
        where version = 1";
    database.owner.batch_execute(edited).await.unwrap();
    let error = setup::migrate(&database.owner_url()).await.unwrap_err();
    assert!(matches!(error, setup::SetupError::Changed(1)), "{}", chain(&error));
}
