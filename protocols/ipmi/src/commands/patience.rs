//! A BMC that is busy with what was asked says so and is asked again, a few times and with growing pauses. A busy
//! node as such is the session's to wait for.

use std::time::Duration;

use crate::{Carrier, Command, CompletionCode, Error};

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// As [`Carrier::run`], but "timeout while processing" and "SDR repository in update mode" are asked again.
pub(crate) async fn run<C: Command + Sync>(carrier: &impl Carrier, command: &C) -> Result<C::Answer, Error> {
    run_unless(carrier, command, |_| false).await
}

/// As [`run`], where `busy` names further codes that mean "later".
pub(crate) async fn run_unless<C: Command + Sync>(
    carrier: &impl Carrier,
    command: &C,
    busy: impl Fn(CompletionCode) -> bool + Send,
) -> Result<C::Answer, Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match carrier.run(command).await {
            Err(Error::Refused { completion, .. })
                if matches!(completion, CompletionCode::TIMEOUT | CompletionCode::SDR_UPDATING)
                    || busy(completion) =>
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            settled => return settled,
        }
    }
    carrier.run(command).await
}

/// The completion code of a refusal; `None` for an error that is not the BMC's answer.
pub(crate) fn refusal(error: &Error) -> Option<CompletionCode> {
    if let Error::Refused { completion, .. } = error { Some(*completion) } else { None }
}

/// Codes by which BMCs say that they were asked for too much at once.
pub(crate) fn wants_less(completion: CompletionCode) -> bool {
    matches!(
        completion,
        CompletionCode::CANNOT_RETURN_LENGTH
            | CompletionCode::LENGTH_INVALID
            | CompletionCode::LENGTH_LIMIT_EXCEEDED
            | CompletionCode::OUT_OF_RANGE
            | CompletionCode::UNSPECIFIED
    )
}
