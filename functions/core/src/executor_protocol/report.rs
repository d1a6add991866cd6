//! Takes a report apart: each item is checked by itself, so that a bad one never blocks its neighbours.
//!
//! An item that is too large, or that this version does not understand, is quarantined: its number is used
//! up and its text kept, cut short. Only an item without a number is refused.

use rackhand_schema::{
    ErrorCode,
    id::RunId,
    protocol::{ItemResult, ItemStatus, MAX_ITEM_BYTES, MAX_REPORT_ITEMS, Report, ReportItem},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::sanitise::sanitise;
use crate::{
    problem::{Answer, Refusal},
    request::parse,
};

/// How much of a quarantined item is kept, characters.
const KEPT_CHARS: usize = 2000;

/// A report, ready for the database.
pub struct Sorted {
    /// As `rackhand.executor_report` takes them.
    pub items: Vec<Value>,
    /// What cannot even be numbered.
    pub refused: Vec<ItemResult>,
}

/// # Errors
/// When the body is not a report at all, or has too many items.
pub fn sort_out(body: &[u8]) -> Answer<Sorted> {
    let text = String::from_utf8_lossy(body);
    let text = sanitise(&text);
    let report: Report = parse(text.as_bytes())?;
    if report.items.len() > MAX_REPORT_ITEMS {
        return Err(Refusal::invalid("items", format!("at most {MAX_REPORT_ITEMS} in one report")));
    }
    let mut sorted = Sorted { items: Vec::new(), refused: Vec::new() };
    for (index, raw) in report.items.iter().enumerate() {
        match item(index, raw.get()) {
            Some(item) => sorted.items.push(item),
            None => sorted.refused.push(ItemResult {
                index,
                status: ItemStatus::Refused,
                code: Some(ErrorCode::InvalidRequest.as_str().to_owned()),
                expected_seq: None,
            }),
        }
    }
    Ok(sorted)
}

fn item(index: usize, raw: &str) -> Option<Value> {
    #[derive(Deserialize)]
    struct Number {
        run_id: RunId,
        epoch: u64,
        seq: u64,
    }
    let Number { run_id, epoch, seq } = serde_json::from_str(raw).ok()?;
    // Postgres counts in signed 64 bits.
    if i64::try_from(epoch).is_err() || i64::try_from(seq).is_err() {
        return None;
    }
    let quarantine = |reason: &str| {
        let text: String = raw.chars().take(KEPT_CHARS).collect();
        json!({
            "index": index, "run_id": run_id, "epoch": epoch, "seq": seq,
            "quarantine": {"reason": reason, "text": text},
        })
    };
    if raw.len() > MAX_ITEM_BYTES {
        return Some(quarantine("too_large"));
    }
    let body = serde_json::from_str::<ReportItem>(raw).and_then(|item| serde_json::to_value(&item.body));
    Some(match body {
        Ok(body) => json!({"index": index, "run_id": run_id, "epoch": epoch, "seq": seq, "body": body}),
        Err(_) => quarantine("not_understood"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "01920000-0000-7000-8000-000000000001";

    fn event(seq: u64, message: &str) -> String {
        format!(
            r#"{{"run_id":"{RUN}","epoch":1,"seq":{seq},"type":"event","level":"info","message":"{message}"}}"#
        )
    }

    #[test]
    fn bad_items_are_set_aside_and_good_ones_go_on() {
        let large = event(4, &"x".repeat(MAX_ITEM_BYTES));
        let deep = format!(
            r#"{{"run_id":"{RUN}","epoch":1,"seq":6,"type":"event","level":"info","message":"m","data":{}{}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        let items = [
            event(1, "good"),
            event(2, r"nul \u0000 and \ud800 lone"),
            format!(r#"{{"run_id":"{RUN}","epoch":1,"seq":3,"type":"from_the_future"}}"#),
            large,
            r#"{"epoch":1}"#.to_owned(),
            deep,
            "17".to_owned(),
            format!(r#"{{"run_id":"{RUN}","epoch":1,"seq":18446744073709551615,"type":"event"}}"#),
            event(7, "good"),
        ];
        let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
        let sorted = sort_out(body.as_bytes()).unwrap();
        let seen: Vec<_> = sorted
            .items
            .iter()
            .map(|item| (item["index"].as_u64().unwrap(), item["quarantine"]["reason"].as_str()))
            .collect();
        let expected = [
            (0, None),
            (1, None),
            (2, Some("not_understood")),
            (3, Some("too_large")),
            (5, Some("not_understood")),
            (8, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(sorted.items[1]["body"]["message"], r"nul \u0000 and \ud800 lone");
        assert_eq!(sorted.refused.iter().map(|result| result.index).collect::<Vec<_>>(), [4, 6, 7]);
    }

    #[test]
    fn invalid_utf8_in_one_item_spares_the_others() {
        let mut body = format!(r#"{{"items":[{},"#, event(1, "good")).into_bytes();
        let bad = event(2, "bad @@");
        body.extend(bad.bytes().map(|byte| if byte == b'@' { 0xff } else { byte }));
        body.extend_from_slice(b"]}");
        let sorted = sort_out(&body).unwrap();
        assert_eq!(sorted.items.len(), 2);
        assert_eq!(sorted.items[1]["body"]["message"], "bad \u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert_eq!(sort_out(b"{").err().unwrap().code, ErrorCode::MalformedJson);
        assert_eq!(sort_out(b"{}").err().unwrap().code, ErrorCode::InvalidRequest);
        let many = format!(r#"{{"items":[{}1]}}"#, "1,".repeat(MAX_REPORT_ITEMS));
        assert_eq!(sort_out(many.as_bytes()).err().unwrap().code, ErrorCode::InvalidRequest);
    }
}
