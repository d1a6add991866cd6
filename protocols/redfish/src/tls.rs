//! TLS to BMCs: trust by the fingerprint of the public key.
//!
//! BMC certificates are self-signed, expired, issued for another name, X.509 v1, or a CA used as a leaf; a normal
//! verifier refuses them all, and "insecure" flags accept anybody. Here nothing about the certificate counts except
//! its `SubjectPublicKeyInfo`: its SHA-256 is the pin, and the handshake signature proves that the peer holds the
//! key. The key is found by a bounded DER walk of our own, because certificate parsers refuse v1.
//!
//! Fails with [`PinMismatch`] when the key is another one than the pinned one: a replaced certificate or a man in
//! the middle, which only a person can tell apart. RSA keys under 2048 bits, TLS 1.0 and 1.1 are not supported.

use std::{fmt, str::FromStr};

/// SHA-256 of a `SubjectPublicKeyInfo` in DER; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = hex::FromHexError;

    /// Reads 64 hexadecimal digits of any case; colons between bytes are ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim().replace(':', ""), &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Whom to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTrust {
    /// Only the holder of this key.
    Pinned([u8; 32]),
    /// Whoever answers first; from then on, for the life of the transport, only the holder of that key.
    FirstUse,
}

/// The peer proved another key than the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the TLS key {expected}, found {found}")]
pub struct PinMismatch {
    /// The pinned fingerprint.
    pub expected: Fingerprint,
    /// The fingerprint that was shown.
    pub found: Fingerprint,
}
