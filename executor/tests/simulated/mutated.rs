//! Recorded and simulated trees with something in them changed, read by the executor's Redfish client.
//!
//! Changes that lose nothing (a name in another case, a value in a list of its own, pages, redirects) must change
//! nothing. Changes that lose something may take away only what comes from the document that was changed, and what is
//! lost because a document cannot be read, or a list has a gap, is named. Whatever comes, reading ends, within a
//! bounded number of requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use rackhand_executor::{
    broker::{
        Broker, Endpoint, Priority, Proven, Service, connect,
        ipmi::{IpmiConnector, link::Udp},
        redfish::{RedfishConnector, Transports},
    },
    clock::TokioClock,
    credential::{OpenCredential, Use, Versions},
    identity::{Identity, Keys, Membership},
    journal::memory::MemoryJournal,
    timing::Timing,
};
use rackhand_lab::{InProcess, Model, ServerSpec, SiteConfig, replay};
use rackhand_redfish::{Body, Transport, TransportError};
use rackhand_schema::id::{BmcId, CredentialId, ExecutorId, ExecutorSessionId, SiteId};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{
    PASSWORD,
    plane::{Link, ModelCloud, Plane},
};

const ROOT: &str = "/redfish/v1";
/// Longest time for one inventory and one sweep of the sensors, in the client's own time.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Requests of one device that are answered.
const REQUESTS: usize = 3_000;

type Documents = BTreeMap<String, Bytes>;

/// A service of documents; logins succeed.
struct Device {
    documents: Documents,
    /// Resources that are answered with a redirect to themselves with `/moved` behind.
    moved: BTreeSet<String>,
    requests: AtomicUsize,
    /// Resources below are never answered.
    silent: Option<&'static str>,
    /// Documents that were read, on their own or within a collection.
    read: Mutex<BTreeSet<String>>,
}

impl Device {
    fn new(documents: Documents) -> Self {
        let (requests, read) = (AtomicUsize::new(0), Mutex::default());
        Self { documents, moved: BTreeSet::new(), requests, silent: None, read }
    }

    fn document(&self, path: &str) -> Option<&Bytes> {
        let found = self.documents.get(path)?;
        self.read.lock().unwrap().insert(path.to_owned());
        Some(found)
    }

    fn get(&self, path: &str, query: &str) -> http::Response<Bytes> {
        let asked = path.trim_end_matches('/');
        let path = asked.strip_suffix("/moved").unwrap_or(asked);
        if self.moved.contains(path) && path == asked {
            let mut response = answer(301, Bytes::new());
            let query = if query.is_empty() { String::new() } else { format!("?{query}") };
            let location = format!("https://bmc{path}/moved{query}");
            response.headers_mut().insert("location", location.parse().unwrap());
            return response;
        }
        let page = if query.contains("page=2") { format!("{path}?page=2") } else { path.to_owned() };
        let Some(body) = self.document(&page) else {
            let error =
                json!({ "error": { "code": "Base.1.12.ResourceMissingAtURI", "message": "missing" } });
            return answer(404, error.to_string().into());
        };
        if !query.contains("$expand") {
            return answer(200, body.clone());
        }
        let Ok(mut collection) = serde_json::from_slice::<Value>(body) else {
            return answer(200, body.clone());
        };
        if let Some(Value::Array(members)) = collection.get_mut("Members") {
            for member in members {
                let link = member["@odata.id"].as_str().unwrap_or_default();
                let full = self.document(link).and_then(|full| serde_json::from_slice(full).ok());
                *member = full.unwrap_or_else(|| member.take());
            }
        }
        answer(200, collection.to_string().into())
    }
}

fn answer(status: u16, body: Bytes) -> http::Response<Bytes> {
    http::Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

struct Wire(Arc<Device>);

impl Transport for Wire {
    fn send<'a>(
        &'a self,
        request: http::Request<Body>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            if self.0.requests.fetch_add(1, Ordering::Relaxed) >= REQUESTS {
                return Err(TransportError::NoAnswer { why: "too many requests".into() });
            }
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            if self.0.silent.is_some_and(|silent| path.starts_with(silent)) {
                tokio::time::sleep_until(deadline).await;
                return Err(TransportError::NoAnswer { why: "silence".into() });
            }
            Ok(match request.method().as_str() {
                "POST" => {
                    let mut response = answer(201, Bytes::new());
                    response.headers_mut().insert("x-auth-token", "token".parse().unwrap());
                    response.headers_mut().insert("location", format!("{path}/1").parse().unwrap());
                    response
                }
                "GET" => self.0.get(path, query),
                _ => answer(204, Bytes::new()),
            })
        })
    }
}

struct Wires(Arc<Device>);

impl Transports for Wires {
    fn open(&self, _url: &str, _pin: [u8; 32]) -> Arc<dyn Transport> {
        Arc::new(Wire(Arc::clone(&self.0)))
    }
}

/// What was read: each value under a name of its own.
#[derive(Debug, Default)]
struct Seen {
    facts: BTreeMap<String, String>,
    components: usize,
    unreadable: BTreeMap<String, String>,
}

/// Reads a device as an executor does. `Err`: nothing was read, and why.
fn read(device: &Arc<Device>) -> Result<Seen, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let seen = runtime.block_on(async { timeout(LONGEST, inventory(device)).await });
    assert!(device.requests.load(Ordering::Relaxed) < REQUESTS, "reading goes on and on");
    seen.unwrap_or_else(|_| panic!("reading does not end"))
}

async fn inventory(device: &Arc<Device>) -> Result<Seen, String> {
    let membership = Membership {
        server: "https://rackhand.invalid".into(),
        name: "mutated".into(),
        executor_id: ExecutorId::generate(),
        site_id: SiteId::generate(),
        site: "mutated".into(),
        site_public_key: None,
    };
    let journal = Arc::new(MemoryJournal::default());
    let connector = connect::Transports {
        // Never asked: the password counts as proven.
        cloud: Arc::new(ModelCloud {
            plane: Plane::new(Arc::new(TokioClock::start()), String::new()),
            session: ExecutorSessionId::generate(),
            link: Arc::new(Link::default()),
        }),
        redfish: Arc::new(RedfishConnector {
            journal: Arc::clone(&journal) as Arc<_>,
            identity: Arc::new(Identity::new(membership, Keys::generate().unwrap())),
            transports: Arc::new(Wires(Arc::clone(device))),
        }),
        ipmi: IpmiConnector { journal, links: Arc::new(Udp::new().unwrap()) },
    };
    let endpoint = Endpoint {
        bmc_id: BmcId::generate(),
        redfish: Some(Service { url: "https://bmc".into(), spki_sha256: "ab".repeat(32) }),
        ipmi: None,
        credential_id: CredentialId::generate(),
        credential: OpenCredential {
            version: 1,
            username: "root".into(),
            password: PASSWORD.to_owned().into(),
        },
        credential_use: Use {
            versions: Arc::new(Versions::new(Arc::new(MemoryJournal::default()))),
            name: "bmc".into(),
            version: 1,
        },
        proven: Proven::new(true),
    };
    let (clock, timing) = (Arc::new(TokioClock::start()), Arc::new(Timing::default()));
    let broker = Broker::new(Arc::new(connector), clock, timing);
    let line = broker.line(endpoint, Priority::Observe).unwrap();
    let found = line.inventory().await.map_err(|error| error.to_string());
    // Whether there are any is not compared; that it ends is.
    drop(line.sensors().await);
    let (_, found) = found?;
    let mut facts = BTreeMap::new();
    for (name, value) in [
        ("vendor", found.vendor),
        ("model", found.model),
        ("service_tag", found.service_tag),
        ("uuid", found.uuid),
        ("generation", found.generation),
        ("bmc_version", found.bmc_version),
        ("power", Some(format!("{:?}", found.power)).filter(|power| power != "Unknown")),
        ("health", Some(format!("{:?}", found.health)).filter(|health| health != "Unknown")),
    ] {
        facts.extend(value.map(|value| (name.to_owned(), value)));
    }
    facts.extend(found.capabilities.into_iter().map(|word| (format!("capability {word}"), String::new())));
    let components = found.components.len();
    for part in found.components {
        let what = format!("{} {} {:?} {}", part.version, part.name, part.software_id, part.updateable);
        facts.insert(format!("component {}", part.key), what);
    }
    Ok(Seen { facts, components, unreadable: found.unreadable })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    RenameCase,
    Wrap,
    Page,
    Redirect,
    Drop,
    Null,
    Retype,
    Truncate,
}

impl Change {
    fn is_harmless(self) -> bool {
        matches!(self, Self::RenameCase | Self::Wrap | Self::Page | Self::Redirect)
    }
}

/// Which document, which of its properties, and what becomes of it.
#[derive(Clone, Debug)]
struct Mutation {
    document: Index,
    property: Index,
    change: Change,
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let change = prop_oneof![
        Just(Change::RenameCase),
        Just(Change::Wrap),
        Just(Change::Page),
        Just(Change::Redirect),
        Just(Change::Drop),
        Just(Change::Null),
        Just(Change::Retype),
        Just(Change::Truncate),
    ];
    let mutation = (any::<Index>(), any::<Index>(), change)
        .prop_map(|(document, property, change)| Mutation { document, property, change });
    proptest::collection::vec(mutation, 1..=3)
}

/// A tree that is read, and what that gives.
struct Subject {
    name: String,
    documents: Documents,
    intact: Seen,
    /// The documents that are read, in order.
    read: Vec<String>,
    /// What changes when a document is gone.
    depends: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Subject {
    fn new(name: impl Into<String>, documents: Documents) -> Self {
        let name = name.into();
        let device = Arc::new(Device::new(documents.clone()));
        let intact = read(&device).unwrap_or_else(|why| panic!("{name} cannot be read: {why}"));
        assert!(intact.facts.contains_key("model") && intact.components > 3, "{name}: {intact:?}");
        let read = device.read.lock().unwrap().iter().cloned().collect();
        Self { name, documents, intact, read, depends: Mutex::default() }
    }

    /// What comes from a document, or from one that only it links: what is not the same without it, or with other words
    /// in it.
    fn depends(&self, path: &str) -> BTreeSet<String> {
        let known = self.depends.lock().unwrap().get(path).cloned();
        known.unwrap_or_else(|| {
            let mut differs = BTreeSet::new();
            let mut other: Value = serde_json::from_slice(&self.documents[path]).unwrap_or_default();
            reword(&mut other);
            for body in [None, Some(Bytes::from(other.to_string()))] {
                let mut documents = self.documents.clone();
                documents.remove(path);
                documents.extend(body.map(|body| (path.to_owned(), body)));
                let seen = read(&Arc::new(Device::new(documents))).unwrap_or_default();
                differs.extend(differences(&self.intact, &seen));
            }
            self.depends.lock().unwrap().insert(path.to_owned(), differs.clone());
            differs
        })
    }

    /// What is not the same when none of these documents is there.
    fn differences_without(&self, done: &[(String, Change)]) -> BTreeSet<String> {
        let mut documents = self.documents.clone();
        documents.retain(|path, _| done.iter().all(|(changed, _)| changed != path));
        differences(&self.intact, &read(&Arc::new(Device::new(documents))).unwrap_or_default())
    }

    /// Changes the tree; what was done is told by document. A change that does not fit is left out.
    fn mutated(&self, mutations: &[Mutation]) -> (Device, Vec<(String, Change)>) {
        let mut device = Device::new(self.documents.clone());
        let mut done = Vec::new();
        for Mutation { document, property, change } in mutations {
            let path = &self.read[document.index(self.read.len())];
            let Some(Ok(mut value)) = device.documents.get(path).map(|body| serde_json::from_slice(body))
            else {
                continue;
            };
            let changed = match change {
                Change::Redirect => device.moved.insert(path.clone()),
                Change::Truncate => {
                    let body = &device.documents[path];
                    let cut = body.slice(..property.index(body.len().max(2) - 1));
                    device.documents.insert(path.clone(), cut);
                    done.push((path.clone(), *change));
                    continue;
                }
                Change::Page => split(path, &mut value, &mut device.documents),
                change => alter(&mut value, *property, *change),
            };
            if changed {
                device.documents.insert(path.clone(), value.to_string().into());
                done.push((path.clone(), *change));
            }
        }
        (device, done)
    }

    fn check(&self, mutations: &[Mutation]) -> Result<(), TestCaseError> {
        let (device, done) = self.mutated(mutations);
        let device = Arc::new(device);
        let told = || format!("{} with {done:?}", self.name);
        let harmless = done.iter().all(|(_, change)| change.is_harmless());
        let seen = match read(&device) {
            Ok(seen) => seen,
            Err(why) => {
                prop_assert!(!harmless && why.len() > 20, "{}: {}", told(), why);
                return Ok(());
            }
        };
        let differs = differences(&self.intact, &seen);
        let named = seen.unreadable.iter().any(|(what, why)| self.intact.unreadable.get(what) != Some(why));
        if harmless {
            prop_assert!(
                differs.is_empty() && !named,
                "{} changed {:?}: {:?}",
                told(),
                differs,
                seen.unreadable
            );
            return Ok(());
        }
        let may: BTreeSet<_> = done.iter().flat_map(|(path, _)| self.depends(path)).collect();
        let mut beyond: Vec<_> =
            differs.difference(&may).filter(|fact| self.intact.facts.contains_key(*fact)).collect();
        if !beyond.is_empty() {
            // Each document may stand in for the other: lost only without both.
            let without_any = self.differences_without(&done);
            beyond.retain(|fact| !without_any.contains(*fact));
        }
        prop_assert!(beyond.is_empty(), "{} reached {:?}: {:?}", told(), beyond, seen.unreadable);
        if !named {
            let lost: Vec<_> = differs.iter().filter(|fact| !seen.facts.contains_key(*fact)).collect();
            let is_list = |path: &str| path.contains('?') || self.is_list(path);
            let whole = |(path, change): &(String, Change)| *change == Change::Truncate || is_list(path);
            let only_whole = done.iter().filter(|(_, change)| !change.is_harmless()).all(whole);
            prop_assert!(!only_whole || lost.is_empty(), "{} lost {:?} and names nothing", told(), lost);
            prop_assert!(
                seen.components >= self.intact.components
                    || lost.iter().all(|fact| !fact.starts_with("component")),
                "{} lost {:?} and names nothing",
                told(),
                lost
            );
        }
        Ok(())
    }

    fn is_list(&self, path: &str) -> bool {
        let document: Option<Value> =
            self.documents.get(path).and_then(|body| serde_json::from_slice(body).ok());
        document.is_some_and(|document| document.get("Members").is_some())
    }
}

/// Puts other words in place of all that are not links.
fn reword(value: &mut Value) {
    match value {
        Value::String(text) if !text.starts_with('/') => *text = "another word".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(reword),
        Value::Object(members) => members.values_mut().for_each(reword),
        _ => {}
    }
}

/// Names of what is not the same.
fn differences(one: &Seen, other: &Seen) -> BTreeSet<String> {
    let names = one.facts.keys().chain(other.facts.keys());
    names.filter(|name| one.facts.get(*name) != other.facts.get(*name)).cloned().collect()
}

/// Makes two pages of a collection.
fn split(path: &str, value: &mut Value, documents: &mut Documents) -> bool {
    let Some(Value::Array(members)) = value.get_mut("Members") else { return false };
    if members.len() < 2 || documents.contains_key(&format!("{path}?page=2")) {
        return false;
    }
    let rest = members.split_off(members.len() / 2);
    let next = format!("{path}?page=2");
    documents.insert(next.clone(), json!({ "Members": rest }).to_string().into());
    value["Members@odata.nextLink"] = next.into();
    true
}

/// Changes one property, chosen among all of them at any depth.
fn alter(value: &mut Value, property: Index, change: Change) -> bool {
    let mut names = Vec::new();
    listed(value, &mut Vec::new(), &mut names);
    if names.is_empty() {
        return false;
    }
    let at = property.index(names.len());
    let Some((name, holder)) = names[at].split_last() else { return false };
    let pointer: String = holder.iter().map(|part| format!("/{}", escaped(part))).collect();
    let Some(Value::Object(object)) = value.pointer_mut(&pointer) else { return false };
    let Some(old) = object.get(name).cloned() else { return false };
    match change {
        Change::Drop => object.remove(name).is_some(),
        Change::Null => object.insert(name.clone(), Value::Null) != Some(Value::Null),
        Change::RenameCase => {
            let other =
                if at.is_multiple_of(2) { name.to_ascii_lowercase() } else { name.to_ascii_uppercase() };
            if object.contains_key(&other) {
                return false;
            }
            object.remove(name);
            object.insert(other, old);
            true
        }
        Change::Wrap if old.is_array() || old.is_null() => false,
        Change::Wrap => object.insert(name.clone(), json!([old])).is_some(),
        Change::Retype => {
            let new = match old {
                Value::String(_) => [json!(at + 7), json!({}), json!([]), json!(true)][at % 4].clone(),
                Value::Object(_) => [json!("text"), json!([]), json!(at)][at % 3].clone(),
                Value::Array(_) => [json!("text"), json!({}), json!(at)][at % 3].clone(),
                _ => json!("text"),
            };
            object.insert(name.clone(), new).is_some()
        }
        Change::Page | Change::Redirect | Change::Truncate => false,
    }
}

fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// The way to each property within a value.
fn listed(value: &Value, way: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let mut below = |name: String, value: &Value, is_property: bool| {
        way.push(name);
        if is_property {
            out.push(way.clone());
        }
        listed(value, way, out);
        way.pop();
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| below(at.to_string(), item, false))
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| below(name.clone(), member, true)),
        _ => {}
    }
}

/// Five models of the lab with present and with old firmware.
fn of_the_lab() -> Vec<Subject> {
    let old = |model: Model| match model {
        Model::R730 => "2.63.60.61",
        Model::R770 => "1.10.17.00",
        _ => "4.40.29.00",
    };
    let specs = Model::ALL.into_iter().flat_map(|model| {
        let name = format!("{model:?}").to_lowercase();
        let aged = ServerSpec::new(format!("{name}-old"), model).idrac(old(model)).powered_off();
        [ServerSpec::new(name, model), aged]
    });
    specs.map(|spec| Subject::new(spec.name.clone(), crawled(spec))).collect()
}

/// Every document of a simulated BMC that links lead to.
fn crawled(spec: ServerSpec) -> Documents {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let lab = InProcess::new(&SiteConfig::new(vec![spec], PASSWORD));
        let basic = format!("Basic {}", base64_of(&format!("root:{PASSWORD}")));
        let (mut documents, mut open) = (Documents::new(), vec![ROOT.to_owned()]);
        while let Some(path) = open.pop() {
            if documents.contains_key(&path) || documents.len() > 600 {
                continue;
            }
            let request =
                http::Request::get(&path).header("authorization", &basic).body(Bytes::new()).unwrap();
            let Ok(response) = lab.call(0, request).await else { continue };
            if response.status() != 200 {
                continue;
            }
            if let Ok(value) = serde_json::from_slice::<Value>(response.body()) {
                links(&value, &mut open);
            }
            documents.insert(path, response.into_body());
        }
        documents
    })
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn links(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| links(item, out)),
        Value::Object(members) => {
            let link = members.get("@odata.id").and_then(Value::as_str).filter(|link| link.starts_with(ROOT));
            out.extend(link.map(|link| link.trim_end_matches('/').to_owned()));
            members.values().for_each(|member| links(member, out));
        }
        _ => {}
    }
}

/// The recorded R750; none where the recording is not beside the work tree.
fn recorded() -> Option<Subject> {
    let beside = |directory: &Path| directory.join("shared/data/redfish/dell-poweredge-r750.tar.gz");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(beside).find(|path| path.exists())?;
    let tree = replay::Tree::read(&path).unwrap();
    let documents =
        tree.paths().filter_map(|path| Some((path.to_owned(), tree.get(path)?.clone()))).collect();
    Some(Subject::new("recorded R750", documents))
}

fn run(subjects: &[Subject], cases: u32) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulated/mutated.regressions");
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(file)) as Box<_>);
    let config = Config { cases, failure_persistence, max_shrink_iters: 300, ..Config::default() };
    let strategy = (any::<Index>(), mutations());
    TestRunner::new(config)
        .run(&strategy, |(subject, mutations)| subjects[subject.index(subjects.len())].check(&mutations))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn changed_trees_are_read_as_far_as_they_can_be() {
    run(&of_the_lab(), 200);
}

#[test]
fn a_changed_recording_is_read_as_far_as_it_can_be() {
    let Some(recorded) = recorded() else {
        println!(
            "\ntest mutated::a_changed_recording ... ignored, no recorded tree at ../shared/data/redfish"
        );
        return;
    };
    run(&[recorded], 30);
}

/// A part that never answers costs its own values and a bounded time: less than the broker allows for the whole.
#[test]
fn a_silent_part_is_named_and_the_others_are_read() {
    let subject = of_the_lab().remove(0);
    for silent in
        ["/redfish/v1/UpdateService/FirmwareInventory/", "/redfish/v1/UpdateService", "/redfish/v1/Managers/"]
    {
        let device = Arc::new(Device { silent: Some(silent), ..Device::new(subject.documents.clone()) });
        let seen = read(&device).unwrap();
        assert_eq!(seen.facts.get("model"), subject.intact.facts.get("model"), "{silent}");
        assert!(
            seen.unreadable.values().any(|why| why.contains("silence") || why.contains("within")),
            "{seen:?}"
        );
    }
}

#[test]
#[ignore = "20,000 mutations take many minutes"]
fn twenty_thousand_changed_trees_are_read_as_far_as_they_can_be() {
    let mut subjects = of_the_lab();
    subjects.extend(recorded());
    run(&subjects, 20_000);
}
