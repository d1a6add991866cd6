//! Getting the serial port, and taking back one that a lost session of ours still holds.
//!
//! A BMC has one console. When it is taken, only a session that is provably ours is put out: the one speaking now
//! (its first activation was answered, but the answer was lost), or the one that the caller remembered as an
//! [`OwnSession`]. Anybody else keeps the console, and the error names the holder.

use std::{fmt, net::SocketAddrV4, time::Duration};

use tokio::time::sleep;

use super::{
    commands::{ActivatePayload, DeactivatePayload, GetPayloadInstanceInfo, Payload},
    machine::Settings,
    packet::{HEADER, MAX_CHARACTERS},
};
use crate::{Carrier, Command as _, CompletionCode, Error, commands::device::GetSessionInfo};

/// A session of ours that held a console: worth keeping until the console is known to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnSession {
    /// The session as the BMC names the holder of the console.
    pub session_id: u32,
    /// The user's number in the BMC's table, where the BMC told it.
    pub user: Option<u8>,
    /// Our own address and port, as the BMC saw them.
    pub console: Option<SocketAddrV4>,
}

/// How to activate.
#[derive(Clone, Debug)]
pub struct SolOptions {
    /// Which of the BMC's SOL instances, from 1.
    pub instance: u8,
    pub encryption: bool,
    pub authentication: bool,
    /// A session whose console may be put out.
    pub remembered: Option<OwnSession>,
    /// The session that speaks now, by the BMC's id.
    pub session_id: Option<u32>,
    pub settings: Settings,
}

impl Default for SolOptions {
    fn default() -> Self {
        Self {
            instance: 1,
            encryption: true,
            authentication: true,
            remembered: None,
            session_id: None,
            settings: Settings::default(),
        }
    }
}

/// An active payload.
#[derive(Clone, Debug)]
pub struct Activated {
    pub instance: u8,
    pub payload: Payload,
    /// To be remembered; `None` when the BMC does not tell who holds the console.
    pub own: Option<OwnSession>,
    /// A console of ours had to be put out first.
    pub recovered: bool,
    pub settings: Settings,
}

/// Who has the console.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holder {
    /// `None`: the BMC does not tell, or holds it for nobody.
    pub session_id: Option<u32>,
    /// The user's number in the BMC's table.
    pub user: Option<u8>,
    pub console: Option<SocketAddrV4>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(id) = self.session_id else { return f.write_str("a session that the BMC does not name") };
        write!(f, "session {id:#010x}")?;
        if let Some(user) = self.user {
            write!(f, ", user {user}")?;
        }
        if let Some(console) = self.console {
            write!(f, ", from {console}")?;
        }
        Ok(())
    }
}

/// Why there is no console (completion codes of section 24.1).
#[derive(Clone, Debug, thiserror::Error)]
pub enum SolError {
    #[error("the console is in use by {0}")]
    InUse(Holder),
    #[error("Serial-over-LAN is disabled on the BMC")]
    Disabled,
    #[error("the BMC has no room for another console")]
    LimitReached,
    #[error("the BMC does not give an encrypted console")]
    EncryptionRefused,
    #[error("the BMC gives only an encrypted console")]
    EncryptionRequired,
    #[error(transparent)]
    Bmc(#[from] Error),
}

const ALREADY: CompletionCode = CompletionCode(0x80);
/// A BMC may need a while to let go of a console; it is asked this often, this far apart.
const TRIES: u32 = 6;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Activates SOL in the session that `carrier` is. See the module for what happens when it is taken.
pub async fn activate(carrier: &impl Carrier, options: &SolOptions) -> Result<Activated, SolError> {
    let SolOptions { instance, encryption, authentication, .. } = *options;
    let command = ActivatePayload { instance, encryption, authentication };
    let mut recovered = false;
    for attempt in 1.. {
        let request = command.request();
        let (net_fn, code) = (request.net_fn, request.code);
        let (completion, data) = carrier.carry(request).await?;
        match completion.0 {
            0x00 => {
                let payload = command.parse(&data).map_err(Error::from)?;
                let found = holder(carrier, instance).await?;
                let own = found.session_id.map(|session_id| OwnSession {
                    session_id,
                    user: found.user,
                    console: found.console,
                });
                let settings = fit(&options.settings, payload);
                return Ok(Activated { instance, payload, own, recovered, settings });
            }
            0x80 => {
                let found = holder(carrier, instance).await?;
                let ours = is_ours(&found, options);
                // Nobody holds it: the BMC is just letting go.
                if attempt >= TRIES || !(ours || found.session_id.is_none() && recovered) {
                    return Err(SolError::InUse(found));
                }
                if ours {
                    deactivate(carrier, instance).await?;
                    recovered = true;
                }
                if attempt > 1 {
                    sleep(BETWEEN_TRIES).await;
                }
            }
            0x81 => return Err(SolError::Disabled),
            0x82 => return Err(SolError::LimitReached),
            0x83 => return Err(SolError::EncryptionRefused),
            0x84 => return Err(SolError::EncryptionRequired),
            _ => return Err(Error::Refused { completion, net_fn, code }.into()),
        }
    }
    Err(SolError::InUse(Holder::default()))
}

/// Who holds the instance. A BMC that refuses to tell leaves it empty.
pub async fn holder(carrier: &impl Carrier, instance: u8) -> Result<Holder, Error> {
    let session_id = match carrier.run(&GetPayloadInstanceInfo { instance }).await {
        Ok(info) => info.session_id,
        Err(Error::Refused { .. } | Error::Malformed(_)) => None,
        Err(error) => return Err(error),
    };
    let Some(id) = session_id else { return Ok(Holder::default()) };
    let session = match carrier.run(&GetSessionInfo::Id(id)).await {
        Ok(info) => info.session,
        Err(Error::Refused { .. } | Error::Malformed(_)) => None,
        Err(error) => return Err(error),
    };
    let console = session.and_then(|session| session.console);
    Ok(Holder {
        session_id,
        user: session.map(|session| session.user),
        console: console.map(|(address, port)| SocketAddrV4::new(address.into(), port)),
    })
}

/// Ends the instance; that it was not active is as good.
pub(super) async fn deactivate(carrier: &impl Carrier, instance: u8) -> Result<(), Error> {
    match carrier.run(&DeactivatePayload { instance }).await {
        Err(Error::Refused { completion: ALREADY, .. }) => Ok(()),
        other => other,
    }
}

/// Ids are used again after a restart of the BMC: what it tells of user and address must not speak against us.
fn is_ours(holder: &Holder, options: &SolOptions) -> bool {
    let Some(id) = holder.session_id else { return false };
    if options.session_id == Some(id) {
        return true;
    }
    let Some(own) = options.remembered.filter(|own| own.session_id == id) else { return false };
    fn agrees<T: PartialEq>(known: Option<T>, told: Option<T>) -> bool {
        known.is_none() || told.is_none() || known == told
    }
    agrees(own.user, holder.user) && agrees(own.console, holder.console)
}

/// The largest packet that the BMC takes. A size that cannot be (too small, or more than one byte can count: both are
/// seen in the field) is answered with packets that everybody takes.
fn fit(settings: &Settings, payload: Payload) -> Settings {
    const SAFE: usize = 64;
    let size = usize::from(payload.inbound_size);
    let characters =
        if (HEADER + 1..=HEADER + MAX_CHARACTERS).contains(&size) { size - HEADER } else { SAFE };
    Settings { characters: settings.characters.min(characters), ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Request;

    /// A BMC whose console has one holder.
    struct Bmc {
        /// Session id, user, last byte of the address.
        held_by: Mutex<Option<(u32, u8, u8)>>,
        me: u32,
        log: Mutex<Vec<u8>>,
    }

    impl Bmc {
        fn new(held_by: Option<(u32, u8, u8)>) -> Self {
            Self { held_by: Mutex::new(held_by), me: 0x77, log: Mutex::default() }
        }
    }

    impl Carrier for Bmc {
        async fn carry(&self, request: Request) -> Result<(CompletionCode, Vec<u8>), Error> {
            let mut held_by = self.held_by.lock().unwrap();
            self.log.lock().unwrap().push(request.code);
            let id = held_by.map_or(0, |held| held.0);
            Ok(match request.code {
                0x48 if held_by.is_some() => (ALREADY, vec![]),
                0x48 => {
                    *held_by = Some((self.me, 2, 1));
                    (CompletionCode::OK, vec![0, 0, 0, 0, 36, 0, 36, 0, 0x6f, 2, 0xff, 0xff])
                }
                0x49 => {
                    *held_by = None;
                    (CompletionCode::OK, vec![])
                }
                0x4b => (CompletionCode::OK, [id.to_le_bytes().to_vec(), vec![1; 8]].concat()),
                0x3d => {
                    let (_, user, last) = held_by.unwrap();
                    let lan = vec![1, 4, 1, user, 4, 0x11, 10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0x39, 0x30];
                    (CompletionCode::OK, lan)
                }
                other => panic!("{other:#x}"),
            })
        }
    }

    fn remembered(session_id: u32, last: u8) -> SolOptions {
        let console = Some(SocketAddrV4::new([10, 0, 0, last].into(), 12345));
        let own = OwnSession { session_id, user: Some(2), console };
        SolOptions { remembered: Some(own), ..SolOptions::default() }
    }

    #[tokio::test]
    async fn a_free_console_is_activated_and_its_session_is_known() {
        let activated = activate(&Bmc::new(None), &SolOptions::default()).await.unwrap();
        assert_eq!(activated.own, remembered(0x77, 1).remembered);
        assert_eq!((activated.recovered, activated.settings.characters), (false, 32));
    }

    #[tokio::test]
    async fn d39_our_own_stale_console_is_put_out() {
        let bmc = Bmc::new(Some((0x55, 2, 1)));
        let activated = activate(&bmc, &remembered(0x55, 1)).await.unwrap();
        assert!(activated.recovered);
        assert_eq!(*bmc.log.lock().unwrap(), [0x48, 0x4b, 0x3d, 0x49, 0x48, 0x4b, 0x3d]);
    }

    #[tokio::test]
    async fn an_activation_whose_answer_was_lost_is_ours() {
        let bmc = Bmc::new(Some((0x77, 2, 1)));
        let options = SolOptions { session_id: Some(0x77), ..SolOptions::default() };
        assert!(activate(&bmc, &options).await.unwrap().recovered);
    }

    /// Nobody else's console is ever put out: not without a memory, not with another id, not when the id was given to
    /// another user or another machine.
    #[tokio::test]
    async fn d39_anybody_elses_console_stays() {
        let cases = [
            (SolOptions::default(), (0x55, 2, 1)),
            (remembered(0x54, 1), (0x55, 2, 1)),
            (remembered(0x55, 1), (0x55, 3, 1)),
            (remembered(0x55, 1), (0x55, 2, 9)),
        ];
        for (options, held) in cases {
            let bmc = Bmc::new(Some(held));
            let error = activate(&bmc, &options).await.unwrap_err();
            let SolError::InUse(found) = &error else { panic!("{error}") };
            assert_eq!(found.session_id, Some(0x55));
            assert!(!bmc.log.lock().unwrap().contains(&0x49), "{options:?}");
            let text = error.to_string();
            assert!(text.starts_with("the console is in use by session 0x00000055, user "), "{text}");
        }
    }

    #[test]
    fn d43_a_size_that_cannot_be_is_not_believed() {
        let characters = |inbound_size| {
            fit(&Settings::default(), Payload { inbound_size, outbound_size: 0, port: 623 }).characters
        };
        assert_eq!([259, 255, 5, 4, 0, 1024, 0xffff].map(characters), [255, 251, 1, 64, 64, 64, 64]);
    }
}
