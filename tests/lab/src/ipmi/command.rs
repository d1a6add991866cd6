//! Commands inside a session: who may, what is counted, and the faults of answers.

use std::time::Duration;

use rackhand_ipmi::wire::message::Message;
use rackhand_ipmi::wire::packet::PayloadKind;
use rackhand_ipmi::{CompletionCode, NetFn};

use super::answer::{Answer, reply};
use super::{ADMINISTRATOR, CALLBACK, OPERATOR, USER, oem};
use crate::fault::{Fault, LyingLength};
use crate::model::Bmc;

/// Privilege needed (appendix G).
fn needed(net_fn: u8, code: u8) -> u8 {
    match (NetFn(net_fn), code) {
        (NetFn::APP, 0x38 | 0x3b | 0x3c) => CALLBACK,
        // Chassis: capabilities, status, restart cause, power-on hours; sensors: all that only reads.
        (NetFn::CHASSIS, 0x00 | 0x01 | 0x07 | 0x0f) => USER,
        (NetFn::SENSOR, 0x23 | 0x25 | 0x27 | 0x29 | 0x2b | 0x2d | 0x2f) => USER,
        (
            NetFn::APP,
            0x01 | 0x04 | 0x08 | 0x2f | 0x37 | 0x3d | 0x41 | 0x42 | 0x4a | 0x4b | 0x4e | 0x4f | 0x54,
        ) => USER,
        (NetFn::STORAGE, 0x10 | 0x11 | 0x20..=0x23 | 0x28 | 0x40..=0x43 | 0x48) => USER,
        (NetFn::TRANSPORT, 0x22) => USER,
        (NetFn::APP, 0x02 | 0x03 | 0x40 | 0x43 | 0x45 | 0x47 | 0x4c) => ADMINISTRATOR,
        (NetFn::TRANSPORT, 0x01 | 0x21) => ADMINISTRATOR,
        (NetFn(oem::DELL), _) => ADMINISTRATOR,
        _ => OPERATOR,
    }
}

impl Bmc {
    /// Carries out what a session asks for, and answers.
    pub(super) fn command(&mut self, session: u32, message: &Message<'_>) {
        if self.freezes() {
            return;
        }
        if let Some(Fault::IpmiBmcReset { seconds }) = self.faults.take("ipmi_bmc_reset") {
            self.reset_bmc(Duration::from_secs(seconds), false);
            return;
        }
        let after = self.count(message);
        if let Some(session) = self.ipmi.session(session) {
            session.commands += 1;
        }
        let answer = self.carry_out(session, message);
        if answer.is_err() {
            self.ipmi.counters.commands_refused += 1;
        }
        let mut answer = reply(message, &answer);
        if matches!(
            self.faults.get("ipmi_lying_lengths"),
            Some(Fault::IpmiLyingLengths { what: LyingLength::Message })
        ) && self.faults.take("ipmi_lying_lengths").is_some()
        {
            answer.truncate(answer.len() - 2);
        }
        let repeat = self.faults.take("ipmi_wrong_sequence").is_some();
        self.ipmi.send_late(session, PayloadKind::IPMI, &answer, true, after, repeat);
        self.spoil();
        let closes = (NetFn(message.net_fn), message.code) == (NetFn::APP, 0x3c);
        if closes && self.ipmi.sessions.iter().any(|one| one.id == session && !one.active) {
            self.ipmi.drop_session(session);
        }
    }

    /// Faults of the datagram itself.
    fn spoil(&mut self) {
        let lies = matches!(
            self.faults.get("ipmi_lying_lengths"),
            Some(Fault::IpmiLyingLengths { what: LyingLength::Datagram })
        ) && self.faults.take("ipmi_lying_lengths").is_some();
        let forged = self.faults.take("ipmi_wrong_integrity").is_some();
        let Some(datagram) = self.ipmi.out.last_mut() else { return };
        if lies && let Some(high) = datagram.bytes.get_mut(15) {
            // The upper byte of the payload's length (table 13-8).
            *high = 0x7f;
        }
        if forged && let Some(last) = datagram.bytes.last_mut() {
            *last ^= 0x01;
        }
    }

    /// Whether this command is one too many for the BMC.
    fn freezes(&mut self) -> bool {
        let Some(Fault::IpmiFreeze { commands, seconds }) = self.faults.get("ipmi_freeze") else {
            return false;
        };
        let (most, length) = (*commands, Duration::from_secs(*seconds));
        let ipmi = &mut self.ipmi;
        let second = ipmi.real.as_secs();
        ipmi.second = if ipmi.second.0 == second { (second, ipmi.second.1 + 1) } else { (second, 1) };
        let freezes = ipmi.second.1 > most;
        if freezes {
            ipmi.counters.freezes += 1;
            ipmi.frozen_until = ipmi.real + length;
        }
        freezes
    }

    /// Counts a command; how long it takes.
    fn count(&mut self, message: &Message<'_>) -> Duration {
        let ipmi = &mut self.ipmi;
        *ipmi.counters.commands.entry(format!("{:02x}h", message.net_fn)).or_default() += 1;
        let real = ipmi.real;
        ipmi.under_way.retain(|answered| *answered > real);
        ipmi.under_way.push(real + ipmi.config.latency);
        ipmi.counters.most_under_way = ipmi.counters.most_under_way.max(ipmi.under_way.len() as u64);
        ipmi.config.latency
    }

    fn carry_out(&mut self, session: u32, message: &Message<'_>) -> Answer {
        let closes = (NetFn(message.net_fn), message.code) == (NetFn::APP, 0x3c);
        if !closes && self.faults.take("ipmi_busy").is_some() {
            return Err(CompletionCode::NODE_BUSY);
        }
        if let Some(Fault::IpmiCompletion { net_fn, command, completion }) =
            self.faults.get("ipmi_completion")
            && (*net_fn, *command) == (message.net_fn, message.code)
        {
            let completion = CompletionCode(*completion);
            self.faults.take("ipmi_completion");
            return Err(completion);
        }
        if message.to_lun != 0 {
            return Err(CompletionCode::INVALID_FOR_LUN);
        }
        let privilege = self.ipmi.session(session).map_or(0, |session| session.privilege);
        if privilege < needed(message.net_fn, message.code) {
            return Err(CompletionCode::PRIVILEGE);
        }
        let data = message.data;
        match (NetFn(message.net_fn), message.code) {
            (NetFn::CHASSIS, code) => self.chassis_command(session, code, data),
            (NetFn::SENSOR, code) => self.sensor(code, data),
            (NetFn::APP, code @ (0x40..=0x42 | 0x54)) => self.channel(code, data),
            (NetFn::APP, code @ 0x43..=0x47) => self.user_command(code, data),
            (NetFn::APP, code @ 0x48..=0x4f) => self.payload(session, code, data),
            (NetFn::APP, code) => self.app(session, code, data),
            (NetFn::STORAGE, code @ 0x10..=0x12) => self.fru(code, data),
            (NetFn::STORAGE, code @ 0x20..=0x28) => self.sdr(code, data),
            (NetFn::STORAGE, code @ 0x40..=0x49) => self.sel_command(code, data),
            (NetFn::TRANSPORT, code) => self.transport(code, data),
            (NetFn(oem::DELL), code) => self.dell(code, data),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// The questions anybody may ask: GUID, authentication capabilities and cipher suites (section 13.27.1).
    /// Others are not answered.
    pub(super) fn sessionless(&mut self, message: &Message<'_>) -> Option<Vec<u8>> {
        let answer = match (NetFn(message.net_fn), message.code) {
            (NetFn::APP, 0x37) => self.app(0, 0x37, message.data),
            (NetFn::APP, 0x38) => self.app(0, 0x38, message.data),
            (NetFn::APP, 0x54) => self.channel(0x54, message.data),
            _ => return None,
        };
        Some(reply(message, &answer))
    }
}
