//! Serial-over-LAN: the host's serial port through a session (sections 15, 24 and 26).
//!
//! [`activate()`] asks the BMC for the serial port and settles who holds it; [`Machine`] is the exchange of numbered
//! packets, without a socket or a clock; [`SolStream`] puts both behind `AsyncRead` and `AsyncWrite`.
//!
//! How it fails: activation fails with a [`SolError`] that says who has the console, or which setting forbids it. An
//! active stream ends with a [`SolEnd`], which every read gives after the last byte that arrived.

mod activate;
mod client;
mod commands;
mod config;
mod end;
mod machine;
pub mod packet;
mod stream;

#[cfg(test)]
mod exchange;
#[cfg(test)]
mod stream_tests;

pub use activate::{Activated, Holder, OwnSession, SolError, SolOptions, activate, holder};
pub use commands::{
    ActivatePayload, ActivationStatus, DeactivatePayload, GetPayloadActivationStatus, GetPayloadInstanceInfo,
    InstanceInfo, Payload,
};
pub use config::{GetSolParameter, SolConfig};
pub use end::SolEnd;
pub use machine::{Lines, Machine, Settings, Status};
pub use packet::{Packet, ack_only};
pub use stream::{SolChannel, SolControl, SolStream};
