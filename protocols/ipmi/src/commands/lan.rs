//! LAN configuration parameters (section 23.2, table 23-4): a BMC's address, VLAN and cipher suites.

use std::fmt;
use std::net::Ipv4Addr;

use super::patience::run;
use crate::session::Privilege;
use crate::wire::bytes::Reader;
use crate::{Carrier, Command, Error, Malformed, NetFn, Request};

/// Get LAN Configuration Parameters (section 23.2): the bytes of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct GetLanParameter {
    pub channel: u8,
    pub parameter: u8,
}

impl Command for GetLanParameter {
    type Answer = Vec<u8>;

    fn request(&self) -> Request {
        let data = vec![self.channel & 0x0f, self.parameter, 0, 0];
        Request { net_fn: NetFn::TRANSPORT, code: 0x02, lun: 0, data }
    }

    fn parse(&self, data: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new("LAN parameter", data);
        let _revision = reader.u8()?;
        Ok(reader.rest().to_vec())
    }
}

/// One parameter to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LanChange {
    Address(Ipv4Addr),
    Source(AddressSource),
    Mask(Ipv4Addr),
    Gateway(Ipv4Addr),
    /// 1 to 4094; `None` switches VLAN tags off.
    Vlan(Option<u16>),
    /// The privilege limit of each of the 16 suites of parameter 23, in its order; `None` switches a suite off.
    SuitePrivileges([Option<Privilege>; 16]),
}

/// Set LAN Configuration Parameters (section 23.1). The BMC may answer before the change is in force, and a changed
/// address ends the session.
#[derive(Clone, Copy, Debug)]
pub struct SetLanParameter {
    pub channel: u8,
    pub change: LanChange,
}

impl Command for SetLanParameter {
    type Answer = ();

    fn request(&self) -> Request {
        let mut data = vec![self.channel & 0x0f];
        match self.change {
            LanChange::Address(address) => {
                data.push(ADDRESS);
                data.extend(address.octets());
            }
            LanChange::Source(source) => data.extend([SOURCE, source.code()]),
            LanChange::Mask(mask) => {
                data.push(MASK);
                data.extend(mask.octets());
            }
            LanChange::Gateway(gateway) => {
                data.push(GATEWAY);
                data.extend(gateway.octets());
            }
            LanChange::Vlan(vlan) => {
                let bits = vlan.map_or(0, |vlan| VLAN_ENABLED | vlan & VLAN_MASK);
                data.push(VLAN);
                data.extend(bits.to_le_bytes());
            }
            LanChange::SuitePrivileges(limits) => {
                data.extend([SUITE_PRIVILEGES, 0]);
                let code = |limit: Option<Privilege>| limit.map_or(0, Privilege::number);
                data.extend(
                    limits.as_chunks::<2>().0.iter().map(|[low, high]| code(*high) << 4 | code(*low)),
                );
            }
        }
        Request { net_fn: NetFn::TRANSPORT, code: 0x01, lun: 0, data }
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

const ADDRESS: u8 = 3;
const SOURCE: u8 = 4;
const MAC: u8 = 5;
const MASK: u8 = 6;
const GATEWAY: u8 = 12;
const GATEWAY_MAC: u8 = 13;
const VLAN: u8 = 20;
const VLAN_PRIORITY: u8 = 21;
const SUITE_COUNT: u8 = 22;
const SUITES: u8 = 23;
const SUITE_PRIVILEGES: u8 = 24;

const VLAN_ENABLED: u16 = 0x8000;
const VLAN_MASK: u16 = 0x0fff;

/// Where the address comes from (parameter 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressSource {
    Unspecified,
    Static,
    Dhcp,
    /// Loaded by BIOS or system software.
    Bios,
    /// Another protocol run by the BMC.
    Other,
    Reserved(u8),
}

impl AddressSource {
    const fn of(code: u8) -> Self {
        match code & 0x0f {
            0 => Self::Unspecified,
            1 => Self::Static,
            2 => Self::Dhcp,
            3 => Self::Bios,
            4 => Self::Other,
            code => Self::Reserved(code),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::Static => 1,
            Self::Dhcp => 2,
            Self::Bios => 3,
            Self::Other => 4,
            Self::Reserved(code) => code & 0x0f,
        }
    }
}

/// A MAC address, printed as `3c:ec:ef:01:02:03`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A cipher suite that the LAN channel offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuiteLimit {
    pub suite: u8,
    /// Highest privilege of a session that uses it; `None` if it is switched off or the BMC does not say.
    pub limit: Option<Privilege>,
}

/// The settings of a LAN channel; `None` where the BMC tells nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LanSettings {
    pub address: Option<Ipv4Addr>,
    pub source: Option<AddressSource>,
    pub mac: Option<Mac>,
    pub mask: Option<Ipv4Addr>,
    pub gateway: Option<Ipv4Addr>,
    pub gateway_mac: Option<Mac>,
    /// The VLAN id, if tags are on.
    pub vlan: Option<u16>,
    pub vlan_priority: Option<u8>,
    pub suites: Vec<SuiteLimit>,
}

/// Reads the settings of a channel. Parameters that the BMC does not have are left out.
pub async fn read(carrier: &impl Carrier, channel: u8) -> Result<LanSettings, Error> {
    let vlan = parameter::<2>(carrier, channel, VLAN).await?.map(u16::from_le_bytes);
    let count = parameter(carrier, channel, SUITE_COUNT).await?.map(|[count]| usize::from(count));
    let suites = optional(carrier, channel, SUITES).await?.unwrap_or_default();
    let limits = optional(carrier, channel, SUITE_PRIVILEGES).await?.unwrap_or_default();
    Ok(LanSettings {
        address: parameter(carrier, channel, ADDRESS).await?.map(Ipv4Addr::from_octets),
        source: parameter(carrier, channel, SOURCE).await?.map(|[code]| AddressSource::of(code)),
        mac: parameter(carrier, channel, MAC).await?.map(Mac),
        mask: parameter(carrier, channel, MASK).await?.map(Ipv4Addr::from_octets),
        gateway: parameter(carrier, channel, GATEWAY).await?.map(Ipv4Addr::from_octets),
        gateway_mac: parameter(carrier, channel, GATEWAY_MAC).await?.map(Mac),
        vlan: vlan.filter(|vlan| vlan & VLAN_ENABLED != 0).map(|vlan| vlan & VLAN_MASK),
        vlan_priority: parameter(carrier, channel, VLAN_PRIORITY).await?.map(|[bits]| bits & 0b111),
        suites: suite_limits(count, &suites, &limits),
    })
}

/// Parameters 22 to 24 joined: 23 and 24 begin with a reserved byte; the limits are nibbles, the lower first.
fn suite_limits(count: Option<usize>, suites: &[u8], limits: &[u8]) -> Vec<SuiteLimit> {
    const MOST_SUITES: usize = 16;
    let limits: Vec<u8> =
        limits.iter().skip(1).flat_map(|pair| [pair & 0x0f, pair >> 4]).take(MOST_SUITES).collect();
    let suites = suites.get(1..).unwrap_or_default();
    // Without a count, zeros at the end are room and not suite 0, which stands first where it is offered.
    let used = suites.iter().rposition(|suite| *suite != 0).map_or(suites.len().min(1), |last| last + 1);
    let count = count.unwrap_or(used).min(MOST_SUITES);
    let limit = |index: usize| limits.get(index).copied().and_then(Privilege::from_number);
    let suites = suites.iter().take(count).enumerate();
    suites.map(|(index, &suite)| SuiteLimit { suite, limit: limit(index) }).collect()
}

/// A parameter of at least `N` bytes.
async fn parameter<const N: usize>(
    carrier: &impl Carrier,
    channel: u8,
    parameter: u8,
) -> Result<Option<[u8; N]>, Error> {
    let data = optional(carrier, channel, parameter).await?;
    Ok(data.as_deref().and_then(<[u8]>::first_chunk::<N>).copied())
}

async fn optional(carrier: &impl Carrier, channel: u8, parameter: u8) -> Result<Option<Vec<u8>>, Error> {
    match run(carrier, &GetLanParameter { channel, parameter }).await {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.is_about_one_answer() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, ok, refuse};
    use super::*;
    use crate::CompletionCode;

    #[tokio::test]
    async fn settings_are_read_as_far_as_they_are_told() {
        let bmc = Fake::new(|request| match request.data[1] {
            ADDRESS => ok(&[0x11, 192, 0, 2, 7]),
            SOURCE => ok(&[0x11, 2]),
            MAC => ok(&[0x11, 0x3c, 0xec, 0xef, 1, 2, 3]),
            MASK => ok(&[0x11, 255, 255]),
            VLAN => ok(&[0x11, 0x64, 0x80]),
            SUITES => ok(&[0x11, 0, 0, 3, 17]),
            SUITE_PRIVILEGES => ok(&[0x11, 0, 0x40, 0x04, 0, 0, 0, 0, 0, 0]),
            _ => refuse(CompletionCode(0x80)),
        });
        let settings = read(&bmc, 1).await.unwrap();
        assert_eq!(settings.address, Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(settings.source, Some(AddressSource::Dhcp));
        assert_eq!(settings.mac.unwrap().to_string(), "3c:ec:ef:01:02:03");
        assert_eq!((settings.mask, settings.gateway), (None, None));
        assert_eq!(settings.vlan, Some(100));
        assert_eq!(
            settings.suites,
            [
                SuiteLimit { suite: 0, limit: None },
                SuiteLimit { suite: 3, limit: Some(Privilege::Administrator) },
                SuiteLimit { suite: 17, limit: Some(Privilege::Administrator) },
            ]
        );
    }

    #[test]
    fn room_for_suites_is_not_suite_0() {
        let ids = |count, suites: &[u8]| {
            suite_limits(count, suites, &[]).iter().map(|limit| limit.suite).collect::<Vec<_>>()
        };
        assert_eq!(ids(Some(2), &[0, 3, 17, 0, 0]), [3, 17]);
        assert_eq!(ids(None, &[0, 3, 17, 0, 0]), [3, 17]);
        assert_eq!(ids(None, &[0, 0, 3, 0, 0]), [0, 3]);
        assert_eq!(ids(None, &[0, 0, 0, 0]), [0]);
        assert_eq!(ids(Some(255), &[0; 40]), [0; 16]);
        assert_eq!(ids(None, &[]), []);
    }

    #[test]
    fn changes_are_those_of_the_specification() {
        let data = |change| SetLanParameter { channel: 1, change }.request().data.clone();
        assert_eq!(data(LanChange::Address(Ipv4Addr::new(192, 0, 2, 7))), [1, 3, 192, 0, 2, 7]);
        assert_eq!(data(LanChange::Source(AddressSource::Static)), [1, 4, 1]);
        assert_eq!(data(LanChange::Vlan(Some(100))), [1, 20, 0x64, 0x80]);
        assert_eq!(data(LanChange::Vlan(None)), [1, 20, 0, 0]);
        let mut limits = [None; 16];
        limits[3] = Some(Privilege::Administrator);
        assert_eq!(data(LanChange::SuitePrivileges(limits)), [1, 24, 0, 0, 0x40, 0, 0, 0, 0, 0, 0]);
    }
}
