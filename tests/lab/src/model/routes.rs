//! Which request is what.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::bmc::{Bmc, Call};
use super::messages::Message;
use super::traits::Traits;

/// What may be asked without credentials: the service root (DSP0266, "Authentication requirements") and logging in.
pub(crate) fn is_public(call: &Call, traits: &Traits) -> bool {
    match call.method {
        Method::GET => matches!(
            call.path.as_str(),
            "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata"
        ),
        Method::POST => is_session_collection(&call.path, traits),
        _ => false,
    }
}

fn is_session_collection(path: &str, traits: &Traits) -> bool {
    path == traits.sessions || path == "/redfish/v1/SessionService/Sessions"
}

impl Bmc {
    pub(crate) fn route(&mut self, _call: &Call) -> Response<Bytes> {
        self.error(StatusCode::NOT_FOUND, &Message::critical("SYS403", "There is no such resource."))
    }
}
