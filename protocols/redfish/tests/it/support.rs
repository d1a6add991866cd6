//! An in-process BMC: a tree of JSON documents, sessions, and a script of misbehaviour for single requests.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use rackhand_redfish::{
    AuthAttempt, AuthGate, AuthOutcome, Body, Client, Credentials, Endpoint, Exchange, GateDenied, Mutates,
    Observer, Options, Transport, TransportError,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

pub const PASSWORD: &str = "correct horse";
pub const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub const OEM_JOBS: &str = "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs";
pub const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";

/// One answer out of the ordinary.
pub enum Act {
    Answer(u16, Value),
    Raw(u16, Vec<(&'static str, String)>, Bytes),
    Fail(TransportError),
    /// Carried out as usual, but the answer is lost.
    LoseAnswer,
    /// No answer until the deadline.
    Hang,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub proof: &'static str,
    pub body: Bytes,
    /// Of a mutation: when its time began.
    pub began: Option<Instant>,
}

#[derive(Default)]
struct State {
    tree: BTreeMap<String, Bytes>,
    script: BTreeMap<(String, String), VecDeque<Act>>,
    seen: Vec<Seen>,
    /// Tokens by number.
    sessions: BTreeMap<u32, String>,
    numbered: u32,
    logins: u32,
    latency: Duration,
}

#[derive(Default)]
pub struct Bmc {
    state: Mutex<State>,
}

impl Bmc {
    pub fn new(tree: BTreeMap<String, Bytes>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { tree, ..State::default() }) })
    }

    /// The recorded R750; `None` when the recording is not beside the work tree.
    pub fn r750() -> Option<Arc<Self>> {
        Some(Self::new(recorded()?.clone()))
    }

    /// A small iDRAC, for tests which are about one thing.
    pub fn small() -> Arc<Self> {
        let bmc = Self::new(BTreeMap::new());
        let link = |path: &str| json!({ "@odata.id": path });
        bmc.put("/redfish/v1", json!({
            "RedfishVersion": "1.13.1", "Vendor": "Dell", "Oem": { "Dell": { "ServiceTag": "ABC1234" } },
            "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
            "UpdateService": link("/redfish/v1/UpdateService"), "JobService": link("/redfish/v1/JobService"),
            "Tasks": link("/redfish/v1/TaskService"), "Links": { "Sessions": link(SESSIONS) },
        }));
        bmc.put("/redfish/v1/Systems", json!({ "Members": [link("/redfish/v1/Systems/System.Embedded.1")] }));
        bmc.put(
            "/redfish/v1/Systems/System.Embedded.1",
            json!({
                "Id": "System.Embedded.1", "SKU": "ABC1234", "Model": "PowerEdge R640", "PowerState": "On",
                "Actions": { "#ComputerSystem.Reset": {
                    "target": "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"] } },
            }),
        );
        let manager = "/redfish/v1/Managers/iDRAC.Embedded.1";
        bmc.put("/redfish/v1/Managers", json!({ "Members": [link(manager)] }));
        bmc.put(
            manager,
            json!({
                "Model": "14G Monolithic", "FirmwareVersion": "7.00.00.00",
                "LogServices": link(&format!("{manager}/LogServices")),
                "Links": { "Oem": { "Dell": { "Jobs": link(OEM_JOBS) } } },
            }),
        );
        bmc.put(
            &format!("{manager}/LogServices"),
            json!({ "Members": [link(&format!("{manager}/LogServices/Lclog"))] }),
        );
        bmc.put(
            &format!("{manager}/LogServices/Lclog"),
            json!({ "Entries": link(&format!("{manager}/LogServices/Lclog/Entries")) }),
        );
        bmc.put(&format!("{manager}/LogServices/Lclog/Entries"), json!({ "Members": [] }));
        bmc.put("/redfish/v1/JobService", json!({ "Jobs": link("/redfish/v1/JobService/Jobs") }));
        bmc.put("/redfish/v1/JobService/Jobs", json!({ "Members": [] }));
        bmc.put("/redfish/v1/TaskService", json!({ "Tasks": link("/redfish/v1/TaskService/Tasks") }));
        bmc.put(OEM_JOBS, json!({ "Members": [] }));
        bmc.put(
            "/redfish/v1/UpdateService",
            json!({
                "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory"),
                "MultipartHttpPushUri": "/redfish/v1/UpdateService/MultipartUpload",
                "Actions": { "#UpdateService.SimpleUpdate": { "target": SIMPLE_UPDATE,
                    "@Redfish.OperationApplyTimeSupport": { "SupportedValues": ["Immediate", "OnReset"] },
                    "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"] } },
            }),
        );
        bmc.put("/redfish/v1/UpdateService/FirmwareInventory", json!({ "Members": [] }));
        bmc
    }

    pub fn put(&self, path: &str, value: Value) {
        self.state.lock().unwrap().tree.insert(path.to_owned(), value.to_string().into());
    }

    pub fn put_raw(&self, path: &str, body: impl Into<Bytes>) {
        self.state.lock().unwrap().tree.insert(path.to_owned(), body.into());
    }

    pub fn document(&self, path: &str) -> Option<Bytes> {
        self.state.lock().unwrap().tree.get(path).cloned()
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().tree.remove(path);
    }

    /// Misbehaves once, at the next such request (path with its query).
    pub fn next(&self, method: &str, path: &str, act: Act) {
        let key = (method.to_owned(), path.to_owned());
        self.state.lock().unwrap().script.entry(key).or_default().push_back(act);
    }

    pub fn latency(&self, latency: Duration) {
        self.state.lock().unwrap().latency = latency;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub fn count(&self, method: &str, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method && seen.path == path).count()
    }

    pub fn logins(&self) -> u32 {
        self.state.lock().unwrap().logins
    }

    pub fn open_sessions(&self) -> usize {
        self.state.lock().unwrap().sessions.len()
    }

    pub fn end_all_sessions(&self) {
        self.state.lock().unwrap().sessions.clear();
    }

    /// Its sessions are over, and the next ones are numbered from 1 again.
    pub fn restart(&self) {
        let mut state = self.state.lock().unwrap();
        state.sessions.clear();
        state.numbered = 0;
    }

    /// Somebody else signs in; whether they still are is for [`Bmc::knows`] to say.
    pub fn other_signs_in(&self) {
        let mut state = self.state.lock().unwrap();
        state.numbered += 1;
        let number = state.numbered;
        state.sessions.insert(number, "theirs".to_owned());
    }

    pub fn knows(&self, token: &str) -> bool {
        self.state.lock().unwrap().sessions.values().any(|known| known == token)
    }

    fn act(&self, request: &Request<Body>, body: &Bytes) -> (Duration, Act) {
        let mut state = self.state.lock().unwrap();
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (token, basic) = (header("x-auth-token"), header("authorization"));
        let proof = if token.is_some() {
            "token"
        } else if basic.is_some() {
            "basic"
        } else {
            "nothing"
        };
        let method = request.method().to_string();
        let began = request.extensions().get::<Mutates>().map(|mutates| mutates.began);
        state.seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
            proof,
            body: body.clone(),
            began,
        });
        let latency = state.latency;
        let scripted = state.script.get_mut(&(method.clone(), path.clone())).and_then(VecDeque::pop_front);
        let usual = |state: &mut State| {
            let bare = path.split('?').next().unwrap().trim_end_matches('/').to_owned();
            if method == "POST" && bare == SESSIONS {
                state.logins += 1;
                let login: Value = serde_json::from_slice(body).unwrap();
                if login["Password"] != PASSWORD {
                    return Act::Answer(401, error("IDRAC.2.7.SYS415", "invalid username or password"));
                }
                let token = format!("token-{}", state.logins);
                state.numbered += 1;
                let location = format!("{SESSIONS}/{}", state.numbered);
                let number = state.numbered;
                state.sessions.insert(number, token.clone());
                return Act::Raw(
                    201,
                    vec![("x-auth-token", token), ("location", location)],
                    Bytes::from("{}"),
                );
            }
            let by_token =
                token.as_ref().is_some_and(|token| state.sessions.values().any(|known| known == token));
            let encoded = "cm9vdDpjb3JyZWN0IGhvcnNl"; // root:correct horse
            let by_basic = basic.as_deref() == Some(&format!("Basic {encoded}"));
            if bare != "/redfish/v1" && !by_token && !by_basic {
                return Act::Answer(401, error("Base.1.12.NoValidSession", "no session"));
            }
            if method == "DELETE" && bare.starts_with(SESSIONS) {
                let number = bare.rsplit('/').next().unwrap().parse();
                let Some(_) = number.ok().and_then(|number| state.sessions.remove(&number)) else {
                    return Act::Answer(404, error("Base.1.12.ResourceMissingAtURI", "no such session"));
                };
                return Act::Raw(204, vec![], Bytes::new());
            }
            match (method.as_str(), state.tree.get(&bare)) {
                ("GET", Some(body)) => Act::Raw(200, vec![], body.clone()),
                ("GET", None) => {
                    Act::Answer(404, error("Base.1.12.ResourceMissingAtURI", "no such resource"))
                }
                _ => Act::Raw(204, vec![], Bytes::new()),
            }
        };
        let act = match scripted {
            None => usual(&mut state),
            Some(Act::LoseAnswer) => {
                usual(&mut state);
                Act::Fail(TransportError::NoAnswer { why: "cut".to_owned() })
            }
            Some(act) => act,
        };
        (latency, act)
    }
}

impl Transport for Bmc {
    fn send<'a>(
        &'a self,
        request: Request<Body>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        Box::pin(async move {
            let body = request.body().clone().into_bytes();
            let (latency, act) = self.act(&request, &body);
            let late = || TransportError::NoAnswer { why: "no answer in time".to_owned() };
            timeout_at(deadline, tokio::time::sleep(latency)).await.map_err(|_| late())?;
            let (status, headers, body) = match act {
                Act::Answer(status, value) => (status, vec![], value.to_string().into()),
                Act::Raw(status, headers, body) => (status, headers, body),
                Act::Fail(error) => return Err(error),
                Act::LoseAnswer => unreachable!("replaced above"),
                Act::Hang => {
                    tokio::time::sleep_until(deadline).await;
                    return Err(late());
                }
            };
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(body).unwrap())
        })
    }
}

/// A Redfish error body.
pub fn error(id: &str, text: &str) -> Value {
    json!({ "error": { "code": "Base.1.12.GeneralError", "message": "see extended info",
        "@Message.ExtendedInfo": [{ "MessageId": id, "Message": text, "MessageArgs": [] }] } })
}

/// A gate with a budget, which notes what it was told.
#[derive(Default)]
pub struct Budget {
    pub denies: Mutex<Option<GateDenied>>,
    pub asked: Mutex<u32>,
    pub outcomes: Mutex<Vec<AuthOutcome>>,
    /// What was accepted is to be asked for again.
    pub distrusts: AtomicBool,
}

impl AuthGate for Budget {
    fn trusts(&self) -> bool {
        !self.distrusts.load(Ordering::Relaxed)
    }

    fn ask<'a>(&'a self, _attempt: &'a AuthAttempt) -> BoxFuture<'a, Result<(), GateDenied>> {
        *self.asked.lock().unwrap() += 1;
        let denied = self.denies.lock().unwrap().clone();
        Box::pin(async move { denied.map_or(Ok(()), Err) })
    }

    fn settle<'a>(&'a self, _attempt: &'a AuthAttempt, outcome: AuthOutcome) -> BoxFuture<'a, ()> {
        self.outcomes.lock().unwrap().push(outcome);
        Box::pin(async {})
    }
}

/// Notes every exchange as text.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Observer for Notes {
    fn observe(&self, exchange: &Exchange<'_>) {
        let Exchange { method, path, status, attempt, .. } = exchange;
        self.0.lock().unwrap().push(format!("{method} {path} {status:?} #{attempt}"));
    }
}

pub struct Bench {
    pub bmc: Arc<Bmc>,
    pub gate: Arc<Budget>,
    pub notes: Arc<Notes>,
    pub client: Client,
}

pub fn bench(bmc: Arc<Bmc>) -> Bench {
    bench_with(bmc, PASSWORD, Options::default())
}

pub fn bench_with(bmc: Arc<Bmc>, password: &str, options: Options) -> Bench {
    let (gate, notes) = (Arc::new(Budget::default()), Arc::new(Notes::default()));
    let credentials = Credentials::new("root", password.to_owned().into());
    let endpoint = Endpoint::parse("https://10.0.0.7").unwrap();
    let client =
        Client::with_options(bmc.clone(), endpoint, credentials, gate.clone(), notes.clone(), options);
    Bench { bmc, gate, notes, client }
}

/// The recorded tree: path without trailing slash → document.
fn recorded() -> Option<&'static BTreeMap<String, Bytes>> {
    static TREE: OnceLock<Option<BTreeMap<String, Bytes>>> = OnceLock::new();
    let read = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/redfish");
        let file = std::fs::File::open(folder.join("dell-poweredge-r750.tar.gz")).ok()?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut tree = BTreeMap::new();
        for entry in archive.entries().ok()? {
            let mut entry = entry.ok()?;
            let path = entry.path().ok()?.to_string_lossy().into_owned();
            let Some(at) = path.find("redfish/v1") else { continue };
            let Some(path) = path.get(at..).and_then(|path| path.strip_suffix("/index.json")) else {
                continue;
            };
            let mut body = Vec::new();
            entry.read_to_end(&mut body).ok()?;
            tree.insert(format!("/{path}"), Bytes::from(body));
        }
        Some(tree).filter(|tree| tree.contains_key("/redfish/v1"))
    };
    let tree = TREE.get_or_init(read);
    if tree.is_none() {
        println!("SKIPPED: the recorded R750 tree is not at ../shared/data/redfish");
    }
    tree.as_ref()
}
