//! The control plane as the executor sees it: four calls of the executors' protocol.
//!
//! [`http::HttpCloud`] speaks to a real one; simulations bring a model of it. Sign-in is the implementation's
//! business. Every failure that a later try may cure is [`CloudError::Unreachable`].

pub mod http;

use std::time::Duration;

use futures::future::BoxFuture;
use rackhand_schema::{
    executor::SiteKey,
    protocol::{AttemptAnswer, CredentialAttempt, LeaseRequest, LeaseResponse, Report, ReportResponse},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No answer, or one of a service in trouble. Try again later.
    #[error("no usable answer from the control plane: {0}")]
    Unreachable(String),
    /// The answer is larger than what is read of one.
    #[error("the answer of the control plane is too large")]
    TooLarge,
    /// A newer process of this executor has signed in: this one must stop.
    #[error("a newer process of this executor has signed in")]
    Superseded,
    /// This executor may not sign in any more.
    #[error("this executor may not sign in: {0}")]
    Revoked(String),
    /// The control plane says no to this request.
    #[error("{code}: {detail}")]
    Refused { code: String, detail: String },
}

pub trait Cloud: Send + Sync + 'static {
    /// `limit`: without an answer by then it counts as [`CloudError::Unreachable`], and the next call does not use the
    /// same connection.
    fn lease<'a>(
        &'a self,
        request: &'a LeaseRequest,
        limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>>;
    fn report<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>>;
    fn credential_attempt<'a>(
        &'a self,
        attempt: &'a CredentialAttempt,
    ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>>;
    fn site_key<'a>(&'a self, key: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>>;
}
