//! The console as `AsyncRead + AsyncWrite`.
//!
//! One task for each stream moves payloads between the session and the [`Machine`], and asks the BMC from time to time
//! who holds the console: a BMC that drops it without a word is noticed. It ends by itself with the console, and
//! deactivates the payload when the stream is closed or dropped, unless somebody else has it by then.
//!
//! How it fails: a read gives what has arrived and then an `io::Error` with a [`SolEnd`] inside; a write gives the same
//! error at once. After [`SolStream::close`] there is nothing left to read from.

use std::{
    future::pending,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    activate::{Activated, deactivate},
    commands::GetPayloadInstanceInfo,
    end::SolEnd,
    machine::{Lines, Machine, Status},
};
use crate::{Carrier, Error};

/// The SOL payloads of one session.
pub trait SolChannel: Send + 'static {
    fn send(&mut self, payload: Vec<u8>) -> impl Future<Output = Result<(), Error>> + Send;

    /// The next payload that arrived; an error when the session is over. Must be safe to cancel.
    fn recv(&mut self) -> impl Future<Output = Result<Vec<u8>, Error>> + Send;
}

/// How often the BMC is asked who holds the console.
const CHECK: Duration = Duration::from_secs(15);
/// Longest time for what is still to be sent when the stream is closed.
const LINGER: Duration = Duration::from_secs(2);
/// Longest time for giving the console back.
const CLOSE: Duration = Duration::from_secs(10);

/// An active console.
#[derive(Debug)]
pub struct SolStream {
    shared: Arc<Shared>,
    activated: Activated,
    task: Option<JoinHandle<Result<(), Error>>>,
}

/// What can be done beside reading and writing; may outlive the stream.
#[derive(Clone, Debug)]
pub struct SolControl {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the task that there is something to do.
    changed: Notify,
    status: watch::Sender<Status>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    /// Set when the reason is settled, which is later than the machine's own end.
    end: Option<SolEnd>,
    closing: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl SolStream {
    /// Starts the task of an activated console. Needs a tokio runtime.
    pub fn start(
        carrier: impl Carrier + Send + 'static,
        channel: impl SolChannel,
        activated: Activated,
    ) -> Self {
        let mut machine = Machine::new(activated.settings.clone());
        machine.open(Instant::now());
        let state = State { machine, end: None, closing: false, reader: None, writer: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
            status: watch::Sender::default(),
        });
        let task = tokio::spawn(run(shared.clone(), carrier, channel, activated.clone()));
        Self { shared, activated, task: Some(task) }
    }

    pub fn activated(&self) -> &Activated {
        &self.activated
    }

    pub fn control(&self) -> SolControl {
        SolControl { shared: self.shared.clone() }
    }

    /// Sends what is still to be sent, gives the console back and waits for both, each for a few seconds. The error
    /// says that the BMC may still hold the console.
    pub async fn close(mut self) -> Result<(), Error> {
        self.shared.close();
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Drop for SolStream {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl SolControl {
    /// A break on the host's line, after everything written so far.
    pub fn send_break(&self) {
        self.shared.lock().machine.send_break();
        self.shared.changed.notify_one();
    }

    pub fn set_lines(&self, lines: Lines) {
        self.shared.lock().machine.set_lines(lines);
        self.shared.changed.notify_one();
    }

    /// Counters and the host's readiness, as they change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    pub fn end(&self) -> Option<SolEnd> {
        self.shared.lock().end.clone()
    }
}

impl AsyncRead for SolStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let count = state.machine.read(buf.initialize_unfilled(), now);
        if count > 0 || buf.remaining() == 0 {
            buf.advance(count);
            // There may be room again for what the BMC was asked to keep.
            if state.machine.deadline().is_some_and(|deadline| deadline <= now) {
                self.shared.changed.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, end.clone())));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SolStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, end.clone())));
        }
        let count = state.machine.write(bytes);
        if count > 0 || bytes.is_empty() {
            self.shared.changed.notify_one();
            return Poll::Ready(Ok(count));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Done when the BMC has taken everything.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, end.clone())));
        }
        if state.machine.flushed() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The same as a flush: one direction of a console cannot be closed alone.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// The next payload to send.
    fn next(&self) -> Option<Vec<u8>> {
        self.lock().machine.poll_transmit(Instant::now())
    }

    /// Wakes whoever can go on, and tells of changes.
    fn publish(&self) {
        let (reader, writer, status) = {
            let mut state = self.lock();
            let ended = state.end.is_some();
            let readable = ended || state.machine.readable();
            let writable = ended || state.machine.writable();
            let reader = if readable { state.reader.take() } else { None };
            let writer = if writable { state.writer.take() } else { None };
            (reader, writer, state.machine.status())
        };
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
    }

    fn finish(&self, end: SolEnd) {
        self.lock().machine.finish(end);
    }
}

/// What the task does next.
enum Next {
    Wait(Option<Instant>),
    Stop(SolEnd),
}

async fn run(
    shared: Arc<Shared>,
    carrier: impl Carrier,
    mut channel: impl SolChannel,
    activated: Activated,
) -> Result<(), Error> {
    let end = exchange(&shared, &carrier, &mut channel, &activated).await;
    let end = match end {
        SolEnd::Deactivated => {
            timeout(LINGER, taken_over(&carrier, &activated)).await.ok().flatten().unwrap_or(end)
        }
        end => end,
    };
    tracing::debug!(%end, "console ended");
    let give_back = matches!(end, SolEnd::Closed | SolEnd::TooManyRetries { .. });
    {
        let mut state = shared.lock();
        state.machine.finish(end.clone());
        state.end = Some(end);
    }
    shared.publish();
    if !give_back {
        return Ok(());
    }
    let closed = timeout(CLOSE, async {
        if taken_over(&carrier, &activated).await.is_none() {
            deactivate(&carrier, activated.instance).await?;
        }
        Ok(())
    });
    // Without an answer in this time the session is gone as well, and the console with it.
    closed.await.unwrap_or(Ok(()))
}

/// Moves payloads until there is a reason to stop.
async fn exchange(
    shared: &Shared,
    carrier: &impl Carrier,
    channel: &mut impl SolChannel,
    activated: &Activated,
) -> SolEnd {
    let mut watched = pin!(watch_holder(carrier, activated));
    let mut linger = None;
    loop {
        while let Some(payload) = shared.next() {
            if let Err(error) = channel.send(payload).await {
                shared.finish(SolEnd::SessionLost(error.to_string()));
            }
        }
        shared.publish();
        let deadline = match next(shared, &mut linger) {
            Next::Stop(end) => return end,
            Next::Wait(deadline) => deadline,
        };
        tokio::select! {
            payload = channel.recv() => match payload {
                Ok(payload) => shared.lock().machine.handle(&payload, Instant::now()),
                Err(error) => shared.finish(SolEnd::SessionLost(error.to_string())),
            },
            () = shared.changed.notified() => {}
            () = until(deadline) => {}
            end = &mut watched => shared.finish(end),
        }
    }
}

fn next(shared: &Shared, linger: &mut Option<Instant>) -> Next {
    let now = Instant::now();
    let state = shared.lock();
    if let Some(end) = state.machine.end() {
        return Next::Stop(end.clone());
    }
    if state.closing {
        let last = *linger.get_or_insert(now + LINGER);
        if state.machine.flushed() || now >= last {
            return Next::Stop(SolEnd::Closed);
        }
        return Next::Wait(Some(state.machine.deadline().map_or(last, |deadline| deadline.min(last))));
    }
    Next::Wait(state.machine.deadline())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Asks the BMC who holds the console until it is not us any more.
async fn watch_holder(carrier: &impl Carrier, activated: &Activated) -> SolEnd {
    let Some(own) = activated.own else { return pending().await };
    loop {
        sleep(CHECK).await;
        match carrier.run(&GetPayloadInstanceInfo { instance: activated.instance }).await {
            Ok(info) => match info.session_id {
                Some(session) if session != own.session_id => return SolEnd::TakenOver { session },
                Some(_) => {}
                None => return SolEnd::Deactivated,
            },
            // It may be busy.
            Err(Error::Refused { .. } | Error::Malformed(_)) => {}
            Err(error) => return SolEnd::SessionLost(error.to_string()),
        }
    }
}

/// Whether somebody else has the console; `None` also when the BMC does not tell.
async fn taken_over(carrier: &impl Carrier, activated: &Activated) -> Option<SolEnd> {
    let own = activated.own?;
    let info = carrier.run(&GetPayloadInstanceInfo { instance: activated.instance }).await.ok()?;
    let session = info.session_id.filter(|session| *session != own.session_id)?;
    Some(SolEnd::TakenOver { session })
}
