//! What a handler can do about an error of the IPMI client.
//!
//! The same error means different things before a session, in a read and in a mutation: outside a session nothing has
//! happened; a lost answer to a mutation leaves open whether it has.

use rackhand_ipmi::{CompletionCode, Error, error::PrivilegeRefusal, sol::SolError};
use rackhand_redfish::AuthOutcome;

use crate::bmc::{BmcError, BmcErrorKind};

const BUSY: BmcErrorKind = BmcErrorKind::NotReady { retry_after: None };

/// No session came of it.
pub fn opening(error: &Error) -> BmcError {
    let kind = match error {
        Error::Credentials { .. } => BmcErrorKind::Auth,
        Error::NoAnswer { .. } | Error::System { .. } | Error::Closed | Error::ClosedByBmc => {
            BmcErrorKind::Unreachable
        }
        Error::NoFreeSession | Error::SessionRefused { .. } | Error::Malformed(_) => BUSY,
        // This user has no rights over LAN, this password is too long for IPMI, this BMC speaks 1.5 only, or
        // offers nothing that is safe: another transport may do.
        Error::Privilege { .. } | Error::Request(_) | Error::NoRmcpPlus | Error::SuiteRefused { .. } => {
            BmcErrorKind::Unsupported
        }
        _ => BmcErrorKind::Refused,
    };
    BmcError::new(kind, format!("IPMI: {error}"))
}

/// What an attempt to log in says about the password.
pub fn judged(error: &Error) -> AuthOutcome {
    match error {
        Error::Credentials { .. } => AuthOutcome::Rejected,
        // The BMC's own proof did fit the password.
        Error::BmcKey | Error::NoProof | Error::Privilege { why: PrivilegeRefusal::Completion(_), .. } => {
            AuthOutcome::Accepted
        }
        // Our proof was sent; what the BMC thinks of it is not known.
        Error::NoAnswer { to: "RAKP message 3", .. } | Error::Closed | Error::ClosedByBmc => {
            AuthOutcome::Unknown
        }
        _ => AuthOutcome::NotSent,
    }
}

/// A command was refused or its answer lost.
pub fn command(error: &Error, mutates: bool) -> BmcError {
    let lost = if mutates { BmcErrorKind::Ambiguous } else { BmcErrorKind::Unreachable };
    let unclear = if mutates { BmcErrorKind::Ambiguous } else { BUSY };
    let kind = match error {
        Error::Refused { completion, .. } => match *completion {
            CompletionCode::NODE_BUSY
            | CompletionCode::OUT_OF_SPACE
            | CompletionCode::SDR_UPDATING
            | CompletionCode::FIRMWARE_UPDATING
            | CompletionCode::INITIALISING => BUSY,
            CompletionCode::TIMEOUT | CompletionCode::NO_RESPONSE | CompletionCode::UNSPECIFIED => unclear,
            // These are verdicts, not moods.
            CompletionCode::INVALID_COMMAND
            | CompletionCode::INVALID_FOR_LUN
            | CompletionCode::PRIVILEGE
            | CompletionCode::DISABLED => BmcErrorKind::Unsupported,
            _ => BmcErrorKind::Refused,
        },
        Error::Malformed(_) => unclear,
        Error::NoAnswer { .. } | Error::ClosedByBmc | Error::Closed => lost,
        Error::System { .. } => BmcErrorKind::Unreachable,
        _ => BmcErrorKind::Refused,
    };
    BmcError::new(kind, format!("IPMI: {error}"))
}

/// No console.
pub fn console(error: &SolError) -> BmcError {
    match error {
        SolError::Bmc(error) => command(error, false),
        SolError::InUse(_) | SolError::LimitReached => BmcError::new(BUSY, format!("IPMI: {error}")),
        SolError::Disabled => BmcError::new(BmcErrorKind::Unsupported, format!("IPMI: {error}")),
        _ => BmcError::new(BmcErrorKind::Refused, format!("IPMI: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rackhand_ipmi::{NetFn, error::Rejection};

    use super::*;

    fn refused(code: u8) -> Error {
        Error::Refused { completion: CompletionCode(code), net_fn: NetFn::CHASSIS, code: 2 }
    }

    #[test]
    fn a_lost_answer_is_ambiguous_for_a_mutation_only() {
        let lost = Error::NoAnswer { to: "command", attempts: 1 };
        for error in [&lost, &Error::ClosedByBmc, &Error::Closed] {
            assert_eq!(command(error, true).kind, BmcErrorKind::Ambiguous);
            assert_eq!(command(error, false).kind, BmcErrorKind::Unreachable);
        }
        assert_eq!(opening(&lost).kind, BmcErrorKind::Unreachable);
    }

    #[test]
    fn d43_completion_codes_are_verdicts_or_moods() {
        for (code, kind) in [
            (0xc0, BUSY),
            (0xc1, BmcErrorKind::Unsupported),
            (0xd4, BmcErrorKind::Unsupported),
            (0xd5, BmcErrorKind::Refused),
            (0xcc, BmcErrorKind::Refused),
            (0xff, BmcErrorKind::Ambiguous),
            (0xc3, BmcErrorKind::Ambiguous),
        ] {
            assert_eq!(command(&refused(code), true).kind, kind, "{code:#x}");
        }
    }

    #[test]
    fn only_a_refused_password_counts_against_it() {
        let wrong = Error::Credentials { by: Rejection::Code };
        assert_eq!(judged(&wrong), AuthOutcome::Rejected);
        assert_eq!(opening(&wrong).kind, BmcErrorKind::Auth);
        assert_eq!(judged(&Error::NoFreeSession), AuthOutcome::NotSent);
        assert_eq!(
            judged(&Error::NoAnswer { to: "Open Session Request", attempts: 4 }),
            AuthOutcome::NotSent
        );
        assert_eq!(judged(&Error::NoAnswer { to: "RAKP message 3", attempts: 4 }), AuthOutcome::Unknown);
        assert_eq!(judged(&Error::BmcKey), AuthOutcome::Accepted);
    }
}
