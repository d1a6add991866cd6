//! Sensors over IPMI: one sweep, by records that are read again only when they have changed.

use futures::future::BoxFuture;
use rackhand_ipmi::{
    Error,
    commands::{
        sdr::SdrCache,
        sensor::{Reading, Severity, Value, sweep},
    },
};
use rackhand_schema::server::Health;

use super::{IpmiBmc, link::Session};
use crate::{
    bmc::{BmcError, SensorReading, SensorReport, Sensors},
    text,
};

fn reading(found: &Reading) -> SensorReading {
    let (value, health) = match &found.value {
        Ok(Value::Number { value, status, .. }) => {
            let health = match status.severity() {
                Severity::Ok => Health::Ok,
                Severity::NonCritical => Health::Warning,
                Severity::Critical | Severity::NonRecoverable => Health::Critical,
            };
            (Some(*value), health)
        }
        // What a state means for health differs from sensor to sensor.
        Ok(Value::States { number, .. }) => (*number, Health::Unknown),
        Ok(Value::Unavailable(_)) | Err(_) => (None, Health::Unknown),
    };
    SensorReading {
        name: text::clean(&found.sensor.name),
        value,
        unit: found.sensor.units.to_string(),
        health,
    }
}

impl IpmiBmc {
    /// What is wrong with the records that the last sweep went by.
    pub(super) async fn record_faults(&self) -> Vec<String> {
        let records = self.records.lock().await;
        let Some(cache) = &*records else { return Vec::new() };
        let bad =
            cache.bad_records().map(|(record, why)| format!("record {:#06x} is skipped: {why}", record.id));
        cache.cut_short().map(ToString::to_string).into_iter().chain(bad).collect()
    }

    async fn sweep(&self, session: Session) -> Result<Vec<SensorReading>, Error> {
        let identity = session.0.identity();
        let mut records = self.records.lock().await;
        let current = match &*records {
            Some(cache) => cache.is_current(&session, &identity).await?,
            None => false,
        };
        if !current {
            *records = Some(SdrCache::read(&session, &identity).await?);
        }
        let Some(cache) = &*records else { return Ok(Vec::new()) };
        let found = sweep(&session, cache).await;
        // A session lost on the way fails the sweep: half of one would look like sensors that vanished.
        let lost = found.iter().find_map(|reading| match &reading.value {
            Err(error @ (Error::NoAnswer { .. } | Error::Closed | Error::ClosedByBmc)) => Some(error.clone()),
            _ => None,
        });
        match lost {
            Some(error) => Err(error),
            None => Ok(found.iter().map(reading).collect()),
        }
    }
}

impl Sensors for IpmiBmc {
    fn sensors(&self) -> BoxFuture<'_, Result<SensorReport, BmcError>> {
        Box::pin(async move {
            let readings = self.read(|session| Box::pin(self.sweep(session))).await?;
            Ok(SensorReport { readings, ..SensorReport::default() })
        })
    }
}
