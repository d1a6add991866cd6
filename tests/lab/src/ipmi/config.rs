//! What a lab's BMCs do over IPMI, and what they remember: settings of the lab, users, the state of one BMC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rackhand_ipmi::wire::suite::Suite;

use super::console::Console;
use super::sensors::Catalogue;
use super::session::Session;
use super::sol::Sol;
use crate::counters::IpmiCounters;
use crate::spec::{Model, Password, mix};

/// Users a BMC has room for (an iDRAC has 16, the first of them without a name).
pub(super) const USERS: usize = 16;

/// Settings of every BMC of a lab. Durations are real time: a session's timers are the network's, not the
/// server's.
#[derive(Clone, Debug)]
pub struct IpmiConfig {
    /// Cipher suites offered and accepted, in the order in which they are listed.
    pub suites: Vec<Suite>,
    /// Users besides the lab's account, which is user 2; the first of these is user 3.
    pub users: Vec<IpmiUser>,
    /// User 1, who has no name, may sign in without a password: a weak setting for tests that look for it.
    pub null_user: bool,
    /// The BMC's key (K_g); none: sessions are keyed by the password alone.
    pub bmc_key: Option<Password>,
    /// Sessions a BMC has room for.
    pub sessions: usize,
    /// Idle time after which a session is forgotten (section 6.12.15: 60 s and 3 s less or more).
    pub session_timeout: Duration,
    /// How long each command takes.
    pub latency: Duration,
    /// Most bytes of a sensor record, event or inventory in one answer.
    pub read_limit: u8,
    /// Time between repetitions of an unanswered SOL packet, and how many there are (section 26.3, parameter
    /// 4).
    pub sol_retry: Duration,
    pub sol_retries: u32,
}

impl Default for IpmiConfig {
    fn default() -> Self {
        Self {
            suites: vec![Suite::S3, Suite::S17],
            users: Vec::new(),
            null_user: false,
            bmc_key: None,
            sessions: 5,
            session_timeout: Duration::from_secs(60),
            latency: Duration::ZERO,
            read_limit: 255,
            sol_retry: Duration::from_millis(500),
            sol_retries: 7,
        }
    }
}

/// A user with a name of at most 16 bytes and a password of at most 20; one that is longer cannot sign in.
#[derive(Clone, Debug)]
pub struct IpmiUser {
    pub name: String,
    pub password: Password,
    /// 2 user, 3 operator, 4 administrator.
    pub privilege: u8,
    pub enabled: bool,
}

/// What a BMC remembers of a user.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub name: String,
    pub password: Password,
    pub privilege: u8,
    pub enabled: bool,
    /// May use SOL.
    pub sol: bool,
}

impl User {
    fn nobody() -> Self {
        Self {
            name: String::new(),
            password: Password::from(""),
            privilege: super::NO_ACCESS,
            enabled: false,
            sol: false,
        }
    }
}

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub to: SocketAddr,
    /// Real time until it is sent.
    pub after: Duration,
    pub bytes: Vec<u8>,
}

/// Who drives the fans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fans {
    Automatic,
    /// By hand, per cent.
    Manual(u8),
}

/// The IPMI side of one BMC.
#[derive(Debug)]
pub(crate) struct Ipmi {
    pub(super) config: Arc<IpmiConfig>,
    pub(super) catalogue: Arc<Catalogue>,
    /// UDP port, which the answer to Activate Payload names.
    pub(super) port: u16,
    /// Real time of the present call.
    pub(super) real: Duration,
    pub(super) guid: [u8; 16],
    seed: u64,
    drawn: u64,
    pub(super) users: Vec<User>,
    pub(super) sessions: Vec<Session>,
    pub(super) sol: Option<Sol>,
    pub(super) console: Console,
    pub(super) out: Vec<Datagram>,
    /// When the commands under way will have been answered.
    pub(super) under_way: Vec<Duration>,
    /// Commands of the present second, for the fault that freezes; and until when it is frozen.
    pub(super) second: (u64, u32),
    pub(super) frozen_until: Duration,
    pub(super) thresholds: BTreeMap<u8, [u8; 6]>,
    pub(super) lan: BTreeMap<u8, Vec<u8>>,
    pub(super) sdr_reservation: u16,
    pub(super) sel_reservation: u16,
    pub(super) sel_erased: Duration,
    /// The boot flags that Redfish does not know (section 28.13, parameter 5, data 3 to 5).
    pub(super) boot: [u8; 3],
    pub(super) restore: u8,
    /// The identification light, in simulated time.
    pub(super) identify_until: Duration,
    pub(super) fans: Fans,
    pub(super) counters: IpmiCounters,
}

impl Ipmi {
    pub(crate) fn new(config: &Arc<IpmiConfig>, model: Model, seed: u64, account: (&str, &Password)) -> Self {
        let mut users = vec![User::nobody(); USERS];
        if let Some(first) = users.first_mut() {
            first.enabled = config.null_user;
            first.privilege = if config.null_user { super::ADMINISTRATOR } else { super::NO_ACCESS };
        }
        let account = IpmiUser {
            name: account.0.to_owned(),
            password: account.1.clone(),
            privilege: super::ADMINISTRATOR,
            enabled: true,
        };
        let named = std::iter::once(&account).chain(&config.users);
        for (place, user) in users.iter_mut().skip(1).zip(named) {
            *place = User {
                name: user.name.clone(),
                password: user.password.clone(),
                privilege: user.privilege,
                enabled: user.enabled,
                sol: true,
            };
        }
        Self {
            config: Arc::clone(config),
            catalogue: Catalogue::of(model),
            port: rackhand_ipmi::wire::rmcp::PORT,
            real: Duration::ZERO,
            guid: guid(seed),
            seed: mix(seed, 0x1b41),
            drawn: 0,
            users,
            sessions: Vec::new(),
            sol: None,
            console: Console::default(),
            out: Vec::new(),
            under_way: Vec::new(),
            second: (0, 0),
            frozen_until: Duration::ZERO,
            thresholds: BTreeMap::new(),
            lan: BTreeMap::new(),
            sdr_reservation: 0,
            sel_reservation: 0,
            sel_erased: Duration::ZERO,
            boot: [0; 3],
            restore: 0,
            identify_until: Duration::ZERO,
            fans: Fans::Automatic,
            counters: IpmiCounters::default(),
        }
    }

    pub(crate) fn listens(&mut self, port: u16) {
        self.port = port;
    }

    /// The next random number. Nobody guesses it without the seed, and equal seeds give equal labs.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    pub(super) fn draw_bytes(&mut self) -> [u8; 16] {
        ((u128::from(self.draw()) << 64) | u128::from(self.draw())).to_le_bytes()
    }

    /// True for so many in a hundred.
    pub(super) fn chance(&mut self, percent: u8) -> bool {
        self.draw() % 100 < u64::from(percent)
    }

    /// The BMC restarts: sessions, reservations and the console are gone, and nobody is told.
    pub(crate) fn restart(&mut self) {
        self.counters.sessions_lost += self.sessions.iter().filter(|session| session.active).count() as u64;
        self.sessions.clear();
        self.sol = None;
        self.console = Console::default();
        self.under_way.clear();
        self.out.clear();
        self.sdr_reservation = 0;
        self.sel_reservation = 0;
        self.identify_until = Duration::ZERO;
        self.fans = Fans::Automatic;
    }

    pub(crate) fn counters(&self) -> IpmiCounters {
        let open = self.sessions.iter().filter(|session| session.active).count();
        IpmiCounters { sessions_open: open as u64, ..self.counters.clone() }
    }

    /// What the host writes to its serial port; nobody keeps it while no console is open.
    pub(crate) fn serial(&mut self, text: &str) {
        if let Some(sol) = &mut self.sol {
            sol.push(text.as_bytes());
        }
    }
}

/// The system's UUID as Redfish shows it, least significant byte first (section 20.8).
fn guid(seed: u64) -> [u8; 16] {
    ((u128::from(seed) << 64) | u128::from(seed.rotate_left(17))).to_le_bytes()
}
