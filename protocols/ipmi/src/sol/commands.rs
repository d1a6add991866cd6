//! Commands about payloads (sections 24.1 to 24.5).

use crate::{Command, Malformed, NetFn, Request};

/// Payload type of SOL (table 13-16).
const SOL: u8 = 0x01;

fn app(code: u8, data: Vec<u8>) -> Request {
    Request { net_fn: NetFn::APP, code, lun: 0, data }
}

fn word(low: u8, high: u8) -> u16 {
    u16::from_le_bytes([low, high])
}

/// Activate Payload for SOL (section 24.1).
#[derive(Clone, Copy, Debug)]
pub struct ActivatePayload {
    /// Which of the BMC's SOL instances, from 1.
    pub instance: u8,
    pub encryption: bool,
    pub authentication: bool,
}

/// What an activated payload may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Largest payload to the BMC in bytes, its header of 4 included. Some BMCs give nonsense.
    pub inbound_size: u16,
    /// Largest payload from the BMC.
    pub outbound_size: u16,
    /// UDP port of the payload. Behind an address translation it is not the port that is spoken to.
    pub port: u16,
}

impl Command for ActivatePayload {
    type Answer = Payload;

    fn request(&self) -> Request {
        let options = u8::from(self.encryption) << 7 | u8::from(self.authentication) << 6;
        app(0x48, vec![SOL, self.instance & 0x0f, options, 0, 0, 0])
    }

    fn parse(&self, data: &[u8]) -> Result<Payload, Malformed> {
        let [_, _, _, _, in_low, in_high, out_low, out_high, port_low, port_high, ..] = data else {
            return Err(Malformed { what: "Activate Payload answer", why: "shorter than 10 bytes" });
        };
        Ok(Payload {
            inbound_size: word(*in_low, *in_high),
            outbound_size: word(*out_low, *out_high),
            port: word(*port_low, *port_high),
        })
    }
}

/// Deactivate Payload for SOL (section 24.2). Completion code 80h: it was not active.
#[derive(Clone, Copy, Debug)]
pub struct DeactivatePayload {
    pub instance: u8,
}

impl Command for DeactivatePayload {
    type Answer = ();

    fn request(&self) -> Request {
        app(0x49, vec![SOL, self.instance & 0x0f, 0, 0, 0, 0])
    }

    fn parse(&self, _: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Get Payload Activation Status for SOL (section 24.4).
#[derive(Clone, Copy, Debug)]
pub struct GetPayloadActivationStatus;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActivationStatus {
    /// How many instances may be active at once.
    pub capacity: u8,
    /// The active ones, from 1.
    pub active: Vec<u8>,
}

impl Command for GetPayloadActivationStatus {
    type Answer = ActivationStatus;

    fn request(&self) -> Request {
        app(0x4a, vec![SOL])
    }

    fn parse(&self, data: &[u8]) -> Result<ActivationStatus, Malformed> {
        let [capacity, low, rest @ ..] = data else {
            return Err(Malformed {
                what: "Get Payload Activation Status answer",
                why: "shorter than 2 bytes",
            });
        };
        let bits = word(*low, rest.first().copied().unwrap_or_default());
        let active = (0..16).filter(|bit| bits & 1 << bit != 0).map(|bit| bit + 1).collect();
        Ok(ActivationStatus { capacity: capacity & 0x0f, active })
    }
}

/// Get Payload Instance Info for SOL (section 24.5).
#[derive(Clone, Copy, Debug)]
pub struct GetPayloadInstanceInfo {
    pub instance: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstanceInfo {
    /// The BMC's id of the session that holds the instance; `None`: it is not active.
    pub session_id: Option<u32>,
    /// Number of the serial port behind it, where the BMC says so.
    pub serial_port: Option<u8>,
}

impl Command for GetPayloadInstanceInfo {
    type Answer = InstanceInfo;

    fn request(&self) -> Request {
        app(0x4b, vec![SOL, self.instance & 0x0f])
    }

    fn parse(&self, data: &[u8]) -> Result<InstanceInfo, Malformed> {
        let Some((id, rest)) = data.split_first_chunk::<4>() else {
            return Err(Malformed { what: "Get Payload Instance Info answer", why: "shorter than 4 bytes" });
        };
        let session_id = Some(u32::from_le_bytes(*id)).filter(|id| *id != 0);
        Ok(InstanceInfo { session_id, serial_port: rest.first().copied().filter(|port| *port != 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activation_asks_for_encryption_and_reads_the_sizes() {
        let command = ActivatePayload { instance: 1, encryption: true, authentication: true };
        assert_eq!(command.request().data, [1, 1, 0xc0, 0, 0, 0]);
        let payload = command.parse(&[0, 0, 0, 0, 0x03, 0x01, 0x03, 0x01, 0x6f, 0x02, 0xff, 0xff]).unwrap();
        assert_eq!(payload, Payload { inbound_size: 259, outbound_size: 259, port: 623 });
        assert!(command.parse(&[0; 9]).is_err());
    }

    #[test]
    fn the_holder_of_an_instance_is_named() {
        let info = GetPayloadInstanceInfo { instance: 1 };
        let found = info.parse(&[0x04, 0x03, 0x02, 0x01, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(found, InstanceInfo { session_id: Some(0x0102_0304), serial_port: Some(1) });
        assert_eq!(info.parse(&[0; 12]).unwrap().session_id, None);
        let status = GetPayloadActivationStatus.parse(&[0xf2, 0b101, 0b1000_0000]).unwrap();
        assert_eq!(status, ActivationStatus { capacity: 2, active: vec![1, 3, 16] });
    }
}
