//! People: users, sign-in, sessions and grants.

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Role, Timestamp,
    id::{GrantId, SessionId, SiteId, UserId},
};

/// Signs in with a password. There is no `Debug`: it holds one.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    #[garde(length(bytes, min = 3, max = 254))]
    pub email: String,
    #[garde(length(bytes, min = 1, max = 1024))]
    pub password: String,
}

/// Renews a session. A browser sends its cookie and an empty object instead.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    pub refresh_token: Option<String>,
}

/// A signed-in session. A browser gets the tokens as cookies, not here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SignedIn {
    pub user: Me,
    /// Seconds until the access token ends.
    pub expires_in: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Me {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    pub id: GrantId,
    pub role: Role,
    /// Absent: the whole fleet.
    pub site_id: Option<SiteId>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    #[garde(skip)]
    pub role: Role,
    #[garde(skip)]
    pub site_id: Option<SiteId>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub disabled: bool,
    pub grants: Vec<Grant>,
    pub created_at: Timestamp,
}

/// There is no `Debug`: it holds a password.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    #[garde(length(bytes, max = 254), custom(crate::check::email))]
    pub email: String,
    #[garde(length(chars, min = 1, max = 120))]
    pub name: String,
    #[garde(length(chars, min = 12, max = 1024))]
    pub password: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: SessionId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub user_agent: String,
    /// The session this request was made with.
    pub current: bool,
}
