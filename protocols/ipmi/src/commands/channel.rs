//! Channels of a BMC (sections 22.22 to 22.24): what they are and who may use them.

use super::patience::run;
use crate::session::Privilege;
use crate::wire::bytes::Reader;
use crate::{Carrier, Command, Error, Malformed, NetFn, Request};

/// Get Channel Info (section 22.24).
#[derive(Clone, Copy, Debug)]
pub struct GetChannelInfo {
    /// 0 to 11, 14 for the channel of the session, 15 for the system interface.
    pub channel: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelInfo {
    /// The channel's own number, also when 14 was asked for.
    pub number: u8,
    pub medium: Medium,
    /// Code of table 6-2.
    pub protocol: u8,
    pub sessions: SessionSupport,
    pub active_sessions: u8,
    /// IANA number of who defined the protocol; 7154 is IPMI.
    pub vendor: u32,
}

/// What a channel runs over (table 6-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    Ipmb,
    Icmb,
    /// 802.3 LAN.
    Lan,
    Serial,
    OtherLan,
    PciSmbus,
    Smbus,
    Usb,
    SystemInterface,
    Oem(u8),
    Unknown(u8),
}

impl Medium {
    const fn of(code: u8) -> Self {
        match code & 0x7f {
            1 => Self::Ipmb,
            2 | 3 => Self::Icmb,
            4 => Self::Lan,
            5 => Self::Serial,
            6 => Self::OtherLan,
            7 => Self::PciSmbus,
            8 | 9 => Self::Smbus,
            10 | 11 => Self::Usb,
            12 => Self::SystemInterface,
            code @ 0x60..=0x7f => Self::Oem(code),
            code => Self::Unknown(code),
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipmb => "IPMB",
            Self::Icmb => "ICMB",
            Self::Lan => "LAN",
            Self::Serial => "serial",
            Self::OtherLan => "other LAN",
            Self::PciSmbus => "PCI SMBus",
            Self::Smbus => "SMBus",
            Self::Usb => "USB",
            Self::SystemInterface => "system interface",
            Self::Oem(_) => "OEM",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// How many sessions a channel can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionSupport {
    None,
    Single,
    Multiple,
    /// Sessionless or with one session, as the medium is set.
    ByMode,
}

impl Command for GetChannelInfo {
    type Answer = ChannelInfo;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::APP, code: 0x42, lun: 0, data: vec![self.channel & 0x0f] }
    }

    fn parse(&self, data: &[u8]) -> Result<ChannelInfo, Malformed> {
        let mut reader = Reader::new("channel info", data);
        let [number, medium, protocol, sessions, low, middle, high] = reader.array()?;
        Ok(ChannelInfo {
            number: number & 0x0f,
            medium: Medium::of(medium),
            protocol: protocol & 0x1f,
            sessions: match sessions >> 6 {
                0 => SessionSupport::None,
                1 => SessionSupport::Single,
                2 => SessionSupport::Multiple,
                _ => SessionSupport::ByMode,
            },
            active_sessions: sessions & 0x3f,
            vendor: u32::from_le_bytes([low, middle, high, 0]),
        })
    }
}

/// Get Channel Access (section 22.23): the settings in force, or those kept for the next start.
#[derive(Clone, Copy, Debug)]
pub struct GetChannelAccess {
    pub channel: u8,
    pub stored: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelAccess {
    pub mode: AccessMode,
    pub alerting: bool,
    pub per_message_authentication: bool,
    pub user_level_authentication: bool,
    /// Highest privilege of any session on the channel; `None` if the code is reserved.
    pub privilege_limit: Option<Privilege>,
}

/// When a channel takes messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessMode {
    Disabled,
    PreBootOnly,
    Always,
    Shared,
    Reserved(u8),
}

impl Command for GetChannelAccess {
    type Answer = ChannelAccess;

    fn request(&self) -> Request {
        let which = if self.stored { 0x40 } else { 0x80 };
        Request { net_fn: NetFn::APP, code: 0x41, lun: 0, data: vec![self.channel & 0x0f, which] }
    }

    fn parse(&self, data: &[u8]) -> Result<ChannelAccess, Malformed> {
        let [access, privilege] = Reader::new("channel access", data).array()?;
        Ok(ChannelAccess {
            mode: match access & 0b111 {
                0 => AccessMode::Disabled,
                1 => AccessMode::PreBootOnly,
                2 => AccessMode::Always,
                3 => AccessMode::Shared,
                code => AccessMode::Reserved(code),
            },
            // These three bits disable.
            alerting: access & 0x20 == 0,
            per_message_authentication: access & 0x10 == 0,
            user_level_authentication: access & 0x08 == 0,
            privilege_limit: Privilege::from_number(privilege),
        })
    }
}

/// Set Channel Access (section 22.22), in force and stored alike.
#[derive(Clone, Copy, Debug)]
pub struct SetChannelAccess {
    pub channel: u8,
    pub mode: AccessMode,
    pub alerting: bool,
    pub per_message_authentication: bool,
    pub user_level_authentication: bool,
    pub privilege_limit: Privilege,
    /// Keep it over a restart too; otherwise it is in force until then.
    pub store: bool,
}

impl Command for SetChannelAccess {
    type Answer = ();

    fn request(&self) -> Request {
        let mode = match self.mode {
            AccessMode::Disabled => 0,
            AccessMode::PreBootOnly => 1,
            AccessMode::Always => 2,
            AccessMode::Shared => 3,
            AccessMode::Reserved(code) => code & 0b111,
        };
        let flags = u8::from(!self.alerting) << 5
            | u8::from(!self.per_message_authentication) << 4
            | u8::from(!self.user_level_authentication) << 3;
        // Bits 7:6: 1 stores, 2 puts in force.
        let which = if self.store { 0x40 } else { 0x80 };
        let data = vec![self.channel & 0x0f, which | flags | mode, which | self.privilege_limit.number()];
        Request { net_fn: NetFn::APP, code: 0x40, lun: 0, data }
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// The channels that a BMC has.
pub async fn list(carrier: &impl Carrier) -> Result<Vec<ChannelInfo>, Error> {
    let mut channels = Vec::new();
    // 12 and 13 are reserved, 14 stands for the session's own channel.
    for channel in (0..=11).chain([15]) {
        match run(carrier, &GetChannelInfo { channel }).await {
            Ok(info) => channels.push(info),
            Err(error) if error.is_about_one_answer() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, ok, refuse};
    use super::*;
    use crate::CompletionCode;

    #[tokio::test]
    async fn channels_are_those_that_answer() {
        let bmc = Fake::new(|request| match request.data[0] {
            // As ipmi_sim answers.
            1 => ok(&[0x01, 0x04, 0x01, 0x81, 0xf2, 0x1b, 0x00, 0x00, 0x00]),
            15 => ok(&[0x0f, 0x0c, 0x05, 0x00, 0xf2, 0x1b, 0x00, 0x01, 0x02]),
            _ => refuse(CompletionCode(0xcc)),
        });
        let channels = list(&bmc).await.unwrap();
        assert_eq!(channels.len(), 2);
        assert_eq!((channels[0].medium, channels[0].sessions), (Medium::Lan, SessionSupport::Multiple));
        assert_eq!((channels[0].active_sessions, channels[0].vendor), (1, 7154));
        assert_eq!(channels[1].medium.name(), "system interface");
    }

    #[test]
    fn access_is_read_and_written() {
        let get = GetChannelAccess { channel: 1, stored: false };
        assert_eq!(get.request().data, [1, 0x80]);
        let access = get.parse(&[0x02, 0x04]).unwrap();
        assert_eq!(
            (access.mode, access.privilege_limit),
            (AccessMode::Always, Some(Privilege::Administrator))
        );
        assert!(access.alerting && access.per_message_authentication && access.user_level_authentication);
        let set = SetChannelAccess {
            channel: 1,
            mode: AccessMode::Always,
            alerting: false,
            per_message_authentication: true,
            user_level_authentication: true,
            privilege_limit: Privilege::Operator,
            store: true,
        };
        assert_eq!(set.request().data, [1, 0x62, 0x43]);
        assert!(get.parse(&[2]).is_err());
    }
}
