//! Sessions with the lab's BMCs over IPMI, in paused time: the client's own state machine, fed by hand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use rackhand_executor::{
    bmc::Stream,
    broker::ipmi::link::{Answer, Link, Links, Login},
};
use rackhand_ipmi::{
    Error, NetFn, Request,
    session::{
        Config, Entropy, Event, Key, Lookup, Opened, Privilege, RequestId, Session, SuitePolicy, Timing,
    },
    sol::SolError,
    wire::suite::Suite,
};
use rackhand_lab::InProcess;
use zeroize::Zeroizing;

use super::Wire;

/// One way.
const LATENCY: Duration = Duration::from_millis(1);

pub struct LabLinks {
    pub lab: InProcess,
    pub wire: Arc<Wire>,
}

impl Links for LabLinks {
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Arc<dyn Link>, Error>> {
        Box::pin(async move {
            let config = Config {
                user: login.user,
                password: Key::new(Zeroizing::new(login.password.as_bytes().to_vec()))?,
                privilege: Privilege::Administrator,
                lookup: Lookup::Name,
                suites: SuitePolicy::Standard,
                pin: login.pin,
                bmc_key: None,
                timing: Timing::default(),
            };
            self.wire.ipmi_logins.fetch_add(1, Ordering::Relaxed);
            let port = 20_000 + self.wire.ipmi_logins.load(Ordering::Relaxed);
            let link = LabLink {
                bmc: self.lab.index(&login.address).unwrap(),
                lab: self.lab.clone(),
                wire: Arc::clone(&self.wire),
                from: SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())),
                base: Instant::now(),
                state: Mutex::new(State {
                    session: Session::new(config, Counting(1))?,
                    answers: BTreeMap::new(),
                    opened: None,
                    closed: None,
                }),
            };
            link.with(Session::start);
            let outcome = link
                .until(|state| match (&state.opened, &state.closed) {
                    (Some(_), _) => Some(Ok(())),
                    (None, Some(why)) => Some(Err(why.clone().unwrap_or(Error::Closed))),
                    (None, None) => None,
                })
                .await;
            outcome.map(|()| Arc::new(link) as Arc<dyn Link>)
        })
    }
}

/// Numbers that differ; nobody listens in.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(17);
            *byte = self.0;
        }
        Ok(())
    }
}

struct State {
    session: Session,
    answers: BTreeMap<RequestId, Answer>,
    opened: Option<Opened>,
    closed: Option<Option<Error>>,
}

struct LabLink {
    lab: InProcess,
    wire: Arc<Wire>,
    bmc: usize,
    from: SocketAddr,
    base: Instant,
    state: Mutex<State>,
}

impl LabLink {
    fn now(&self) -> Instant {
        self.base + self.lab.now()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Session, Instant) -> T) -> T {
        act(&mut self.state.lock().unwrap().session, self.now())
    }

    /// Lets datagrams go both ways until there is nothing to say.
    async fn exchange(&self, deaf: bool) {
        loop {
            let mut sent = Vec::new();
            let mut datagram = Vec::new();
            while self.with(|session, _| session.transmit(&mut datagram)) {
                sent.push(std::mem::take(&mut datagram));
            }
            if sent.is_empty() {
                break;
            }
            tokio::time::sleep(LATENCY).await;
            let mut back = Vec::new();
            for mut datagram in sent {
                if !self.wire.ipmi_down.load(Ordering::Relaxed) {
                    let now = self.lab.now();
                    let site = self.lab.site();
                    let mut site = site.lock().unwrap();
                    back.extend(site.ipmi_receive(self.bmc, now, now, self.from, &mut datagram));
                }
            }
            tokio::time::sleep(LATENCY).await;
            if !deaf && !self.wire.ipmi_down.load(Ordering::Relaxed) {
                for mut answer in back {
                    self.with(|session, now| session.receive(now, &mut answer.bytes));
                }
            }
        }
        let mut state = self.state.lock().unwrap();
        while let Some(event) = state.session.event() {
            match event {
                Event::Opened(opened) => state.opened = Some(opened),
                Event::Answered { id, result } => drop(state.answers.insert(id, result)),
                Event::Payload { .. } => {}
                Event::Closed(why) => state.closed = Some(why),
            }
        }
    }

    async fn until<T>(&self, mut done: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut deaf = false;
        loop {
            self.exchange(deaf).await;
            if let Some(answer) = done(&mut self.state.lock().unwrap()) {
                return answer;
            }
            let deadline =
                self.with(|session, now| session.deadline().map(|at| at.saturating_duration_since(now)));
            tokio::time::sleep(deadline.unwrap_or(Duration::from_secs(1)).max(LATENCY)).await;
            self.with(Session::wake);
            deaf = self.wire.ipmi_down.load(Ordering::Relaxed);
        }
    }
}

impl Link for LabLink {
    fn carry(&self, request: Request) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let changes = (request.net_fn, request.code) == (NetFn::CHASSIS, 0x02)
                || (request.net_fn, request.code) == (NetFn::CHASSIS, 0x08)
                    && request.data.first() == Some(&5);
            let id = self.with(|session, now| session.request(now, request))?;
            if changes && self.wire.ipmi_cuts.swap(false, Ordering::Relaxed) {
                // Carried out; nobody hears of it, and the BMC is away for a while.
                self.exchange(true).await;
                self.wire.ipmi_down.store(true, Ordering::Relaxed);
            }
            self.until(|state| state.answers.remove(&id)).await
        })
    }

    fn suite(&self) -> Suite {
        self.state.lock().unwrap().opened.unwrap().suite
    }

    fn identity(&self) -> String {
        format!("{:?}", self.state.lock().unwrap().opened.unwrap().guid)
    }

    fn console(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SolError>> {
        Box::pin(std::future::ready(Err(SolError::Disabled)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.with(Session::close);
            self.until(|state| state.closed.is_some().then_some(())).await;
        })
    }
}
