//! One data directory is one executor: who goes on from a copy of it is told from who was only killed on its way in.
//! The processes sign in as executor/src/main.rs does.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rackhand_executor::{
    cloud::{
        Cloud as _, CloudError,
        http::{Http, HttpCloud, tls},
    },
    identity::{Identity, Keys, Membership},
    journal::{Journal as _, memory::MemoryJournal},
    sessions::Sessions,
};
use rackhand_schema::protocol::LeaseRequest;
use rackhand_tests::{TestServer, TestSite};
use serde_json::json;

/// A data directory on a machine of its own.
struct Machine<'a> {
    server: &'a TestServer,
    journal: Arc<MemoryJournal>,
    identity: Arc<Identity>,
}

impl Machine<'_> {
    async fn sessions(&self) -> Sessions {
        Sessions::begin(Arc::clone(&self.journal) as Arc<_>).await.unwrap()
    }

    async fn start(&self) -> HttpCloud {
        let http = Http::new(&self.server.running.url, tls().unwrap()).unwrap();
        HttpCloud::new(http, Arc::clone(&self.identity), self.sessions().await)
    }

    async fn copy(&self) -> Self {
        let journal = MemoryJournal::default();
        journal.commit(self.journal.log()).await.unwrap();
        Self { server: self.server, journal: Arc::new(journal), identity: Arc::clone(&self.identity) }
    }
}

async fn machine<'a>(site: &TestSite, server: &'a TestServer) -> Machine<'a> {
    let enrolled = site.executor("one").await;
    let keys = Keys::generate().unwrap();
    let owner = &site.database.owner;
    let key = "update rackhand.executor set signing_key = $1";
    owner.execute(key, &[&STANDARD.encode(keys.signing_public())]).await.unwrap();
    owner.batch_execute("delete from rackhand.executor_session").await.unwrap();
    let membership = Membership {
        server: server.running.url.clone(),
        name: "one".into(),
        executor_id: enrolled.id.parse().unwrap(),
        site_id: site.id.parse().unwrap(),
        site: "lab".into(),
        site_public_key: None,
    };
    let identity = Arc::new(Identity::new(membership, keys));
    Machine { server, journal: Arc::default(), identity }
}

async fn lease(process: &HttpCloud) -> Result<(), CloudError> {
    let (held, kinds, version) = (vec![], vec![], String::new());
    let request =
        LeaseRequest { held, capacity: 0, kinds, changes: None, wait_ms: 0, version, leaving: false };
    process.lease(&request, Duration::from_secs(20)).await.map(|_| ())
}

const TOLD: &str = "select count(*) from rackhand.event where kind = 'executor.copied'";
const AWAY: &str = "update rackhand.executor_session set expires_at = now()";

#[tokio::test]
async fn a_process_that_was_killed_on_its_way_in_is_no_copy() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let machine = machine(&site, &server).await;
    let anonymous = json!({"kind": "anonymous"});
    lease(&machine.start().await).await.unwrap();
    for killed in ["as it started", "before its request", "before the answer", "before its first lease"] {
        for _ in 0..2 {
            let sessions = machine.sessions().await;
            if killed != "as it started" {
                sessions.announce().await.unwrap();
            }
            if killed.starts_with("before the answer") || killed.starts_with("before its first") {
                let args = json!({"executor_id": machine.identity.membership.executor_id,
                    "session_id": sessions.own, "resumes": sessions.former, "nonce": uuid::Uuid::now_v7()});
                let answer = site.database.run(&anonymous, "executor_session_start", args).await.unwrap();
                assert_eq!(answer["site_id"], json!(site.id), "{killed}: {answer}");
            }
            if killed == "before its first lease" {
                sessions.confirm().await.unwrap();
            }
        }
        lease(&machine.start().await).await.unwrap_or_else(|error| panic!("{killed}: {error}"));
        let others = "select count(*) from rackhand.executor_session
            where superseded_at is not null and expires_at > now()";
        assert_eq!(
            site.database.value(others).await,
            0,
            "{killed}: what its predecessors held is free at once"
        );
    }
    assert_eq!(site.database.value(TOLD).await, 0);
}

/// Also whoever has never signed in before the directory was copied.
#[tokio::test]
async fn a_copy_that_was_refused_is_not_let_in_at_its_next_start() {
    for signed_in_before in [true, false] {
        let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
        let server = TestServer::start(&site).await;
        let first = machine(&site, &server).await;
        if signed_in_before {
            lease(&first.start().await).await.unwrap();
        }
        let second = first.copy().await;
        let at_first = first.start().await;
        lease(&at_first).await.unwrap();
        if signed_in_before {
            assert_eq!(lease(&second.start().await).await, Err(CloudError::Superseded));
            // The other one takes over while this one is away.
            site.database.owner.batch_execute(AWAY).await.unwrap();
        }
        let mut going_on = second.start().await;
        lease(&going_on).await.unwrap();
        assert_eq!(lease(&at_first).await, Err(CloudError::Superseded));
        for _ in 0..20 {
            assert_eq!(lease(&first.start().await).await, Err(CloudError::Superseded), "{signed_in_before}");
            lease(&going_on).await.unwrap();
        }
        going_on = second.start().await;
        lease(&going_on).await.unwrap();
        assert_eq!(lease(&first.start().await).await, Err(CloudError::Superseded));
        assert_eq!(site.database.value(TOLD).await, 1);
        // Where no other one lives, it may go on: it may be the directory that was restored from a backup.
        site.database.owner.batch_execute(AWAY).await.unwrap();
        lease(&first.start().await).await.unwrap();
    }
}

/// A journal that is older than what the control plane remembers, beside a living executor.
#[tokio::test]
async fn a_very_old_copy_is_not_let_in_beside_the_living_executor() {
    let site = TestSite::with(json!({"lease_ttl_ms": 60_000})).await;
    let server = TestServer::start(&site).await;
    let machine = machine(&site, &server).await;
    lease(&machine.start().await).await.unwrap();
    let old = machine.copy().await;
    let living = machine.start().await;
    lease(&living).await.unwrap();
    let forgotten = "delete from rackhand.executor_session where superseded_at is not null";
    site.database.owner.batch_execute(forgotten).await.unwrap();
    assert_eq!(lease(&old.start().await).await, Err(CloudError::Superseded));
    lease(&living).await.unwrap();
    assert_eq!(site.database.value(TOLD).await, 1);
}
