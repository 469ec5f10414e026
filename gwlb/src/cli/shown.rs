//! What the API says of targets, as far as it is shown, and how it is shown.

use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use serde::Deserialize;
use serde_json::Value;

use super::client::AskError;
use super::top::figures;
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
    format!("{} ago", about(seconds))
}

/// A time to the second up to an hour, and to the minute or the hour beyond: `5 min 50 s`.
pub(super) fn duration(seconds: f64) -> String {
    // Clocks may disagree by a little.
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let exact = figures::span(time.as_secs());
    let (first, second) =
        exact.split_at(exact.match_indices(' ').nth(1).map_or(exact.len(), |it| it.0));
    if second.starts_with(" 0 ") { first.to_owned() } else { exact }
}

/// A time in the unit that fits, as far as that tells.
pub(super) fn about(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    // Clocks may disagree by a little.
    let seconds = seconds.max(0.0);
    // Two of a unit at least: "1 h ago" would be anything from one to two.
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2.0 * length);
    let (length, name) = unit.copied().unwrap_or((1.0, "s"));
    format!("{:.0} {name}", (seconds / length).floor())
}

/// A table for a terminal of so many columns, if that is known: each of its columns has a name and a
/// rank, and those with the largest rank are left out where there is too little room; 0: never. There
/// are no rules between its rows.
pub(super) fn narrow_table(
    columns: &[(&str, u8)],
    numbers: &[&str],
    rows: &[Vec<String>],
    room: Option<u16>,
) -> Table {
    // A column has a blank on either side.
    let needs = |&column: &usize| {
        let cells = rows.iter().map(|row| width(&row[column])).max().unwrap_or(0);
        cells.max(width(columns[column].0)) + 2
    };
    let mut chosen: Vec<usize> = (0..columns.len()).collect();
    while room.is_some_and(|room| chosen.iter().map(needs).sum::<usize>() > room.into()) {
        let last =
            chosen.iter().enumerate().max_by_key(|(_, column)| (columns[**column].1, **column));
        match last {
            Some((place, &column)) if columns[column].1 > 0 => chosen.remove(place),
            _ => break,
        };
    }
    let header: Vec<_> = chosen.iter().map(|&column| columns[column].0).collect();
    let mut table = table(&header, numbers);
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    for row in rows {
        table.add_row(chosen.iter().map(|&column| row[column].as_str()));
    }
    table
}

/// How many columns the terminal has, if it says so.
pub(super) fn terminal_width() -> Option<u16> {
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    Some(columns).filter(|columns| *columns > 0)
}

/// How many columns a text takes.
fn width(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
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

    #[test]
    fn durations_have_two_units_where_the_second_says_something() {
        let cases = [
            (-1.0, "0 s"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (350.0, "5 min 50 s"),
            (3_600.0, "1 h"),
            (3_601.0, "1 h"),
            (5_400.0, "1 h 30 min"),
            (200_000.0, "2 d 7 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn columns_give_way_where_the_terminal_is_narrow() {
        let columns = [("flow", 0), ("zone", 2), ("bytes", 1)];
        let rows = [["a-b/tcp", "az1", "1,024"], ["c-d/tcp", "az2", "7"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let shown = |room| {
            let table = narrow_table(&columns, &["bytes"], &rows, room);
            table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        let whole = shown(None);
        assert_eq!(whole[1], "flow      zone   bytes");
        assert_eq!(whole[3..5], ["a-b/tcp   az1    1,024", "c-d/tcp   az2        7"]);
        assert_eq!(whole.len(), 6, "three rules: {whole:?}");
        assert_eq!(shown(Some(22)), whole);
        assert_eq!(shown(Some(21))[1], "flow      bytes");
        assert_eq!(shown(Some(15))[1], "flow");
        assert_eq!(shown(Some(1))[1], "flow", "this one stays");
    }
}
