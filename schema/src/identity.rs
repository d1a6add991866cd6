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

/// Ends a session by its refresh token, also when the access token has expired. A browser sends its cookies instead.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub refresh_token: Option<String>,
}

/// Changes one's own password. There is no `Debug`: it holds two.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    #[garde(length(bytes, min = 1, max = 1024))]
    pub present: String,
    #[garde(custom(crate::check::password))]
    pub new: String,
}

/// A link with which a person chooses a password, once.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PasswordLink {
    pub token: String,
    /// Seconds.
    pub expires_in: u32,
    /// The page for it, where the control plane knows its own address.
    pub link: Option<String>,
}

/// Chooses a password with the token of a [`PasswordLink`]. There is no `Debug`: it holds both.
#[derive(Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChoice {
    #[garde(length(bytes, min = 16, max = 200))]
    pub token: String,
    #[garde(custom(crate::check::password))]
    pub password: String,
}

/// Changes a user; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(inner(length(chars, min = 1, max = 120), custom(crate::check::name)))]
    pub name: Option<String>,
    /// A disabled user cannot sign in; their sessions end at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(skip)]
    pub disabled: Option<bool>,
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
    #[garde(length(chars, min = 1, max = 120), custom(crate::check::name))]
    pub name: String,
    /// Absent: the person chooses one with a link ([`PasswordLink`]) and cannot sign in before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(inner(custom(crate::check::password)))]
    pub password: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: SessionId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// When its tokens were last renewed.
    pub seen_at: Timestamp,
    pub user_agent: String,
    /// Network of the sign-in: an IPv4 address, or an IPv6 /64.
    pub network: String,
    /// The session this request was made with.
    pub current: bool,
}
