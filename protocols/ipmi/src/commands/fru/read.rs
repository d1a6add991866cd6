//! Fetches the parts of an inventory that hold something: an EEPROM is often much larger than what it says.

use super::super::patience::{refusal, run, run_unless, wants_less};
use super::super::sdr::SdrCache;
use super::super::sensor::record::BMC;
use super::area::{Area, HEADER_LEN, Offsets, RECORD_HEADER_LEN, RECORD_VERSION};
use super::commands::{FruAreaInfo, GetFruAreaInfo, ReadFruData};
use super::inventory::Inventory;
use crate::{Carrier, CompletionCode, Error};

/// The FRU is busy (section 34.2).
const FRU_BUSY: CompletionCode = CompletionCode(0x81);

/// Bytes asked for at once; halved by a BMC that cannot.
const FIRST_PART: u8 = 64;
const SMALLEST_PART: u8 = 4;

/// A FRU device that can be read through the BMC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub id: u8,
    /// Of its locator record; empty for device 0 without one.
    pub name: String,
}

/// The FRU devices behind the BMC: its own, and those its records name. Memories on a bus of their own and devices of
/// other controllers are not among them.
pub fn devices(cache: &SdrCache) -> Vec<Device> {
    let mut devices = vec![Device { id: 0, name: String::new() }];
    let behind_bmc = cache.frus().filter(|fru| fru.is_logical && fru.address == BMC && fru.lun == 0);
    for fru in behind_bmc {
        match devices.iter_mut().find(|device| device.id == fru.device) {
            Some(device) if device.name.is_empty() => device.name.clone_from(&fru.name),
            Some(_) => {}
            None => devices.push(Device { id: fru.device, name: fru.name.clone() }),
        }
    }
    devices
}

/// Reads and decodes the inventory of a FRU device behind the BMC; device 0 is the BMC's own.
///
/// What the BMC refuses to read is missing from the answer's areas and told in its problems.
pub async fn read(carrier: &impl Carrier, fru: u8) -> Result<Inventory, Error> {
    let info = run(carrier, &GetFruAreaInfo { fru }).await?;
    let mut image = Image { carrier, fru, info, part: FIRST_PART, bytes: Vec::new(), fetched: Vec::new() };
    image.fetch(0, HEADER_LEN).await?;
    // The decoder reports every fault of these bytes; here they only say what to fetch.
    let offsets = Offsets::of(&image.bytes);
    for area in Area::ALL {
        let Some(start) = offsets.get(area) else { continue };
        let fetched = image.fetch_area(area, start).await;
        match fetched {
            Err(error) if !error.is_about_one_answer() => return Err(error),
            _ => {}
        }
    }
    Ok(Inventory::parse_fetched(&image.bytes, &image.fetched))
}

struct Image<'a, C> {
    carrier: &'a C,
    fru: u8,
    info: FruAreaInfo,
    part: u8,
    /// As long as what was fetched so far; holes are zeros.
    bytes: Vec<u8>,
    fetched: Vec<bool>,
}

impl<C: Carrier> Image<'_, C> {
    async fn fetch_area(&mut self, area: Area, start: usize) -> Result<(), Error> {
        match area {
            Area::Chassis | Area::Board | Area::Product => {
                self.fetch(start, 2).await?;
                let length = self.bytes.get(start + 1).map_or(0, |length| usize::from(*length) * 8);
                self.fetch(start, length).await
            }
            Area::Multirecord => {
                let mut at = start;
                loop {
                    self.fetch(at, RECORD_HEADER_LEN).await?;
                    let Some(&[_, flags, length, ..]) = self.bytes.get(at..) else { return Ok(()) };
                    // Zeros are a header whose checksum is right: without this an erased memory is read to its end.
                    if flags & 0x0f != RECORD_VERSION {
                        return Ok(());
                    }
                    self.fetch(at + RECORD_HEADER_LEN, usize::from(length)).await?;
                    at += RECORD_HEADER_LEN + usize::from(length);
                    if flags & 0x80 != 0 || at >= usize::from(self.info.size) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads what is not there yet of `start..start + length`, as far as the inventory goes.
    async fn fetch(&mut self, start: usize, length: usize) -> Result<(), Error> {
        let end = (start + length).min(usize::from(self.info.size));
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
            self.fetched.resize(end, false);
        }
        while let Some(hole) =
            self.fetched.get(start..end).and_then(|part| part.iter().position(|done| !done))
        {
            let at = start + hole;
            self.fetch_part(at, end - at).await?;
        }
        Ok(())
    }

    /// Reads some bytes at `at`, which is at least one; less than `missing` if the BMC wants it so.
    async fn fetch_part(&mut self, at: usize, missing: usize) -> Result<(), Error> {
        let width = if self.info.by_words { 2 } else { 1 };
        let first = at / width;
        loop {
            let wanted = missing.min(usize::from(self.part)).div_ceil(width).max(1);
            let command = ReadFruData {
                fru: self.fru,
                offset: u16::try_from(first).unwrap_or(u16::MAX),
                count: u8::try_from(wanted).unwrap_or(u8::MAX),
                by_words: self.info.by_words,
            };
            match run_unless(self.carrier, &command, |code| code == FRU_BUSY).await {
                Ok(data) => {
                    let skip = at - first * width;
                    let Some(data) = data.get(skip..).filter(|data| !data.is_empty()) else {
                        let why = "the BMC answered with no bytes";
                        return Err(crate::Malformed { what: "FRU data", why }.into());
                    };
                    let places = self.bytes.iter_mut().zip(&mut self.fetched).skip(at);
                    for ((byte, fetched), new) in places.zip(data) {
                        (*byte, *fetched) = (*new, true);
                    }
                    return Ok(());
                }
                Err(error) if refusal(&error).is_some_and(wants_less) && self.part > SMALLEST_PART => {
                    self.part /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
