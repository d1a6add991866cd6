//! One handler for each job kind, and what they share: reading a state back, and undoing what is left open.

pub mod boot_override;
pub mod firmware_update;
pub mod inventory;
pub mod power;
mod restart;
pub mod settle;
mod work;

use rackhand_schema::{job::JobSpec, protocol::Finish, run::Outcome};

use crate::engine::{Context, Stop};

/// Carries out the granted run to its end and reports it.
///
/// # Errors
/// [`Stop`]: the run goes on elsewhere, or nowhere for now.
pub async fn run(context: &mut Context) -> Result<(), Stop> {
    context.await_predecessor().await?;
    context.drop_unannounced().await?;
    let grant = std::sync::Arc::clone(&context.grant);
    let ending = grant.settle.clone().or_else(|| settle::interrupted(&grant.checkpoint));
    let worked: Result<Finish, Stop> = match (ending, &grant.spec) {
        (Some(finish), _) => Ok(finish),
        (None, JobSpec::Inventory(_)) => inventory::run(context).await,
        (None, JobSpec::Power(params)) => power::run(context, params.action).await,
        (None, JobSpec::BootOverride(params)) => boot_override::run(context, *params).await,
        (None, JobSpec::FirmwareUpdate(params)) => firmware_update::run(context, params).await,
    };
    let finish = match worked {
        Err(Stop::TooLarge(unkept)) => context.cannot_report(&unkept).await?,
        worked => worked?,
    };
    let finish = settle::settle(context, finish).await?;
    if grant.spec.mutates() && touched(&finish) {
        inventory::refresh(context).await?;
    }
    context.finish(finish).await
}

/// Whether the server may differ from what its last inventory says, and can be asked.
fn touched(finish: &Finish) -> bool {
    let code = finish.code.as_str();
    match finish.outcome {
        Outcome::Succeeded | Outcome::Unknown => true,
        Outcome::Failed => ["device-", "version-", "power-"].iter().any(|kind| code.starts_with(kind)),
        Outcome::NoChange | Outcome::Cancelled => false,
    }
}
