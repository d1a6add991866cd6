//! The model's behaviour in virtual time: what updates, resets, wrong passwords and faults do to a BMC.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

mod bench;
mod faults;
mod updates;
