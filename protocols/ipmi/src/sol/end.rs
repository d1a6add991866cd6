//! Why a console is over.

/// How an active SOL stream ended. It comes at a read or a write inside an `io::Error`; [`SolEnd::of`] takes it out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SolEnd {
    #[error("the BMC ended the console")]
    Deactivated,
    #[error("another session took the console over (session {session:#010x})")]
    TakenOver { session: u32 },
    #[error("the session with the BMC is lost: {0}")]
    SessionLost(String),
    /// The BMC may or may not have given these bytes to the host. A BMC that does not answer a repeated packet ends so
    /// after one lost answer; see the [machine](super::Machine).
    #[error(
        "the BMC does not acknowledge any more; the last {unacknowledged} bytes may or may not have reached the host: \
         look before they are typed again"
    )]
    TooManyRetries { unacknowledged: usize },
    #[error("the console was closed")]
    Closed,
}

impl SolEnd {
    /// The end inside an error of a [`super::SolStream`].
    pub fn of(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}
