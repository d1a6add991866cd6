//! The control plane on its three hosts: they answer alike, keep sites apart, and survive what happens to them.
//! `cargo xtask edge build` first; `cargo xtask test edge` does both.

#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

mod alive;
