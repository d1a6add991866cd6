//! What a session is opened with.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use crate::{
    Error,
    wire::{crypto::KEY_MAX, handshake::USER_MAX, suite::Suite},
};

/// A privilege level (section 6.8); each one includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Privilege {
    Callback,
    User,
    Operator,
    Administrator,
    Oem,
}

impl Privilege {
    /// The level's number in messages, 1 to 5.
    pub fn number(self) -> u8 {
        match self {
            Self::Callback => 1,
            Self::User => 2,
            Self::Operator => 3,
            Self::Administrator => 4,
            Self::Oem => 5,
        }
    }

    /// Of the low nibble of `number`; none for the reserved ones and for "no access".
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Callback, Self::User, Self::Operator, Self::Administrator, Self::Oem]
            .into_iter()
            .find(|level| level.number() == number & 0x0f)
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Callback => "callback",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Oem => "OEM",
        })
    }
}

/// A secret key of at most 20 bytes: a user's password or a BMC's K_g. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        if bytes.len() > KEY_MAX {
            return Err(Error::Request("a password or BMC key has at most 20 bytes in IPMI"));
        }
        Ok(Self(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Which cipher suites may be used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SuitePolicy {
    /// 17 first; 3 where the BMC refuses or does not list 17.
    #[default]
    Standard,
    /// 17 or nothing.
    Strict,
    /// This one and no other. The only way to suites 0, 1 and 2, for a BMC that somebody has named.
    Exactly(Suite),
}

/// How a BMC finds the user (RAKP 1, table 13-11, role bit 4).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Lookup {
    /// By name alone, as ipmitool does; works on every BMC known.
    #[default]
    Name,
    /// By name and privilege level: where one name exists several times.
    NameAndPrivilege,
}

/// How patient a session is. The default suits a BMC on a LAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How long each handshake message waits for its answer: BMCs hash slowly, and answering late is not losing.
    pub handshake_wait: Duration,
    /// How long a command waits before it is sent again; doubled each time.
    pub first_wait: Duration,
    /// Where doubling ends.
    pub longest_wait: Duration,
    /// How often a message is sent before it has no answer.
    pub attempts: u32,
    /// Idle time after which a session is kept alive; BMCs close idle ones after 60 s (section 6.12.15).
    pub keep_alive: Duration,
    /// How many commands may be under way. More than one or two freezes some BMCs.
    pub window: usize,
    /// Least time between two commands, for BMCs that need rest.
    pub gap: Duration,
    /// How long to wait after "node busy", and how often.
    pub busy_wait: Duration,
    pub busy_attempts: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_wait: Duration::from_secs(2),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(4),
            attempts: 4,
            keep_alive: Duration::from_secs(30),
            window: 1,
            gap: Duration::ZERO,
            busy_wait: Duration::from_millis(100),
            busy_attempts: 20,
        }
    }
}

/// Everything a session needs to know about its BMC.
#[derive(Clone, Debug)]
pub struct Config {
    /// At most 16 bytes; empty for the null user.
    pub user: String,
    pub password: Key,
    pub privilege: Privilege,
    pub lookup: Lookup,
    pub suites: SuitePolicy,
    /// The suite that worked last time with this BMC, see [`Event::Opened`](super::Event::Opened). A pin of 17 forbids
    /// 3; a pin of 3 saves the attempt with 17.
    pub pin: Option<Suite>,
    /// The BMC's key (K_g), where one was set on it.
    pub bmc_key: Option<Key>,
    pub timing: Timing,
}

impl Config {
    /// Bad values are found before anything is sent.
    pub fn check(&self) -> Result<(), Error> {
        if self.user.len() > USER_MAX {
            return Err(Error::Request("a user name has at most 16 bytes in IPMI"));
        }
        if self.timing.window == 0 || self.timing.window > 16 {
            return Err(Error::Request("the window is 1 to 16 commands"));
        }
        if self.timing.attempts == 0 {
            return Err(Error::Request("at least one attempt is needed"));
        }
        Ok(())
    }

    /// The suites to try, in order.
    pub(super) fn suites(&self) -> &'static [Suite] {
        match (self.suites, self.pin) {
            (SuitePolicy::Exactly(Suite::S0), _) => &[Suite::S0],
            (SuitePolicy::Exactly(Suite::S1), _) => &[Suite::S1],
            (SuitePolicy::Exactly(Suite::S2), _) => &[Suite::S2],
            (SuitePolicy::Exactly(Suite::S3), _) => &[Suite::S3],
            (SuitePolicy::Exactly(Suite::S17) | SuitePolicy::Strict, _) | (_, Some(Suite::S17)) => {
                &[Suite::S17]
            }
            (SuitePolicy::Standard, Some(Suite::S3)) => &[Suite::S3, Suite::S17],
            (SuitePolicy::Standard, _) => &[Suite::S17, Suite::S3],
        }
    }
}
