//! Event log entries (section 32): sixteen bytes, and what they say.

use super::super::sensor::{EventType, SensorType, Threshold};
use super::super::timestamp::Timestamp;

/// Every entry has this length.
pub const LEN: usize = 16;

/// An entry as it is in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub raw: [u8; LEN],
}

/// What an entry says, by its record type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Type 02h (section 32.1).
    Event { time: Timestamp, event: Event },
    /// Types C0h to DFh (section 32.2).
    OemTimed { time: Timestamp, manufacturer: u32, data: [u8; 6] },
    /// Types E0h to FFh (section 32.3).
    Oem { data: [u8; 13] },
    /// A record type the specification reserves.
    Other { data: [u8; 13] },
}

/// What happened to a sensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Slave address of the controller; with bit 0 set the id of system software.
    pub generator: u8,
    pub channel: u8,
    pub lun: u8,
    /// `0x04` for IPMI 1.5 and 2.0, `0x03` for 1.0.
    pub revision: u8,
    pub sensor_type: SensorType,
    pub number: u8,
    pub event_type: EventType,
    pub deasserted: bool,
    /// Event data 1 to 3; see [`Event::offset`] and [`Event::byte_use`].
    pub data: [u8; 3],
}

/// What event data 2 or 3 holds (table 29-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteUse {
    Unspecified,
    /// Threshold events: the reading (data 2) or threshold (data 3) that triggered it, raw.
    Trigger,
    /// Discrete events, data 2: the previous state or severity.
    Previous,
    Oem,
    /// Defined by the sensor type or event type.
    Specific,
}

impl Entry {
    pub const fn id(&self) -> u16 {
        let [low, high, ..] = self.raw;
        u16::from_le_bytes([low, high])
    }

    pub const fn record_type(&self) -> u8 {
        let [_, _, record_type, ..] = self.raw;
        record_type
    }

    pub const fn content(&self) -> Content {
        let [_, _, record_type, t0, t1, t2, t3, a, b, c, d, e, f, g, h, i] = self.raw;
        let time = Timestamp(u32::from_le_bytes([t0, t1, t2, t3]));
        let data = [t0, t1, t2, t3, a, b, c, d, e, f, g, h, i];
        match record_type {
            0x02 => Content::Event {
                time,
                event: Event {
                    generator: a,
                    channel: b >> 4,
                    lun: b & 0b11,
                    revision: c,
                    sensor_type: SensorType(d),
                    number: e,
                    event_type: EventType(f & 0x7f),
                    deasserted: f & 0x80 != 0,
                    data: [g, h, i],
                },
            },
            0xc0..=0xdf => Content::OemTimed {
                time,
                manufacturer: u32::from_le_bytes([a, b, c, 0]),
                data: [d, e, f, g, h, i],
            },
            0xe0.. => Content::Oem { data },
            _ => Content::Other { data },
        }
    }
}

impl Event {
    /// Which state of the sensor, or which way across which threshold.
    pub const fn offset(&self) -> u8 {
        let [first, ..] = self.data;
        first & 0x0f
    }

    /// The threshold that was crossed, and whether upwards.
    pub fn crossed(&self) -> Option<(Threshold, bool)> {
        let threshold = Threshold::ALL.get(usize::from(self.offset() / 2))?;
        self.event_type.is_threshold().then_some((*threshold, self.offset() % 2 == 1))
    }

    /// What event data 2 and 3 hold.
    pub const fn byte_use(&self) -> (ByteUse, ByteUse) {
        let [first, ..] = self.data;
        let (own_second, own_third) = if self.event_type.is_threshold() {
            (ByteUse::Trigger, ByteUse::Trigger)
        } else {
            // The specification reserves "previous" in the third byte.
            (ByteUse::Previous, ByteUse::Unspecified)
        };
        (byte_use(first >> 6, own_second), byte_use(first >> 4 & 0b11, own_third))
    }
}

const fn byte_use(code: u8, own: ByteUse) -> ByteUse {
    match code {
        0 => ByteUse::Unspecified,
        1 => own,
        2 => ByteUse::Oem,
        _ => ByteUse::Specific,
    }
}
