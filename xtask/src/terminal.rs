//! Words for the person at the terminal. stdout carries the summary, stderr what goes on.

use std::io::{self, Write as _};

/// Says what goes on.
pub fn say(text: impl AsRef<str>) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Says the result.
pub fn result(text: impl AsRef<str>) {
    let _ = writeln!(io::stdout().lock(), "{}", text.as_ref());
}
