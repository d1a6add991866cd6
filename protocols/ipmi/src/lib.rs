//! IPMI 2.0 over the network, without a subprocess: RMCP+ sessions with authentication and encryption, typed
//! commands, sensors, event log, inventory and Serial-over-LAN.
//!
//! Packets, cryptography and state machines are pure: they take the time and bytes, and give bytes. A thin shell moves
//! them through UDP sockets. Section numbers are those of the *IPMI Specification, V2.0, Rev. 1.1*.

pub mod client;
pub mod command;
pub mod commands;
pub mod completion;
pub mod error;
pub mod session;
pub mod sockets;
pub mod sol;
pub mod wire;

pub use client::{Client, PayloadChannel, Target, probe};
pub use command::{Carrier, Command, NetFn, Request};
pub use completion::CompletionCode;
pub use error::{Error, Malformed};
pub use sockets::Sockets;
