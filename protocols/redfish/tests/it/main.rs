//! The client against a scripted BMC, a recorded one, and real TLS.

mod failure_modes;
mod hostile;
mod recorded;
mod support;
mod tls;
