//! Commands outside any session, as both the handshake and discovery send them.

use crate::{
    Command, CompletionCode, Malformed, Request,
    wire::{
        message::{BMC, CONSOLE, Message},
        packet::{self, Form, Header, PayloadKind},
        rmcp::{self, Class, Presence},
    },
};

/// A whole datagram with `request` in the IPMI 1.5 form: what Get Channel Authentication Capabilities is sent in, so
/// that an IPMI 1.5 BMC can answer too (section 13.14).
pub(super) fn old_form(request: &Request, sequence: u8) -> Result<Vec<u8>, Malformed> {
    let mut datagram = Vec::new();
    packet::seal_sessionless(&message(request, sequence), &mut datagram)?;
    Ok(datagram)
}

/// A whole datagram with `request` in the RMCP+ form, session 0.
pub(super) fn new_form(request: &Request, sequence: u8) -> Result<Vec<u8>, Malformed> {
    let mut datagram = Vec::new();
    let header = Header::sessionless(PayloadKind::IPMI);
    packet::seal(header, &message(request, sequence), None, &[0; 16], &mut datagram)?;
    Ok(datagram)
}

/// `request` from this console to the BMC.
pub(super) fn message(request: &Request, sequence: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    Message {
        to: BMC,
        net_fn: request.net_fn.0,
        to_lun: request.lun,
        from: CONSOLE,
        from_lun: 0,
        sequence,
        code: request.code,
        data: &request.data,
    }
    .encode(&mut bytes);
    bytes
}

/// What can arrive.
pub(super) enum Incoming<'a> {
    Presence(Presence),
    /// An IPMI message outside a session, in either form.
    Message(&'a [u8]),
    /// A handshake payload.
    Handshake(PayloadKind, &'a [u8]),
    /// A packet of a session, still sealed: its header and what follows the RMCP header.
    Session(Header, &'a mut [u8]),
}

/// Sorts a datagram.
pub(super) fn sort(datagram: &mut [u8]) -> Result<Incoming<'_>, Malformed> {
    let class = rmcp::decode(datagram)?;
    let body = datagram.get_mut(rmcp::HEADER..).unwrap_or_default();
    if class == Class::Asf {
        return Presence::decode(body).map(Incoming::Presence);
    }
    if Form::of(body)? == Form::Sessionless {
        return packet::open_sessionless(body).map(Incoming::Message);
    }
    let header = Header::peek(body)?;
    if header.session != 0 {
        return Ok(Incoming::Session(header, body));
    }
    if header.encrypted || header.authenticated {
        return Err(Malformed { what: "RMCP+ packet", why: "protected, but of no session" });
    }
    let (header, payload) =
        packet::open(body, None).map_err(|_| Malformed { what: "RMCP+ packet", why: "cannot be opened" })?;
    Ok(match header.kind {
        PayloadKind::IPMI => Incoming::Message(payload),
        kind => Incoming::Handshake(kind, payload),
    })
}

/// The answer to `command` sent with `sequence`, if `bytes` are one: its completion code or what it says.
pub(super) fn answer<C: Command>(
    command: &C,
    sequence: u8,
    bytes: &[u8],
) -> Option<Result<Result<C::Answer, CompletionCode>, Malformed>> {
    let message = match Message::decode(bytes) {
        Ok(message) => message,
        Err(malformed) => return Some(Err(malformed)),
    };
    let request = command.request();
    if message.net_fn != request.net_fn.0 | 1 || message.code != request.code || message.sequence != sequence
    {
        return None;
    }
    let Some((&completion, data)) = message.data.split_first() else {
        return Some(Err(Malformed { what: "IPMI answer", why: "no completion code" }));
    };
    if completion != CompletionCode::OK.0 {
        return Some(Ok(Err(CompletionCode(completion))));
    }
    Some(command.parse(data).map(Ok))
}
