//! What goes over the wire, both ways: a client and a BMC can each encode and decode everything here.
//!
//! | module | holds |
//! |---|---|
//! | [`rmcp`] | the RMCP header and the ASF presence ping and pong |
//! | [`packet`] | the session wrappers: RMCP+ (sealed or plain) and the IPMI 1.5 form used outside a session |
//! | [`handshake`] | Open Session and RAKP 1 to 4 |
//! | [`message`] | an IPMI message with its checksums |
//! | [`suite`] | cipher suites and their algorithms |
//! | [`crypto`] | key exchange codes, session keys, integrity and AES-CBC |
//! | [`bytes`] | a reader that never reads past the end |
//!
//! Decoders take any bytes: what is wrong is [`Malformed`](crate::Malformed), never a panic, and nothing is allocated
//! on the strength of a length that was only announced.

pub mod bytes;
pub mod crypto;
pub mod handshake;
pub mod message;
pub mod packet;
pub mod rmcp;
pub mod suite;
#[cfg(test)]
mod vectors;
