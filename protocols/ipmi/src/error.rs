//! Why a BMC gave no usable answer.
//!
//! Nothing in here holds a password, a key or a user's name.

use std::io;

use crate::{
    CompletionCode, NetFn,
    session::Privilege,
    wire::{
        handshake::Status,
        suite::{Algorithms, Suite},
    },
};

/// Bytes that are not what the specification says they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// Which structure, such as `SDR header`.
    pub what: &'static str,
    pub why: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The BMC carried the command nowhere: it answered with another completion code than `OK`.
    #[error("the BMC refused {net_fn} command {code:#04x}: {completion}")]
    Refused { completion: CompletionCode, net_fn: NetFn, code: u8 },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Nothing came back in time. Outside a session nothing has happened; a command may have been carried out.
    #[error("no answer to {to} ({attempts} sent)")]
    NoAnswer {
        /// What was sent, such as `Open Session Request` or `command`.
        to: &'static str,
        attempts: u32,
    },
    /// The BMC speaks IPMI 1.5 only.
    #[error("the BMC does not offer RMCP+ (IPMI 2.0)")]
    NoRmcpPlus,
    /// The BMC refused to open a session for a reason that has no kind of its own here.
    #[error("the BMC refused the {at}: {status}")]
    SessionRefused {
        /// The message that was refused.
        at: &'static str,
        status: Status,
    },
    /// The BMC accepts none of the cipher suites that policy and pin allow.
    #[error("the BMC refused {suite}, and no other is allowed: {status}")]
    SuiteRefused {
        /// The last one tried.
        suite: Suite,
        status: Status,
    },
    /// The BMC answered one cipher suite with the algorithms of another: broken, or somebody in between.
    #[error("the BMC answered {asked} with {answered}")]
    Downgraded { asked: Suite, answered: Algorithms },
    /// Unknown user or wrong password. One attempt was made; it is never repeated by itself.
    #[error("wrong user name or password ({by})")]
    Credentials { by: Rejection },
    /// The password is right but the session keys differ: the BMC has a K_g, or another one.
    #[error("the session keys differ: the BMC's key (K_g) is missing or wrong")]
    BmcKey,
    /// The password is right, and the BMC opened the session without its own proof: anybody could have.
    #[error("the BMC's RAKP message 4 holds no proof that it knows the session keys")]
    NoProof,
    /// The user may not have this privilege level here.
    #[error("privilege level {privilege} refused: {why}")]
    Privilege { privilege: Privilege, why: PrivilegeRefusal },
    /// Every session of the BMC is taken.
    #[error("the BMC has no free session")]
    NoFreeSession,
    /// The BMC is up but no longer knows the session: it timed out, was closed by somebody else or the BMC restarted.
    #[error("the BMC closed the session")]
    ClosedByBmc,
    /// The session was closed on this side.
    #[error("the session is closed")]
    Closed,
    /// The request cannot be made. Nothing was sent.
    #[error("the request cannot be made: {0}")]
    Request(&'static str),
    /// The operating system gave no socket or no random bytes.
    #[error("{what} failed: {kind}")]
    System { what: &'static str, kind: io::ErrorKind },
}

impl Error {
    /// Whether this is about one answer only: the BMC is there and may answer the next request.
    pub fn is_about_one_answer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Malformed(_))
    }
}

/// How a wrong password showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// The BMC's own proof in RAKP 2 does not match the password: no proof of ours was sent.
    #[error(
        "the BMC's RAKP message 2 was made with another password; some BMCs compute it in a way of their own"
    )]
    Code,
    /// The BMC said so.
    #[error("{0}")]
    Status(Status),
}

/// Who refused a privilege level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrivilegeRefusal {
    #[error("{0}")]
    Status(Status),
    /// By Set Session Privilege Level.
    #[error("{}", privilege_refusal(*.0))]
    Completion(CompletionCode),
}

/// What its completion code says (section 22.18).
fn privilege_refusal(code: CompletionCode) -> String {
    match code.0 {
        0x80 => "not for this user (completion code 0x80)".to_owned(),
        0x81 => "above the limit of the user or of the channel (completion code 0x81)".to_owned(),
        _ => code.to_string(),
    }
}
