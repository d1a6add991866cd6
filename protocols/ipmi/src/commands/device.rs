//! The BMC itself and its sessions (chapters 20 and 22): who it is, how it can be spoken to, and with what rights.

use std::fmt;

use crate::{
    Command, Malformed, NetFn, Request,
    session::Privilege,
    wire::{bytes::Reader, suite::Algorithms},
};

/// The channel a message arrives on, whatever its number (section 6.3).
pub const THIS_CHANNEL: u8 = 0x0e;

fn app(code: u8, data: Vec<u8>) -> Request {
    Request { net_fn: NetFn::APP, code, lun: 0, data }
}

/// Get Device ID (section 20.1).
#[derive(Clone, Copy, Debug)]
pub struct GetDeviceId;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceId {
    pub device_id: u8,
    pub revision: u8,
    pub provides_sdrs: bool,
    /// False while the firmware is updated or initialises itself.
    pub available: bool,
    pub firmware_major: u8,
    /// Binary coded decimal on the wire; here the two digits as a number.
    pub firmware_minor: u8,
    /// Such as 2 and 0.
    pub ipmi_version: (u8, u8),
    /// Additional Device Support: sensor, SDR, SEL, FRU, event receiver, event generator, bridge, chassis, from bit 0.
    pub supports: u8,
    /// IANA enterprise number.
    pub manufacturer: u32,
    pub product: u16,
    /// Four bytes of the manufacturer's meaning, where sent.
    pub auxiliary: Option<[u8; 4]>,
}

impl Command for GetDeviceId {
    type Answer = DeviceId;

    fn request(&self) -> Request {
        app(0x01, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<DeviceId, Malformed> {
        let mut reader = Reader::new("Get Device ID answer", data);
        let [device_id, revision, major, minor, version, supports] = reader.array()?;
        let [low, middle, high] = reader.array()?;
        let product = reader.u16()?;
        Ok(DeviceId {
            device_id,
            revision: revision & 0x0f,
            provides_sdrs: revision & 0x80 != 0,
            available: major & 0x80 == 0,
            firmware_major: major & 0x7f,
            firmware_minor: (minor >> 4).wrapping_mul(10).wrapping_add(minor & 0x0f),
            ipmi_version: (version & 0x0f, version >> 4),
            supports,
            // The upper four bits are reserved.
            manufacturer: u32::from_le_bytes([low, middle, high & 0x0f, 0]),
            product,
            auxiliary: reader.array().ok(),
        })
    }
}

/// Get Self Test Results (section 20.4).
#[derive(Clone, Copy, Debug)]
pub struct GetSelfTest;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelfTest {
    Passed,
    NotImplemented,
    /// Which devices failed: bit 7 SEL, 6 SDR repository, 5 FRU, 4 IPMB lines, 3 SDR empty, 2 internal use area,
    /// 1 boot block, 0 operational firmware.
    Corrupt(u8),
    /// Hardware error; the byte is the manufacturer's.
    Fatal(u8),
    Other {
        code: u8,
        detail: u8,
    },
}

impl Command for GetSelfTest {
    type Answer = SelfTest;

    fn request(&self) -> Request {
        app(0x04, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<SelfTest, Malformed> {
        let [code, detail] = Reader::new("self test answer", data).array()?;
        Ok(match code {
            0x55 => SelfTest::Passed,
            0x56 => SelfTest::NotImplemented,
            0x57 => SelfTest::Corrupt(detail),
            0x58 => SelfTest::Fatal(detail),
            _ => SelfTest::Other { code, detail },
        })
    }
}

/// Get System GUID (section 22.14).
#[derive(Clone, Copy, Debug)]
pub struct GetSystemGuid;

/// Sixteen bytes as sent, least significant first (section 20.8). Many BMCs send them in another order: compare
/// [`Guid::0`], print only for people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().rev().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Command for GetSystemGuid {
    type Answer = Guid;

    fn request(&self) -> Request {
        app(0x37, Vec::new())
    }

    fn parse(&self, data: &[u8]) -> Result<Guid, Malformed> {
        Reader::new("Get System GUID answer", data).array().map(Guid)
    }
}

/// Get Channel Authentication Capabilities (section 22.13), asking for the IPMI 2.0 data. Answered without a session.
#[derive(Clone, Copy, Debug)]
pub struct GetAuthenticationCapabilities {
    pub channel: u8,
    pub privilege: Privilege,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthenticationCapabilities {
    pub channel: u8,
    /// IPMI 1.5 types: none, MD2, MD5, straight password and OEM are bits 0, 1, 2, 4 and 5.
    pub types: u8,
    /// A K_g other than zero is set.
    pub bmc_key: bool,
    /// Authentication of each message is switched off.
    pub per_message_off: bool,
    /// Authentication at user level is switched off.
    pub user_level_off: bool,
    /// A user with a name and a password exists.
    pub named_users: bool,
    /// A user with an empty name and a password exists.
    pub null_users: bool,
    /// A user with neither name nor password exists.
    pub anonymous: bool,
    /// IPMI 1.5 sessions are possible.
    pub ipmi15: bool,
    /// RMCP+ sessions are possible.
    pub ipmi20: bool,
}

impl Command for GetAuthenticationCapabilities {
    type Answer = AuthenticationCapabilities;

    fn request(&self) -> Request {
        app(0x38, vec![0x80 | (self.channel & 0x0f), self.privilege.number()])
    }

    fn parse(&self, data: &[u8]) -> Result<AuthenticationCapabilities, Malformed> {
        let mut reader = Reader::new("Get Channel Authentication Capabilities answer", data);
        let [channel, types, status, extended] = reader.array()?;
        // Without bit 7 the byte of connections is reserved, and the BMC is an IPMI 1.5 one.
        let has_extended = types & 0x80 != 0;
        Ok(AuthenticationCapabilities {
            channel: channel & 0x0f,
            types: types & 0x3f,
            bmc_key: status & 0x20 != 0,
            per_message_off: status & 0x10 != 0,
            user_level_off: status & 0x08 != 0,
            named_users: status & 0x04 != 0,
            null_users: status & 0x02 != 0,
            anonymous: status & 0x01 != 0,
            ipmi15: !has_extended || extended & 0x01 != 0,
            ipmi20: has_extended && extended & 0x02 != 0,
        })
    }
}

/// Get Channel Cipher Suites (section 22.15): one part of the list, 16 bytes at a time. Answered without a session.
#[derive(Clone, Copy, Debug)]
pub struct GetCipherSuites {
    pub channel: u8,
    /// Which part, 0 to 63.
    pub part: u8,
}

impl GetCipherSuites {
    /// The list is over after a part shorter than this.
    pub const PART: usize = 16;
}

impl Command for GetCipherSuites {
    /// The part's bytes; join them and read them with [`SuiteRecord::read`].
    type Answer = Vec<u8>;

    fn request(&self) -> Request {
        // Payload type IPMI; bit 7 lists suites, not algorithms.
        app(0x54, vec![self.channel & 0x0f, 0x00, 0x80 | (self.part & 0x3f)])
    }

    fn parse(&self, data: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new("Get Channel Cipher Suites answer", data);
        reader.u8()?;
        if reader.remaining() > Self::PART {
            return Err(reader.malformed("more than 16 bytes"));
        }
        Ok(reader.rest().to_vec())
    }
}

/// One cipher suite that a BMC lists (section 22.15.1, table 22-18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuiteRecord {
    pub id: u8,
    /// IANA number of the manufacturer whose suite this is; none for the standard ones.
    pub oem: Option<u32>,
    pub algorithms: Algorithms,
}

impl SuiteRecord {
    /// The records of a whole list. Bytes before the first record are skipped, an unfinished one at the end is left
    /// out.
    pub fn read(list: &[u8]) -> Vec<Self> {
        let mut records: Vec<Self> = Vec::new();
        let mut bytes = list.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let start = match byte {
                0xc0 => bytes.next().map(|id| (id, None)),
                0xc1 => match [bytes.next(), bytes.next(), bytes.next(), bytes.next()] {
                    [Some(id), Some(low), Some(middle), Some(high)] => {
                        Some((id, Some(u32::from_le_bytes([low, middle, high, 0]))))
                    }
                    _ => None,
                },
                _ => continue,
            };
            let Some((id, oem)) = start else { break };
            let mut algorithms = Algorithms { authentication: 0, integrity: 0, confidentiality: 0 };
            // The two highest bits tell the kind; a kind may be absent, which is the algorithm "none".
            while let Some(number) = bytes.next_if(|byte| *byte < 0xc0) {
                match number >> 6 {
                    0 => algorithms.authentication = number & 0x3f,
                    1 => algorithms.integrity = number & 0x3f,
                    _ => algorithms.confidentiality = number & 0x3f,
                }
            }
            records.push(Self { id, oem, algorithms });
        }
        records
    }
}

/// Set Session Privilege Level (section 22.18). None asks without changing.
#[derive(Clone, Copy, Debug)]
pub struct SetPrivilege(pub Option<Privilege>);

impl Command for SetPrivilege {
    /// The level from now on; none where the BMC names a reserved one.
    type Answer = Option<Privilege>;

    fn request(&self) -> Request {
        app(0x3b, vec![self.0.map_or(0, Privilege::number)])
    }

    fn parse(&self, data: &[u8]) -> Result<Option<Privilege>, Malformed> {
        Reader::new("Set Session Privilege Level answer", data).u8().map(Privilege::from_number)
    }
}

/// Close Session (section 22.19).
#[derive(Clone, Copy, Debug)]
pub struct CloseSession {
    /// The BMC's id of the session.
    pub session: u32,
}

impl Command for CloseSession {
    type Answer = ();

    fn request(&self) -> Request {
        app(0x3c, self.session.to_le_bytes().to_vec())
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Get Session Info (section 22.20).
#[derive(Clone, Copy, Debug)]
pub enum GetSessionInfo {
    /// The session that asks.
    Current,
    /// The n-th active one, from 1.
    Nth(u8),
    /// By the BMC's handle.
    Handle(u8),
    /// By the BMC's id.
    Id(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// How many sessions the BMC can hold.
    pub slots: u8,
    /// How many are active.
    pub active: u8,
    /// None where the BMC has no session of this index.
    pub session: Option<ActiveSession>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveSession {
    pub handle: u8,
    pub user: u8,
    pub privilege: Option<Privilege>,
    /// The session is an RMCP+ one.
    pub rmcp_plus: bool,
    pub channel: u8,
    /// The console's IPv4 address and port, where the session is over LAN and the BMC tells.
    pub console: Option<([u8; 4], u16)>,
}

impl Command for GetSessionInfo {
    type Answer = SessionInfo;

    fn request(&self) -> Request {
        app(
            0x3d,
            match self {
                Self::Current => vec![0],
                Self::Nth(index) => vec![*index],
                Self::Handle(handle) => vec![0xfe, *handle],
                Self::Id(id) => {
                    let [a, b, c, d] = id.to_le_bytes();
                    vec![0xff, a, b, c, d]
                }
            },
        )
    }

    fn parse(&self, data: &[u8]) -> Result<SessionInfo, Malformed> {
        let mut reader = Reader::new("Get Session Info answer", data);
        let [handle, slots, active] = reader.array()?;
        let session = reader.array::<3>().ok().map(|[user, privilege, channel]| ActiveSession {
            handle,
            user: user & 0x3f,
            privilege: Privilege::from_number(privilege),
            rmcp_plus: channel >> 4 == 1,
            channel: channel & 0x0f,
            console: reader
                .array::<12>()
                .ok()
                .map(|[a, b, c, d, .., low, high]| ([a, b, c, d], u16::from_le_bytes([low, high]))),
        });
        Ok(SessionInfo { slots: slots & 0x3f, active: active & 0x3f, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_read() {
        let data = hex::decode("20810202029f5701009100").unwrap();
        let device = GetDeviceId.parse(&data).unwrap();
        assert_eq!(device.firmware_major, 2);
        assert_eq!(device.ipmi_version, (2, 0));
        assert_eq!(device.manufacturer, 343);
        assert!(device.provides_sdrs && device.available);
        assert_eq!(device.auxiliary, None);
        assert!(GetDeviceId.parse(&data[..10]).is_err());
    }

    #[test]
    fn suite_records_of_every_kind_are_read() {
        let list = hex::decode("c000004080c003014181c1ff5701000341c011").unwrap();
        let records = SuiteRecord::read(&list);
        assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [0, 3, 0xff, 17]);
        assert_eq!(records[1].algorithms, crate::wire::suite::Suite::S3.algorithms());
        assert_eq!(records[2].oem, Some(0x157));
        assert!(SuiteRecord::read(&[0xc0]).is_empty());
    }

    #[test]
    fn capabilities_tell_weak_settings() {
        let command =
            GetAuthenticationCapabilities { channel: THIS_CHANNEL, privilege: Privilege::Administrator };
        assert_eq!(command.request().data, [0x8e, 4]);
        let answer = command.parse(&[1, 0x97, 0x27, 3, 0, 0, 0, 0]).unwrap();
        assert!(answer.ipmi20 && answer.bmc_key && answer.anonymous && answer.null_users);
        assert!(!command.parse(&[1, 0x17, 0x04, 0, 0, 0, 0, 0]).unwrap().ipmi20);
    }

    #[test]
    fn a_guid_reads_as_people_write_it() {
        let mut bytes = [0; 16];
        bytes[15] = 0xab;
        bytes[0] = 1;
        assert_eq!(Guid(bytes).to_string(), "ab000000-0000-0000-0000-000000000001");
    }
}
