//! What the chassis' sensors show: temperatures, fans, voltages and power, by the resources `Thermal` and `Power`
//! (DSP0268, Thermal and Power; deprecated since 2020.4 and what BMCs in the field have).

use serde_json::Value;

use crate::{
    client::Client,
    discovery::ROOT,
    document::{self, link_at, text_at},
    error::Error,
    model::Health,
    system::{chassis_of, health_at},
};

/// One reading.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorReading {
    pub name: String,
    /// In `unit`; absent where the sensor shows nothing, such as a part that is not fitted.
    pub value: Option<f64>,
    pub unit: String,
    pub health: Health,
}

/// Resource of a chassis, its list, the property with the value, and its unit.
const LISTS: [(&str, &str, &str, &str); 4] = [
    ("Thermal", "Temperatures", "ReadingCelsius", "degrees C"),
    ("Thermal", "Fans", "Reading", "RPM"),
    ("Power", "Voltages", "ReadingVolts", "Volts"),
    ("Power", "PowerControl", "PowerConsumedWatts", "Watts"),
];

impl Client {
    /// Every sensor of the system's chassis once.
    ///
    /// # Errors
    /// A resource cannot be read; `Unsupported` when no chassis declares any.
    pub async fn sensors(&self) -> Result<Vec<SensorReading>, Error> {
        let system = self.system_document().await?;
        let (mut readings, mut declared) = (Vec::new(), false);
        for path in chassis_of(&system) {
            let chassis = self.get(&path).await?;
            for resource in ["Thermal", "Power"] {
                let Some(path) = link_at(&chassis.value, &[resource]) else { continue };
                declared = true;
                let found = self.get(path).await?;
                for (_, list, value, unit) in LISTS.iter().filter(|(of, ..)| *of == resource) {
                    let members = found.value.get(*list).into_iter().flat_map(document::items);
                    readings.extend(members.filter_map(|member| reading(member, value, unit)));
                }
            }
        }
        if declared { Ok(readings) } else { Err(self.not_declared(ROOT, "Thermal or Power of a chassis")) }
    }
}

fn reading(member: &Value, value: &str, unit: &str) -> Option<SensorReading> {
    Some(SensorReading {
        name: text_at(member, "Name").or_else(|| text_at(member, "FanName"))?,
        value: member.get(value).and_then(Value::as_f64),
        unit: text_at(member, "ReadingUnits").unwrap_or_else(|| unit.to_owned()),
        health: health_at(member, "Health"),
    })
}
