//! A BMC made of the same packets, for tests of this side: it does as it is told, and counts.

use crate::wire::{
    crypto::{Exchange, Keys},
    handshake::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, Refusal, Status},
    message::{BMC, CONSOLE, Message},
    packet::{self, Form, Header, PayloadKind},
    rmcp,
    suite::{Algorithms, Suite},
};

pub(crate) const MANAGED: u32 = 0x0a0b_0c0d;
pub(crate) const GUID: [u8; 16] = [0x47; 16];

/// Out of RAKP 1 and 2: user, the console's random number, role, the BMC's random number.
type Named = (Vec<u8>, [u8; 16], u8, [u8; 16]);

/// What RAKP 4 carries of its integrity check value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// As long as the suite says.
    Cut,
    /// That, and more bytes behind it.
    Long,
    /// As long, and another one.
    Wrong,
    None,
}

/// See the module; each field is a switch or a counter.
pub(crate) struct Bmc {
    pub suites: Vec<Suite>,
    pub password: &'static [u8],
    pub user: &'static [u8],
    pub kg: Option<&'static [u8]>,
    /// Answers an Open Session Request with this suite's algorithms, whatever was asked.
    pub lies: Option<Suite>,
    /// Leaves Open Session Requests for this suite unanswered.
    pub deaf_to: Option<Suite>,
    pub open_status: Status,
    /// What RAKP 4 carries of its proof.
    pub proof: Proof,
    pub privilege_limit: u8,
    /// How many commands are answered "node busy" first.
    pub busy: u32,
    /// Carries commands out and answers none.
    pub mute: bool,
    pub random: u8,
    pub request: Option<OpenRequest>,
    pub rakp1: Option<Named>,
    pub keys: Option<Keys>,
    pub sequence: u32,
    pub seen: Vec<u32>,
    /// Packets dropped because their sequence number was seen before.
    pub repeated: u32,
    pub opens: Vec<Suite>,
    pub rakp3: Vec<Status>,
    pub commands: Vec<(u8, u8, u8)>,
    pub closed: bool,
}

impl Default for Bmc {
    fn default() -> Self {
        Self {
            suites: vec![Suite::S3, Suite::S17],
            password: b"secret",
            user: b"admin",
            kg: None,
            lies: None,
            deaf_to: None,
            open_status: Status::OK,
            proof: Proof::Cut,
            privilege_limit: 4,
            busy: 0,
            mute: false,
            random: 0x80,
            request: None,
            rakp1: None,
            keys: None,
            sequence: 0,
            seen: Vec::new(),
            repeated: 0,
            opens: Vec::new(),
            rakp3: Vec::new(),
            commands: Vec::new(),
            closed: false,
        }
    }
}

impl Bmc {
    /// The answer to one datagram, if any.
    pub fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        // Pings stay unanswered, as many BMCs have it.
        if rmcp::decode(datagram) != Ok(rmcp::Class::Ipmi) {
            return None;
        }
        let mut body = datagram[rmcp::HEADER..].to_vec();
        if Form::of(&body).unwrap() == Form::Sessionless {
            let message = Message::decode(packet::open_sessionless(&body).unwrap()).unwrap();
            let mut out = Vec::new();
            packet::seal_sessionless(&self.sessionless(&message), &mut out).unwrap();
            return Some(out);
        }
        let keys = self.keys.take();
        let header = Header::peek(&body).unwrap();
        if header.session != 0 && self.seen.contains(&header.sequence) {
            self.keys = keys;
            self.repeated += 1;
            return None;
        }
        let opened = packet::open(&mut body, keys.as_ref().filter(|_| header.session != 0));
        let (header, payload) = opened.unwrap();
        let payload = payload.to_vec();
        self.keys = keys;
        match header.kind {
            PayloadKind::OPEN_REQUEST => self.open(OpenRequest::decode(&payload).unwrap()),
            PayloadKind::RAKP_1 => self.rakp1(&Rakp1::decode(&payload).unwrap()),
            PayloadKind::RAKP_3 => self.rakp3(&Rakp3::decode(&payload).unwrap()),
            PayloadKind::IPMI if header.session == 0 => {
                let message = Message::decode(&payload).unwrap();
                Some(plain(PayloadKind::IPMI, &self.sessionless(&message)))
            }
            PayloadKind::IPMI => {
                assert_eq!(header.session, MANAGED);
                self.seen.push(header.sequence);
                self.command(&Message::decode(&payload).unwrap())
            }
            PayloadKind::SOL => Some(self.seal(PayloadKind::SOL, &payload)),
            kind => panic!("{kind:?}"),
        }
    }

    fn sessionless(&self, message: &Message<'_>) -> Vec<u8> {
        if message.code == 0x38 {
            return reply(message, 0, &[1, 0x80, 0x04, 0x02, 0, 0, 0, 0]);
        }
        assert_eq!(message.code, 0x54);
        let list: Vec<u8> = self
            .suites
            .iter()
            .flat_map(|suite| {
                let Algorithms { authentication, integrity, confidentiality } = suite.algorithms();
                [0xc0, suite.id(), authentication, 0x40 | integrity, 0x80 | confidentiality]
            })
            .collect();
        let part = usize::from(message.data[2] & 0x3f);
        let part = list.chunks(16).nth(part).unwrap_or_default();
        reply(message, 0, &[&[1], part].concat())
    }

    fn open(&mut self, request: OpenRequest) -> Option<Vec<u8>> {
        let suite = Suite::from_algorithms(request.algorithms).unwrap();
        self.opens.push(suite);
        if self.deaf_to == Some(suite) {
            return None;
        }
        let mut out = Vec::new();
        let status = if self.suites.contains(&suite) { self.open_status } else { Status::NO_MATCHING_SUITE };
        if status == Status::OK {
            OpenResponse {
                tag: request.tag,
                privilege: 4,
                console_session: request.console_session,
                managed_session: MANAGED,
                algorithms: self.lies.unwrap_or(suite).algorithms(),
            }
            .encode(&mut out);
        } else {
            Refusal { tag: request.tag, status, console_session: Some(request.console_session) }
                .encode(&mut out);
        }
        self.request = Some(request);
        Some(plain(PayloadKind::OPEN_RESPONSE, &out))
    }

    fn with_exchange<T>(&self, act: impl FnOnce(&Exchange<'_>) -> T) -> T {
        let request = self.request.unwrap();
        let (user, console_random, role, managed_random) = self.rakp1.as_ref().unwrap();
        act(&Exchange {
            suite: Suite::from_algorithms(request.algorithms).unwrap(),
            console_session: request.console_session,
            managed_session: MANAGED,
            console_random,
            managed_random,
            guid: &GUID,
            role: *role,
            user,
        })
    }

    fn rakp1(&mut self, rakp1: &Rakp1<'_>) -> Option<Vec<u8>> {
        let console_session = self.request.unwrap().console_session;
        let mut out = Vec::new();
        if rakp1.user != self.user {
            Refusal {
                tag: rakp1.tag,
                status: Status::UNAUTHORIZED_NAME,
                console_session: Some(console_session),
            }
            .encode(&mut out);
            return Some(plain(PayloadKind::RAKP_2, &out));
        }
        // Another random number each time, as some BMCs do.
        self.random += 1;
        let managed_random = [self.random; 16];
        self.rakp1 = Some((rakp1.user.to_vec(), rakp1.console_random, rakp1.role, managed_random));
        let code = self.with_exchange(|exchange| exchange.rakp2(self.password));
        Rakp2 { tag: rakp1.tag, console_session, managed_random, guid: GUID, code: code.as_slice() }
            .encode(&mut out);
        Some(plain(PayloadKind::RAKP_2, &out))
    }

    fn rakp3(&mut self, rakp3: &Rakp3<'_>) -> Option<Vec<u8>> {
        self.rakp3.push(rakp3.status);
        if rakp3.status != Status::OK {
            return None;
        }
        let console_session = self.request.unwrap().console_session;
        let mut out = Vec::new();
        if !self.with_exchange(|exchange| exchange.rakp3(self.password)).matches(rakp3.code) {
            let status = Status::INVALID_CHECK_VALUE;
            Refusal { tag: rakp3.tag, status, console_session: Some(console_session) }.encode(&mut out);
            return Some(plain(PayloadKind::RAKP_4, &out));
        }
        let (key, check) = self.with_exchange(|exchange| {
            let key = exchange.session_key(self.password, self.kg);
            let check = exchange.rakp4(&key);
            (key, check)
        });
        self.keys = Some(Keys::new(&key));
        self.sequence = 0;
        self.seen.clear();
        let mut check = check.as_slice().to_vec();
        match self.proof {
            Proof::Cut => {}
            Proof::Long => check.extend([0x5a; 8]),
            Proof::Wrong => check.reverse(),
            Proof::None => check.clear(),
        }
        Rakp4 { tag: rakp3.tag, console_session, check: &check }.encode(&mut out);
        Some(plain(PayloadKind::RAKP_4, &out))
    }

    fn command(&mut self, message: &Message<'_>) -> Option<Vec<u8>> {
        self.commands.push((message.net_fn, message.code, message.sequence));
        if self.mute {
            return None;
        }
        let answer = match (message.net_fn, message.code) {
            (6, 0x3b) if message.data[0] > self.privilege_limit => reply(message, 0x81, &[]),
            (6, 0x3b) => reply(message, 0, &message.data[..1]),
            (6, 0x3c) => {
                self.closed = true;
                reply(message, 0, &[])
            }
            _ if self.busy > 0 => {
                self.busy -= 1;
                reply(message, 0xc0, &[])
            }
            _ => reply(message, 0, message.data),
        };
        Some(self.seal(PayloadKind::IPMI, &answer))
    }

    pub fn seal(&mut self, kind: PayloadKind, payload: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let keys = self.keys.as_ref().unwrap();
        let header = Header {
            kind,
            encrypted: keys.suite().encrypts(),
            authenticated: keys.suite().authenticates(),
            session: self.request.unwrap().console_session,
            sequence: self.sequence,
        };
        let mut out = Vec::new();
        packet::seal(header, payload, Some(keys), &[3; 16], &mut out).unwrap();
        out
    }
}

/// The message that answers `request`.
pub(crate) fn reply(request: &Message<'_>, completion: u8, data: &[u8]) -> Vec<u8> {
    let data = [&[completion], data].concat();
    let mut out = Vec::new();
    Message {
        to: CONSOLE,
        net_fn: request.net_fn | 1,
        to_lun: 0,
        from: BMC,
        from_lun: request.to_lun,
        sequence: request.sequence,
        code: request.code,
        data: &data,
    }
    .encode(&mut out);
    out
}

/// A datagram outside any session.
pub(crate) fn plain(kind: PayloadKind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::seal(Header::sessionless(kind), payload, None, &[0; 16], &mut out).unwrap();
    out
}
