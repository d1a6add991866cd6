//! The SDR repository (chapter 33). It never changes.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, exactly, part};
use crate::fault::{Fault, LyingLength};
use crate::model::Bmc;

/// "To the end of the record."
const WHOLE: u8 = 0xff;
const FIRST: u16 = 0x0000;
const LAST: u16 = 0xffff;

impl Bmc {
    pub(super) fn sdr(&mut self, code: u8, data: &[u8]) -> Answer {
        let count = u16::try_from(self.ipmi.catalogue.records.len()).unwrap_or(u16::MAX);
        match code {
            0x20 => {
                // Version 51h; no room; added at the start, never erased; reservations only.
                let mut info = vec![0x51];
                info.extend(count.to_le_bytes());
                info.extend([0, 0]);
                info.extend(self.clock().seconds(std::time::Duration::ZERO).to_le_bytes());
                info.extend([0, 0, 0, 0, 0x02]);
                Ok(info)
            }
            0x22 => {
                self.ipmi.sdr_reservation = self.ipmi.sdr_reservation.wrapping_add(1).max(1);
                Ok(self.ipmi.sdr_reservation.to_le_bytes().to_vec())
            }
            0x23 => self.get_sdr(data),
            0x28 => Ok(self.clock().seconds(self.now).to_le_bytes().to_vec()),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// Most bytes of a record, an event or an inventory in one answer.
    pub(super) fn read_limit(&self) -> usize {
        match self.faults.get("ipmi_read_limit") {
            Some(Fault::IpmiReadLimit { bytes }) => usize::from(*bytes),
            _ => usize::from(self.ipmi.config.read_limit),
        }
    }

    /// Whether an answer is to lie about the length of `what`.
    pub(super) fn lies(&mut self, what: LyingLength) -> bool {
        self.faults.get("ipmi_lying_lengths") == Some(&Fault::IpmiLyingLengths { what })
            && self.faults.take("ipmi_lying_lengths").is_some()
    }

    /// Get SDR (section 33.12).
    fn get_sdr(&mut self, data: &[u8]) -> Answer {
        let [r0, r1, id0, id1, offset, count] = exactly(data)?;
        let (reservation, id) = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([id0, id1]));
        if offset != 0 && reservation != self.ipmi.sdr_reservation {
            return Err(CompletionCode::RESERVATION_CANCELLED);
        }
        let limit = self.read_limit();
        let lies = self.lies(LyingLength::Sdr);
        let records = &self.ipmi.catalogue.records;
        let place = match id {
            FIRST => 0,
            LAST => records.len().saturating_sub(1),
            id => usize::from(id) - 1,
        };
        let record = records.get(place).ok_or(CompletionCode::NOT_PRESENT)?;
        let next = match place + 2 {
            next if next > records.len() => LAST,
            next => u16::try_from(next).unwrap_or(LAST),
        };
        let count = if count == WHOLE { record.len().max(1) } else { usize::from(count) };
        let mut bytes = part(record, usize::from(offset), count, limit)?;
        if lies && let Some(length) = bytes.get_mut(4).filter(|_| offset == 0) {
            *length = 0xf0;
        }
        Ok([&next.to_le_bytes(), bytes.as_slice()].concat())
    }
}
