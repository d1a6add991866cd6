//! Which transport? Pure: what is able and how each has fared come in, an order to try comes out.
//!
//! Only calls that change nothing are tried over several transports. A mutation goes over the one its intent names.

use std::time::Duration;

use crate::bmc::{BmcErrorKind, Via};

/// Whom a caller wants to be answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The best one that answers.
    Best,
    /// This one, and another only while it does not answer.
    First(Via),
    /// This one.
    Only(Via),
}

/// A transport as the broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub via: Via,
    /// It carries what is asked for.
    pub able: bool,
    /// It has not answered lately and is not asked for so long.
    pub rests: Option<Duration>,
}

/// Nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// No transport carries it.
    Unable,
    /// Those that do are not asked for so long.
    Resting(Duration),
}

/// The transports to try one after the other. `standings` come in the order of preference.
pub fn order(standings: &[Standing], pick: Pick) -> Result<Vec<Via>, Nobody> {
    let wanted = |standing: &&Standing| match pick {
        Pick::Only(via) => standing.able && standing.via == via,
        Pick::Best | Pick::First(_) => standing.able,
    };
    let able: Vec<&Standing> = standings.iter().filter(wanted).collect();
    let mut order: Vec<Via> =
        able.iter().filter(|standing| standing.rests.is_none()).map(|standing| standing.via).collect();
    if let Pick::First(first) = pick {
        order.sort_by_key(|via| *via != first);
    }
    if !order.is_empty() {
        return Ok(order);
    }
    Err(able.iter().filter_map(|standing| standing.rests).min().map_or(Nobody::Unable, Nobody::Resting))
}

/// Whether another transport may be asked instead. Never after a refused credential: the other one would present the
/// same, and cost a second attempt. Nor after a changed key: somebody else may stand at that address.
pub fn falls_through(kind: BmcErrorKind) -> bool {
    matches!(
        kind,
        BmcErrorKind::Unreachable
            | BmcErrorKind::Unsupported
            | BmcErrorKind::NoQueue
            | BmcErrorKind::NotFound
    )
}

/// Of several transports' failures the one to act upon: one that a later try may cure before a verdict.
pub fn more_telling(a: BmcErrorKind, b: BmcErrorKind) -> bool {
    let curable = |kind| matches!(kind, BmcErrorKind::Unreachable);
    curable(a) && !curable(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(7);

    fn standing(via: Via, able: bool, rests: bool) -> Standing {
        Standing { via, able, rests: rests.then_some(REST) }
    }

    #[test]
    fn the_preferred_one_that_is_able_and_answers_comes_first() {
        use Via::{Ipmi, Redfish};
        let both = |able: (bool, bool), rest: (bool, bool)| {
            [standing(Redfish, able.0, rest.0), standing(Ipmi, able.1, rest.1)]
        };
        let (all, none) = ((true, true), (false, false));
        assert_eq!(order(&both(all, none), Pick::Best), Ok(vec![Redfish, Ipmi]));
        assert_eq!(order(&both(all, (true, false)), Pick::Best), Ok(vec![Ipmi]));
        assert_eq!(order(&both((false, true), none), Pick::Best), Ok(vec![Ipmi]));
        assert_eq!(order(&both(all, none), Pick::First(Ipmi)), Ok(vec![Ipmi, Redfish]));
        assert_eq!(order(&both(all, (false, true)), Pick::First(Ipmi)), Ok(vec![Redfish]));
        assert_eq!(order(&both(all, none), Pick::Only(Ipmi)), Ok(vec![Ipmi]));
        assert_eq!(order(&both(all, (false, true)), Pick::Only(Ipmi)), Err(Nobody::Resting(REST)));
        assert_eq!(order(&both((true, false), none), Pick::Only(Ipmi)), Err(Nobody::Unable));
        assert_eq!(order(&both(all, all), Pick::Best), Err(Nobody::Resting(REST)));
        assert_eq!(order(&both(none, none), Pick::Best), Err(Nobody::Unable));
        assert_eq!(order(&[], Pick::Best), Err(Nobody::Unable));
    }

    #[test]
    fn a_refused_credential_or_a_changed_key_is_not_tried_elsewhere() {
        for kind in [BmcErrorKind::Unreachable, BmcErrorKind::Unsupported, BmcErrorKind::NotFound] {
            assert!(falls_through(kind), "{kind:?}");
        }
        for kind in [
            BmcErrorKind::Auth,
            BmcErrorKind::AuthWithheld { final_word: true },
            BmcErrorKind::AuthWithheld { final_word: false },
            BmcErrorKind::KeyChanged,
            BmcErrorKind::NotReady { retry_after: None },
            BmcErrorKind::Refused,
            BmcErrorKind::Ambiguous,
            BmcErrorKind::Held(crate::lease::Hold::Paused),
        ] {
            assert!(!falls_through(kind), "{kind:?}");
        }
        assert!(more_telling(BmcErrorKind::Unreachable, BmcErrorKind::Unsupported));
        assert!(!more_telling(BmcErrorKind::Unsupported, BmcErrorKind::Unreachable));
        assert!(!more_telling(BmcErrorKind::Unreachable, BmcErrorKind::Unreachable));
    }
}
