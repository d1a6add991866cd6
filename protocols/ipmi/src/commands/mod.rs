//! Commands, by the part of the BMC they speak to. Each is a [`Command`](crate::Command): bytes in, a typed answer out.

pub mod channel;
pub mod chassis;
pub mod device;
pub mod fru;
pub mod lan;
pub mod sdr;
pub mod sel;
pub mod sensor;
pub mod timestamp;
pub mod user;

mod patience;
mod text;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod spoilt;

pub use timestamp::{Moment, Timestamp};
