//! Executors as people see them, and how one joins a site.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{ExecutorId, ExecutorSessionId, SiteId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorState {
    /// Enrolled, but does not hold the site key yet: its fingerprint waits to be confirmed on an executor
    /// that does.
    Joining,
    Active,
    Revoked,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Executor {
    pub id: ExecutorId,
    pub site_id: SiteId,
    pub name: String,
    pub state: ExecutorState,
    /// SHA-256 over both public keys, hex in groups of four; compared by people.
    pub fingerprint: String,
    pub online: bool,
    pub version: String,
    pub kinds: Vec<String>,
    pub runs_held: u64,
    pub seen_at: Option<Timestamp>,
    pub enrolled_at: Timestamp,
}

/// A one-time token with which one executor may join a site.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    pub token: String,
    /// Seconds.
    pub expires_in: u32,
}

#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    #[garde(length(bytes, min = 16, max = 200))]
    pub token: String,
    #[garde(length(chars, min = 1, max = 80), custom(crate::check::name))]
    pub name: String,
    /// Ed25519, base64 of 32 bytes: signs in.
    #[garde(length(bytes, min = 40, max = 48))]
    pub signing_key: String,
    /// X25519, base64 of 32 bytes: the site's private key is sealed to it.
    #[garde(length(bytes, min = 40, max = 48))]
    pub sealing_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    pub executor_id: ExecutorId,
    pub site_id: SiteId,
    pub site: String,
    pub fingerprint: String,
    /// Absent: the site has no key yet, and this executor makes it ([`SiteKey`]).
    pub site_public_key: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NonceRequest {
    #[garde(skip)]
    pub executor_id: ExecutorId,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Nonce {
    pub nonce: String,
}

/// Former sessions that a process may name when it signs in.
pub const SESSIONS_NAMED: usize = 16;

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    #[garde(skip)]
    pub executor_id: ExecutorId,
    #[garde(length(bytes, max = 200))]
    pub nonce: String,
    /// One id for each start of the process. A new one supersedes the executor's former session.
    #[garde(skip)]
    pub session_id: ExecutorSessionId,
    /// Former sessions of the data directory, whose processes are known to be dead (this process holds the journal's
    /// lock): their runs are then free at once instead of after the lease. While the executor's newest session lives
    /// and is not among them, the sign-in is refused: somebody has a copy of the directory.
    #[serde(default)]
    #[garde(length(max = SESSIONS_NAMED))]
    pub resumes: Vec<ExecutorSessionId>,
    /// Ed25519 over [`token_message`], base64.
    #[garde(length(bytes, max = 100))]
    pub signature: String,
}

/// What an executor signs to get a token. `audience` ([`audience`]) is the control plane as the executor calls it:
/// one that it was pointed at by mistake cannot pass the signature on to another.
pub fn token_message(
    audience: &str,
    nonce: &str,
    executor: ExecutorId,
    session: ExecutorSessionId,
) -> String {
    format!("rackhand executor token v2\n{audience}\n{nonce}\n{executor}\n{session}")
}

/// `host[:port]` of a control plane's address, or of a `Host` header (RFC 9110 §7.2): in lower case, without the port
/// that the scheme has anyway.
pub fn audience(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let authority = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return authority,
    };
    authority.strip_suffix(usual).map_or_else(|| authority.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_what_the_host_header_says() {
        for (address, expected) in [
            ("https://Rackhand.example", "rackhand.example"),
            ("https://rackhand.example:443/", "rackhand.example"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443/x", "[::1]:8443"),
            ("rackhand.example:8443", "rackhand.example:8443"),
        ] {
            assert_eq!(audience(address), expected, "{address}");
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct ExecutorToken {
    pub token: String,
    /// Seconds.
    pub expires_in: u32,
}

/// Sets the site's public key (first executor only) or hands its private half to others.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteKey {
    /// X25519, base64 of 32 bytes. Refused if the site has another one.
    #[garde(length(bytes, min = 40, max = 48))]
    pub public_key: String,
    #[garde(length(max = 100), dive)]
    pub shares: Vec<SiteKeyShare>,
}

/// The site's private key, sealed to one executor. Only an executor that holds the key can make one, after
/// its operator has confirmed the other's fingerprint. For one that has a share already it changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteKeyShare {
    #[garde(skip)]
    pub executor_id: ExecutorId,
    /// Base64 of a sealed box of the 32 bytes.
    #[garde(length(bytes, min = 64, max = 400))]
    pub sealed: String,
}
