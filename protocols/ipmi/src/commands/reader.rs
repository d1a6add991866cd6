//! Reads little-endian fields off the front of an answer or a record; running out is [`Malformed`], never a panic.

use crate::Malformed;

pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, data: &'a [u8]) -> Self {
        Self { what, rest: data }
    }

    pub(crate) fn bad(&self, why: &'static str) -> Malformed {
        Malformed { what: self.what, why }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Three bytes, such as an IANA enterprise number.
    pub(crate) fn u24(&mut self) -> Result<u32, Malformed> {
        self.array().map(|[low, mid, high]| u32::from_le_bytes([low, mid, high, 0]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.bad("too short"));
        };
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else {
            return Err(self.bad("too short"));
        };
        self.rest = tail;
        Ok(head)
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
