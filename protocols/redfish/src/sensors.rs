//! What the chassis' sensors show: temperatures, fans, voltages, power and the health of power supplies.
//!
//! Older services have them in `Thermal` and `Power` (DSP0268; deprecated since 2020.4), later ones in
//! `ThermalSubsystem`, `EnvironmentMetrics` and `PowerSubsystem`, which are a few requests, or only in `Sensors`, which
//! is one for each sensor. A resource that cannot be read is named, and the others go on.

use serde_json::Value;

use crate::{
    client::Client,
    discovery::{ROOT, keep},
    document::{self, at, field, link_at, reading_at, text_at},
    error::Error,
    model::{Health, Unreadable},
    system::health_at,
};

/// One reading.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorReading {
    pub name: String,
    /// In `unit`; absent where the sensor shows nothing, such as a part that is not fitted or a power supply.
    pub value: Option<f64>,
    /// Empty for what has no value.
    pub unit: String,
    pub health: Health,
}

/// The sensors of a server.
#[derive(Clone, Debug, Default)]
pub struct SensorReport {
    /// In the service's order.
    pub readings: Vec<SensorReading>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

const CELSIUS: &str = "degrees C";
const RPM: &str = "RPM";
const WATTS: &str = "Watts";

/// Resource of a chassis, its list, the property with the value, and its unit.
const LISTS: [(&str, &str, &str, &str); 4] = [
    ("Thermal", "Temperatures", "ReadingCelsius", CELSIUS),
    ("Thermal", "Fans", "Reading", RPM),
    ("Power", "Voltages", "ReadingVolts", "Volts"),
    ("Power", "PowerControl", "PowerConsumedWatts", WATTS),
];

impl Client {
    /// Every sensor of the system's chassis once. Without a system, of the chassis the service lists.
    ///
    /// # Errors
    /// No chassis is found; none declares a sensor; or nothing at all could be read.
    pub async fn sensors(&self) -> Result<SensorReport, Error> {
        let mut report = SensorReport::default();
        let mut declared = false;
        let system = match self.system_document().await {
            Ok(system) => Some(system),
            Err(error) if error.class() == crate::Class::Unsupported => None,
            Err(error) => return Err(error),
        };
        for path in self.chassis_paths(system.as_ref()).await? {
            let Some(chassis) = keep(self.get(&path).await, &path, &mut report.unreadable) else { continue };
            declared |= self.sensors_of(&chassis.value, &mut report).await;
        }
        match report.unreadable.pop() {
            Some(first) if report.readings.is_empty() => Err(first.error),
            Some(last) => {
                report.unreadable.push(last);
                Ok(report)
            }
            None if declared => Ok(report),
            None => Err(self.not_declared(ROOT, "sensors of a chassis")),
        }
    }

    /// Adds what one chassis shows. Whether it declares any sensors.
    async fn sensors_of(&self, chassis: &Value, report: &mut SensorReport) -> bool {
        let before = report.readings.len();
        let mut declared = false;
        for resource in ["Thermal", "Power"] {
            let Some(found) = self.part(chassis, resource, &mut declared, report).await else { continue };
            for (_, list, value, unit) in LISTS.iter().filter(|(of, ..)| *of == resource) {
                let members = field(&found, list).into_iter().flat_map(document::items);
                report.readings.extend(members.filter_map(|member| reading(member, value, unit)));
            }
        }
        if let Some(thermal) = self.part(chassis, "ThermalSubsystem", &mut declared, report).await {
            let mut below = false;
            if let Some(metrics) = self.part(&thermal, "ThermalMetrics", &mut below, report).await {
                let members =
                    field(&metrics, "TemperatureReadingsCelsius").into_iter().flat_map(document::items);
                report.readings.extend(members.filter_map(|member| reading(member, "Reading", CELSIUS)));
            }
            let fans = self.parts(&thermal, "Fans", report).await;
            report.readings.extend(fans.iter().filter_map(fan));
        }
        if let Some(metrics) = self.part(chassis, "EnvironmentMetrics", &mut declared, report).await {
            let inlet =
                at(&metrics, &["TemperatureCelsius"]).map(|value| ("Chassis temperature", value, CELSIUS));
            let power = at(&metrics, &["PowerWatts"]).map(|value| ("Chassis power", value, WATTS));
            report.readings.extend([inlet, power].into_iter().flatten().filter_map(|(name, value, unit)| {
                let (name, value) = (name.to_owned(), Some(reading_at(value, "Reading")?));
                Some(SensorReading { name, value, unit: unit.to_owned(), health: Health::Unknown })
            }));
        }
        if let Some(power) = self.part(chassis, "PowerSubsystem", &mut declared, report).await {
            let supplies = self.parts(&power, "PowerSupplies", report).await;
            report.readings.extend(supplies.iter().filter_map(|supply| reading(supply, "", "")));
        }
        declared |= link_at(chassis, &["Sensors"]).is_some();
        if report.readings.len() == before {
            let sensors = self.parts(chassis, "Sensors", report).await;
            report.readings.extend(sensors.iter().filter_map(|sensor| reading(sensor, "Reading", "")));
        }
        declared
    }

    /// A resource that another one links.
    async fn part(
        &self,
        of: &Value,
        name: &str,
        declared: &mut bool,
        report: &mut SensorReport,
    ) -> Option<Value> {
        let path = link_at(of, &[name])?;
        *declared = true;
        keep(self.get(path).await, path, &mut report.unreadable).map(|document| document.value)
    }

    /// The members of a collection that another resource links.
    async fn parts(&self, of: &Value, name: &str, report: &mut SensorReport) -> Vec<Value> {
        let Some(path) = link_at(of, &[name]) else { return Vec::new() };
        let Some(found) = keep(self.collection(path, true).await, path, &mut report.unreadable) else {
            return Vec::new();
        };
        report.unreadable.extend(found.unreadable);
        found.members
    }
}

fn reading(member: &Value, value: &str, unit: &str) -> Option<SensorReading> {
    let name = ["Name", "FanName", "DeviceName", "PhysicalContext", "MemberId"];
    let unit = text_at(member, "ReadingUnits").map_or_else(|| unit.to_owned(), words);
    Some(SensorReading {
        name: name.into_iter().find_map(|name| text_at(member, name))?,
        value: reading_at(member, value),
        unit,
        health: health_at(member, "Health"),
    })
}

/// DSP0268, `Fan.SpeedPercent`: percent, and revolutions where the service knows them.
fn fan(member: &Value) -> Option<SensorReading> {
    let speed = at(member, &["SpeedPercent"]).unwrap_or(&Value::Null);
    let (value, unit) = match reading_at(speed, "SpeedRPM") {
        Some(revolutions) => (Some(revolutions), RPM),
        None => (reading_at(speed, "Reading"), "%"),
    };
    Some(SensorReading { value, unit: unit.to_owned(), ..reading(member, "", "")? })
}

/// UCUM units, as `Sensor.ReadingUnits` has them, in the words of `Thermal` and `Power`.
fn words(unit: String) -> String {
    let word = match unit.as_str() {
        "Cel" => CELSIUS,
        "{rev}/min" => RPM,
        "V" => "Volts",
        "W" => WATTS,
        "A" => "Amps",
        _ => return unit,
    };
    word.to_owned()
}
