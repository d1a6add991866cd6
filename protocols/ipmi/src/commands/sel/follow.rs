//! Reads the log forward, and goes on where it ended: no entry is given twice and none is left out, whatever happened
//! to the log meanwhile.
//!
//! Ids are no positions: a BMC may use them again after a clear, wrap them, or delete single entries. The follower
//! therefore knows the entries of the log by all their bytes. It goes on from the last one while that is still there
//! and the log's erase time is the same; else it reads the whole log and gives what it had not seen.
//!
//! What cannot be told apart: after a clear, a new entry equal in id, time and content to an old one, which takes a BMC
//! whose clock stands still.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::patience::{refusal, run, run_unless};
use super::super::timestamp::Timestamp;
use super::commands::{ClearSel, GetSelEntry, GetSelInfo, ReserveSel, SelEntry};
use super::entry::{Entry, LEN};
use crate::{Carrier, CompletionCode, Error, Malformed};

/// While the log is being erased, other SEL commands say this (section 31.5 and others).
const ERASE_IN_PROGRESS: CompletionCode = CompletionCode(0x81);

/// Entries that are read in one go. Ids are 16 bits, so that no log is longer.
const MAX_ENTRIES: usize = 0xffff;

/// How often and for how long it is asked whether the log is erased.
const ERASE_PAUSE: Duration = Duration::from_millis(200);
const ERASE_POLLS: u32 = 150;

/// Reservations lost to new entries before a clear is given up.
const MAX_LOST_RESERVATIONS: u32 = 8;

/// Entries kept as seen beyond twice the log's before the whole log is read again to forget the old ones.
const SEEN_SLACK: usize = 64;

/// How reading forward ended.
enum End {
    Reached,
    /// The next entry is gone.
    Lost,
    /// The end was reached, and something between could not be read.
    Damaged(Malformed),
}

/// Where reading ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Follower {
    /// The last entry that was given.
    last: Option<Entry>,
    last_erase: Option<Timestamp>,
    /// The entries of the log that were given.
    seen: BTreeSet<Entry>,
}

impl Follower {
    /// The entries since the last call, oldest first; at first the whole log.
    ///
    /// The follower moves on as entries are read: after an error the next call goes on behind what `found` got. A log
    /// that goes in circles, or an entry that cannot be read, is an error after everything else was given.
    pub async fn poll(&mut self, carrier: &impl Carrier, found: &mut Vec<Entry>) -> Result<(), Error> {
        match self.advance(carrier, found).await? {
            // What is behind the gap is found by the next call.
            End::Reached | End::Lost => Ok(()),
            End::Damaged(malformed) => Err(malformed.into()),
        }
    }

    async fn advance(&mut self, carrier: &impl Carrier, found: &mut Vec<Entry>) -> Result<End, Error> {
        let info = run_unless(carrier, &GetSelInfo, is_erasing).await?;
        let unchanged = self.last_erase == Some(info.last_erase);
        // Some BMCs do not keep the count: what is empty has no first entry.
        if info.entries == 0 && !has_first(carrier).await? {
            self.forget(info.last_erase);
            return Ok(End::Reached);
        }
        // A log that overwrites its oldest entries leaves more and more of them behind in `seen`.
        let crowded = self.seen.len() > 2 * usize::from(info.entries) + SEEN_SLACK;
        if unchanged
            && !crowded
            && let Some(last) = self.last
        {
            match get(carrier, last.id()).await {
                Ok(SelEntry { entry: Ok(entry), next }) if entry == last => {
                    return self.forward(carrier, next, found).await;
                }
                // Another entry, or none: the log is another one.
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.again(carrier, info.last_erase, found).await
    }

    /// Reads the whole log and gives what is new in it.
    async fn again(
        &mut self,
        carrier: &impl Carrier,
        last_erase: Timestamp,
        found: &mut Vec<Entry>,
    ) -> Result<End, Error> {
        let mut fresh = Self { last: None, last_erase: Some(last_erase), seen: BTreeSet::new() };
        let mut log = Vec::new();
        let outcome = fresh.forward(carrier, GetSelEntry::FIRST, &mut log).await;
        found.extend(log.iter().filter(|entry| !self.seen.contains(entry)));
        if matches!(outcome, Ok(End::Reached | End::Damaged(_))) {
            *self = fresh;
        } else {
            // Only a part of the log is known: what was seen in the rest of it stays known, and the next call reads
            // the whole log again.
            self.seen.append(&mut fresh.seen);
            self.last = None;
        }
        outcome
    }

    /// Reads from `id` to the end.
    async fn forward(
        &mut self,
        carrier: &impl Carrier,
        mut id: u16,
        found: &mut Vec<Entry>,
    ) -> Result<End, Error> {
        let mut ids = BTreeSet::new();
        let mut end = End::Reached;
        while id != GetSelEntry::END {
            if !ids.insert(id) || ids.len() > MAX_ENTRIES {
                let why = "the next entry's id was read before";
                return Err(Malformed { what: "SEL", why }.into());
            }
            match get(carrier, id).await {
                Ok(SelEntry { entry: Ok(entry), next }) => {
                    if self.seen.insert(entry) {
                        found.push(entry);
                    }
                    self.last = Some(entry);
                    id = next;
                }
                // It hides no other entry: it names the next one.
                Ok(SelEntry { entry: Err(malformed), next }) => {
                    end = End::Damaged(malformed);
                    id = next;
                }
                // The log was cleared, or ended where the entry before said that it goes on: the next call sees which.
                Err(error) if is_gone(&error) => return Ok(End::Lost),
                Err(error) => return Err(error),
            }
        }
        Ok(end)
    }

    fn forget(&mut self, last_erase: Timestamp) {
        *self = Self { last: None, last_erase: Some(last_erase), seen: BTreeSet::new() };
    }

    /// Clears the log once everything in it was given: an entry that arrives in between cancels the reservation, is
    /// given too, and the clear begins anew.
    pub async fn drain_and_clear(
        &mut self,
        carrier: &impl Carrier,
        found: &mut Vec<Entry>,
    ) -> Result<(), Error> {
        let mut lost = 0;
        loop {
            let reservation = reserve(carrier).await?;
            self.poll(carrier, found).await?;
            match erase(carrier, reservation).await {
                Err(error)
                    if refusal(&error) == Some(CompletionCode::RESERVATION_CANCELLED)
                        && lost < MAX_LOST_RESERVATIONS =>
                {
                    lost += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    // The next call finds another erase time and reads what the log has by then, all of it new:
                    // nothing that was given can be in it.
                    *self = Self::default();
                    return Ok(());
                }
            }
        }
    }

    /// The state to go on from after a restart.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.last_erase.unwrap_or(Timestamp::UNSPECIFIED).0.to_le_bytes());
        // The last one given stands first; without one all are read again.
        bytes.extend(self.last.map_or([0; LEN], |last| last.raw));
        bytes.extend(self.seen.iter().flat_map(|entry| entry.raw));
        bytes
    }

    /// What [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = crate::wire::bytes::Reader::new("SEL position", bytes);
        if reader.array()? != MAGIC {
            return Err(reader.malformed("of another version"));
        }
        let last_erase = Some(Timestamp(reader.u32()?));
        let last = Some(Entry { raw: reader.array()? }).filter(|last| last.raw != [0; LEN]);
        let mut seen = BTreeSet::new();
        while reader.remaining() > 0 {
            seen.insert(Entry { raw: reader.array()? });
        }
        Ok(Self { last, last_erase, seen })
    }
}

/// Begins a stored position; the last byte is the version of the format.
const MAGIC: [u8; 4] = *b"SEL\x01";

/// What a log holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Why these may not be all.
    pub cut_short: Option<Error>,
}

/// The whole log. Where the BMC's answers lead nowhere, what could be read until then; an error if that is nothing, or
/// if it is no answer of the BMC.
pub async fn read(carrier: &impl Carrier) -> Result<Log, Error> {
    let mut entries = Vec::new();
    let cut_short = match Follower::default().advance(carrier, &mut entries).await {
        Ok(End::Reached) => None,
        Ok(End::Lost) => Some(Malformed { what: "SEL", why: "the next entry is not there" }.into()),
        Ok(End::Damaged(malformed)) => Some(malformed.into()),
        Err(error) if error.is_about_one_answer() && !entries.is_empty() => Some(error),
        Err(error) => return Err(error),
    };
    Ok(Log { entries, cut_short })
}

/// Clears the log whatever is in it. [`Follower::drain_and_clear`] loses nothing.
pub async fn clear(carrier: &impl Carrier) -> Result<(), Error> {
    let mut lost = 0;
    loop {
        let reservation = reserve(carrier).await?;
        match erase(carrier, reservation).await {
            Err(error)
                if refusal(&error) == Some(CompletionCode::RESERVATION_CANCELLED)
                    && lost < MAX_LOST_RESERVATIONS =>
            {
                lost += 1;
            }
            settled => return settled,
        }
    }
}

async fn reserve(carrier: &impl Carrier) -> Result<u16, Error> {
    match run_unless(carrier, &ReserveSel, is_erasing).await {
        // A log without reservations is cleared with reservation 0 (section 31.9).
        Err(error) if refusal(&error) == Some(CompletionCode::INVALID_COMMAND) => Ok(0),
        reserved => reserved,
    }
}

async fn erase(carrier: &impl Carrier, reservation: u16) -> Result<(), Error> {
    if run(carrier, &ClearSel { reservation, begin: true }).await? {
        return Ok(());
    }
    for _ in 0..ERASE_POLLS {
        tokio::time::sleep(ERASE_PAUSE).await;
        match run(carrier, &ClearSel { reservation, begin: false }).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // "The log is cleared" is itself an entry on many BMCs, and it cancels the reservation that cleared it.
            Err(error) if refusal(&error) == Some(CompletionCode::RESERVATION_CANCELLED) => return Ok(()),
            Err(error) if refusal(&error) == Some(ERASE_IN_PROGRESS) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Malformed { what: "SEL erasure", why: "not finished in thirty seconds" }.into())
}

async fn get(carrier: &impl Carrier, id: u16) -> Result<SelEntry, Error> {
    run_unless(carrier, &GetSelEntry { id }, is_erasing).await
}

/// Whether a log that says it is empty has a first entry. Some BMCs answer with one of zeros or ones instead of a
/// refusal; those ids are no entry's (section 31.5).
async fn has_first(carrier: &impl Carrier) -> Result<bool, Error> {
    match get(carrier, GetSelEntry::FIRST).await {
        Ok(SelEntry { entry, .. }) => {
            Ok(entry.is_ok_and(|entry| !matches!(entry.id(), GetSelEntry::FIRST | GetSelEntry::LAST)))
        }
        Err(error) if error.is_about_one_answer() => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_erasing(completion: CompletionCode) -> bool {
    completion == ERASE_IN_PROGRESS
}

/// No such entry; BMCs say so in several ways.
fn is_gone(error: &Error) -> bool {
    matches!(
        refusal(error),
        Some(CompletionCode::NOT_PRESENT | CompletionCode::OUT_OF_RANGE | CompletionCode(0xcc))
    )
}
