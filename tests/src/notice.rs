//! What people are to read of a test that passes: what was skipped and why, what was counted.

use std::fmt::Display;
use std::io::Write as _;

/// Says that something was not tested, and why.
pub fn skip(what: &str, why: impl Display) {
    say(&format!("SKIP {what}: {why}\n"));
}

/// Writes to the terminal, past the test harness, which would keep it to itself, and in one piece.
pub fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
