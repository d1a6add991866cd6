//! An entry in words: what, where, and the numbers where a sensor's record explains them.

use std::fmt::{self, Write};

use super::super::sdr::SdrCache;
use super::super::sensor::states::firmware_detail;
use super::super::sensor::{Sensor, SensorType, state_name};
use super::entry::{ByteUse, Content, Entry, Event};

/// An entry to print with `{}`, such as
/// `Inlet Temp (Temperature): Upper critical going high, asserted; reading 95, threshold 90 degrees C`.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub entry: &'a Entry,
    /// Names sensors and turns raw bytes into numbers.
    pub cache: Option<&'a SdrCache>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry.content() {
            Content::Event { event, .. } => {
                let sensor =
                    self.cache.and_then(|cache| cache.sensor(event.generator, event.lun, event.number));
                write_event(f, &event, sensor.map(AsRef::as_ref))
            }
            Content::OemTimed { manufacturer, data, .. } => {
                write!(f, "OEM record {:02x}h of manufacturer {manufacturer}: ", self.entry.record_type())?;
                write_hex(f, &data)
            }
            Content::Oem { data } => {
                write!(f, "OEM record {:02x}h: ", self.entry.record_type())?;
                write_hex(f, &data)
            }
            Content::Other { data } => {
                write!(f, "record of type {:02x}h: ", self.entry.record_type())?;
                write_hex(f, &data)
            }
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn write_event(f: &mut fmt::Formatter<'_>, event: &Event, sensor: Option<&Sensor>) -> fmt::Result {
    match sensor {
        Some(sensor) => f.write_str(&sensor.name)?,
        None if event.generator & 1 != 0 => {
            write!(f, "software {:02x}h #{:02x}h", event.generator, event.number)?
        }
        None => write!(f, "#{:02x}h", event.number)?,
    }
    write!(f, " ({}): ", event.sensor_type)?;
    let offset = event.offset();
    match state_name(event.sensor_type, event.event_type, offset) {
        Some(name) => f.write_str(name)?,
        None if event.event_type.is_oem() => write!(f, "OEM state {offset}")?,
        None => write!(f, "state {offset}")?,
    }
    f.write_str(if event.deasserted { ", deasserted" } else { ", asserted" })?;
    let mut more = String::new();
    if event.event_type.is_threshold() {
        write_trigger(&mut more, event, sensor)?;
    } else {
        write_detail(&mut more, event)?;
    }
    if more.is_empty() { Ok(()) } else { write!(f, "; {more}") }
}

/// The reading and threshold of a threshold event: as numbers if the sensor is known, else raw.
fn write_trigger(out: &mut String, event: &Event, sensor: Option<&Sensor>) -> fmt::Result {
    let factors = sensor
        .and_then(|sensor| sensor.factors.as_ref())
        .filter(|factors| factors.linearization != super::super::sensor::Linearization::NonLinear);
    let ([_, reading, threshold], (second, third)) = (event.data, event.byte_use());
    let mut has_number = false;
    for (name, raw, used) in [("reading", reading, second), ("threshold", threshold, third)] {
        if used != ByteUse::Trigger {
            continue;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        match factors.and_then(|factors| factors.convert(raw)) {
            // Three digits after the point, as other clients print them, without zeros at the end.
            Some(value) => {
                let digits = format!("{value:.3}");
                let digits = digits.trim_end_matches('0').trim_end_matches('.');
                write!(out, "{name} {digits}")?;
                has_number = true;
            }
            None => write!(out, "raw {name} {raw:#04x}")?,
        }
    }
    match sensor {
        Some(sensor) if has_number && !sensor.units.is_unspecified() => write!(out, " {}", sensor.units),
        _ => Ok(()),
    }
}

/// What the second and third byte of a discrete event add, as far as the specification says.
fn write_detail(out: &mut String, event: &Event) -> fmt::Result {
    let ([_, second, third], (second_use, third_use)) = (event.data, event.byte_use());
    let detail = match (event.sensor_type, second_use) {
        (SensorType::FIRMWARE_PROGRESS, ByteUse::Specific) => firmware_detail(event.offset(), second),
        _ => None,
    };
    match (detail, second_use) {
        (Some(detail), _) => out.push_str(detail),
        (None, ByteUse::Previous) if second & 0x0f != 0x0f => {
            match state_name(event.sensor_type, event.event_type, second & 0x0f) {
                Some(name) => write!(out, "before: {name}")?,
                None => write!(out, "before: state {}", second & 0x0f)?,
            }
        }
        (None, ByteUse::Oem | ByteUse::Specific) if second != 0xff => write!(out, "data {second:#04x}")?,
        _ => {}
    }
    if !out.is_empty() && third_use != ByteUse::Unspecified && third != 0xff {
        out.push_str(", ");
    }
    match third_use {
        // Table 42-3: event data 3 of a memory event is the module.
        ByteUse::Specific if event.sensor_type == SensorType::MEMORY && third != 0xff => {
            write!(out, "module {third}")
        }
        ByteUse::Oem | ByteUse::Specific if third != 0xff => write!(out, "data {third:#04x}"),
        _ => Ok(()),
    }
}
