//! Typed identifiers: one newtype over UUIDv7 for each kind of thing, all declared in one registry.
//!
//! In the control plane Postgres makes them (`rackhand.uuid_v7()`); on-prem parts make the ids of effects
//! and sessions themselves with the `generate` feature. A bare `Uuid` never appears in a signature.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind} id")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = "uuid")]
        pub struct $name(Uuid);

        impl $name {
            /// What this identifies, for messages.
            pub const KIND: &'static str = $kind;

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// A new id, ordered by the time of this call.
            #[cfg(feature = "generate")]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $kind, self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self).map_err(|_| InvalidId {
                    kind: $kind,
                    text: text.chars().take(64).collect(),
                })
            }
        }
    )*};
}

ids! {
    SiteId = "site";
    UserId = "user";
    /// A person's sign-in; refresh tokens belong to it.
    SessionId = "session";
    ExecutorId = "executor";
    /// One start of an executor process; liveness is kept per such session.
    ExecutorSessionId = "executor session";
    ServerId = "server";
    BmcId = "BMC endpoint";
    CredentialId = "credential";
    JobId = "job";
    RunId = "run";
    EffectId = "effect";
    GrantId = "grant";
    /// W3C trace id (16 bytes), kept as a UUID so that it can be stored and indexed alike.
    TraceId = "trace";
}

impl TraceId {
    /// As it stands in a `traceparent` header: 32 lower-case hex digits.
    pub fn to_hex(self) -> String {
        self.0.simple().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_print_and_refuse() {
        let text = "01920000-0000-7000-8000-000000000001";
        let id: RunId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), format!("run:{text}"));
        let refused = "not-a-uuid".parse::<RunId>().unwrap_err();
        assert_eq!(refused.to_string(), "`not-a-uuid` is not a valid run id");
    }
}
