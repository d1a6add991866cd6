//! `cargo xtask`: the commands a developer and CI type, and what tests share with them.
//!
//! * [`up`]: the whole system with a simulated site, on this machine.
//! * [`test`]: every check there is, in order, with the time each takes.
//! * [`bench`]: speed beside peers.
//! * [`edge`]: the Wasm hosts of the control plane.
//! * [`openapi`]: the API document kept in step with the code.
//! * [`postgres`]: a private Postgres cluster, also for tests.
//!
//! Nothing here listens beyond loopback, and every process that is started ends with the one that started it.

pub mod bench;
pub mod children;
pub mod edge;
pub mod error;
pub mod install;
pub mod login;
pub mod openapi;
pub mod paths;
pub mod postgres;
pub mod terminal;
pub mod test;
pub mod up;

pub use error::Failure;
