//! A session on a socket: what commands are run through.
//!
//! [`Client`] is a handle; each BMC has one task that owns the session's life: it waits for deadlines and says goodbye.
//! Between deadlines nobody waits for it: commands and datagrams go straight to the state machine, under a lock that is
//! held for one step. When the last client and payload channel are dropped, the session is closed on the BMC too.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::{
    Carrier, CompletionCode, Error, Request,
    session::{Config, Discovery, Entropy, Event, Findings, Opened, RequestId, Session, discovery::ATTEMPTS},
    sockets::{Line, Receiver, Sockets, lock},
    wire::{packet::PayloadKind, suite::Suite},
};

/// How many commands of one client are in its session; further callers wait before it.
const COMMANDS: usize = 64;
/// How many payloads wait for their reader; more are dropped, and the BMC sends them again.
const PAYLOADS: usize = 64;
/// How many datagrams wait for a probe.
const PROBED: usize = 8;

type Answer = Result<(CompletionCode, Vec<u8>), Error>;

/// Where a session goes to, and with what.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub config: Config,
}

/// A session with one BMC. Cheap to clone; when the last one is dropped, the session is closed.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    opened: Opened,
}

impl Client {
    /// Opens a session. One attempt to log in is made; what went wrong is in the error.
    pub async fn connect(sockets: &Arc<Sockets>, target: Target) -> Result<Self, Error> {
        let session = Session::new(target.config, SystemEntropy::default())?;
        let (opening, opened) = oneshot::channel();
        let link = Arc::new(Link {
            line: sockets.reserve(target.address)?,
            state: Mutex::new(State {
                session,
                waiting: BTreeMap::new(),
                payloads: BTreeMap::new(),
                opening: Some(opening),
                armed: None,
                datagram: Vec::new(),
            }),
            sooner: Notify::new(),
            slots: Semaphore::new(COMMANDS),
            closed: watch::Sender::new(None),
        });
        let receiver: Arc<dyn Receiver> = Arc::<Link>::clone(&link);
        link.line.listen(Arc::downgrade(&receiver));
        // From here on, also when this future is dropped, the session ends with its handle.
        let handle = Arc::new(Handle { link: Arc::clone(&link) });
        link.step(Session::start);
        link.line.runtime().spawn(Arc::clone(&link).keep());
        let opened = opened.await.map_err(|_| Error::Closed)??;
        Ok(Self { handle, opened })
    }

    /// The cipher suite in use: keep it, and give it back as [`Config::pin`].
    pub fn suite(&self) -> Suite {
        self.opened.suite
    }

    pub fn opened(&self) -> Opened {
        self.opened
    }

    pub fn address(&self) -> SocketAddr {
        self.handle.link.line.peer()
    }

    /// Closes the session for everybody who shares it, and waits until the BMC has been told. Commands under way fail
    /// with [`Error::Closed`].
    pub async fn close(&self) {
        self.handle.link.step(Session::close);
        // Why it ended no longer matters.
        let _ = self.closed().await;
    }

    /// Waits for the end of the session: no error when it was closed on this side.
    pub async fn closed(&self) -> Result<(), Error> {
        self.handle.link.closed().await
    }

    /// Attaches to payloads of one kind, such as SOL: one channel for each kind at a time.
    pub fn payloads(&self, kind: PayloadKind) -> Result<PayloadChannel, Error> {
        let (sender, receiver) = mpsc::channel(PAYLOADS);
        let mut state = lock(&self.handle.link.state);
        if state.session.is_closed() {
            return Err(Error::Closed);
        }
        if state.payloads.contains_key(&kind) {
            return Err(Error::Request("payloads of this kind are attached already"));
        }
        state.payloads.insert(kind, sender);
        Ok(PayloadChannel { handle: Arc::clone(&self.handle), kind, receiver })
    }
}

impl Carrier for Client {
    async fn carry(&self, request: Request) -> Answer {
        let link = &self.handle.link;
        let _slot = link.slots.acquire().await.map_err(|_| Error::Closed)?;
        let (sender, answer) = oneshot::channel();
        let mut waiting = Waiting { link, id: None };
        link.step_with(|state, now| {
            let id = state.session.request(now, request)?;
            state.waiting.insert(id, sender);
            waiting.id = Some(id);
            Ok::<_, Error>(())
        })?;
        let answer = answer.await.unwrap_or(Err(Error::Closed));
        waiting.id = None;
        answer
    }
}

/// Cancels a command whose caller is gone.
struct Waiting<'a> {
    link: &'a Link,
    id: Option<RequestId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.link.step_with(|state, now| {
                state.waiting.remove(&id);
                state.session.cancel(now, id);
            });
        }
    }
}

/// Payloads of one kind, both ways. Keeps the session open while it lives.
pub struct PayloadChannel {
    handle: Arc<Handle>,
    kind: PayloadKind,
    receiver: mpsc::Receiver<Vec<u8>>,
}

impl PayloadChannel {
    /// Sends once: neither order nor arrival is sure.
    pub fn send(&self, data: &[u8]) -> Result<(), Error> {
        self.handle.link.step_with(|state, now| state.session.payload(now, self.kind, data))
    }

    /// The next payload; none once the session is closed.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        self.receiver.recv().await
    }

    /// Waits for the end of the session, as [`Client::closed`] does.
    pub async fn closed(&self) -> Result<(), Error> {
        self.handle.link.closed().await
    }
}

impl Drop for PayloadChannel {
    fn drop(&mut self) {
        lock(&self.handle.link.state).payloads.remove(&self.kind);
    }
}

/// Counts clients and payload channels: its drop is the end of the session.
struct Handle {
    link: Arc<Link>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.step(Session::close);
    }
}

/// What the clients, the reading task and the session's own task share.
struct Link {
    line: Line,
    state: Mutex<State>,
    /// The deadline came nearer, or the session is closed.
    sooner: Notify,
    slots: Semaphore,
    /// None while the session is not closed.
    closed: watch::Sender<Option<Result<(), Error>>>,
}

struct State {
    session: Session,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    payloads: BTreeMap<PayloadKind, mpsc::Sender<Vec<u8>>>,
    opening: Option<oneshot::Sender<Result<Opened, Error>>>,
    /// What the task sleeps for.
    armed: Option<Instant>,
    datagram: Vec<u8>,
}

impl Link {
    fn step(&self, act: impl FnOnce(&mut Session, Instant)) {
        self.step_with(|state, now| act(&mut state.session, now));
    }

    /// One step of the state machine, and everything that comes of it.
    fn step_with<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let result = act(state, Instant::now());
        while state.session.transmit(&mut state.datagram) {
            self.line.send(&state.datagram);
        }
        while let Some(event) = state.session.event() {
            self.settle(state, event);
        }
        // A deadline that moved away is found when the old one is reached: no timer is touched for each command.
        let deadline = state.session.deadline();
        let sooner = match (deadline, state.armed) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (Some(_), None) => true,
            (None, _) => state.session.is_closed(),
        };
        drop(guard);
        if sooner {
            self.sooner.notify_one();
        }
        result
    }

    fn settle(&self, state: &mut State, event: Event) {
        // Who no longer waits does not mind.
        match event {
            Event::Opened(opened) => {
                if let Some(opening) = state.opening.take() {
                    let _ = opening.send(Ok(opened));
                }
            }
            Event::Answered { id, result } => {
                if let Some(waiting) = state.waiting.remove(&id) {
                    let _ = waiting.send(result);
                }
            }
            Event::Payload { kind, data } => {
                if let Some(channel) = state.payloads.get(&kind) {
                    let _ = channel.try_send(data);
                }
            }
            Event::Closed(why) => {
                if let Some(opening) = state.opening.take() {
                    let _ = opening.send(Err(why.clone().unwrap_or(Error::Closed)));
                }
                state.payloads.clear();
                self.closed.send_replace(Some(why.map_or(Ok(()), Err)));
            }
        }
    }

    async fn closed(&self) -> Result<(), Error> {
        let mut closed = self.closed.subscribe();
        // The sender is `self`, so that waiting does not fail.
        match closed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(closure)) => closure.clone(),
            Ok(None) | Err(_) => Err(Error::Closed),
        }
    }

    /// The session's task: wakes the session at its deadlines until it is closed.
    async fn keep(self: Arc<Self>) {
        loop {
            let deadline = {
                let mut state = lock(&self.state);
                if state.session.is_closed() {
                    return;
                }
                state.armed = state.session.deadline();
                state.armed
            };
            let Some(deadline) = deadline else {
                self.sooner.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => self.step(Session::wake),
                () = self.sooner.notified() => {}
            }
        }
    }
}

impl Receiver for Link {
    fn receive(&self, datagram: &mut [u8]) {
        self.step(|session, now| session.receive(now, datagram));
    }
}

/// What a BMC tells to anybody. [`Error::NoAnswer`] where there is none at all; no attempt to log in is made.
pub async fn probe(sockets: &Arc<Sockets>, address: SocketAddr) -> Result<Findings, Error> {
    let line = sockets.reserve(address)?;
    let (sender, mut receiver) = mpsc::channel(PROBED);
    let sender: Arc<dyn Receiver> = Arc::new(Probed(sender));
    line.listen(Arc::downgrade(&sender));
    let mut discovery = Discovery::new(Instant::now());
    while let Some(deadline) = discovery.deadline() {
        while let Some(datagram) = discovery.transmit() {
            line.send(&datagram);
        }
        match tokio::time::timeout_at(deadline.into(), receiver.recv()).await {
            Ok(Some(mut datagram)) => discovery.receive(Instant::now(), &mut datagram),
            Ok(None) | Err(_) => discovery.wake(Instant::now()),
        }
    }
    let findings = discovery.findings();
    if findings.answered() { Ok(findings) } else { Err(Error::NoAnswer { to: "probe", attempts: ATTEMPTS }) }
}

struct Probed(mpsc::Sender<Vec<u8>>);

impl Receiver for Probed {
    fn receive(&self, datagram: &mut [u8]) {
        // A flood is dropped; the questions are asked again.
        let _ = self.0.try_send(datagram.to_vec());
    }
}

/// Random bytes of the operating system, taken some at a time.
struct SystemEntropy {
    pool: [u8; 256],
    used: usize,
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self { pool: [0; 256], used: 256 }
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        if self.used + bytes.len() > self.pool.len() {
            getrandom::fill(&mut self.pool).map_err(|_| Error::System {
                what: "getting random bytes",
                kind: std::io::ErrorKind::Other,
            })?;
            self.used = 0;
        }
        let end = self.used + bytes.len();
        let Some(source) = self.pool.get(self.used..end) else {
            return Err(Error::Request("more random bytes at once than there are"));
        };
        bytes.copy_from_slice(source);
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
