//! Downloads on behalf of a BMC: the images of `SimpleUpdate`.
//!
//! As an iDRAC does by default, it does not check the certificate of an HTTPS image server.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{LabError, Shared, trusting};
use crate::model::{Fetch, FetchFailure};

/// Real time after which a download is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn client() -> Result<reqwest::Client, LabError> {
    let builder = trusting::trusting_client()?.timeout(TIMEOUT);
    builder.build().map_err(|error| LabError::Tls(Box::new(error)))
}

pub(super) async fn run(shared: Arc<Shared>, client: reqwest::Client, fetch: Fetch, stop: CancellationToken) {
    let download = async {
        let unreachable = |error: reqwest::Error| FetchFailure::Unreachable(error.without_url().to_string());
        let response = client.get(&fetch.url).send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(FetchFailure::Status(response.status().as_u16()));
        }
        response.bytes().await.map_err(unreachable)
    };
    let result = tokio::select! {
        () = stop.cancelled() => return,
        result = download => result,
    };
    let now = shared.now();
    shared.site().fetched(&fetch, now, result);
}
