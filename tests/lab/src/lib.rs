//! A simulated site: BMCs of three Dell generations that speak Redfish and IPMI as the real ones do,
//! misbehave on request, and count what was done to them.
//!
//! - [`Site`] is the model: no socket, no clock. Simulated time is an argument, so a day passes in
//!   microseconds.
//! - [`InProcess`] calls the model directly under tokio's (pausable) clock: for crash suites and property
//!   tests.
//! - [`Lab`] puts real HTTPS servers and UDP ports, a package repository and a control API in front of the
//!   same model, with time sped up: for end-to-end tests and `cargo xtask up`.
//! - [`replay`] serves a recorded Redfish tree.
//!
//! What is modelled after what is in `lab-fidelity.md`. The lab fails loudly: a port it cannot bind is an
//! error of [`Lab::start`]; everything a client does wrong gets the error a BMC would give.

mod counters;
mod fault;
mod in_process;
mod ipmi;
mod model;
mod package;
pub mod replay;
mod shell;
mod spec;

pub use counters::{Counters, FlashOutcome, FlashRecord, IpmiCounters, MutationKind, MutationRecord};
pub use fault::{ArmedFault, Fault, HostileShape, LyingLength, Times};
pub use in_process::{CallError, InProcess};
pub use ipmi::{Datagram, IpmiConfig, IpmiUser};
pub use model::{BmcStatus, Fetch, FetchFailure, ForeignJob, Reply, Site, SiteConfig, UnknownBmc};
pub use package::{Package, PackageFault, PackageHeader, PackageInfo, identify};
pub use shell::{BmcInfo, Lab, LabConfig, LabError, trusting_client, trusting_tls};
pub use spec::{ComponentSpec, Generation, Kind, Model, Password, PciTuple, ServerSpec, Timings};
