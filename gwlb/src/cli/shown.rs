//! What the API says of targets, as far as it is shown, and how it is shown.

use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;
use serde_json::Value;

use super::client::AskError;
use crate::runtime::clock;

/// One target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API names the fields")]
pub(super) struct Target {
    pub target_group: String,
    pub address: String,
    pub zone: String,
    pub weight: u16,
    pub effective_weight: u16,
    pub state: String,
    pub reason: Option<String>,
    pub description: Option<String>,
    pub since_unix_seconds: f64,
    pub active_flows: u64,
    pub draining: Option<Draining>,
    pub zones: Vec<Zone>,
    pub diagnosis: Option<Diagnosis>,
}

/// How far a deregistration has come.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Draining {
    pub flows_left: u64,
    pub seconds_left: f64,
}

/// What one node thinks of a target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API names the fields")]
pub(super) struct Zone {
    pub load_balancer: String,
    pub zone: String,
    pub state: String,
    pub reason: Option<String>,
    pub since_unix_seconds: f64,
}

/// What is wrong with a target that its health does not show.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Diagnosis {
    pub code: String,
    pub text: String,
}

impl Target {
    pub fn of(value: &Value) -> Result<Self, AskError> {
        Self::deserialize(value).map_err(|error| AskError::Other(format!("a target: {error}")))
    }

    pub fn list(value: &Value) -> Result<Vec<Self>, AskError> {
        Vec::deserialize(value).map_err(|error| AskError::Other(format!("the targets: {error}")))
    }

    /// State, and why.
    pub fn standing(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.clone(),
        }
    }

    /// How far its deregistration has come, or nothing.
    pub fn drain(&self) -> String {
        self.draining.map(|draining| draining.to_string()).unwrap_or_default()
    }
}

impl std::fmt::Display for Draining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {:.0} s left", flows(self.flows_left), self.seconds_left.ceil())
    }
}

/// So many flows, in words.
pub(super) fn flows(count: u64) -> String {
    if count == 1 { "1 flow".to_owned() } else { format!("{count} flows") }
}

/// How long ago something was, in the unit that fits.
pub(super) fn age(since_unix_seconds: f64) -> String {
    let now = clock::wall_clock().as_secs_f64();
    ago(now - since_unix_seconds)
}

fn ago(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    // Clocks may disagree by a little.
    let seconds = seconds.max(0.0);
    // Two of a unit at least: "1 h ago" would be anything from one to two.
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2.0 * length);
    let (length, name) = unit.copied().unwrap_or((1.0, "s"));
    format!("{:.0} {name} ago", (seconds / length).floor())
}

/// A table; the columns with these headers are numbers.
pub(super) fn table(header: &[&str], numbers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    for (column, name) in table.column_iter_mut().zip(header) {
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_unit_that_fits() {
        let cases = [
            (-1.0, "0 s ago"),
            (3.9, "3 s ago"),
            (119.0, "119 s ago"),
            (120.0, "2 min ago"),
            (7_199.0, "119 min ago"),
            (7_200.0, "2 h ago"),
            (200_000.0, "2 d ago"),
        ];
        for (seconds, text) in cases {
            assert_eq!(ago(seconds), text);
        }
    }
}
