//! Keyset paging: how far, and from where.

use garde::Validate;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::problem::{Answer, Refusal};

pub const DEFAULT_LIMIT: u32 = 50;

/// The part of a query string that every list has.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// `next` of the page before.
    #[garde(length(bytes, max = 2000))]
    pub cursor: Option<String>,
    /// 1–500; 50 if absent.
    #[garde(range(min = 1, max = 500))]
    pub limit: Option<u32>,
}

/// What a statement encoded as hex of JSON in `next`, back as JSON.
pub fn decode_cursor(cursor: Option<&str>) -> Answer<Value> {
    let Some(cursor) = cursor else { return Ok(Value::Null) };
    hex::decode(cursor)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .filter(Value::is_object)
        .ok_or_else(|| Refusal::invalid("cursor", "is not one that a page gave"))
}

/// A cursor that is one plain value (an id, a number), checked.
pub fn plain_cursor<T: std::str::FromStr>(cursor: Option<&str>) -> Answer<Option<T>> {
    cursor
        .map(|text| text.parse().map_err(|_| Refusal::invalid("cursor", "is not one that a page gave")))
        .transpose()
}
