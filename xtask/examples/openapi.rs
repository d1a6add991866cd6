//! Prints the API document; `cargo xtask openapi` runs it and keeps `schema/openapi.json`.
//!
//! An example, because only examples and tests are built with the dev-dependencies: the control plane is not
//! compiled for every other `cargo xtask`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let document = serde_json::to_string_pretty(&rackhand_functions::document()?)?;
    writeln!(std::io::stdout().lock(), "{document}")
}
