//! The executor in paused time: real service, engine, broker and Redfish client, over the lab's BMCs and a
//! model of the control plane's queue. A day of a run takes milliseconds.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, helpers included")]
#![expect(clippy::panic, reason = "a panic is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a bad index is a failed test")]
#![expect(clippy::print_stdout, reason = "says how many kill points a scenario has")]

mod crash;
mod field;
mod foreign;
mod hardware;
mod liveness;
mod mutated;
mod readback;
mod schedules;
mod simulation;
mod support;
mod transports;
