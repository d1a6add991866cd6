//! Sensor data records (sections 33 and 43): what a BMC says about its sensors, FRUs and controllers.

pub mod cache;
pub mod commands;
pub mod record;
mod repository;

#[cfg(test)]
mod tests;

pub use cache::{SdrCache, Stamp};
pub use record::{Association, Body, ControllerLocator, FruLocator, Record};
