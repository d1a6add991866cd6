//! Boot overrides over IPMI: the boot flags (sections 28.12 and 28.13, table 28-14).
//!
//! Setting takes several commands: "set in progress" keeps other consoles out, parameter 4 hands the flags over, and
//! parameter 3 lets them stand until the next boot instead of for 60 s. All but the flags themselves are optional in
//! the specification, so a BMC without them is no failure.

use std::time::Duration;

use futures::future::BoxFuture;
use rackhand_ipmi::{
    Carrier as _, Command, CompletionCode, Error,
    commands::chassis::{
        AcknowledgeBootInfo, BootDevice, BootFlags, GetBootFlags, KeepBootFlags, SetBootFlags, SetInProgress,
    },
};
use rackhand_schema::job::{BootMode, BootOverrideParams, BootTarget, BootTimes};

use super::{IpmiBmc, error, link::Session};
use crate::bmc::{BmcError, BootControl, BootSetting};

/// Another console has "set in progress" (section 28.12).
const IN_PROGRESS: CompletionCode = CompletionCode(0x81);
/// It is asked again so often, so far apart; then it is taken for one that died: setting takes milliseconds.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

fn device(target: BootTarget) -> BootDevice {
    match target {
        BootTarget::None => BootDevice::NoOverride,
        BootTarget::Pxe => BootDevice::Network,
        BootTarget::Disk => BootDevice::Disk,
        BootTarget::Cd => BootDevice::Cdrom,
        BootTarget::BiosSetup => BootDevice::Setup,
    }
}

fn setting(flags: &BootFlags) -> BootSetting {
    let times = if flags.persistent { BootTimes::Continuous } else { BootTimes::Once };
    BootSetting {
        target: match flags.device {
            BootDevice::NoOverride => Some(BootTarget::None),
            BootDevice::Network => Some(BootTarget::Pxe),
            BootDevice::Disk => Some(BootTarget::Disk),
            BootDevice::Cdrom | BootDevice::RemoteCdrom => Some(BootTarget::Cd),
            BootDevice::Setup => Some(BootTarget::BiosSetup),
            _ => None,
        },
        times: flags.valid.then_some(times),
        mode: Some(if flags.uefi { BootMode::Uefi } else { BootMode::Legacy }),
        shown: format!(
            "{:?}, {}, {}",
            flags.device,
            if !flags.valid {
                "not valid"
            } else if flags.persistent {
                "persistent"
            } else {
                "once"
            },
            if flags.uefi { "UEFI" } else { "legacy" }
        ),
    }
}

impl IpmiBmc {
    /// A step that a BMC need not know. Only a lost session ends the work.
    async fn optional<C: Command + Sync>(&self, session: &Session, command: &C) -> Result<(), BmcError> {
        match session.run(command).await {
            Ok(_) | Err(Error::Refused { .. } | Error::Malformed(_)) => Ok(()),
            Err(lost) => {
                self.forget(session).await;
                Err(error::command(&lost, true))
            }
        }
    }

    async fn claim(&self, session: &Session) -> Result<(), BmcError> {
        for attempt in 1..=TRIES {
            match session.run(&SetInProgress(true)).await {
                Err(Error::Refused { completion: IN_PROGRESS, .. }) if attempt < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Error::Refused { completion: IN_PROGRESS, .. }) => {
                    self.optional(session, &SetInProgress(false)).await?;
                    return self.optional(session, &SetInProgress(true)).await;
                }
                Ok(()) | Err(Error::Refused { .. } | Error::Malformed(_)) => return Ok(()),
                // Nothing that matters has been changed yet.
                Err(lost) => {
                    self.forget(session).await;
                    return Err(error::command(&lost, false));
                }
            }
        }
        Ok(())
    }
}

impl BootControl for IpmiBmc {
    fn setting(&self) -> BoxFuture<'_, Result<BootSetting, BmcError>> {
        Box::pin(async move { Ok(setting(&self.ask(GetBootFlags).await?)) })
    }

    fn supports(&self, _wanted: BootOverrideParams) -> BoxFuture<'_, Result<bool, BmcError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn set(&self, wanted: BootOverrideParams, _limit: Duration) -> BoxFuture<'_, Result<(), BmcError>> {
        Box::pin(async move {
            let before = self.ask(GetBootFlags).await?;
            let uefi = wanted.mode.map_or(before.uefi, |mode| mode == BootMode::Uefi);
            let flags = BootFlags {
                valid: wanted.target != BootTarget::None,
                persistent: wanted.target != BootTarget::None && wanted.times == BootTimes::Continuous,
                uefi,
                device: device(wanted.target),
            };
            let session = self.session().await?;
            self.claim(&session).await?;
            self.optional(&session, &AcknowledgeBootInfo).await?;
            self.optional(&session, &KeepBootFlags).await?;
            let result = self.change(&session, &SetBootFlags(flags)).await;
            self.optional(&session, &SetInProgress(false)).await?;
            result
        })
    }
}
