//! The sealed trail of events: two RFC 6962 Merkle trees, their signed checkpoints and the keys that verify them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// What was done and decided; kept for good.
    Audit,
    /// What executors said while they worked; old months may be dropped.
    Lines,
}

impl Tree {
    pub const ALL: [Self; 2] = [Self::Audit, Self::Lines];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Lines => "lines",
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are the trees `audit` and `lines`")]
pub struct NoTree;

impl FromStr for Tree {
    type Err = NoTree;

    fn from_str(text: &str) -> Result<Self, NoTree> {
        Self::ALL.into_iter().find(|tree| tree.as_str() == text).ok_or(NoTree)
    }
}

/// A signed head of a tree.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// 1, 2, 3, … in each tree.
    pub number: u64,
    pub at: Timestamp,
    /// The last event it covers.
    pub cursor: String,
    /// Events it covers, from the first one on.
    pub size: u64,
    /// RFC 6962 §2.1 over the records of these events, hex.
    pub root: String,
    /// The roots of the perfect subtrees it consists of, the largest first, hex: who verifies may begin here.
    pub frontier: Vec<String>,
    /// A C2SP tlog-checkpoint: the signed note over origin, size and root.
    pub note: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckpointPage {
    /// By number; ask again with the last one's until there are none.
    pub items: Vec<Checkpoint>,
}

/// A key that has signed checkpoints, or does.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditKey {
    /// C2SP signed-note verifier key: `<origin>+<key id>+<key>`.
    pub vkey: String,
    /// Of its first checkpoint; absent if it has signed none yet.
    pub since: Option<Timestamp>,
}

/// A key that verifies access tokens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenKey {
    pub kid: String,
    /// Ed25519, hex.
    pub public_key: String,
}

/// The public keys of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PublicKeys {
    /// Names the deployment; part of the origin of its trees, `rackhand/<log>/<tree>`.
    pub log: String,
    /// All that ever signed a checkpoint.
    pub checkpoints: Vec<AuditKey>,
    /// Those that are taken today.
    pub tokens: Vec<TokenKey>,
}
