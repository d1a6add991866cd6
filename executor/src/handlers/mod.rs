//! One handler for each job kind, and what they share: reading a state back, and undoing what is left open.

pub mod firmware_update;
pub mod inventory;
pub mod power;
pub mod settle;

use rackhand_schema::{job::JobSpec, protocol::Finish};

use crate::engine::{Context, Stop};

/// Carries out the granted run to its end and reports it.
///
/// # Errors
/// [`Stop`]: the run goes on elsewhere, or nowhere for now.
pub async fn run(context: &mut Context) -> Result<(), Stop> {
    context.await_predecessor().await?;
    let grant = std::sync::Arc::clone(&context.grant);
    let ending = grant.settle.clone().or_else(|| settle::interrupted(&grant.checkpoint));
    let finish: Finish = match (ending, &grant.spec) {
        (Some(finish), _) => finish,
        (None, JobSpec::Inventory(_)) => inventory::run(context).await?,
        (None, JobSpec::Power(params)) => power::run(context, params.action).await?,
        (None, JobSpec::FirmwareUpdate(params)) => firmware_update::run(context, params).await?,
    };
    let finish = settle::settle(context, finish).await?;
    context.finish(finish).await
}
