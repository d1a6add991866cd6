//! Commands, by the part of the BMC they speak to. Each is a [`Command`](crate::Command): bytes in, a typed answer out.

pub mod chassis;
pub mod device;
pub mod sdr;
pub mod sensor;
pub mod timestamp;

mod patience;
mod reader;
mod text;

#[cfg(test)]
mod fake;

pub use timestamp::{Moment, Timestamp};
