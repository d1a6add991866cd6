//! SDR repository and device SDR commands (sections 33 and 35.2 to 35.4).

use super::super::timestamp::Timestamp;
use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

/// Where a BMC keeps its records: a repository of the whole system, or those of one device by LUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    Repository,
    /// Device SDRs behind a LUN, for a BMC without a repository.
    Device {
        lun: u8,
    },
}

impl Store {
    const fn request(self, repository_code: u8, device_code: u8, data: Vec<u8>) -> Request {
        match self {
            Self::Repository => Request { net_fn: NetFn::STORAGE, code: repository_code, lun: 0, data },
            Self::Device { lun } => Request { net_fn: NetFn::SENSOR, code: device_code, lun, data },
        }
    }
}

/// Get SDR Repository Info (section 33.9).
#[derive(Clone, Copy, Debug)]
pub struct GetRepositoryInfo;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepositoryInfo {
    pub version: u8,
    pub records: u16,
    /// Bytes; `0xfffe` is 64 KiB or more, `0xffff` unspecified.
    pub free: u16,
    pub last_addition: Timestamp,
    pub last_erase: Timestamp,
    /// Bit 7 overflow; bit 1 reserve, bit 3 delete, bit 2 partial add, bit 0 allocation info supported.
    pub operations: u8,
}

impl Command for GetRepositoryInfo {
    type Answer = RepositoryInfo;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::STORAGE, code: 0x20, lun: 0, data: Vec::new() }
    }

    fn parse(&self, data: &[u8]) -> Result<RepositoryInfo, Malformed> {
        let mut reader = Reader::new("SDR repository info", data);
        Ok(RepositoryInfo {
            version: reader.u8()?,
            records: reader.u16()?,
            free: reader.u16()?,
            last_addition: Timestamp(reader.u32()?),
            last_erase: Timestamp(reader.u32()?),
            operations: reader.u8()?,
        })
    }
}

/// Get Device SDR Info (section 35.2), asked for the number of SDRs.
#[derive(Clone, Copy, Debug)]
pub struct GetDeviceSdrInfo;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSdrInfo {
    pub records: u8,
    /// Bit n: LUN n has sensors.
    pub luns: u8,
    /// Changes whenever the population of a device with dynamic sensors does; 0 for a static one.
    pub population: u32,
}

impl Command for GetDeviceSdrInfo {
    type Answer = DeviceSdrInfo;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::SENSOR, code: 0x20, lun: 0, data: vec![1] }
    }

    fn parse(&self, data: &[u8]) -> Result<DeviceSdrInfo, Malformed> {
        let mut reader = Reader::new("device SDR info", data);
        let (records, flags) = (reader.u8()?, reader.u8()?);
        let population = if flags & 0x80 != 0 { reader.u32()? } else { 0 };
        Ok(DeviceSdrInfo { records, luns: flags & 0x0f, population })
    }
}

/// Reserve SDR Repository (section 33.11), Reserve Device SDR Repository (section 35.4).
#[derive(Clone, Copy, Debug)]
pub struct Reserve(pub Store);

impl Command for Reserve {
    type Answer = u16;

    fn request(&self) -> Request {
        self.0.request(0x22, 0x22, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<u16, Malformed> {
        Reader::new("SDR reservation", data).u16()
    }
}

/// Get SDR (section 33.12), Get Device SDR (section 35.3).
#[derive(Clone, Copy, Debug)]
pub struct GetSdr {
    pub store: Store,
    pub reservation: u16,
    pub record_id: u16,
    pub offset: u8,
    /// Bytes wanted; [`Self::WHOLE`] is the entire record.
    pub count: u8,
}

impl GetSdr {
    pub const WHOLE: u8 = 0xff;
}

/// A part of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SdrPart {
    /// The record after this one; `0xffff` at the end.
    pub next: u16,
    pub data: Vec<u8>,
}

impl Command for GetSdr {
    type Answer = SdrPart;

    fn request(&self) -> Request {
        let [reservation_low, reservation_high] = self.reservation.to_le_bytes();
        let [id_low, id_high] = self.record_id.to_le_bytes();
        let data = vec![reservation_low, reservation_high, id_low, id_high, self.offset, self.count];
        self.store.request(0x23, 0x21, data)
    }

    fn parse(&self, data: &[u8]) -> Result<SdrPart, Malformed> {
        let mut reader = Reader::new("SDR part", data);
        Ok(SdrPart { next: reader.u16()?, data: reader.rest().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_info_of_ipmi_sim() {
        let answer = hex::decode("512f00feffb5600000000000000 2".replace(' ', "")).unwrap();
        let info = GetRepositoryInfo.parse(&answer).unwrap();
        assert_eq!((info.records, info.free, info.last_addition), (47, 0xfffe, Timestamp(0x60b5)));
        assert!(GetRepositoryInfo.parse(&answer[..13]).is_err());
    }

    #[test]
    fn a_static_device_has_no_population_indicator() {
        assert_eq!(
            GetDeviceSdrInfo.parse(&[3, 0x01]).unwrap(),
            DeviceSdrInfo { records: 3, luns: 1, population: 0 }
        );
        assert_eq!(GetDeviceSdrInfo.parse(&[3, 0x83, 1, 2, 0, 0]).unwrap().population, 0x201);
        assert!(GetDeviceSdrInfo.parse(&[3, 0x81, 1]).is_err());
    }
}
