//! A session with one BMC.

mod config;

pub use config::{Config, Key, Lookup, Privilege, SuitePolicy, Timing};
