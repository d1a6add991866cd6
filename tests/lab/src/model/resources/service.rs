//! The service root, sessions and the account.

use serde_json::{Value, json};

use super::{collection, link, resource, set, with};
use crate::model::auth::{SESSION_TIMEOUT, Session};
use crate::model::bmc::Bmc;
use crate::spec::Generation;

const ACCOUNT: &str = "/redfish/v1/AccountService/Accounts/2";

impl Bmc {
    pub(super) fn service_document(&self, path: &str) -> Option<Value> {
        let sessions = self.traits().sessions;
        Some(match path {
            "/redfish" => json!({ "v1": "/redfish/v1/" }),
            "/redfish/v1" => self.root(),
            "/redfish/v1/odata" => odata(),
            "/redfish/v1/SessionService" => with(
                resource(path, "SessionService.v1_1_8.SessionService", "SessionService", "Session Service"),
                json!({
                    "Description": "Session Service",
                    "ServiceEnabled": true,
                    "SessionTimeout": SESSION_TIMEOUT.as_secs(),
                    "Sessions": link(sessions),
                }),
            ),
            "/redfish/v1/AccountService" => with(
                resource(path, "AccountService.v1_10_0.AccountService", "AccountService", "Account Service"),
                json!({
                    "Accounts": link("/redfish/v1/AccountService/Accounts"),
                    "ServiceEnabled": true,
                    "Status": { "Health": "OK", "State": "Enabled" },
                }),
            ),
            "/redfish/v1/AccountService/Accounts" => {
                collection(path, "ManagerAccountCollection", "Accounts Collection", &[ACCOUNT.to_owned()])
            }
            ACCOUNT => with(
                resource(path, "ManagerAccount.v1_8_0.ManagerAccount", "2", "User Account"),
                json!({
                    "Enabled": true,
                    "Locked": false,
                    "Password": null,
                    "RoleId": "Administrator",
                    "UserName": self.username,
                }),
            ),
            _ if path == sessions => {
                let members: Vec<String> =
                    self.auth.sessions().iter().map(|at| format!("{sessions}/{}", at.id)).collect();
                collection(path, "SessionCollection", "Session Collection", &members)
            }
            _ => {
                let id: u64 = path.strip_prefix(sessions)?.strip_prefix('/')?.parse().ok()?;
                self.session_document(self.auth.sessions().iter().find(|session| session.id == id)?)
            }
        })
    }

    pub(crate) fn session_document(&self, session: &Session) -> Value {
        let path = format!("{}/{}", self.traits().sessions, session.id);
        with(
            resource(&path, "Session.v1_3_0.Session", &session.id.to_string(), "User Session"),
            json!({
                "ClientOriginIPAddress": session.client.to_string(),
                "Description": "User Session",
                "Password": null,
                "SessionType": "Redfish",
                "UserName": self.username,
            }),
        )
    }

    fn root(&self) -> Value {
        let traits = self.traits();
        let mut root = with(
            resource("/redfish/v1", "ServiceRoot.v1_10_0.ServiceRoot", "RootService", "Root Service"),
            json!({
                "AccountService": link("/redfish/v1/AccountService"),
                "Chassis": link("/redfish/v1/Chassis"),
                "Description": "Root Service",
                "Links": { "Sessions": link(traits.sessions) },
                "Managers": link("/redfish/v1/Managers"),
                "Oem": { "Dell": {
                    "@odata.context": "/redfish/v1/$metadata#DellServiceRoot.DellServiceRoot",
                    "@odata.type": "#DellServiceRoot.v1_0_0.DellServiceRoot",
                    "IsBranded": 0,
                    "ManagerMACAddress": self.mac(0),
                    "ServiceTag": self.spec.service_tag,
                }},
                "Product": "Integrated Dell Remote Access Controller",
                "RedfishVersion": traits.redfish_version,
                "SessionService": link("/redfish/v1/SessionService"),
                "Systems": link("/redfish/v1/Systems"),
                "Tasks": link("/redfish/v1/TaskService"),
                "UpdateService": link("/redfish/v1/UpdateService"),
            }),
        );
        if traits.job_service {
            set(&mut root, "JobService", link("/redfish/v1/JobService"));
        }
        if traits.generation != Generation::Idrac8 {
            set(&mut root, "Vendor", json!("Dell"));
            set(
                &mut root,
                "ProtocolFeaturesSupported",
                json!({
                    "ExcerptQuery": false,
                    "ExpandQuery": {
                        "ExpandAll": true, "Levels": true, "Links": true, "MaxLevels": 1, "NoLinks": true,
                    },
                    "FilterQuery": false,
                    "OnlyMemberQuery": false,
                    "SelectQuery": true,
                }),
            );
        }
        root
    }

    /// A locally administered MAC address of this server.
    pub(super) fn mac(&self, port: u8) -> String {
        let [a, b, c, ..] = self.seed.to_le_bytes();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{port:02x}")
    }
}

/// The OData service document (DSP0266).
fn odata() -> Value {
    let value: Vec<Value> = ["Systems", "Chassis", "Managers", "SessionService", "UpdateService"]
        .iter()
        .map(|name| json!({ "kind": "Singleton", "name": name, "url": format!("/redfish/v1/{name}") }))
        .collect();
    json!({ "@odata.context": "/redfish/v1/$metadata", "value": value })
}
