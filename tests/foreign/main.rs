//! Redfish services that nobody here wrote, as their users reported them: each is a small tree of documents
//! and a behaviour, read by the command line and by an executor, and both must get right what can be got
//! right and name what cannot.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step ends the test"
)]

mod cases;
mod device;
mod private_ca;
mod site;
