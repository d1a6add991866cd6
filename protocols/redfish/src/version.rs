//! Which generation of BMC, and how two firmware versions compare.
//!
//! iDRAC10 counts from 1.x again, so a version means nothing without its generation: `1.30.10.50` of an iDRAC10 is
//! newer than `7.00.60.00` of an iDRAC9 (dellemc-openmanage-ansible-modules issue 1103).

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// The generation of a BMC. Ordered: a later Dell generation is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generation {
    /// Not a Dell iDRAC, or one that cannot be told.
    Other,
    /// 12th generation PowerEdge.
    Idrac7,
    /// 13th generation PowerEdge.
    Idrac8,
    /// 14th to 16th generation PowerEdge.
    Idrac9,
    /// 17th generation PowerEdge.
    Idrac10,
}

impl Generation {
    /// From the `Model` of a Dell manager, such as `15G Monolithic` (recorded on an R750) or `13G DCS`.
    #[must_use]
    pub fn from_manager_model(model: &str) -> Self {
        let digits = model.trim().split_once(['G', 'g']).map(|(digits, _)| digits);
        match digits.and_then(|digits| digits.parse::<u8>().ok()) {
            Some(12) => Self::Idrac7,
            Some(13) => Self::Idrac8,
            Some(14..=16) => Self::Idrac9,
            Some(17..) => Self::Idrac10,
            _ => Self::Other,
        }
    }

    /// From the `Model` of a PowerEdge: the digit after the first is the generation (`R730` 13G, `R750` 15G,
    /// `R660` 16G), and 17G names such as `R670` and `R7725` have a 7 there.
    #[must_use]
    pub fn from_system_model(model: &str) -> Self {
        let Some(name) = model.strip_prefix("PowerEdge ") else { return Self::Other };
        let digits: Vec<u8> = name
            .bytes()
            .skip_while(u8::is_ascii_alphabetic)
            .take_while(u8::is_ascii_digit)
            .map(|byte| byte - b'0')
            .collect();
        let digit = match digits.as_slice() {
            [_, generation, _] | [_, generation, _, _] => *generation,
            _ => return Self::Other,
        };
        match digit {
            2 => Self::Idrac7,
            3 => Self::Idrac8,
            4..=6 => Self::Idrac9,
            7 => Self::Idrac10,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "other",
            Self::Idrac7 => "iDRAC7",
            Self::Idrac8 => "iDRAC8",
            Self::Idrac9 => "iDRAC9",
            Self::Idrac10 => "iDRAC10",
        })
    }
}

/// Compares two versions part by part; parts are split at `.`, `-`, `_` and blanks, and missing parts count as 0:
/// `2.1 = 2.1.0`, `6.00.30.00 < 6.10.00.00`. Without leading zeros the shorter part is less, equally long ones
/// compare as text without case: right for decimal numbers of any length and for the hexadecimal parts of power
/// supplies (`00.1B.53 < 00.20.53 < 00.2A.2B`).
#[must_use]
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    for at in 0..left.len().max(right.len()) {
        let pair = (left.get(at).copied().unwrap_or("0"), right.get(at).copied().unwrap_or("0"));
        let order = compare_parts(pair.0, pair.1);
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Compares BMC firmware of possibly different generations: generation first, version second.
///
/// ```
/// use rackhand_redfish::{Generation, compare_firmware};
/// let idrac10 = (Generation::Idrac10, "1.30.10.50");
/// assert!(compare_firmware(idrac10, (Generation::Idrac9, "7.00.60.00")).is_gt());
/// ```
#[must_use]
pub fn compare_firmware(left: (Generation, &str), right: (Generation, &str)) -> Ordering {
    left.0.cmp(&right.0).then_with(|| compare_versions(left.1, right.1))
}

fn parts(version: &str) -> Vec<&str> {
    version.split(['.', '-', '_', ' ']).filter(|part| !part.is_empty()).collect()
}

fn compare_parts(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.to_ascii_lowercase().cmp(&right.to_ascii_lowercase()))
}
