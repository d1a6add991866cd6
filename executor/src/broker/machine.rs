//! Is this the machine that the plan names? Pure.
//!
//! A service tag decides, else the UUID. Where nothing can be compared the answer is [`Verdict::Untold`]: the run may
//! go on, and says so.

use rackhand_schema::{job::Machine, protocol::GrantTarget};

use crate::bmc::Shown;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// What was expected and what was found, in words.
    Another(String),
    /// Why nothing could be compared, in words.
    Untold(String),
}

/// What makers leave in a field that nobody has filled in.
const PLACEHOLDERS: [&str; 10] = [
    "none",
    "n/a",
    "na",
    "unknown",
    "not specified",
    "not available",
    "default string",
    "system serial number",
    "to be filled by o.e.m.",
    "to be filled by oem",
];

/// The text as it is compared; none when it identifies nothing.
fn telling(text: Option<&str>) -> Option<String> {
    let text = text?.trim().to_ascii_lowercase();
    let blank = text.chars().all(|c| matches!(c, '0' | 'f' | 'x' | '-' | '.' | ' '));
    (!blank && !PLACEHOLDERS.contains(&text.as_str())).then_some(text)
}

/// Whether `expected` names something to compare with what a BMC shows.
pub fn identifies(expected: &Machine) -> bool {
    telling(expected.service_tag.as_deref()).is_some() || telling(expected.uuid.as_deref()).is_some()
}

/// What of the BMC's registration is not as the plan has it.
pub fn moved(expected: &Machine, target: &GrantTarget) -> Option<&'static str> {
    if expected.url.as_ref().is_some_and(|url| *url != target.url) {
        return Some("the address of its BMC has changed since the plan");
    }
    if expected.url.is_some() && expected.ipmi != target.ipmi {
        return Some("the IPMI address of its BMC has changed since the plan");
    }
    if expected.spki_sha256.is_some() && expected.spki_sha256 != target.spki_sha256 {
        return Some("another TLS key was approved for its BMC since the plan");
    }
    None
}

pub fn compare(expected: &Machine, shown: &Shown) -> Verdict {
    let another = |what: &str, wanted: &str, found: &str| {
        Verdict::Another(format!("the plan is for {what} {wanted}, the BMC shows {found}"))
    };
    if let Some(wanted) = telling(expected.service_tag.as_deref()) {
        let is = |text: &str| telling(Some(text)).as_deref() == Some(wanted.as_str());
        if shown.tag.as_deref().is_some_and(is) || shown.serials.iter().any(|serial| is(serial)) {
            return Verdict::Same;
        }
        if let Some(found) = telling(shown.tag.as_deref()) {
            return another("service tag", &wanted.to_ascii_uppercase(), &found.to_ascii_uppercase());
        }
    }
    match (telling(expected.uuid.as_deref()), telling(shown.uuid.as_deref())) {
        (Some(wanted), Some(found)) if wanted == found => Verdict::Same,
        (Some(wanted), Some(found)) => another("UUID", &wanted, &found),
        _ => Verdict::Untold("it shows neither the service tag nor the UUID that the plan names".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(expected: (&str, &str), tag: &str, serials: &[&str], uuid: &str) -> Verdict {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let machine = Machine { service_tag: text(expected.0), uuid: text(expected.1), ..Machine::default() };
        let serials = serials.iter().map(|serial| (*serial).to_owned()).collect();
        compare(&machine, &Shown { tag: text(tag), serials, uuid: text(uuid) })
    }

    #[test]
    fn a_tag_decides_and_a_uuid_stands_in() {
        assert_eq!(judged(("ABC1234", ""), " abc1234", &[], ""), Verdict::Same);
        assert_eq!(judged(("ABC1234", "1-2"), "ABC1234", &[], "1-3"), Verdict::Same);
        assert_eq!(judged(("ABC1234", ""), "", &["CN7", "ABC1234"], ""), Verdict::Same);
        assert!(matches!(judged(("ABC1234", ""), "XYZ9876", &["CN7"], ""), Verdict::Another(_)));
        assert!(matches!(judged(("ABC1234", "1-2"), "XYZ9876", &[], "1-2"), Verdict::Another(_)));
        assert_eq!(judged(("", "1-2"), "XYZ9876", &[], "1-2"), Verdict::Same);
        assert!(matches!(judged(("", "1-2"), "", &[], "1-3"), Verdict::Another(_)));
    }

    #[test]
    fn what_says_nothing_is_not_compared() {
        assert!(matches!(judged(("ABC1234", ""), "", &["CN7"], "1-2"), Verdict::Untold(_)));
        assert!(matches!(judged(("ABC1234", ""), "Not Specified", &[], ""), Verdict::Untold(_)));
        let zeros = "00000000-0000-0000-0000-000000000000";
        assert!(matches!(judged(("", "1-2"), "", &[], zeros), Verdict::Untold(_)));
        assert!(!identifies(&Machine { uuid: Some(zeros.to_owned()), ..Machine::default() }));
        assert!(identifies(&Machine { service_tag: Some("ABC1234".to_owned()), ..Machine::default() }));
    }
}
