//! Reads every record of a store, whatever its BMC can do in one answer.
//!
//! A record is asked for as a whole first. A BMC that refuses, or answers short, is from then on read in parts, which
//! halve until it answers. A lost reservation is taken again and the record begun anew. Ids that come round again, or
//! more records than ids exist, end the reading: what was read is kept, and the reason with it.

use std::collections::BTreeSet;

use super::super::patience::{refusal, run, wants_less};
use super::commands::{GetSdr, Reserve, SdrPart, Store};
use super::record::{HEADER_LEN, MAX_LEN, Record};
use crate::{Carrier, CompletionCode, Error, Malformed};

/// The first record, and the id after the last one.
const FIRST: u16 = 0x0000;
const END: u16 = 0xffff;

/// Parts begin at half of the largest IPMI 1.5 LAN answers and end where only a header fits.
const FIRST_PART: u8 = 32;
const SMALLEST_PART: u8 = 4;

/// Reservations lost in one record before its reading is given up.
const MAX_LOST_RESERVATIONS: u32 = 16;

/// The records of a store, and why reading ended before its end, if it did.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) records: Vec<Record>,
    pub(super) cut_short: Option<Error>,
}

/// Reads a whole store. Only an error that is not an answer of the BMC is an error here.
pub(super) async fn read(carrier: &impl Carrier, store: Store) -> Result<Records, Error> {
    let mut reading = Reading { carrier, store, reservation: 0, part: None };
    let mut found = Records::default();
    let mut seen = BTreeSet::new();
    let mut id = FIRST;
    reading.reserve().await?;
    loop {
        match reading.record(id).await {
            Ok(None) => break,
            Ok(Some((record, next))) => {
                seen.insert(id);
                match record {
                    Ok(record) => {
                        seen.insert(if id == FIRST { record.id } else { id });
                        found.records.push(record);
                    }
                    // Too short even for a header, but it named the next one.
                    Err(malformed) => {
                        found.cut_short.get_or_insert(malformed.into());
                    }
                }
                if next == END {
                    break;
                }
                if seen.contains(&next) {
                    let why = "the next record's id was read before";
                    found.cut_short = Some(Malformed { what: "SDR store", why }.into());
                    break;
                }
                id = next;
            }
            Err(error) if error.is_about_one_answer() => {
                found.cut_short = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

struct Reading<'a, C> {
    carrier: &'a C,
    store: Store,
    reservation: u16,
    /// Bytes in one answer, once whole records were refused.
    part: Option<u8>,
}

impl<C: Carrier> Reading<'_, C> {
    /// A BMC without reservations is read with reservation 0.
    async fn reserve(&mut self) -> Result<(), Error> {
        self.reservation = match run(self.carrier, &Reserve(self.store)).await {
            Ok(reservation) => reservation,
            Err(error) if error.is_about_one_answer() => 0,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// The record and the id of the next one; `None` for the first record of an empty store.
    async fn record(&mut self, id: u16) -> Result<Option<(Result<Record, Malformed>, u16)>, Error> {
        let mut lost = 0;
        loop {
            match self.bytes(id).await {
                Ok((raw, next)) => return Ok(Some((Record::parse(&raw), next))),
                Err(error) => match refusal(&error) {
                    Some(CompletionCode::RESERVATION_CANCELLED) if lost < MAX_LOST_RESERVATIONS => {
                        lost += 1;
                        self.reserve().await?;
                    }
                    Some(CompletionCode::NOT_PRESENT) if id == FIRST => return Ok(None),
                    _ => return Err(error),
                },
            }
        }
    }

    /// At most [`MAX_LEN`] bytes of one record.
    async fn bytes(&mut self, id: u16) -> Result<(Vec<u8>, u16), Error> {
        let mut raw = Vec::new();
        // Each answer names the next record, however little else it holds.
        let mut next = None;
        let part_before = self.part;
        if self.part.is_none() {
            match self.get(id, 0, GetSdr::WHOLE).await {
                Ok(part) => {
                    raw = part.data;
                    next = Some(part.next);
                    raw.truncate(MAX_LEN);
                    if !is_complete(&raw) {
                        // As much as this BMC can say at once, or nothing at all.
                        self.part = Some(
                            u8::try_from(raw.len()).unwrap_or(FIRST_PART).clamp(SMALLEST_PART, FIRST_PART),
                        );
                    }
                }
                Err(error) if refusal(&error).is_some_and(wants_less) => self.part = Some(FIRST_PART),
                Err(error) => return Err(error),
            }
        }
        while !is_complete(&raw) {
            let missing = length(&raw).unwrap_or(HEADER_LEN).saturating_sub(raw.len());
            let part = self.part.unwrap_or(FIRST_PART);
            let count = u8::try_from(missing).unwrap_or(u8::MAX - 1).min(part);
            let Ok(offset) = u8::try_from(raw.len()) else {
                // The last five bytes of the longest record cannot be addressed.
                break;
            };
            match self.get(id, offset, count).await {
                Ok(answer) if answer.data.is_empty() => {
                    next = Some(answer.next);
                    break;
                }
                Ok(answer) => {
                    next = Some(answer.next);
                    raw.extend(answer.data.iter().take(missing));
                }
                Err(error) if refusal(&error).is_some_and(wants_less) && part > SMALLEST_PART => {
                    self.part = Some((part / 2).max(SMALLEST_PART));
                }
                // There is less than a header, or less than the header promised: what was read is the record, and the
                // next ones are read as those before.
                Err(error)
                    if next.is_some()
                        && refusal(&error)
                            .is_some_and(|code| code != CompletionCode::RESERVATION_CANCELLED) =>
                {
                    self.part = part_before;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((raw, next.unwrap_or(END)))
    }

    async fn get(&self, record_id: u16, offset: u8, count: u8) -> Result<SdrPart, Error> {
        let command = GetSdr { store: self.store, reservation: self.reservation, record_id, offset, count };
        run(self.carrier, &command).await
    }
}

/// The length that a record's header gives, once it is there.
fn length(raw: &[u8]) -> Option<usize> {
    raw.get(HEADER_LEN - 1).map(|&body| HEADER_LEN + usize::from(body))
}

fn is_complete(raw: &[u8]) -> bool {
    length(raw).is_some_and(|length| raw.len() >= length)
}
