//! Habits of BMCs in the field, one BMC each (`foreign`): what `rackhand bmc` makes of it is right, or named.
//!
//! `executor/tests/simulated/foreign.rs` holds the executor to the same.

use futures::{StreamExt as _, stream};
use rackhand_ipmi_tests::{
    QuirkyBmcs,
    quirky::{Case, cases, same},
};
use serde_json::{Value, json};

use crate::command::{Account, text};

const PASSWORD: &str = "Qu1rky-planted";
const VERBS: [&str; 5] = ["inspect", "sensors", "sel", "fru", "users"];
/// Commands at once.
const WIDTH: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_foreign_bmcs_say_is_read_and_what_cannot_be_is_named() {
    let cases = cases();
    let bmcs = QuirkyBmcs::start(&cases, PASSWORD).await;
    let tried = cases.iter().map(|case| async {
        let account = Account::new(bmcs.address(case), QuirkyBmcs::USER, PASSWORD);
        let mut wrong = Vec::new();
        // The account decides: one verb tells what the others would.
        let verbs = if case.expected.contains_key("fails") { &VERBS[1..2] } else { &VERBS[..] };
        for verb in verbs {
            wrong.extend(judge(case, verb, &account).await.err());
        }
        wrong
    });
    let wrong: Vec<String> =
        stream::iter(tried).buffer_unordered(WIDTH).flat_map(stream::iter).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Insisting on suite 17 is possible, and the hint says what to leave out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_command_does_not_follow_to_suite_3() {
    let mut cases = cases();
    cases.retain(|case| case.name == "suite-downgrade");
    let bmcs = QuirkyBmcs::start(&cases, PASSWORD).await;
    let account = Account::new(bmcs.address(&cases[0]), QuirkyBmcs::USER, PASSWORD);
    let (code, said) = account.fails("sensors", &["--strict"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("without --strict"), "{said}");
}

async fn judge(case: &Case, verb: &str, account: &Account) -> Result<(), String> {
    let output = account.run(verb, &["--json"]).await;
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    let wrong = |what: String| Err(format!("{} {verb}: {what}\n{printed}{said}", case.name));
    let code = output.status.code().unwrap_or(-1);
    if let Some(fails) = case.expected.get("fails") {
        return match said.contains(fails["says"].as_str().unwrap()) && json!(code) == fails["code"] {
            true => Ok(()),
            false => wrong(format!("exit {code}, expected {fails}")),
        };
    }
    if code != 0 {
        return wrong(format!("exit {code}"));
    }
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let rows = |members: [&str; 2]| -> Value {
        let rows = printed.as_array().unwrap().iter();
        rows.map(|row| json!(members.map(|member| &row[member]))).collect()
    };
    let found = match verb {
        "inspect" => json!([printed["suite"], printed["suites"], printed["power"], printed["unreadable"]]),
        "sensors" => rows(["name", "value"]),
        "sel" => rows(["id", "time"]),
        "users" => rows(["id", "name"]),
        _ => {
            let fields = printed[0]["fields"].as_array().unwrap().iter();
            let fields: Vec<Value> = fields.map(|field| json!([field["name"], field["value"]])).collect();
            json!([fields, printed[0]["problems"]])
        }
    };
    if !same(&found, &case.expected[verb]) {
        return wrong(format!("{found}\nexpected {}", case.expected[verb]));
    }
    let named = case.expected.get(&format!("{verb}_says")).and_then(Value::as_str).unwrap_or_default();
    match named.is_empty() || said.contains(named) {
        true => Ok(()),
        false => wrong(format!("does not say `{named}`")),
    }
}
