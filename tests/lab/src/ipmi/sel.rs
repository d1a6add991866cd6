//! The event log (chapter 31): the one that Redfish shows, oldest first, in records of sixteen bytes.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, exactly, part};
use super::sensors;
use crate::fault::LyingLength;
use crate::model::{Bmc, Entry, Event, Message};

const FIRST: u16 = 0x0000;
const LAST: u16 = 0xffff;
const WHOLE: u8 = 0xff;
/// Room for so many records.
const ROOM: usize = 1_000;

/// The log was cleared (sensor type 10h, offset 2).
pub(crate) const CLEARED: Event =
    Event { sensor_type: 0x10, sensor: sensors::LOG, event_type: 0x6f, data: [0x02, 0xff, 0xff] };
/// The host works (sensor type 22h, S0/G0).
pub(crate) const TURNED_ON: Event =
    Event { sensor_type: 0x22, sensor: sensors::ACPI, event_type: 0x6f, data: [0x00, 0xff, 0xff] };
/// The host is off (S4/S5).
pub(crate) const TURNED_OFF: Event =
    Event { sensor_type: 0x22, sensor: sensors::ACPI, event_type: 0x6f, data: [0x06, 0xff, 0xff] };
/// Mains was lost (sensor type 09h, offset 4).
pub(crate) const MAINS_LOST: Event =
    Event { sensor_type: 0x09, sensor: sensors::MAINS, event_type: 0x6f, data: [0x04, 0xff, 0xff] };
/// What has no event of its own: undetermined system hardware failure (sensor type 12h, offset 2).
const OTHER: Event = Event { sensor_type: 0x12, sensor: 0, event_type: 0x6f, data: [0x02, 0xff, 0xff] };

impl Bmc {
    pub(super) fn sel_command(&mut self, code: u8, data: &[u8]) -> Answer {
        match code {
            0x40 => Ok(self.sel_info()),
            0x42 => {
                self.ipmi.sel_reservation = self.ipmi.sel_reservation.wrapping_add(1).max(1);
                Ok(self.ipmi.sel_reservation.to_le_bytes().to_vec())
            }
            0x43 => self.sel_entry(data),
            0x44 => self.add_entry(data),
            0x47 => self.clear_sel(data),
            0x48 => Ok(self.clock().seconds(self.now).to_le_bytes().to_vec()),
            // The clock is Redfish's to set; records are not deleted one by one.
            0x46 | 0x49 => Err(CompletionCode::NOT_IN_STATE),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    fn sel_info(&mut self) -> Vec<u8> {
        let lies = self.lies(LyingLength::Sel);
        let count = self.sel.len();
        let entries = if lies { u16::MAX } else { u16::try_from(count).unwrap_or(u16::MAX) };
        let free = u16::try_from(ROOM.saturating_sub(count) * 16).unwrap_or(u16::MAX);
        let clock = self.clock();
        let added = self.sel.newest_first().next().map_or(0, |entry| clock.seconds(entry.at));
        let mut info = vec![0x51];
        info.extend(entries.to_le_bytes());
        info.extend(free.to_le_bytes());
        info.extend(added.to_le_bytes());
        info.extend(clock.seconds(self.ipmi.sel_erased).to_le_bytes());
        // Reservations.
        info.push(0x02);
        info
    }

    /// Get SEL Entry (section 31.5).
    fn sel_entry(&mut self, data: &[u8]) -> Answer {
        let [r0, r1, id0, id1, offset, count] = exactly(data)?;
        let (reservation, id) = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([id0, id1]));
        if offset != 0 && reservation != self.ipmi.sel_reservation {
            return Err(CompletionCode::RESERVATION_CANCELLED);
        }
        let limit = self.read_limit();
        let place = match id {
            FIRST => Some(0),
            LAST => self.sel.len().checked_sub(1),
            id => self.sel.position(u64::from(id)),
        };
        let place = place.ok_or(CompletionCode::NOT_PRESENT)?;
        let entry = self.sel.oldest_first().nth(place).ok_or(CompletionCode::NOT_PRESENT)?;
        let record = self.record(entry);
        let next = self.sel.oldest_first().nth(place + 1).map_or(LAST, Entry::record_id);
        let count = if count == WHOLE { record.len() } else { usize::from(count) };
        let mut bytes = part(&record, usize::from(offset), count, limit)?;
        if self.lies(LyingLength::Sel) {
            bytes.truncate(bytes.len() / 2);
        }
        Ok([&next.to_le_bytes(), bytes.as_slice()].concat())
    }

    fn record(&self, entry: &Entry) -> [u8; 16] {
        if let Some(mut record) = entry.raw {
            if let Some(id) = record.first_chunk_mut() {
                *id = entry.record_id().to_le_bytes();
            }
            return record;
        }
        let Event { sensor_type, sensor, event_type, data: [d1, d2, d3] } = entry.event.unwrap_or(OTHER);
        let [i0, i1] = entry.record_id().to_le_bytes();
        let [t0, t1, t2, t3] = self.clock().seconds(entry.at).to_le_bytes();
        // A system event by the BMC, event format of IPMI 2.0.
        [i0, i1, 0x02, t0, t1, t2, t3, 0x20, 0x00, 0x04, sensor_type, sensor, event_type, d1, d2, d3]
    }

    /// Add SEL Entry (section 31.6): system events get the BMC's time.
    fn add_entry(&mut self, data: &[u8]) -> Answer {
        let mut record: [u8; 16] = exactly(data)?;
        let time = self.clock().seconds(self.now).to_le_bytes();
        if record.get(2).is_some_and(|kind| *kind < 0xe0)
            && let Some(place) = record.get_mut(3..7)
        {
            place.copy_from_slice(&time);
        }
        let message = Message::info("SEL9900", "An event was added by IPMI.");
        let id = self.sel.add_raw(self.now, "System Health", message, record);
        self.ipmi.sel_reservation = 0;
        Ok(id.to_le_bytes().to_vec())
    }

    /// Clear SEL (section 31.9).
    fn clear_sel(&mut self, data: &[u8]) -> Answer {
        let [r0, r1, b'C', b'L', b'R', action] = exactly(data)? else {
            return Err(CompletionCode::INVALID_FIELD);
        };
        if u16::from_le_bytes([r0, r1]) != self.ipmi.sel_reservation {
            return Err(CompletionCode::RESERVATION_CANCELLED);
        }
        match action {
            0xaa => self.clear_log(),
            // How far it is: done.
            0x00 => {}
            _ => return Err(CompletionCode::INVALID_FIELD),
        }
        Ok(vec![0x01])
    }

    /// Empties the log, whoever asked; the first entry after that says so.
    pub(crate) fn clear_log(&mut self) {
        self.sel.clear();
        self.ipmi.sel_erased = self.now;
        self.ipmi.sel_reservation = 0;
        let message = Message::info("SEL9901", "The log was cleared.");
        self.sel.add_event(self.now, "System Health", message, CLEARED);
    }
}
