//! Versions of firmware, compared as people read them. The planner decides by them what to plan, the executor
//! whether a device has what was planned: one comparison for both.

use std::cmp::Ordering;

/// Compares versions number by number, a missing number being 0: where it tells, as the Redfish client does.
/// `None` where a part is neither a number nor equal text, and for no version at all.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (mut left, mut right) = (parts(a).peekable(), parts(b).peekable());
    if left.peek().is_none() || right.peek().is_none() {
        return (a == b).then_some(Ordering::Equal);
    }
    loop {
        let (l, r) = match (left.next(), right.next()) {
            (None, None) => return Some(Ordering::Equal),
            (l, r) => (l.unwrap_or("0"), r.unwrap_or("0")),
        };
        let order = match (number(l), number(r)) {
            (Some(l), Some(r)) => l.len().cmp(&r.len()).then_with(|| l.cmp(r)),
            _ if l.eq_ignore_ascii_case(r) => Ordering::Equal,
            _ => return None,
        };
        if order.is_ne() {
            return Some(order);
        }
    }
}

/// Whether both are the same version, however it is written: `1.15.2`, `01.15.02` and `1.15.2.0` are.
pub fn same(a: &str, b: &str) -> bool {
    compare(a, b) == Some(Ordering::Equal)
}

/// Whether both are written in one form: in numbers alone, or number for number and word for word. Two that are not
/// may be one version: an iLO's manager runs `iLO 5 v2.72` where its inventory has `2.72 Sep 04 2022`.
pub fn alike(a: &str, b: &str) -> bool {
    fn form(version: &str) -> impl Iterator<Item = bool> {
        parts(version).map(|part| number(part).is_some())
    }
    form(a).eq(form(b)) || form(a).chain(form(b)).all(|is_number| is_number)
}

fn parts(version: &str) -> impl Iterator<Item = &str> {
    version.split(['.', '-', '_', ' ']).filter(|part| !part.is_empty())
}

/// The digits of a decimal number of any length, without leading zeros.
fn number(part: &str) -> Option<&str> {
    part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (a, b, expected) in [
            ("1.9", "1.10", Some(Ordering::Less)),
            ("2.9.1", "2.10.0", Some(Ordering::Less)),
            ("2.10", "2.10.0", Some(Ordering::Equal)),
            ("5.00.00.00", "5.00", Some(Ordering::Equal)),
            ("1.15.2", "01.15.02", Some(Ordering::Equal)),
            ("1.15.2", "1.15.20", Some(Ordering::Less)),
            ("18446744073709551617", "018446744073709551616", Some(Ordering::Greater)),
            ("A01", "a01", Some(Ordering::Equal)),
            ("A01", "A02", None),
            ("1.9", "1.9 (beta)", None),
            ("1.9-rc1", "1.9", None),
            ("1.9-rc1", "1.10", Some(Ordering::Less)),
            ("1.+9", "1.9", None),
            ("", "1.0", None),
            ("", "", Some(Ordering::Equal)),
        ] {
            assert_eq!(compare(a, b), expected, "{a:?} {b:?}");
            assert_eq!(compare(b, a), expected.map(Ordering::reverse), "{b:?} {a:?}");
            assert_eq!(same(a, b), expected == Some(Ordering::Equal), "{a:?} {b:?}");
        }
    }

    #[test]
    fn versions_are_alike_in_one_form() {
        for (a, b, expected) in [
            ("5.01", "5.02.1", true),
            ("2.9.0-dev-100-gaaa", "2.9.0-dev-123-gbbb", true),
            ("A01", "A02", true),
            ("iLO 5 v2.72", "2.72 Sep 04 2022", false),
            ("CDI308I 1.10 2017-04-19", "CDI308I-1.10", false),
            ("v2.14.0", "2.14.0", false),
        ] {
            assert_eq!((alike(a, b), alike(b, a)), (expected, expected), "{a:?} {b:?}");
        }
    }
}
