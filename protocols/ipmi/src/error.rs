//! Why a BMC gave no usable answer.

use crate::{CompletionCode, NetFn};

/// Bytes that are not what the specification says they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// Which structure, such as `SDR header`.
    pub what: &'static str,
    pub why: &'static str,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the BMC refused {net_fn:?} {code:#04x}: {completion}")]
    Refused { completion: CompletionCode, net_fn: NetFn, code: u8 },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
