//! One reading of every sensor, with the records already known: one command for each sensor.

use std::sync::Arc;

use super::super::patience::refusal;
use super::super::sdr::SdrCache;
use super::factors::{AnalogFormat, Factors, GetReadingFactors, Linearization};
use super::reading::{GetSensorReading, Unavailable, Value};
use super::record::{Sensor, SensorKind};
use crate::{Carrier, CompletionCode, Error};

/// A sensor and what it showed.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Number, LUN, name, entity, type, units, thresholds.
    pub sensor: Arc<Sensor>,
    pub value: Result<Value, Error>,
}

/// Reads every sensor once, in the order of the records.
///
/// A sensor that is refused keeps its error and the next one is asked. An error that is not an answer of the BMC, such
/// as a lost session, is kept for this sensor and all after it, which are not asked.
pub async fn sweep(carrier: &impl Carrier, cache: &SdrCache) -> Vec<Reading> {
    let mut readings = Vec::with_capacity(cache.sensors().len());
    let mut lost: Option<Error> = None;
    for sensor in cache.sensors() {
        let value = match &lost {
            Some(error) => Err(error.clone()),
            None => read(carrier, sensor).await,
        };
        if let Err(error) = &value
            && lost.is_none()
            && !error.is_about_one_answer()
        {
            lost = Some(error.clone());
        }
        readings.push(Reading { sensor: Arc::clone(sensor), value });
    }
    readings
}

/// Reads one sensor; a non-linear one needs a second command.
pub async fn read(carrier: &impl Carrier, sensor: &Sensor) -> Result<Value, Error> {
    if sensor.kind == SensorKind::EventOnly {
        return Ok(Value::Unavailable(Unavailable::EventOnly));
    }
    if !sensor.is_behind_bmc() {
        return Ok(Value::Unavailable(Unavailable::OtherController(sensor.owner)));
    }
    let raw = match carrier.run(&GetSensorReading { number: sensor.number, lun: sensor.lun }).await {
        Ok(raw) => raw,
        Err(error) if refusal(&error) == Some(CompletionCode::NOT_PRESENT) => {
            return Ok(Value::Unavailable(Unavailable::NotPresent));
        }
        Err(error) => return Err(error),
    };
    let is_read = raw.scanning_enabled && !raw.unavailable;
    match &sensor.factors {
        Some(Factors { linearization: Linearization::NonLinear, format, .. }) if is_read => {
            let factors = factors_at(carrier, sensor, raw.raw, *format).await?;
            Ok(raw.value(sensor, Some(&factors)))
        }
        factors => Ok(raw.value(sensor, factors.as_ref())),
    }
}

/// The factors of a non-linear sensor at one raw value, be it a reading or a threshold.
pub async fn factors_at(
    carrier: &impl Carrier,
    sensor: &Sensor,
    raw: u8,
    format: AnalogFormat,
) -> Result<Factors, Error> {
    carrier.run(&GetReadingFactors { number: sensor.number, lun: sensor.lun, raw, format }).await
}
