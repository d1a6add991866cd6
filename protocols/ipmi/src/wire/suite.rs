//! Cipher suites (section 22.15.2, table 22-20) and the algorithms they are made of (sections 13.28.1 to 13.28.5).

use std::fmt;

/// A cipher suite this crate can speak. The others are RC4, MD5 or unencrypted ones that nobody should add.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Suite {
    /// No authentication at all: anybody who knows a user's name is that user.
    S0,
    /// RAKP-HMAC-SHA1; packets are neither authenticated nor encrypted.
    S1,
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96; nothing is encrypted.
    S2,
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    S3,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    S17,
}

/// Algorithm numbers as they stand in Open Session messages; six bits each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Algorithms {
    /// Table 13-17: 0 none, 1 HMAC-SHA1, 2 HMAC-MD5, 3 HMAC-SHA256.
    pub authentication: u8,
    /// Table 13-18: 0 none, 1 HMAC-SHA1-96, 2 HMAC-MD5-128, 3 MD5-128, 4 HMAC-SHA256-128.
    pub integrity: u8,
    /// Table 13-19: 0 none, 1 AES-CBC-128, 2 xRC4-128, 3 xRC4-40.
    pub confidentiality: u8,
}

impl Suite {
    pub const ALL: [Self; 5] = [Self::S0, Self::S1, Self::S2, Self::S3, Self::S17];

    /// The cipher suite id.
    pub fn id(self) -> u8 {
        match self {
            Self::S0 => 0,
            Self::S1 => 1,
            Self::S2 => 2,
            Self::S3 => 3,
            Self::S17 => 17,
        }
    }

    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.id() == id)
    }

    pub fn algorithms(self) -> Algorithms {
        let (authentication, integrity, confidentiality) = match self {
            Self::S0 => (0, 0, 0),
            Self::S1 => (1, 0, 0),
            Self::S2 => (1, 1, 0),
            Self::S3 => (1, 1, 1),
            Self::S17 => (3, 4, 1),
        };
        Algorithms { authentication, integrity, confidentiality }
    }

    pub fn from_algorithms(algorithms: Algorithms) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.algorithms() == algorithms)
    }

    /// Packets carry an integrity code.
    pub fn authenticates(self) -> bool {
        self.algorithms().integrity != 0
    }

    /// Payloads are encrypted.
    pub fn encrypts(self) -> bool {
        self.algorithms().confidentiality != 0
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cipher suite {}", self.id())
    }
}

impl fmt::Display for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Suite::from_algorithms(*self) {
            Some(suite) => suite.fmt(f),
            None => {
                write!(f, "algorithms {}/{}/{}", self.authentication, self.integrity, self.confidentiality)
            }
        }
    }
}
