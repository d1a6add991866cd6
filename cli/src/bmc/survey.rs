//! What `bmc inspect` says of IPMI: what a BMC tells anybody, and which of it is weak.
//!
//! Passwords are not tried: only the one that was given is used, and it is compared with the vendors' defaults.

use rackhand_ipmi::{
    Carrier as _, Error, client,
    commands::{
        chassis::GetChassisStatus,
        device::{GetDeviceId, THIS_CHANNEL},
        user,
    },
    session::Findings,
};
use serde::Serialize;

use super::ipmi::{Bmc, Login, Place, sockets, until_interrupted};
use crate::{error::Result, output::printable};

/// The `ipmi` of `bmc inspect --json`, and all of it for an `ipmi://` address.
#[derive(Debug, Default, Serialize)]
pub struct Ipmi {
    pub url: String,
    /// RMCP+ (IPMI 2.0) is offered.
    pub rmcp_plus: Option<bool>,
    /// Cipher suites offered, by number; none where the BMC does not tell.
    pub suites: Option<Vec<u8>>,
    /// The suite of the session that was opened.
    pub suite: Option<u8>,
    /// Manufacturer's IANA number.
    pub manufacturer: Option<u32>,
    pub product: Option<u16>,
    pub firmware: Option<String>,
    pub ipmi_version: Option<String>,
    pub power: Option<&'static str>,
    pub weak: Vec<Weakness>,
    /// What could not be read.
    pub unreadable: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Weakness {
    pub code: &'static str,
    pub text: String,
}

/// What the BMC tells without a login. `None`: nothing answers there.
pub async fn probe(place: &Place) -> Result<Option<Ipmi>> {
    let address = place.resolve().await?;
    let findings = match client::probe(&sockets()?, address).await {
        Ok(findings) => findings,
        Err(Error::NoAnswer { .. }) => return Ok(None),
        Err(error) => return Err(super::ipmi::failure(&place.to_string(), &error)),
    };
    Ok(Some(Ipmi { url: place.to_string(), ..told(&findings) }))
}

/// The same, and what a session with the given account shows.
pub async fn inspect(place: Place, login: Login) -> Result<Ipmi> {
    let probed = probe(&place).await?;
    let name = place.to_string();
    let given = default_of(&login.user, &login.password);
    let user = login.user.clone();
    login
        .session(place, async |bmc: &Bmc| {
            let mut ipmi = probed.unwrap_or_default();
            ipmi.url = name;
            ipmi.suite = Some(bmc.client.suite().id());
            if let Some(vendor) = given {
                ipmi.flag("default_password", format!("`{user}` still has {vendor}'s default password"));
            }
            until_interrupted(async {
                read(bmc, &mut ipmi).await;
                Ok(())
            })
            .await?;
            Ok(ipmi)
        })
        .await
}

async fn read(bmc: &Bmc, ipmi: &mut Ipmi) {
    match bmc.client.run(&GetDeviceId).await {
        Ok(device) => {
            ipmi.manufacturer = Some(device.manufacturer);
            ipmi.product = Some(device.product);
            ipmi.firmware = Some(format!("{}.{:02}", device.firmware_major, device.firmware_minor));
            ipmi.ipmi_version = Some(format!("{}.{}", device.ipmi_version.0, device.ipmi_version.1));
        }
        Err(error) => ipmi.unreadable.push(format!("device: {error}")),
    }
    match bmc.client.run(&GetChassisStatus).await {
        Ok(status) => ipmi.power = Some(if status.power_on { "on" } else { "off" }),
        Err(error) => ipmi.unreadable.push(format!("power: {error}")),
    }
    match user::list(&bmc.client, THIS_CHANNEL).await {
        Ok(found) => {
            let null = found.users.iter().find(|user| {
                user.name.is_empty()
                    && user.access.enabled == Some(true)
                    && user.access.ipmi_messaging
                    && user.access.privilege.is_some()
            });
            if let Some(null) = null {
                ipmi.flag("null_user", format!("user {} has no name and is enabled", null.id));
            }
        }
        Err(error) => ipmi.unreadable.push(format!("users: {error}")),
    }
}

fn told(findings: &Findings) -> Ipmi {
    let mut ipmi = Ipmi::default();
    if let Some(suites) = &findings.suites {
        let mut ids: Vec<u8> =
            suites.iter().filter(|suite| suite.oem.is_none()).map(|suite| suite.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.contains(&0) {
            ipmi.flag("cipher_0", "cipher suite 0 is offered: a login without a password");
        }
        if ids.iter().any(|id| matches!(id, 1 | 2 | 6 | 7 | 11 | 15 | 16)) {
            ipmi.flag("no_encryption", "cipher suites without encryption or integrity are offered");
        }
        if !ids.contains(&17) {
            ipmi.flag("no_suite_17", "cipher suite 17 (SHA-256) is not offered");
        }
        ipmi.suites = Some(ids);
    }
    if let Some(offered) = &findings.authentication {
        ipmi.rmcp_plus = Some(offered.ipmi20);
        if offered.anonymous {
            ipmi.flag("anonymous", "an account without name and password exists");
        }
        if offered.null_users {
            ipmi.flag("null_user", "an account without a name exists");
        }
        if offered.ipmi15 {
            ipmi.flag("ipmi_1_5", "IPMI 1.5 sessions are offered: nothing is encrypted");
        }
        if offered.types & 1 != 0 {
            ipmi.flag("no_authentication", "sessions without authentication are offered");
        }
    }
    ipmi
}

impl Ipmi {
    fn flag(&mut self, code: &'static str, text: impl Into<String>) {
        if !self.weak.iter().any(|weakness| weakness.code == code) {
            self.weak.push(Weakness { code, text: text.into() });
        }
    }

    pub fn render(&self) -> String {
        let mut rows = vec![("IPMI", self.url.clone())];
        let suites = |ids: &Vec<u8>| ids.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        rows.push(("suites", self.suites.as_ref().map_or_else(|| "not reported".to_owned(), suites)));
        rows.extend(self.suite.map(|id| ("session", format!("cipher suite {id}"))));
        rows.extend(self.firmware.clone().map(|version| ("BMC firmware", version)));
        rows.extend(self.manufacturer.map(|number| ("manufacturer", manufacturer(number))));
        rows.extend(self.power.map(|power| ("power", power.to_owned())));
        rows.extend(self.weak.iter().map(|weakness| ("weak", weakness.text.clone())));
        rows.extend(self.unreadable.iter().map(|what| ("unreadable", what.clone())));
        rows.iter().map(|(name, value)| printable(&format!("{name:13} {value}")) + "\n").collect()
    }
}

/// Makers of BMCs, by their private enterprise numbers (IANA, "Private Enterprise Numbers").
const MAKERS: [(u32, &str); 12] = [
    (2, "IBM"),
    (11, "HP"),
    (343, "Intel"),
    (674, "Dell"),
    (2011, "Huawei"),
    (5771, "Cisco"),
    (7244, "Quanta"),
    (10368, "Fujitsu"),
    (10876, "Supermicro"),
    (19046, "Lenovo"),
    (37945, "Inspur"),
    (47196, "HPE"),
];

/// The number stays beside the name: it is what the BMC told.
fn manufacturer(number: u32) -> String {
    let known = MAKERS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("IANA {number}"), |(_, name)| format!("{name} (IANA {number})"))
}

/// Accounts that machines are shipped with, from the vendors' manuals.
const DEFAULTS: [(&str, &str, &str); 8] = [
    ("Dell", "root", "calvin"),
    ("Supermicro", "ADMIN", "ADMIN"),
    ("Lenovo", "USERID", "PASSW0RD"),
    ("OpenBMC", "root", "0penBmc"),
    ("Oracle", "root", "changeme"),
    ("Fujitsu", "admin", "admin"),
    ("Cisco", "admin", "password"),
    ("Huawei", "Administrator", "Admin@9000"),
];

/// The vendor whose default this is.
pub fn default_of(user: &str, password: &str) -> Option<&'static str> {
    let known = DEFAULTS.iter().find(|(_, name, default)| *name == user && *default == password);
    known.map(|(vendor, _, _)| *vendor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_settings_are_named() {
        let mut ipmi = Ipmi {
            url: "ipmi://bmc:623".into(),
            suites: Some(vec![0, 3, 17]),
            suite: Some(17),
            firmware: Some("7.10".into()),
            power: Some("on"),
            manufacturer: Some(674),
            ..Ipmi::default()
        };
        ipmi.flag("cipher_0", "cipher suite 0 is offered: a login without a password");
        insta::assert_snapshot!(ipmi.render());
        assert_eq!(manufacturer(99), "IANA 99");
        assert_eq!(default_of("root", "calvin"), Some("Dell"));
        assert_eq!(default_of("root", "other"), None);
    }
}
