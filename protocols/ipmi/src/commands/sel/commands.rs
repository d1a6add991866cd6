//! System Event Log commands (section 31).

use super::super::timestamp::Timestamp;
use super::entry::{Entry, LEN};
use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

const fn request(code: u8, data: Vec<u8>) -> Request {
    Request { net_fn: NetFn::STORAGE, code, lun: 0, data }
}

/// Get SEL Info (section 31.2).
#[derive(Clone, Copy, Debug)]
pub struct GetSelInfo;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelInfo {
    /// BCD with the digits exchanged: `0x51` is 1.5, and of IPMI 2.0 as well.
    pub version: u8,
    pub entries: u16,
    /// Free bytes; `0xffff` is 65,535 or more.
    pub free: u16,
    pub last_addition: Timestamp,
    /// When entries were last erased, one or all.
    pub last_erase: Timestamp,
    /// Events were dropped because the log was full.
    pub overflow: bool,
    pub can_delete: bool,
    pub can_reserve: bool,
    pub has_allocation_info: bool,
}

impl Command for GetSelInfo {
    type Answer = SelInfo;

    fn request(&self) -> Request {
        request(0x40, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<SelInfo, Malformed> {
        let mut reader = Reader::new("SEL info", data);
        let (version, entries, free) = (reader.u8()?, reader.u16()?, reader.u16()?);
        let (last_addition, last_erase) = (Timestamp(reader.u32()?), Timestamp(reader.u32()?));
        let operations = reader.u8()?;
        Ok(SelInfo {
            version,
            entries,
            free,
            last_addition,
            last_erase,
            overflow: operations & 0x80 != 0,
            can_delete: operations & 0x08 != 0,
            can_reserve: operations & 0x02 != 0,
            has_allocation_info: operations & 0x01 != 0,
        })
    }
}

/// Get SEL Allocation Info (section 31.3).
#[derive(Clone, Copy, Debug)]
pub struct GetSelAllocationInfo;

/// Room in allocation units; a zero count or size is unspecified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelAllocation {
    pub units: u16,
    /// Bytes.
    pub unit_size: u16,
    pub free_units: u16,
    pub largest_free_block: u16,
    pub largest_record: u8,
}

impl Command for GetSelAllocationInfo {
    type Answer = SelAllocation;

    fn request(&self) -> Request {
        request(0x41, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<SelAllocation, Malformed> {
        let mut reader = Reader::new("SEL allocation info", data);
        Ok(SelAllocation {
            units: reader.u16()?,
            unit_size: reader.u16()?,
            free_units: reader.u16()?,
            largest_free_block: reader.u16()?,
            largest_record: reader.u8()?,
        })
    }
}

/// Reserve SEL (section 31.4). Any entry added or deleted afterwards cancels the reservation.
#[derive(Clone, Copy, Debug)]
pub struct ReserveSel;

impl Command for ReserveSel {
    type Answer = u16;

    fn request(&self) -> Request {
        request(0x42, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<u16, Malformed> {
        Reader::new("SEL reservation", data).u16()
    }
}

/// Get SEL Entry (section 31.5), always whole: that needs no reservation.
#[derive(Clone, Copy, Debug)]
pub struct GetSelEntry {
    /// [`Self::FIRST`], [`Self::LAST`] or the id of an entry.
    pub id: u16,
}

impl GetSelEntry {
    pub const FIRST: u16 = 0x0000;
    pub const LAST: u16 = 0xffff;
    /// What the last entry has as its next one.
    pub const END: u16 = 0xffff;
}

/// An entry and the id of the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelEntry {
    pub next: u16,
    /// Shorter than an entry is where the BMC cuts it.
    pub entry: Result<Entry, Malformed>,
}

impl Command for GetSelEntry {
    type Answer = SelEntry;

    fn request(&self) -> Request {
        let [low, high] = self.id.to_le_bytes();
        request(0x43, vec![0, 0, low, high, 0, 0xff])
    }

    fn parse(&self, data: &[u8]) -> Result<SelEntry, Malformed> {
        let mut reader = Reader::new("SEL entry", data);
        Ok(SelEntry { next: reader.u16()?, entry: reader.array::<LEN>().map(|raw| Entry { raw }) })
    }
}

/// Clear SEL (section 31.9): begins to erase, or asks how far that is.
#[derive(Clone, Copy, Debug)]
pub struct ClearSel {
    pub reservation: u16,
    pub begin: bool,
}

impl Command for ClearSel {
    /// Whether the log is erased.
    type Answer = bool;

    fn request(&self) -> Request {
        let [low, high] = self.reservation.to_le_bytes();
        let action = if self.begin { 0xaa } else { 0x00 };
        request(0x47, vec![low, high, b'C', b'L', b'R', action])
    }

    fn parse(&self, data: &[u8]) -> Result<bool, Malformed> {
        Ok(Reader::new("SEL erasure", data).u8()? & 0x0f == 1)
    }
}

/// Get SEL Time (section 31.10).
#[derive(Clone, Copy, Debug)]
pub struct GetSelTime;

impl Command for GetSelTime {
    type Answer = Timestamp;

    fn request(&self) -> Request {
        request(0x48, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<Timestamp, Malformed> {
        Reader::new("SEL time", data).u32().map(Timestamp)
    }
}
