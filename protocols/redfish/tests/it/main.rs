//! The client against a scripted BMC, a recorded one, and real TLS.
//!
//! The modules are marked as tests so that lints know their helpers for what they are.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod failure_modes;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod queues;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
