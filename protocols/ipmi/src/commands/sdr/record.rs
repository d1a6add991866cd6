//! Sensor data records (section 43): what each says, with its bytes kept.

use super::super::sensor::{Entity, Sensor};
use super::super::text::{Encoding, decode, decode_padded};
use crate::Malformed;
use crate::wire::bytes::Reader;

/// Bytes before a record's body (section 43, table 43-1): id, version, type, length.
pub const HEADER_LEN: usize = 5;
/// The longest record there can be.
pub const MAX_LEN: usize = HEADER_LEN + 0xff;

/// One record. A body that cannot be read is [`Body::Bad`]: it hides no other record.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    pub id: u16,
    /// SDR version, BCD with the digits exchanged: `0x51` is 1.5.
    pub version: u8,
    pub record_type: u8,
    pub body: Body,
    /// Header and body as the BMC sent them.
    pub raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// Types 01h, 02h and 03h. A compact or event-only record may stand for several sensors in a row.
    Sensors(Vec<Sensor>),
    /// Type 08h.
    Association(Association),
    /// Type 11h.
    Fru(FruLocator),
    /// Type 12h.
    Controller(ControllerLocator),
    /// Type C0h: the manufacturer's IANA number and its data.
    Oem {
        manufacturer: u32,
        data: Vec<u8>,
    },
    /// A type that is not decoded; see [`Record::raw`].
    Other,
    Bad(Malformed),
}

/// Entity association record (section 43.4): what a container holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Association {
    pub container: Entity,
    /// The contained entities are two ranges of instances rather than a list.
    pub is_range: bool,
    /// Further records tell more of the same container.
    pub is_linked: bool,
    pub contained: Vec<Entity>,
}

/// FRU device locator (section 43.8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FruLocator {
    pub name: String,
    /// 8-bit slave address of the controller or device.
    pub address: u8,
    /// FRU id behind the controller if `is_logical`, else the slave address of a memory device.
    pub device: u8,
    pub is_logical: bool,
    pub lun: u8,
    pub channel: u8,
    pub device_type: u8,
    pub modifier: u8,
    pub entity: Entity,
}

/// Management controller device locator (section 43.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerLocator {
    pub name: String,
    pub address: u8,
    pub channel: u8,
    /// Device capabilities: bit 7 chassis device to bit 0 sensor device.
    pub capabilities: u8,
    pub entity: Entity,
}

impl Record {
    /// Reads a record of at least a header. The length in the header counts; bytes after it are ignored.
    pub fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("SDR header", raw);
        let (id, version, record_type, length) = (reader.u16()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let rest = reader.rest();
        let bytes = rest.get(..usize::from(length)).unwrap_or(rest);
        let body = body(id, record_type, bytes).unwrap_or_else(Body::Bad);
        let raw = raw.get(..HEADER_LEN + bytes.len()).unwrap_or(raw).to_vec();
        Ok(Self { id, version, record_type, body, raw })
    }

    pub fn sensors(&self) -> &[Sensor] {
        if let Body::Sensors(sensors) = &self.body { sensors } else { &[] }
    }
}

fn body(id: u16, record_type: u8, bytes: &[u8]) -> Result<Body, Malformed> {
    Ok(match record_type {
        0x01 => Body::Sensors(vec![Sensor::full(id, bytes)?]),
        0x02 => Body::Sensors(Sensor::compact(id, bytes)?),
        0x03 => Body::Sensors(Sensor::event_only(id, bytes)?),
        0x08 => Body::Association(association(bytes)?),
        0x11 => Body::Fru(fru_locator(bytes)?),
        0x12 => Body::Controller(controller_locator(bytes)?),
        0xc0 => {
            let mut reader = Reader::new("OEM record", bytes);
            let [low, middle, high] = reader.array()?;
            let manufacturer = u32::from_le_bytes([low, middle, high, 0]);
            Body::Oem { manufacturer, data: reader.rest().to_vec() }
        }
        _ => Body::Other,
    })
}

/// A name with its type/length byte.
pub(crate) fn name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let (encoding, bytes) = name_bytes(reader)?;
    Ok(decode(encoding, bytes))
}

/// The name of a record that several sensors share: what is added to it comes after the spaces at its end.
pub(crate) fn shared_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let (encoding, bytes) = name_bytes(reader)?;
    Ok(decode_padded(encoding, bytes))
}

/// Lengths lie; what is there is the name.
fn name_bytes<'a>(reader: &mut Reader<'a>) -> Result<(Encoding, &'a [u8]), Malformed> {
    let type_length = reader.u8()?;
    let available = reader.rest();
    let bytes = available.get(..usize::from(type_length & 0x1f)).unwrap_or(available);
    Ok((Encoding::of(type_length, Encoding::Unicode), bytes))
}

pub(crate) fn entity(reader: &mut Reader<'_>) -> Result<Entity, Malformed> {
    Ok(Entity { id: reader.u8()?, instance: reader.u8()? })
}

fn association(bytes: &[u8]) -> Result<Association, Malformed> {
    let mut reader = Reader::new("entity association record", bytes);
    let container = entity(&mut reader)?;
    let flags = reader.u8()?;
    let mut contained = Vec::with_capacity(4);
    for _ in 0..4 {
        let entity = entity(&mut reader)?;
        if entity.id != 0 {
            contained.push(entity);
        }
    }
    Ok(Association { container, is_range: flags & 0x80 != 0, is_linked: flags & 0x40 != 0, contained })
}

fn fru_locator(bytes: &[u8]) -> Result<FruLocator, Malformed> {
    let mut reader = Reader::new("FRU locator record", bytes);
    let (address, device, access, channel) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let _reserved = reader.u8()?;
    let (device_type, modifier) = (reader.u8()?, reader.u8()?);
    let entity = entity(&mut reader)?;
    let _oem = reader.u8()?;
    Ok(FruLocator {
        name: name(&mut reader)?,
        address: address & 0xfe,
        device,
        is_logical: access & 0x80 != 0,
        lun: access >> 3 & 0b11,
        channel: channel >> 4,
        device_type,
        modifier,
        entity,
    })
}

fn controller_locator(bytes: &[u8]) -> Result<ControllerLocator, Malformed> {
    let mut reader = Reader::new("controller locator record", bytes);
    let (address, channel) = (reader.u8()?, reader.u8()?);
    let _power_state_and_initialization = reader.u8()?;
    let capabilities = reader.u8()?;
    let _reserved = reader.array::<3>()?;
    let entity = entity(&mut reader)?;
    let _oem = reader.u8()?;
    Ok(ControllerLocator {
        name: name(&mut reader)?,
        address: address & 0xfe,
        channel: channel & 0x0f,
        capabilities,
        entity,
    })
}
