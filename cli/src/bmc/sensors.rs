//! `rackhand bmc sensors`: every sensor of a BMC, read once.

use clap::Args;
use rackhand_ipmi::commands::{
    sdr::SdrCache,
    sensor::{Reading, Threshold, Value, sweep},
};
use serde::Serialize;

use super::ipmi::{Access, Bmc};
use crate::{
    error::Result,
    output::{Column, Output, dash, say},
};

#[derive(Debug, Args)]
pub struct Sensors {
    #[command(flatten)]
    access: Access,
}

/// One sensor in the JSON of `bmc sensors --json`.
#[derive(Debug, Serialize)]
struct Row {
    number: u8,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    entity: String,
    value: Option<f64>,
    units: Option<String>,
    /// `ok`, the worst threshold that was passed, or the states of a discrete sensor.
    status: String,
    lower_critical: Option<f64>,
    lower_non_critical: Option<f64>,
    upper_non_critical: Option<f64>,
    upper_critical: Option<f64>,
    /// Why there is no reading.
    error: Option<String>,
}

const COLUMNS: [Column<Row>; 10] = [
    Column::new("NAME", |row| row.name.clone()),
    Column::new("TYPE", |row| row.kind.clone()),
    Column::new("READING", |row| row.value.map_or_else(|| "-".to_owned(), |value| shown(Some(value)))),
    Column::new("UNITS", |row| dash(row.units.as_deref())),
    Column::new("STATUS", |row| row.error.clone().unwrap_or_else(|| row.status.clone())),
    Column::wide("ENTITY", |row| row.entity.clone()),
    Column::wide("LOW CRIT", |row| shown(row.lower_critical)),
    Column::wide("LOW", |row| shown(row.lower_non_critical)),
    Column::wide("HIGH", |row| shown(row.upper_non_critical)),
    Column::wide("HIGH CRIT", |row| shown(row.upper_critical)),
];

pub async fn run(sensors: Sensors, out: Output) -> Result<()> {
    let rows = sensors.access.session(async |bmc: &Bmc| read(bmc).await).await?;
    out.list(&rows, &COLUMNS, |row| row.name.clone())
}

async fn read(bmc: &Bmc) -> Result<Vec<Row>> {
    let mut cache = records(bmc).await?;
    if let Err(error) = cache.load_thresholds(&bmc.client).await {
        say(bmc.says(format!("thresholds are not complete: {error}")));
    }
    Ok(sweep(&bmc.client, &cache).await.iter().map(row).collect())
}

/// The sensor records; what could not be read of them is said.
pub async fn records(bmc: &Bmc) -> Result<SdrCache> {
    let cache = SdrCache::read(&bmc.client, "").await.map_err(|error| bmc.failed(&error))?;
    if let Some(error) = cache.cut_short() {
        say(bmc.says(format!("the sensor records are not complete: {error}")));
    }
    for (record, malformed) in cache.bad_records() {
        say(bmc.says(format!("record {:#06x} is skipped: {malformed}", record.id)));
    }
    Ok(cache)
}

fn row(reading: &Reading) -> Row {
    let sensor = &reading.sensor;
    let units = Some(&sensor.units).filter(|units| !units.is_unspecified()).map(ToString::to_string);
    let (value, status, error) = match &reading.value {
        Ok(Value::Number { value, status, .. }) => (Some(*value), status.severity().to_string(), None),
        Ok(Value::States { states, number }) => (*number, states.to_string(), None),
        Ok(Value::Unavailable(why)) => (None, "-".to_owned(), Some(why.to_string())),
        Err(error) => (None, "-".to_owned(), Some(error.to_string())),
    };
    let limit = |threshold| sensor.thresholds.get(threshold);
    Row {
        number: sensor.number,
        name: sensor.name.clone(),
        kind: sensor.sensor_type.to_string(),
        entity: sensor.entity.to_string(),
        units: units.filter(|_| value.is_some()),
        value,
        status: if status.is_empty() { "-".to_owned() } else { status },
        lower_critical: limit(Threshold::LowerCritical),
        lower_non_critical: limit(Threshold::LowerNonCritical),
        upper_non_critical: limit(Threshold::UpperNonCritical),
        upper_critical: limit(Threshold::UpperCritical),
        error,
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn sensors_are_a_table() {
        let sensor = |name: &str, value, status: &str, error: Option<&str>| Row {
            number: 1,
            name: name.into(),
            kind: "Temperature".into(),
            entity: "system board 1".into(),
            value,
            units: Some("degrees C".into()),
            status: status.into(),
            lower_critical: None,
            lower_non_critical: Some(3.0),
            upper_non_critical: Some(42.0),
            upper_critical: Some(47.5),
            error: error.map(Into::into),
        };
        let rows = [
            sensor("Inlet Temp", Some(21.0), "ok", None),
            sensor("Exhaust", Some(3.125), "critical", None),
            sensor("CPU2", None, "-", Some("no reading")),
        ];
        let text = Output::plain(Format::Wide).render_list(&rows, &COLUMNS, |row| row.name.clone()).unwrap();
        insta::assert_snapshot!(text);
    }
}
