//! FRU inventory commands (section 34).

use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

/// Get FRU Inventory Area Info (section 34.1).
#[derive(Clone, Copy, Debug)]
pub struct GetFruAreaInfo {
    pub fru: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FruAreaInfo {
    /// Bytes.
    pub size: u16,
    /// Offsets and counts of Read FRU Data are in words of two bytes.
    pub by_words: bool,
}

impl Command for GetFruAreaInfo {
    type Answer = FruAreaInfo;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::STORAGE, code: 0x10, lun: 0, data: vec![self.fru] }
    }

    fn parse(&self, data: &[u8]) -> Result<FruAreaInfo, Malformed> {
        let mut reader = Reader::new("FRU area info", data);
        Ok(FruAreaInfo { size: reader.u16()?, by_words: reader.u8()? & 1 != 0 })
    }
}

/// Read FRU Data (section 34.2).
#[derive(Clone, Copy, Debug)]
pub struct ReadFruData {
    pub fru: u8,
    /// In bytes or words.
    pub offset: u16,
    /// In bytes or words.
    pub count: u8,
    pub by_words: bool,
}

impl Command for ReadFruData {
    /// The bytes; fewer than were asked for if the BMC returned fewer.
    type Answer = Vec<u8>;

    fn request(&self) -> Request {
        let [low, high] = self.offset.to_le_bytes();
        Request { net_fn: NetFn::STORAGE, code: 0x11, lun: 0, data: vec![self.fru, low, high, self.count] }
    }

    fn parse(&self, data: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new("FRU data", data);
        let width = if self.by_words { 2 } else { 1 };
        let returned = usize::from(reader.u8()?) * width;
        let bytes = reader.rest();
        // Never more than was asked for, and the count may lie in both directions.
        let most = returned.min(usize::from(self.count) * width);
        Ok(bytes.get(..most).unwrap_or(bytes).to_vec())
    }
}
