//! Sensors (sections 35, 36 and 42): their readings as numbers with units, or as named states.

pub mod factors;
pub mod names;
pub mod reading;
pub mod record;
pub mod states;
pub mod sweep;
pub mod threshold;
pub mod units;

#[cfg(test)]
mod tests;

pub use factors::{AnalogFormat, Factors, GetReadingFactors, Linearization};
pub use names::{Entity, SensorType};
pub use reading::{GetSensorReading, RawReading, Unavailable, Value};
pub use record::{Sensor, SensorKind};
pub use states::{EventType, States, state_name};
pub use sweep::{Reading, sweep};
pub use threshold::{GetHysteresis, GetThresholds, Hysteresis, Severity, Status, Threshold, Thresholds};
pub use units::Units;
