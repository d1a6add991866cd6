//! What is still to be told to the control plane: numbered per `(run, epoch)`, journalled before it is sent,
//! kept until it is acknowledged.
//!
//! One request is in flight at a time. A failed one is repeated (the control plane answers `duplicate`); a gap
//! is filled from the number it names. A number is used up when the control plane has taken its item; one that it
//! refuses leaves its number to the next. A long outage cannot fill memory: an unsent checkpoint is replaced by the
//! next one under its number, and beyond [`MAX_EVENTS`] unsent items log lines are counted instead of kept.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rackhand_schema::{
    ErrorCode,
    event::Level,
    id::RunId,
    protocol::{
        ItemStatus, MAX_ITEM_BYTES, MAX_REPORT_ITEMS, Report, ReportBody, ReportItem, ReportResponse,
    },
    server::Inventory,
};
use serde_json::{Value, value::RawValue};
use tokio::sync::{Notify, watch};

use crate::{
    clock::Clock,
    cloud::{Cloud, CloudError},
    journal::{Journal, JournalError, Pending, Write},
    timing::Timing,
};

/// Unsent items of a run beyond which log lines are only counted.
pub const MAX_EVENTS: usize = 500;
/// Bytes of items in one report.
const MAX_REPORT_BYTES: usize = 1024 * 1024;

pub struct Outbox {
    journal: Arc<dyn Journal>,
    lanes: Mutex<BTreeMap<(RunId, u64), Lane>>,
    /// Last number of closed lanes: a lease that is granted again to this process goes on counting.
    closed: Mutex<BTreeMap<(RunId, u64), u64>>,
    work: Notify,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Lane {
    /// Journalled with the first item.
    opening: Option<Write>,
    last_seq: u64,
    queue: VecDeque<Queued>,
    /// Every number up to here has been answered for.
    answered: u64,
    /// Number → code of the items that were refused.
    refused: BTreeMap<u64, String>,
    /// The control plane does not take state from this lease any more.
    passed_on: bool,
    /// The control plane has taken what ends this lease: the run's end, or that it is given back.
    over: bool,
    /// Nobody works under this lease any more: what is left is delivered, and then the lane goes.
    closed: bool,
    left_out: u64,
}

struct Queued {
    seq: u64,
    item: String,
    sent: bool,
    /// It ends the lease.
    last: bool,
    /// Phase of a checkpoint, which a later one of the same phase may replace.
    checkpoint: Option<String>,
}

/// Why an item is not kept. Nothing of its commit is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unkept {
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The control plane would not take it, and without it nobody could go on from here.
    #[error("{what} of {bytes} bytes is larger than the {MAX_ITEM_BYTES} that the control plane takes")]
    TooLarge { what: &'static str, bytes: usize },
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// The lease has passed on.
    PassedOn,
    Refused(String),
}

/// Begins the names under which the journal keeps how many log lines were only counted, for the next process.
const LEFT_OUT: &str = "left_out ";

/// The log lines of a lease that were only counted and not told of yet.
struct LeftOut {
    run: RunId,
    epoch: u64,
    lines: u64,
    /// The number of the last item.
    last_seq: u64,
}

impl LeftOut {
    fn key(&self) -> String {
        format!("{LEFT_OUT}{} {}", self.run, self.epoch)
    }

    fn kept(&self) -> Write {
        Write::Meta { key: self.key(), value: Some(format!("{} {}", self.lines, self.last_seq)) }
    }

    fn forgotten(&self) -> Write {
        Write::Meta { key: self.key(), value: None }
    }

    fn read(key: &str, kept: &str) -> Option<Self> {
        let (run, epoch) = key.strip_prefix(LEFT_OUT)?.split_once(' ')?;
        let (lines, last_seq) = kept.split_once(' ')?;
        Some(Self {
            run: run.parse().ok()?,
            epoch: epoch.parse().ok()?,
            lines: lines.parse().ok()?,
            last_seq: last_seq.parse().ok()?,
        })
    }
}

fn warning(message: String) -> ReportBody {
    ReportBody::Event { level: Level::Warn, message, data: Value::Null }
}

fn is_log_line(body: &ReportBody) -> bool {
    matches!(body, ReportBody::Event { .. })
}

fn ends_lease(body: &ReportBody) -> bool {
    matches!(body, ReportBody::Finish(_) | ReportBody::Yield { .. })
}

impl Outbox {
    pub fn new(journal: Arc<dyn Journal>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            lanes: Mutex::default(),
            closed: Mutex::default(),
            work: Notify::new(),
            changed: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(RunId, u64), Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back what a former process had not delivered, and tells of the log lines that it had only counted.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn restore(&self) -> Result<(), JournalError> {
        let restored = |lanes: &mut BTreeMap<(RunId, u64), Lane>, item: Pending, sent: bool| {
            let Pending { run, epoch, seq, item } = item;
            let lane = lanes.entry((run, epoch)).or_default();
            lane.last_seq = lane.last_seq.max(seq);
            lane.closed = true;
            lane.queue.push_back(Queued { seq, item, sent, last: false, checkpoint: None });
        };
        for pending in self.journal.pending().await? {
            restored(&mut self.lock(), pending, true);
        }
        for (key, kept) in self.journal.metas(LEFT_OUT).await? {
            let mut writes = vec![Write::Meta { key: key.clone(), value: None }];
            let untold = LeftOut::read(&key, &kept).map(|LeftOut { run, epoch, lines, last_seq }| {
                let queued = self.lock().get(&(run, epoch)).map_or(0, |lane| lane.last_seq);
                let seq = last_seq.max(queued) + 1;
                let text = format!(
                    "At least {lines} log lines were dropped while the control plane was unreachable, before this \
                     executor was restarted."
                );
                let item = encode(run, epoch, seq, warning(text))?;
                Ok::<_, Unkept>(Pending { run, epoch, seq, item })
            });
            let untold = untold.transpose().map_err(|error| JournalError(error.to_string()))?;
            if let Some(Pending { run, epoch, seq, item }) = untold.clone() {
                writes.push(Write::Outbox { run, epoch, seq, item });
            }
            self.journal.commit(writes).await?;
            if let Some(untold) = untold {
                restored(&mut self.lock(), untold, false);
            }
        }
        self.work.notify_one();
        Ok(())
    }

    /// The lease of `(run, epoch)` is ours (again). `opening` is journalled with the first item: nothing is done
    /// before that, and it costs no wait for the disk of its own.
    pub fn open(&self, run: RunId, epoch: u64, opening: Option<Write>) {
        let last_seq = self.closed.lock().unwrap_or_else(PoisonError::into_inner).remove(&(run, epoch));
        let mut lanes = self.lock();
        let lane = lanes.entry((run, epoch)).or_default();
        lane.last_seq = lane.last_seq.max(last_seq.unwrap_or(0));
        lane.answered = lane.answered.max(last_seq.unwrap_or(0));
        (lane.passed_on, lane.over, lane.closed) = (false, false, false);
        lane.opening = opening;
    }

    /// What [`Outbox::open`] was given, if nothing has been pushed since.
    pub fn take_opening(&self, run: RunId, epoch: u64) -> Option<Write> {
        self.lock().get_mut(&(run, epoch))?.opening.take()
    }

    /// Journals and queues `body`; the answer is its number (0 for a log line that was only counted). One task
    /// pushes for one `(run, epoch)`.
    ///
    /// # Errors
    /// When the journal fails, or the item is too large.
    pub async fn push(&self, run: RunId, epoch: u64, body: ReportBody) -> Result<u64, Unkept> {
        let replaced = match &body {
            body if is_log_line(body) => {
                let counted = {
                    let mut lanes = self.lock();
                    let lane = lanes.entry((run, epoch)).or_default();
                    let full = lane.queue.len() >= MAX_EVENTS;
                    lane.left_out += u64::from(full);
                    full.then_some(LeftOut { run, epoch, lines: lane.left_out, last_seq: lane.last_seq })
                };
                if let Some(left_out) = counted {
                    // Each is a wait for the disk.
                    if left_out.lines.is_power_of_two() {
                        self.journal.write(left_out.kept()).await?;
                    }
                    return Ok(0);
                }
                None
            }
            ReportBody::Checkpoint { phase, .. } => self.replace(run, epoch, phase, &body).await?,
            _ => None,
        };
        match replaced {
            Some(seq) => Ok(seq),
            None => self.push_all(run, epoch, Vec::new(), vec![body]).await,
        }
    }

    /// Journals `notes` and then `bodies` in one commit, and queues the bodies for one report; the answer is the
    /// number of the last one. Log lines that were only counted are told of before the next one that has room, and
    /// before what ends the lease.
    ///
    /// # Errors
    /// When the journal fails, or an item is too large.
    pub async fn push_all(
        &self,
        run: RunId,
        epoch: u64,
        notes: Vec<Write>,
        bodies: Vec<ReportBody>,
    ) -> Result<u64, Unkept> {
        let (mut seq, opening, left_out, untold) = {
            let mut lanes = self.lock();
            let lane = lanes.entry((run, epoch)).or_default();
            let room = lane.queue.len() < MAX_EVENTS / 2;
            let told = bodies.iter().any(|body| ends_lease(body) || (room && is_log_line(body)));
            let left_out = if told { std::mem::take(&mut lane.left_out) } else { 0 };
            (lane.last_seq, lane.opening.take(), left_out, lane.left_out)
        };
        let told = (left_out > 0).then(|| {
            warning(format!("{left_out} log lines were dropped while the control plane was unreachable."))
        });
        let encoded = told.into_iter().chain(bodies).map(|body| {
            seq += 1;
            let checkpoint = match &body {
                ReportBody::Checkpoint { phase, .. } => Some(phase.clone()),
                _ => None,
            };
            let last = ends_lease(&body);
            Ok(Queued { seq, item: encode(run, epoch, seq, body)?, sent: false, last, checkpoint })
        });
        let queued = match encoded.collect::<Result<Vec<Queued>, Unkept>>() {
            Ok(queued) => queued,
            Err(unkept) => {
                let mut lanes = self.lock();
                let lane = lanes.entry((run, epoch)).or_default();
                (lane.opening, lane.left_out) = (opening, left_out.max(untold));
                return Err(unkept);
            }
        };
        let item = |queued: &Queued| {
            let (seq, item) = (queued.seq, queued.item.clone());
            Write::Outbox { run, epoch, seq, item }
        };
        let mut writes: Vec<Write> =
            opening.into_iter().chain(notes).chain(queued.iter().map(item)).collect();
        let left_out = LeftOut { run, epoch, lines: left_out.max(untold), last_seq: seq };
        if untold > 0 {
            writes.push(left_out.kept());
        } else if left_out.lines > 0 {
            writes.push(left_out.forgotten());
        }
        self.journal.commit(writes).await?;
        {
            let mut lanes = self.lock();
            let lane = lanes.entry((run, epoch)).or_default();
            lane.last_seq = seq;
            // A number that a refused item has left.
            lane.refused.retain(|refused, _| queued.iter().all(|item| item.seq != *refused));
            lane.queue.extend(queued);
        }
        self.work.notify_one();
        Ok(seq)
    }

    /// Puts a checkpoint in the place of an unsent one of the same phase, if that is the last item; its number.
    async fn replace(
        &self,
        run: RunId,
        epoch: u64,
        phase: &str,
        body: &ReportBody,
    ) -> Result<Option<u64>, Unkept> {
        let same = |last: &&mut Queued| !last.sent && last.checkpoint.as_deref() == Some(phase);
        let last = |lanes: &mut BTreeMap<(RunId, u64), Lane>| {
            lanes.get_mut(&(run, epoch))?.queue.back_mut().filter(same).map(|last| last.seq)
        };
        let Some(seq) = last(&mut self.lock()) else { return Ok(None) };
        let item = encode(run, epoch, seq, body.clone())?;
        self.journal.write(Write::Outbox { run, epoch, seq, item: item.clone() }).await?;
        let mut lanes = self.lock();
        // If the older one left while the journal wrote, this one needs a number of its own.
        let place = lanes.get_mut(&(run, epoch)).and_then(|lane| lane.queue.back_mut());
        Ok(place.filter(|last| !last.sent && last.seq == seq).map(|last| {
            last.item = item;
            seq
        }))
    }

    /// Waits for the answers to the `count` items that end with `last`, which were pushed together: the first one
    /// that is not accepted, with its number.
    pub async fn answer_all(&self, run: RunId, epoch: u64, last: u64, count: u64) -> (u64, Answer) {
        for seq in last.saturating_sub(count) + 1..last {
            let answer = self.answer(run, epoch, seq).await;
            if answer != Answer::Accepted {
                return (seq, answer);
            }
        }
        (last, self.answer(run, epoch, last).await)
    }

    /// Waits for the answer to item `seq`.
    pub async fn answer(&self, run: RunId, epoch: u64, seq: u64) -> Answer {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let lanes = self.lock();
                let Some(lane) = lanes.get(&(run, epoch)) else { return Answer::PassedOn };
                if let Some(code) = lane.refused.get(&seq) {
                    return if lane.passed_on { Answer::PassedOn } else { Answer::Refused(code.clone()) };
                }
                if lane.answered >= seq {
                    return Answer::Accepted;
                }
                if lane.passed_on {
                    return Answer::PassedOn;
                }
            }
            if changed.changed().await.is_err() {
                return Answer::PassedOn;
            }
        }
    }

    /// Whether the control plane has refused state of this lease.
    pub fn passed_on(&self, run: RunId, epoch: u64) -> bool {
        self.lock().get(&(run, epoch)).is_some_and(|lane| lane.passed_on)
    }

    /// Whether this process has said, or is just saying, how this lease ends: nothing is done under it any more. What
    /// was sent may have been taken before the answer to it is here.
    pub fn is_ended(&self, run: RunId, epoch: u64) -> bool {
        self.lock().get(&(run, epoch)).is_none_or(|lane| {
            lane.over || lane.closed || lane.queue.iter().any(|item| item.last && item.sent)
        })
    }

    /// Whether something of this lease is still to be delivered.
    pub fn is_delivering(&self, run: RunId, epoch: u64) -> bool {
        self.lock().get(&(run, epoch)).is_some_and(|lane| !lane.queue.is_empty())
    }

    /// The lease is over: what is queued is still delivered, nobody waits any more.
    pub fn close(&self, run: RunId, epoch: u64) {
        let mut lanes = self.lock();
        if let Some(lane) = lanes.get_mut(&(run, epoch)) {
            (lane.passed_on, lane.closed) = (true, true);
        }
        self.remove_finished(&mut lanes);
        drop(lanes);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes out the lanes under which nobody works and of which everything is delivered.
    fn remove_finished(&self, lanes: &mut BTreeMap<(RunId, u64), Lane>) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|key, lane| {
            let finished = lane.closed && lane.queue.is_empty();
            if finished {
                closed.insert(*key, lane.last_seq);
            }
            !finished
        });
        while closed.len() > MAX_CLOSED {
            // Run ids are ordered by time: the oldest goes.
            closed.pop_first();
        }
    }

    /// How many leases something is kept of, for tests of what grows.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether everything has been delivered.
    pub fn is_empty(&self) -> bool {
        self.lock().values().all(|lane| lane.queue.is_empty())
    }

    /// Delivers for ever; ends only with an answer after which this process may not go on. Sends only while
    /// `leased`: after an outage the lease is renewed first, or every state would be refused as stale.
    ///
    /// # Errors
    /// [`CloudError::Superseded`] or [`CloudError::Revoked`], or the journal's failure as `Refused`.
    pub async fn deliver(
        &self,
        cloud: &dyn Cloud,
        clock: &dyn Clock,
        timing: &Timing,
        leased: impl Fn() -> bool,
    ) -> CloudError {
        let mut pause = timing.retry;
        loop {
            if !leased() {
                clock.sleep(LEASE_POLL).await;
                continue;
            }
            let (keys, report) = self.batch();
            if keys.is_empty() {
                self.work.notified().await;
                continue;
            }
            let progress = match cloud.report(&report).await {
                Ok(response) => match self.take_in(&keys, response).await {
                    Ok(progress) => progress,
                    Err(error) => {
                        return CloudError::Refused { code: "journal".into(), detail: error.to_string() };
                    }
                },
                Err(error @ (CloudError::Superseded | CloudError::Revoked(_))) => return error,
                Err(error) => {
                    tracing::warn!(%error, items = keys.len(), "report not delivered; it is kept and repeated");
                    false
                }
            };
            if progress {
                pause = timing.retry;
            } else {
                clock.sleep(pause).await;
                pause = (pause * 2).min(timing.retry_max);
            }
        }
    }

    fn batch(&self) -> (Vec<(RunId, u64, u64)>, Report) {
        let mut lanes = self.lock();
        let (mut keys, mut items, mut bytes) = (Vec::new(), Vec::new(), 0);
        'lanes: for ((run, epoch), lane) in lanes.iter_mut() {
            for queued in &mut lane.queue {
                if keys.len() >= MAX_REPORT_ITEMS || bytes + queued.item.len() > MAX_REPORT_BYTES {
                    break 'lanes;
                }
                let Ok(raw) = RawValue::from_string(queued.item.clone()) else { continue };
                queued.sent = true;
                bytes += queued.item.len();
                keys.push((*run, *epoch, queued.seq));
                items.push(raw);
            }
        }
        (keys, Report { items })
    }

    /// Whether any item was answered for.
    async fn take_in(
        &self,
        keys: &[(RunId, u64, u64)],
        response: ReportResponse,
    ) -> Result<bool, JournalError> {
        // Answered for; of these, `unused` are numbers that the next item gets.
        let (mut done, mut unused) = (Vec::new(), Vec::new());
        {
            let mut lanes = self.lock();
            for result in response.results {
                let Some((run, epoch, seq)) = keys.get(result.index).copied() else { continue };
                let Some(lane) = lanes.get_mut(&(run, epoch)) else { continue };
                let code = result.code.unwrap_or_default();
                if result.status == ItemStatus::Refused && code == "sequence-gap" {
                    let first = lane.queue.front().map(|queued| queued.seq);
                    let expected = result.expected_seq.unwrap_or(seq);
                    if first.is_none_or(|first| first > expected) {
                        tracing::error!(%run, epoch, expected, "items before this one are gone; the run is given up");
                        lane.passed_on = true;
                        lane.refused.insert(seq, code);
                        lane.last_seq = expected.saturating_sub(1);
                        unused.push((run, epoch, seq));
                    }
                    continue;
                }
                match result.status {
                    ItemStatus::Accepted | ItemStatus::Duplicate | ItemStatus::Late => {
                        lane.over |= lane.queue.iter().any(|item| item.seq == seq && item.last);
                    }
                    ItemStatus::Quarantined => {
                        tracing::error!(%run, epoch, seq, "the control plane did not understand an item");
                        lane.refused.insert(seq, "quarantined".to_owned());
                    }
                    ItemStatus::Refused if code == ErrorCode::RunSpent.as_str() => {
                        tracing::warn!(%run, epoch, seq, "the run has reported too much to begin anything else");
                        // What is queued behind it was said together with it.
                        for queued in lane.queue.iter().filter(|queued| queued.seq >= seq) {
                            lane.refused.insert(queued.seq, code.clone());
                            unused.push((run, epoch, queued.seq));
                        }
                        lane.last_seq = seq.saturating_sub(1);
                        continue;
                    }
                    ItemStatus::Refused => {
                        tracing::warn!(%run, epoch, seq, code, "the control plane refused an item");
                        let gone = matches!(code.as_str(), "stale-epoch" | "run-finished");
                        lane.passed_on |= gone;
                        lane.refused.insert(seq, code);
                        if !gone && lane.last_seq == seq {
                            lane.last_seq -= 1;
                            unused.push((run, epoch, seq));
                            continue;
                        }
                    }
                }
                done.push((run, epoch, seq));
            }
        }
        let all = || done.iter().chain(&unused);
        if all().next().is_some() {
            let acknowledged = |&(run, epoch, seq): &_| Write::Acknowledged { run, epoch, seq };
            self.journal.commit(all().map(acknowledged).collect()).await?;
        }
        {
            let mut lanes = self.lock();
            for (run, epoch, seq) in all() {
                let Some(lane) = lanes.get_mut(&(*run, *epoch)) else { continue };
                lane.queue.retain(|queued| queued.seq != *seq);
            }
            for (run, epoch, seq) in &done {
                let Some(lane) = lanes.get_mut(&(*run, *epoch)) else { continue };
                lane.answered = lane.answered.max(*seq);
            }
            self.remove_finished(&mut lanes);
        }
        self.changed.send_modify(|version| *version += 1);
        Ok(all().next().is_some())
    }
}

/// What a run is taken up from: none of these may give its number to something else.
fn kind(body: &ReportBody) -> Option<&'static str> {
    match body {
        ReportBody::Event { .. } | ReportBody::Inventory(_) => None,
        ReportBody::Checkpoint { .. } => Some("a checkpoint"),
        ReportBody::Intent(_) | ReportBody::IntentResolved { .. } => Some("an intent"),
        ReportBody::Effect(_) => Some("an effect"),
        ReportBody::Finish(_) | ReportBody::Yield { .. } => Some("an end"),
        ReportBody::Phase { .. } => Some("a phase"),
    }
}

/// Bounded JSON of one item. An inventory that is too large loses components, and names that; one that still is, and a
/// log line, are replaced by a log line that says so.
///
/// # Errors
/// [`Unkept::TooLarge`]: anything else.
fn encode(run_id: RunId, epoch: u64, seq: u64, body: ReportBody) -> Result<String, Unkept> {
    let json = |body: ReportBody| {
        serde_json::to_string(&ReportItem { run_id, epoch, seq, body })
            .map_err(|error| Unkept::Journal(JournalError(format!("an item does not serialise: {error}"))))
    };
    let mut body = body;
    let mut item = json(body.clone())?;
    while item.len() > MAX_ITEM_BYTES
        && let ReportBody::Inventory(inventory) = &mut body
        && !inventory.components.is_empty()
    {
        shorten(inventory, item.len());
        item = json(body.clone())?;
    }
    if item.len() <= MAX_ITEM_BYTES {
        return Ok(item);
    }
    if let Some(what) = kind(&body) {
        return Err(Unkept::TooLarge { what, bytes: item.len() });
    }
    json(ReportBody::Event {
        level: Level::Error,
        message: format!("An item of {} bytes was too large to report and was dropped", item.len()),
        data: Value::Null,
    })
}

/// Takes components out of an inventory of `bytes` bytes, so that it may fit. What is left out counts as not read,
/// and so as neither new nor removed.
fn shorten(inventory: &mut Inventory, bytes: usize) {
    let all = inventory.components.len();
    let fitting = all * MAX_ITEM_BYTES / bytes * 9 / 10;
    inventory.components.truncate(fitting.min(all - 1));
    let why = "the list of components is too large to report; the last ones are omitted";
    inventory.unreadable.insert("firmware".to_owned(), why.to_owned());
}

/// Closed leases whose last number is remembered.
const MAX_CLOSED: usize = 10_000;
/// How often an interrupted delivery looks for a renewed lease.
const LEASE_POLL: Duration = Duration::from_millis(100);
/// How long a drain waits between two looks at the outbox.
pub const DRAIN_POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use rackhand_schema::{
        protocol::{Finish, Intent},
        server::{FirmwareComponent, Health, PowerState},
    };

    use super::*;

    #[tokio::test]
    async fn dropped_log_lines_are_told_of_before_the_end() {
        let outbox = Outbox::new(Arc::new(crate::journal::memory::MemoryJournal::default()));
        let (run, line) = (RunId::generate(), || ReportBody::Event {
            level: Level::Info,
            message: "a line".into(),
            data: Value::Null,
        });
        for _ in 0..MAX_EVENTS + 3 {
            outbox.push(run, 1, line()).await.unwrap();
        }
        let end = ReportBody::Yield { reason: "r".into(), detail: "d".into(), resume_after_ms: 1 };
        outbox.push(run, 1, end).await.unwrap();
        let items: Vec<String> =
            outbox.lock()[&(run, 1)].queue.iter().map(|queued| queued.item.clone()).collect();
        assert_eq!(items.len(), MAX_EVENTS + 2);
        assert!(items[MAX_EVENTS].contains("3 log lines were dropped"), "{}", items[MAX_EVENTS]);
        assert!(items[MAX_EVENTS + 1].contains("yield"), "{}", items[MAX_EVENTS + 1]);
    }

    #[tokio::test]
    async fn dropped_log_lines_are_told_of_after_a_restart_once() {
        let journal = Arc::new(crate::journal::memory::MemoryJournal::default());
        let outbox = Outbox::new(journal.clone());
        let run = RunId::generate();
        for _ in 0..MAX_EVENTS + 5 {
            outbox.push(run, 1, warning("a line".into())).await.unwrap();
        }
        for _ in 0..2 {
            let restarted = Outbox::new(journal.clone());
            restarted.restore().await.unwrap();
            let lanes = restarted.lock();
            let queue = &lanes[&(run, 1)].queue;
            assert_eq!((queue.len(), queue[MAX_EVENTS].seq), (MAX_EVENTS + 1, 501));
            assert!(queue[MAX_EVENTS].item.contains("At least 4 log lines"), "{}", queue[MAX_EVENTS].item);
        }
        // Whoever has told of them itself leaves nothing to tell.
        let end = ReportBody::Yield { reason: "r".into(), detail: "d".into(), resume_after_ms: 1 };
        let run = RunId::generate();
        for _ in 0..=MAX_EVENTS {
            outbox.push(run, 1, warning("a line".into())).await.unwrap();
        }
        outbox.push(run, 1, end).await.unwrap();
        let restarted = Outbox::new(journal);
        restarted.restore().await.unwrap();
        let lanes = restarted.lock();
        let last = &lanes[&(run, 1)].queue.back().unwrap().item;
        assert!(last.contains("yield"), "{last}");
    }

    /// Nobody could go on from a log line in its place, nor act on one.
    #[tokio::test]
    async fn what_a_run_is_taken_up_from_is_never_replaced_by_a_log_line() {
        let outbox = Outbox::new(Arc::new(crate::journal::memory::MemoryJournal::default()));
        let run = RunId::generate();
        let large = serde_json::json!("x".repeat(MAX_ITEM_BYTES));
        let intent = Intent { phase: "p".into(), action: "a".into(), before: large.clone(), deadline_ms: 1 };
        let finish = Finish {
            outcome: rackhand_schema::run::Outcome::Failed,
            code: "c".into(),
            detail: "d".into(),
            evidence: large.clone(),
        };
        let checkpoint = |state: &Value| ReportBody::Checkpoint {
            phase: "p".into(),
            state: state.clone(),
            waiting: None,
            percent: None,
        };
        outbox.push(run, 1, checkpoint(&Value::Null)).await.unwrap();
        for body in [checkpoint(&large), ReportBody::Intent(intent), ReportBody::Finish(finish)] {
            let kept = outbox.push(run, 1, body.clone()).await;
            assert!(matches!(kept, Err(Unkept::TooLarge { .. })), "{kept:?}");
            let kept = outbox.push_all(run, 1, Vec::new(), vec![warning("a line".into()), body]).await;
            assert!(matches!(kept, Err(Unkept::TooLarge { .. })), "{kept:?}");
        }
        let line = ReportBody::Event { level: Level::Info, message: "a line".into(), data: large };
        assert_eq!(outbox.push(run, 1, line).await.unwrap(), 2, "the others have used up no number");
        assert_eq!(outbox.lock()[&(run, 1)].queue.len(), 2);
    }

    #[test]
    fn a_large_inventory_is_shortened_and_says_so() {
        let component = |n: usize| FirmwareComponent {
            key: format!("component-{n}"),
            name: "x".repeat(200),
            software_id: None,
            version: "1".into(),
            updateable: true,
            inactive: None,
            of_bmc: false,
        };
        let inventory = Inventory {
            vendor: None,
            model: None,
            service_tag: Some("ABC1234".into()),
            uuid: None,
            generation: None,
            bmc_version: None,
            power: PowerState::On,
            health: Health::Ok,
            components: (0..1000).map(component).collect(),
            capabilities: vec![],
            unreadable: BTreeMap::new(),
        };
        let item = encode(RunId::generate(), 1, 1, ReportBody::Inventory(inventory)).unwrap();
        assert!(item.len() <= MAX_ITEM_BYTES);
        let item: ReportItem = serde_json::from_str(&item).unwrap();
        let ReportBody::Inventory(inventory) = item.body else { panic!("{item:?}") };
        assert!(inventory.components.len() > 150, "{}", inventory.components.len());
        assert!(inventory.unreadable.contains_key("firmware") && inventory.service_tag.is_some());
    }
}
