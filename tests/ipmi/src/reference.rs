//! The reference clients: what ipmitool and FreeIPMI print about a BMC, read into values.
//!
//! Passwords go by file. Both know only what they print: numbers are compared with the precision they print
//! them with.

mod freeipmi;
mod ipmitool;

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

pub use freeipmi::FreeIpmi;
pub use ipmitool::Ipmitool;

/// A sensor as a reference client shows it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shown {
    pub name: String,
    /// The kind, such as `Temperature`.
    pub kind: String,
    /// The number as printed; none for a discrete sensor and for one without a reading.
    pub value: Option<String>,
    pub unit: String,
    /// Lower non-critical, critical, non-recoverable; upper the same; as printed.
    pub thresholds: [Option<String>; 6],
    /// What it says of the state, as printed.
    pub state: String,
}

/// Where a client finds the BMC and how it signs in.
struct Access {
    address: SocketAddr,
    user: &'static str,
    directory: TempDir,
}

impl Access {
    fn new(address: SocketAddr, user: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("rackhand-test-reference-").tempdir().unwrap();
        Self { address, user, directory }
    }

    /// A file that only its owner reads.
    fn secret(&self, name: &str, content: &str) {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Whether `printed`, a number with so many decimals, is `value` rounded.
pub fn same(value: f64, printed: &str) -> bool {
    within(value, printed, 0.5)
}

/// The same for FreeIPMI, which rounds negative numbers towards zero.
pub fn near(value: f64, printed: &str) -> bool {
    within(value, printed, if value < 0.0 { 1.0 } else { 0.5 })
}

/// `units` of the last printed place either way, and a little for binary fractions.
fn within(value: f64, printed: &str, units: f64) -> bool {
    let Ok(number) = printed.trim().parse::<f64>() else { return false };
    let decimals = printed.trim().split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let unit = 10_f64.powi(-i32::try_from(decimals).unwrap());
    (value - number).abs() <= units * unit + 1e-9 * value.abs().max(1.0)
}
