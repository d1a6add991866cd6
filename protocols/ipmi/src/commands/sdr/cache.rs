//! The records of one BMC, read once and kept as long as its repository stays the same.

use std::sync::Arc;

use super::super::patience::run;
use super::super::sensor::{GetThresholds, Linearization, Sensor};
use super::commands::{GetDeviceSdrInfo, GetRepositoryInfo, Store};
use super::record::{Body, FruLocator, Record};
use super::repository;
use crate::wire::bytes::Reader;
use crate::{Carrier, Error, Malformed};

/// What changes when the records do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// The times of the last addition and erasure, and how many records there are.
    Repository { addition: u32, erase: u32, records: u16 },
    /// The population indicator of a BMC with device SDRs only, and how many records there are.
    Device { population: u32, luns: u8, records: u8 },
}

/// The decoded records of one BMC.
#[derive(Clone, Debug)]
pub struct SdrCache {
    identity: String,
    stamp: Stamp,
    records: Vec<Record>,
    sensors: Vec<Arc<Sensor>>,
    cut_short: Option<Error>,
}

/// Readings of a repository that changed meanwhile before the last one is taken as it is.
const MAX_READINGS: u32 = 3;

impl SdrCache {
    /// Reads all records: the repository, or where there is none or it is empty, the device SDRs.
    ///
    /// `identity` names the BMC, by its GUID for example; a cache is not valid for another one.
    pub async fn read(carrier: &impl Carrier, identity: &str) -> Result<Self, Error> {
        let mut before = stamp(carrier).await?;
        let mut reading = 1;
        loop {
            let (declared, (records, mut cut_short)) = match before {
                Stamp::Repository { records, .. } => {
                    let found = repository::read(carrier, Store::Repository).await?;
                    (records, (found.records, found.cut_short))
                }
                Stamp::Device { luns, records, .. } => (records.into(), read_device(carrier, luns).await?),
            };
            if records.is_empty() && declared > 0 {
                let why = "it says that it holds records, and gives none";
                cut_short = cut_short.or(Some(Malformed { what: "SDR store", why }.into()));
            }
            let after = stamp(carrier).await?;
            if before == after || reading == MAX_READINGS {
                return Ok(Self::new(identity.to_owned(), after, records, cut_short));
            }
            before = after;
            reading += 1;
        }
    }

    /// Asks the BMC, with one command, whether its records are still these.
    pub async fn is_current(&self, carrier: &impl Carrier, identity: &str) -> Result<bool, Error> {
        Ok(identity == self.identity && self.cut_short.is_none() && stamp(carrier).await? == self.stamp)
    }

    fn new(identity: String, stamp: Stamp, records: Vec<Record>, cut_short: Option<Error>) -> Self {
        let sensors = records.iter().flat_map(Record::sensors).cloned().map(Arc::new).collect();
        Self { identity, stamp, records, sensors, cut_short }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Every sensor, in the order of the records.
    pub fn sensors(&self) -> &[Arc<Sensor>] {
        &self.sensors
    }

    /// Why the records may not be all; such a cache is never current.
    pub const fn cut_short(&self) -> Option<&Error> {
        self.cut_short.as_ref()
    }

    /// Records that could not be read, and what is wrong with each.
    pub fn bad_records(&self) -> impl Iterator<Item = (&Record, &Malformed)> {
        self.records.iter().filter_map(|record| match &record.body {
            Body::Bad(malformed) => Some((record, malformed)),
            _ => None,
        })
    }

    /// The FRU devices that the records name.
    pub fn frus(&self) -> impl Iterator<Item = &FruLocator> {
        self.records
            .iter()
            .filter_map(|record| if let Body::Fru(fru) = &record.body { Some(fru) } else { None })
    }

    /// The sensor that an event names; events of a full system carry the LUN too.
    pub fn sensor(&self, owner: u8, lun: u8, number: u8) -> Option<&Arc<Sensor>> {
        self.sensors.iter().find(|sensor| (sensor.owner, sensor.lun, sensor.number) == (owner, lun, number))
    }

    /// Asks for the thresholds in force, which may differ from those of the records; one command for each sensor that
    /// has any. A sensor that refuses keeps the values of its record.
    pub async fn load_thresholds(&mut self, carrier: &impl Carrier) -> Result<(), Error> {
        for shared in &mut self.sensors {
            let Some(factors) = shared.factors.filter(|factors| {
                shared.is_behind_bmc()
                    && shared.event_type.is_threshold()
                    && factors.linearization != Linearization::NonLinear
            }) else {
                continue;
            };
            match run(carrier, &GetThresholds { number: shared.number, lun: shared.lun }).await {
                Ok(raw) => {
                    let sensor = Arc::make_mut(shared);
                    sensor.raw_thresholds = raw;
                    sensor.thresholds = raw.convert(|raw| factors.convert(raw));
                }
                Err(error) if error.is_about_one_answer() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Identity, stamp and raw records; thresholds that were loaded are not among them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let identity = self.identity.as_bytes();
        let identity = identity.get(..usize::from(u16::MAX)).unwrap_or(identity);
        push(&mut bytes, identity);
        match self.stamp {
            Stamp::Repository { addition, erase, records } => {
                bytes.push(0);
                bytes.extend(addition.to_le_bytes());
                bytes.extend(erase.to_le_bytes());
                bytes.extend(records.to_le_bytes());
            }
            Stamp::Device { population, luns, records } => {
                bytes.push(1);
                bytes.extend(population.to_le_bytes());
                bytes.extend([luns, records]);
            }
        }
        for record in &self.records {
            push(&mut bytes, &record.raw);
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("SDR cache", bytes);
        if reader.array()? != MAGIC {
            return Err(reader.malformed("of another version"));
        }
        let identity = pull(&mut reader)?;
        let Ok(identity) = std::str::from_utf8(identity) else {
            return Err(reader.malformed("identity is not text"));
        };
        let stamp = match reader.u8()? {
            0 => Stamp::Repository { addition: reader.u32()?, erase: reader.u32()?, records: reader.u16()? },
            1 => Stamp::Device { population: reader.u32()?, luns: reader.u8()?, records: reader.u8()? },
            _ => return Err(reader.malformed("unknown kind of stamp")),
        };
        let mut records = Vec::new();
        while reader.remaining() > 0 {
            records.push(Record::parse(pull(&mut reader)?)?);
        }
        Ok(Self::new(identity.to_owned(), stamp, records, None))
    }
}

/// Begins a stored cache; the last byte is the version of the format.
const MAGIC: [u8; 4] = *b"SDR\x01";

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    // Neither an identity nor a record is longer than 65,535 bytes.
    bytes.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(part);
}

fn pull<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u16()?;
    reader.take(usize::from(length))
}

async fn stamp(carrier: &impl Carrier) -> Result<Stamp, Error> {
    let refused = match run(carrier, &GetRepositoryInfo).await {
        Ok(info) if info.records > 0 => {
            return Ok(Stamp::Repository {
                addition: info.last_addition.0,
                erase: info.last_erase.0,
                records: info.records,
            });
        }
        Ok(_) => None,
        Err(error) if error.is_about_one_answer() => Some(error),
        Err(error) => return Err(error),
    };
    match (run(carrier, &GetDeviceSdrInfo).await, refused) {
        (Ok(info), _) => {
            Ok(Stamp::Device { population: info.population, luns: info.luns, records: info.records })
        }
        // An empty repository and no device SDRs: a BMC without sensors.
        (Err(error), None) if error.is_about_one_answer() => {
            Ok(Stamp::Device { population: 0, luns: 0, records: 0 })
        }
        (Err(_), Some(refused)) => Err(refused),
        (Err(error), None) => Err(error),
    }
}

async fn read_device(carrier: &impl Carrier, luns: u8) -> Result<(Vec<Record>, Option<Error>), Error> {
    let mut records = Vec::new();
    let mut cut_short = None;
    for lun in (0..4).filter(|lun| luns >> lun & 1 != 0) {
        let found = repository::read(carrier, Store::Device { lun }).await?;
        records.extend(found.records);
        cut_short = cut_short.or(found.cut_short);
    }
    Ok((records, cut_short))
}
