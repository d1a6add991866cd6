//! Sessions with a [`fake`] BMC, over a network that the test controls.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::{
    fake::{Bmc, GUID, MANAGED, Proof, reply},
    *,
};
use crate::{
    Malformed, NetFn,
    error::Rejection,
    wire::{
        message::{BMC, CONSOLE, Message},
        packet::{self, Header},
    },
};

/// What the network does with the n-th datagram of one direction: nothing, once, twice.
type Network<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

struct Lab {
    session: Session,
    bmc: Bmc,
    now: Instant,
    events: Vec<Event>,
    sent: usize,
}

pub(crate) fn config() -> Config {
    Config {
        user: "admin".into(),
        password: Key::new(Zeroizing::new(b"secret".to_vec())).unwrap(),
        privilege: Privilege::Administrator,
        lookup: Lookup::Name,
        suites: SuitePolicy::Standard,
        pin: None,
        bmc_key: None,
        timing: Timing::default(),
    }
}

/// Random enough for a test, and the same every time.
fn counting() -> impl Entropy {
    let mut state = 1_u32;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    }
}

impl Lab {
    fn new(config: Config, bmc: Bmc) -> Self {
        let session = Session::new(config, counting()).unwrap();
        Self { session, bmc, now: Instant::now(), events: Vec::new(), sent: 0 }
    }

    fn opened(config: Config, bmc: Bmc) -> Self {
        let mut lab = Self::new(config, bmc);
        lab.session.start(lab.now);
        lab.settle();
        assert!(matches!(lab.events.pop(), Some(Event::Opened(_))), "{:?}", lab.events);
        lab
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        self.settle_over(&mut |_| 1, &mut |_| 1);
    }

    fn settle_over(&mut self, up: Network<'_>, down: Network<'_>) {
        let mut arriving = VecDeque::new();
        loop {
            let mut out = Vec::new();
            while self.session.transmit(&mut out) {
                self.sent += 1;
                for _ in 0..up(&out) {
                    if let Some(answer) = self.bmc.answer(&out) {
                        for _ in 0..down(&answer) {
                            arriving.push_back(answer.clone());
                        }
                    }
                }
            }
            while let Some(event) = self.session.event() {
                self.events.push(event);
            }
            let Some(mut datagram) = arriving.pop_front() else { return };
            self.session.receive(self.now, &mut datagram);
        }
    }

    /// Lets time pass to the next deadline.
    fn sleep(&mut self) {
        self.now = self.session.deadline().unwrap().max(self.now);
        self.session.wake(self.now);
    }

    /// Sleeps and settles until the session is closed, over a network that swallows everything.
    fn starve(&mut self) {
        while !self.session.is_closed() {
            self.sleep();
            self.settle_over(&mut |_| 0, &mut |_| 0);
        }
    }

    fn request(&mut self, code: u8) -> RequestId {
        let request = Request { net_fn: NetFn::APP, code, lun: 0, data: vec![code] };
        self.session.request(self.now, request).unwrap()
    }

    fn end(config: Config, bmc: Bmc) -> (Option<Error>, Bmc) {
        let mut lab = Self::new(config, bmc);
        lab.session.start(lab.now);
        lab.settle();
        let Some(Event::Closed(why)) = lab.events.pop() else { panic!("{:?}", lab.events) };
        assert!(lab.session.is_closed() && lab.session.deadline().is_none());
        (why, lab.bmc)
    }
}

fn answered(id: RequestId, code: u8) -> Event {
    Event::Answered { id, result: Ok((CompletionCode::OK, vec![code])) }
}

#[test]
fn d37_suite_17_comes_first() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    lab.settle();
    let Some(Event::Opened(opened)) = lab.events.first() else { panic!("{:?}", lab.events) };
    assert_eq!((opened.suite, opened.session, opened.guid), (Suite::S17, MANAGED, GUID));
    assert_eq!(lab.bmc.opens, [Suite::S17]);
}

#[test]
fn d37_suite_3_is_for_a_bmc_that_refuses_17() {
    let bmc = || Bmc { suites: vec![Suite::S3], ..Bmc::default() };
    let lab = Lab::opened(config(), bmc());
    assert_eq!(lab.bmc.opens, [Suite::S17, Suite::S3]);
    // The pin of last time saves the refusal.
    let lab = Lab::opened(Config { pin: Some(Suite::S3), ..config() }, bmc());
    assert_eq!(lab.bmc.opens, [Suite::S3]);
}

#[test]
fn d37_a_pin_of_17_or_a_strict_policy_forbids_3() {
    let refused = Error::SuiteRefused { suite: Suite::S17, status: Status::NO_MATCHING_SUITE };
    for config in [
        Config { pin: Some(Suite::S17), ..config() },
        Config { suites: SuitePolicy::Strict, pin: Some(Suite::S3), ..config() },
    ] {
        let (why, bmc) = Lab::end(config, Bmc { suites: vec![Suite::S3], ..Bmc::default() });
        assert_eq!(why, Some(refused.clone()));
        assert_eq!(bmc.opens, [Suite::S17]);
    }
}

#[test]
fn d37_suite_17_answered_with_suite_3_is_a_refusal_of_17() {
    let bmc = || Bmc { lies: Some(Suite::S3), ..Bmc::default() };
    let lab = Lab::opened(config(), bmc());
    assert_eq!(lab.bmc.opens, [Suite::S17, Suite::S3]);
    // Where 3 is forbidden, or the answer is in no suite that is allowed, nothing is proved to this BMC.
    let weak = Bmc { lies: Some(Suite::S1), ..Bmc::default() };
    let strict = Config { suites: SuitePolicy::Strict, ..config() };
    let pinned = Config { pin: Some(Suite::S17), ..config() };
    for (config, bmc, answered) in
        [(strict, bmc(), Suite::S3), (pinned, bmc(), Suite::S3), (config(), weak, Suite::S1)]
    {
        let (why, bmc) = Lab::end(config, bmc);
        assert_eq!(why, Some(Error::Downgraded { asked: Suite::S17, answered: answered.algorithms() }));
        assert_eq!(bmc.opens, [Suite::S17]);
        assert!(bmc.rakp1.is_none());
    }
}

#[test]
fn the_bmcs_proof_is_what_its_suite_counts_and_has_to_be_there() {
    let lab = Lab::opened(config(), Bmc { proof: Proof::Long, ..Bmc::default() });
    assert_eq!(lab.bmc.opens, [Suite::S17]);
    for (proof, expected) in [(Proof::Wrong, Error::BmcKey), (Proof::None, Error::NoProof)] {
        let (why, _) = Lab::end(config(), Bmc { proof, ..Bmc::default() });
        assert_eq!(why, Some(expected));
    }
}

#[test]
fn d37_a_wrong_password_is_one_attempt_and_sends_no_proof() {
    let (why, bmc) = Lab::end(config(), Bmc { password: b"another", ..Bmc::default() });
    assert_eq!(why, Some(Error::Credentials { by: Rejection::Code }));
    assert_eq!(bmc.opens, [Suite::S17]);
    // The BMC learns that its half-open session is not wanted.
    assert_eq!(bmc.rakp3, [Status::INVALID_CHECK_VALUE]);

    let (why, bmc) = Lab::end(config(), Bmc { user: b"root", ..Bmc::default() });
    let status = Status::UNAUTHORIZED_NAME;
    assert_eq!(why, Some(Error::Credentials { by: Rejection::Status(status) }));
    assert_eq!(bmc.opens, [Suite::S17]);
}

#[test]
fn weak_suites_need_a_policy_that_names_them() {
    let bmc = || Bmc { suites: vec![Suite::S0, Suite::S1, Suite::S2], ..Bmc::default() };
    let (why, bmc_after) = Lab::end(config(), bmc());
    assert!(matches!(why, Some(Error::SuiteRefused { suite: Suite::S3, .. })));
    assert_eq!(bmc_after.opens, [Suite::S17, Suite::S3]);
    for suite in [Suite::S0, Suite::S1, Suite::S2] {
        let mut lab = Lab::opened(Config { suites: SuitePolicy::Exactly(suite), ..config() }, bmc());
        let id = lab.request(1);
        lab.settle();
        assert_eq!(lab.events, [answered(id, 1)]);
    }
}

#[test]
fn silence_to_17_leads_to_3_only_if_17_is_not_listed() {
    for (suites, opens) in [
        (vec![Suite::S3], vec![Suite::S17, Suite::S17, Suite::S17, Suite::S17, Suite::S3]),
        (vec![Suite::S3, Suite::S17], vec![Suite::S17; 4]),
    ] {
        let listed = suites.contains(&Suite::S17);
        let mut lab = Lab::new(config(), Bmc { suites, deaf_to: Some(Suite::S17), ..Bmc::default() });
        // The list is told in the IPMI 1.5 form only, as ipmi_sim does.
        let old = &mut |datagram: &[u8]| {
            let header = Header::peek(&datagram[4..]);
            usize::from(!header.is_ok_and(|header| header.session == 0 && header.kind == PayloadKind::IPMI))
        };
        lab.session.start(lab.now);
        lab.settle_over(old, &mut |_| 1);
        while lab.events.is_empty() {
            lab.sleep();
            lab.settle_over(old, &mut |_| 1);
        }
        match &lab.events[..] {
            [Event::Opened(opened)] if !listed => assert_eq!(opened.suite, Suite::S3),
            [Event::Closed(Some(Error::NoAnswer { to: "Open Session Request", .. }))] if listed => {}
            events => panic!("{events:?}"),
        }
        assert_eq!(lab.bmc.opens, opens);
    }
}

#[test]
fn each_refusal_has_its_own_error() {
    let full = Bmc { open_status: Status::NO_RESOURCES, ..Bmc::default() };
    assert_eq!(Lab::end(config(), full).0, Some(Error::NoFreeSession));
    let (why, bmc) = Lab::end(config(), Bmc { kg: Some(b"key of the BMC"), ..Bmc::default() });
    assert_eq!(why, Some(Error::BmcKey));
    assert_eq!(bmc.opens.len(), 1);
    let (why, bmc) = Lab::end(config(), Bmc { privilege_limit: 3, ..Bmc::default() });
    assert!(matches!(why, Some(Error::Privilege { privilege: Privilege::Administrator, .. })), "{why:?}");
    assert!(bmc.closed, "the session was closed all the same");
}

#[test]
fn a_bmc_key_is_used_where_given() {
    let key = Key::new(Zeroizing::new(b"key of the BMC".to_vec())).unwrap();
    let bmc = Bmc { kg: Some(b"key of the BMC"), ..Bmc::default() };
    Lab::opened(Config { bmc_key: Some(key), ..config() }, bmc);
}

#[test]
fn no_answer_at_all_is_said_so() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    lab.settle_over(&mut |_| 0, &mut |_| 0);
    lab.starve();
    let to = "Get Channel Authentication Capabilities";
    assert_eq!(lab.events, [Event::Closed(Some(Error::NoAnswer { to, attempts: 4 }))]);
    assert_eq!(lab.sent, 4);
}

#[test]
fn commands_given_early_run_once_the_session_is_open() {
    let mut lab = Lab::new(config(), Bmc::default());
    let id = lab.request(0x11);
    lab.session.start(lab.now);
    lab.settle();
    assert!(matches!(&lab.events[..], [Event::Opened(_), event] if *event == answered(id, 0x11)));
}

#[test]
fn d38_no_more_commands_are_under_way_than_the_window_allows() {
    for window in [1, 2] {
        let timing = Timing { window, ..Timing::default() };
        let mut lab = Lab::opened(Config { timing, ..config() }, Bmc::default());
        let before = lab.sent;
        for code in 0x10..0x20 {
            lab.request(code);
        }
        let mut out = Vec::new();
        let mut first = Vec::new();
        while lab.session.transmit(&mut out) {
            first.push(out.clone());
        }
        assert_eq!(first.len(), window);
        for datagram in first {
            let mut answer = lab.bmc.answer(&datagram).unwrap();
            lab.session.receive(lab.now, &mut answer);
        }
        lab.settle();
        assert_eq!(lab.events.len(), 16);
        assert_eq!(lab.sent - before, 16 - window);
    }
}

#[test]
fn d38_a_gap_between_commands_is_kept() {
    let timing = Timing { gap: Duration::from_millis(50), ..Timing::default() };
    let mut lab = Lab::opened(Config { timing, ..config() }, Bmc::default());
    let start = lab.now;
    for code in 1..=4 {
        lab.request(code);
    }
    lab.settle();
    while lab.events.len() < 4 {
        lab.sleep();
        lab.settle();
    }
    assert_eq!(lab.now - start, Duration::from_millis(200));
}

#[test]
fn a_lost_command_is_sent_again_with_a_new_session_sequence_number() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let id = lab.request(0x10);
    // First the command is lost, then its answer.
    lab.settle_over(&mut |_| 0, &mut |_| 1);
    lab.sleep();
    lab.settle_over(&mut |_| 1, &mut |_| 0);
    lab.sleep();
    lab.settle();
    assert_eq!(lab.events, [answered(id, 0x10)]);
    let sent: Vec<_> = lab.bmc.commands.iter().filter(|command| command.1 == 0x10).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1], "the request sequence number stays");
    assert_eq!(lab.bmc.repeated, 0);
}

#[test]
fn duplicates_and_replays_are_ignored() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let id = lab.request(0x10);
    let mut answers = Vec::new();
    lab.settle_over(&mut |_| 2, &mut |answer| {
        answers.push(answer.to_vec());
        3
    });
    assert_eq!(lab.events, [answered(id, 0x10)]);
    // The same request sequence number comes around: the old answer must not be taken for the new one.
    for code in 0..64 {
        lab.request(0x20);
        if code == 63 {
            break;
        }
        lab.settle();
    }
    lab.events.clear();
    for answer in &mut answers {
        lab.session.receive(lab.now, answer);
    }
    lab.settle_over(&mut |_| 0, &mut |_| 1);
    assert_eq!(lab.events, []);
}

#[test]
fn duplicated_and_lost_handshake_messages_do_no_harm() {
    // Every way to lose one datagram and double all others: a BMC with a new random number for each RAKP 1.
    for lost in 0..12 {
        let mut lab = Lab::new(config(), Bmc::default());
        lab.session.start(lab.now);
        let mut count = 0;
        let fate = &mut |_: &[u8]| {
            count += 1;
            if count - 1 == lost { 0 } else { 2 }
        };
        lab.settle_over(&mut |_| 1, fate);
        for _ in 0..20 {
            if !lab.events.is_empty() {
                break;
            }
            lab.sleep();
            lab.settle_over(&mut |_| 1, &mut |_| 2);
        }
        assert!(matches!(lab.events[..], [Event::Opened(_)]), "lost {lost}: {:?}", lab.events);
    }
}

#[test]
fn a_late_rakp_2_after_a_repeated_rakp_1_still_opens() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    let mut held = Vec::new();
    // The BMC is slow: RAKP 2 is on its way while RAKP 1 is repeated.
    lab.settle_over(&mut |_| 1, &mut |answer| {
        let rakp2 = Header::peek(&answer[4..]).is_ok_and(|header| header.kind == PayloadKind::RAKP_2);
        if rakp2 {
            held.push(answer.to_vec());
        }
        usize::from(!rakp2)
    });
    lab.sleep();
    let mut first = held.pop().unwrap();
    let (mut repeated, mut out) = (Vec::new(), Vec::new());
    while lab.session.transmit(&mut out) {
        repeated.extend(lab.bmc.answer(&out));
    }
    lab.session.receive(lab.now, &mut first);
    // The BMC has made a new random number meanwhile, and refuses what fits the old one.
    for mut answer in repeated {
        lab.session.receive(lab.now, &mut answer);
    }
    lab.settle();
    for _ in 0..10 {
        if !lab.events.is_empty() {
            break;
        }
        lab.sleep();
        lab.settle();
    }
    assert!(matches!(lab.events[..], [Event::Opened(_)]), "{:?}", lab.events);
}

#[test]
fn a_busy_node_is_asked_again_later() {
    let mut lab = Lab::opened(config(), Bmc { busy: 3, ..Bmc::default() });
    let start = lab.now;
    let id = lab.request(0x10);
    lab.settle();
    for _ in 0..3 {
        lab.sleep();
        lab.settle();
    }
    assert_eq!(lab.events, [answered(id, 0x10)]);
    assert_eq!(lab.now - start, 3 * Timing::default().busy_wait);
    let sequences: Vec<_> = lab.bmc.commands.iter().filter(|c| c.1 == 0x10).map(|c| c.2).collect();
    assert_eq!(sequences.len(), 4);
    assert!(sequences.is_sorted_by(|a, b| a < b), "each time a new request: {sequences:?}");
}

#[test]
fn power_control_is_sent_once() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let request = crate::commands::chassis::ChassisControl::PowerCycle.request();
    let id = lab.session.request(lab.now, request).unwrap();
    lab.settle_over(&mut |_| 1, &mut |_| 0);
    lab.sleep();
    lab.settle();
    assert_eq!(
        lab.events,
        [Event::Answered { id, result: Err(Error::NoAnswer { to: "command", attempts: 1 }) }]
    );
    assert_eq!(lab.bmc.commands.iter().filter(|command| command.0 == 0).count(), 1);
    assert!(!lab.session.is_closed(), "the session itself is well");
}

#[test]
fn an_idle_session_is_kept_alive() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let start = lab.now;
    for times in 1..=3 {
        lab.sleep();
        lab.settle();
        assert_eq!(lab.now - start, times * Timing::default().keep_alive);
    }
    assert_eq!(lab.events, []);
    assert_eq!(lab.bmc.commands.iter().filter(|command| command.1 == 1).count(), 3);
}

#[test]
fn a_dead_bmc_and_a_forgotten_session_are_told_apart() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let (first, second) = (lab.request(0x10), lab.request(0x11));
    lab.settle_over(&mut |_| 0, &mut |_| 1);
    lab.starve();
    let attempts = 4;
    assert_eq!(
        lab.events,
        [
            Event::Answered { id: first, result: Err(Error::NoAnswer { to: "command", attempts }) },
            Event::Answered { id: second, result: Err(Error::NoAnswer { to: "command", attempts }) },
            Event::Closed(Some(Error::NoAnswer { to: "keep-alive", attempts })),
        ]
    );

    let mut lab = Lab::opened(config(), Bmc::default());
    while !lab.session.is_closed() {
        lab.sleep();
        // Packets of the session are dropped, as after a restart of the BMC; others are answered.
        lab.settle_over(&mut |datagram| usize::from(datagram[4] == 0), &mut |_| 1);
    }
    assert_eq!(lab.events, [Event::Closed(Some(Error::ClosedByBmc))]);
}

#[test]
fn close_tells_the_bmc_and_fails_what_waits() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let id = lab.request(0x10);
    lab.session.close(lab.now);
    lab.settle();
    assert_eq!(lab.events, [Event::Answered { id, result: Err(Error::Closed) }, Event::Closed(None)]);
    assert!(lab.bmc.closed);
    assert_eq!(
        lab.session.request(lab.now, Request { net_fn: NetFn::APP, code: 1, lun: 0, data: vec![] }),
        Err(Error::Closed)
    );

    // Nobody waits long for a BMC that is gone.
    let mut lab = Lab::opened(config(), Bmc::default());
    let start = lab.now;
    lab.session.close(lab.now);
    lab.settle_over(&mut |_| 0, &mut |_| 0);
    lab.starve();
    assert_eq!(lab.events, [Event::Closed(None)]);
    assert!(lab.now - start <= Duration::from_secs(3));
}

#[test]
fn close_while_opening_gives_the_half_open_session_back() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    lab.settle_over(&mut |_| 1, &mut |answer| {
        usize::from(Header::peek(&answer[4..]).map(|header| header.kind) != Ok(PayloadKind::RAKP_2))
    });
    lab.session.close(lab.now);
    lab.settle();
    assert_eq!(lab.events, [Event::Closed(None)]);
    assert_eq!(lab.bmc.rakp3, [Status::NO_RESOURCES]);
}

#[test]
fn a_session_whose_rakp_4_is_lost_is_not_left_open() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    while lab.events.is_empty() {
        lab.settle_over(&mut |_| 1, &mut |answer| {
            usize::from(Header::peek(&answer[4..]).map(|header| header.kind) != Ok(PayloadKind::RAKP_4))
        });
        if lab.session.deadline().is_some() {
            lab.sleep();
        }
    }
    lab.settle();
    let no_answer = Error::NoAnswer { to: "RAKP message 3", attempts: 4 };
    assert_eq!(lab.events, [Event::Closed(Some(no_answer))]);
    assert_eq!(lab.bmc.opens.len(), 2);
    assert_eq!(lab.bmc.commands, [(6, 0x3c, 0); 2]);
}

#[test]
fn payloads_pass_both_ways() {
    let mut lab = Lab::opened(config(), Bmc::default());
    lab.session.payload(lab.now, PayloadKind::SOL, b"\x01\0\0\0hello").unwrap();
    lab.settle();
    assert_eq!(lab.events, [Event::Payload { kind: PayloadKind::SOL, data: b"\x01\0\0\0hello".to_vec() }]);
}

#[test]
fn a_console_packet_that_many_have_overtaken_is_ignored() {
    let mut lab = Lab::opened(config(), Bmc::default());
    let mut packets: Vec<_> =
        (1..=10).map(|number| lab.bmc.seal(PayloadKind::SOL, &[number, 0, 0, 0])).collect();
    // Neighbours change places; the first one comes when its number could be somebody else's.
    for number in [3, 2, 4, 5, 6, 7, 8, 10, 9, 1] {
        lab.session.receive(lab.now, &mut packets[number - 1]);
    }
    let arrived: Vec<_> = std::iter::from_fn(|| lab.session.event())
        .map(|event| match event {
            Event::Payload { kind: PayloadKind::SOL, data } => data[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(arrived, [3, 2, 4, 5, 6, 7, 8, 10, 9]);
}

#[test]
fn a_packet_without_its_protection_is_ignored() {
    let mut lab = Lab::opened(config(), Bmc::default());
    lab.request(0x10);
    lab.settle_over(&mut |_| 0, &mut |_| 1);
    let request = Message {
        to: BMC,
        net_fn: 6,
        to_lun: 0,
        from: CONSOLE,
        from_lun: 0,
        sequence: 1,
        code: 0x10,
        data: &[],
    };
    let header = Header {
        kind: PayloadKind::IPMI,
        encrypted: false,
        authenticated: false,
        session: lab.bmc.request.unwrap().console_session,
        sequence: 100,
    };
    let mut forged = Vec::new();
    packet::seal(header, &reply(&request, 0, &[]), None, &[0; 16], &mut forged).unwrap();
    lab.session.receive(lab.now, &mut forged);
    lab.settle_over(&mut |_| 0, &mut |_| 1);
    assert_eq!(lab.events, []);
}

#[test]
fn bad_values_are_found_before_anything_is_sent() {
    assert!(Key::new(Zeroizing::new(vec![0; 21])).is_err());
    let long = Config { user: "seventeen letters".into(), ..config() };
    assert!(Session::new(long, counting()).is_err());
    let mut lab = Lab::opened(config(), Bmc::default());
    let request = Request { net_fn: NetFn::APP, code: 1, lun: 0, data: vec![0; 1025] };
    assert!(lab.session.request(lab.now, request).is_err());
    assert!(!format!("{:?}", config()).contains("secret"));
}

#[test]
fn an_answer_that_cannot_be_read_is_the_reason_given() {
    let mut lab = Lab::new(config(), Bmc::default());
    lab.session.start(lab.now);
    lab.settle_over(&mut |_| 0, &mut |_| 0);
    lab.session.receive(lab.now, &mut [6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 1, 2]);
    while !lab.session.is_closed() {
        lab.sleep();
        lab.settle_over(&mut |_| 0, &mut |_| 0);
    }
    let malformed = Malformed { what: "IPMI 1.5 packet", why: "too short" };
    assert_eq!(lab.events, [Event::Closed(Some(Error::Malformed(malformed)))]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever arrives, in whatever state: no panic, and nothing grows without end.
    #[test]
    fn no_datagram_panics(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..40),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..40),
        steps in 0_usize..12,
    ) {
        let mut lab = Lab::new(config(), Bmc::default());
        lab.session.start(lab.now);
        let mut damage = damage.into_iter().cycle();
        for step in 0..steps {
            let mut out = Vec::new();
            while lab.session.transmit(&mut out) {
                if lab.bmc.closed {
                    continue;
                }
                let Some(mut answer) = lab.bmc.answer(&out) else { continue };
                // Damaged copies first, then the real one.
                if let Some((place, mask)) = damage.next() {
                    let mut damaged = answer.clone();
                    let place = usize::from(place) % damaged.len();
                    damaged[place] ^= mask;
                    damaged.truncate(damaged.len() - usize::from(mask % 3));
                    lab.session.receive(lab.now, &mut damaged);
                }
                lab.session.receive(lab.now, &mut answer);
            }
            if step == 6 {
                let _ = lab.session.request(lab.now, Request { net_fn: NetFn::APP, code: 2, lun: 0, data: vec![] });
            }
        }
        for mut datagram in datagrams {
            // Half of them look like RMCP.
            if datagram.len() > 4 && datagram[0] & 1 == 0 {
                datagram[0] = 6;
                datagram[3] = if datagram[3] & 1 == 0 { 7 } else { 6 };
                datagram[4] = if datagram[4] & 1 == 0 { 6 } else { 0 };
            }
            for _ in 0..8 {
                lab.session.receive(lab.now, &mut datagram.clone());
            }
        }
        lab.session.wake(lab.now + Duration::from_secs(1));
        let mut events = 0;
        while lab.session.event().is_some() {
            events += 1;
        }
        prop_assert!(events <= PAYLOADS_MAX + 8);
    }
}
