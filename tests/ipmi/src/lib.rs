//! Peers for the IPMI client: BMCs by OpenIPMI's `ipmi_sim` and by pyghmi, the reference clients ipmitool and
//! FreeIPMI, and a bad network between them.
//!
//! Every process here ends with the value that stands for it. Nothing listens outside 127.0.0.1. What is not
//! installed fails a test with the name of its Debian package; `cargo xtask test` installs them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "test support: a failed step ends the test, loudly"
)]

pub mod fru;
pub mod hardware;
pub mod process;
pub mod pyghmi;
pub mod quirky;
pub mod random;
pub mod reference;
pub mod relay;
pub mod sim;
pub mod venv;

pub use hardware::Hardware;
pub use pyghmi::ForeignBmc;
pub use quirky::QuirkyBmcs;
pub use relay::Relay;
pub use sim::Bmc;
