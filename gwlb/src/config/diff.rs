//! What differs between two configurations, in the words of the file: for `gwlb diff`, and for what
//! a reload says that it does.
//!
//! Everything is found again by its name, never by its place: tables that only change places are
//! the same. How a change is carried out is not decided here, only whether a running gateway can: it
//! has no privileges any more, so what takes some stays what it was at the start.

mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use rows::{Cell, Need, Row, Value};

/// One table of the file that is not what it was.
#[derive(
    Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
pub struct Change {
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its kind, such as `target` or `route_table`.
    pub table: Cow<'static, str>,
    /// Which one, such as `fw` or `fw/192.0.2.13:6081`; empty for `gateway`, of which there is one.
    pub name: String,
    /// What changed in it, such as `weight: 100 -> 50`. Empty for what is added or removed whole.
    pub details: Vec<String>,
    /// Whether this takes a restart: a running gateway cannot change it.
    pub restart: bool,
}

/// What happened to a table.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Only the new file has it.
    Added,
    /// Only the old file has it.
    Removed,
    /// Both files have it, and not the same.
    Changed,
}

/// Everything that changes from `old` to `new`: kind by kind, and within a kind first what the old
/// file has, in its order, then what is added. Empty if both mean the same.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let (old, new) = (rows::of(old), rows::of(new));
    let (old_by_name, new_by_name) = (by_name(&old), by_name(&new));
    let had: BTreeSet<&Need> = old.iter().flat_map(|row| &row.needs).collect();
    let lacks = |row: &Row| row.needs.iter().any(|need| !had.contains(need));
    let mut changes: Vec<Change> = Vec::new();
    for row in &old {
        match new_by_name.get(&row.key()) {
            Some(new) => changes.extend(
                changed(row, new)
                    .map(|change| Change { restart: change.restart || lacks(new), ..change }),
            ),
            None => changes.push(whole(ChangeKind::Removed, row)),
        }
    }
    let added = new.iter().filter(|row| !old_by_name.contains_key(&row.key()));
    changes.extend(added.map(|row| {
        let change = whole(ChangeKind::Added, row);
        Change { restart: change.restart || lacks(row), ..change }
    }));
    changes.sort_by_key(|change| rows::TABLES.iter().position(|table| *table == change.table));
    changes
}

fn by_name(rows: &[Row]) -> HashMap<(&'static str, &str), &Row> {
    rows.iter().map(|row| (row.key(), row)).collect()
}

fn whole(kind: ChangeKind, row: &Row) -> Change {
    let (table, name) = (Cow::Borrowed(row.table), row.name.clone());
    Change { kind, table, name, details: Vec::new(), restart: row.fixed }
}

/// The change of a table that both have, if it is one.
fn changed(old: &Row, new: &Row) -> Option<Change> {
    let mut change = Change { restart: false, ..whole(ChangeKind::Changed, old) };
    for before in &old.cells {
        // What only one of them has goes with a cell that says so: `tunnel_check: off -> on`.
        let Some(after) = new.cells.iter().find(|cell| cell.key == before.key) else { continue };
        if before.value != after.value {
            change.restart |= before.restart;
            details(&mut change.details, before, after);
        }
    }
    Some(change).filter(|change| !change.details.is_empty())
}

/// How a cell differs: as a whole, or in some of its items.
fn details(details: &mut Vec<String>, before: &Cell, after: &Cell) {
    let key = before.key;
    match (&before.value, &after.value) {
        (Value::Set(old), Value::Set(new)) => {
            details.extend(old.difference(new).map(|item| format!("{key}: {item} removed")));
            details.extend(new.difference(old).map(|item| format!("{key}: {item} added")));
        }
        (Value::Map(old), Value::Map(new)) => {
            for (item, was) in old {
                details.push(match new.get(item) {
                    Some(is) if is == was => continue,
                    Some(is) => format!("{key} {item}: {was} -> {is}"),
                    None => format!("{key} {item}: {was} removed"),
                });
            }
            let added = new.iter().filter(|(item, _)| !old.contains_key(*item));
            details.extend(added.map(|(item, is)| format!("{key} {item}: {is} added")));
        }
        (old, new) => details.push(format!("{key}: {old} -> {new}")),
    }
}

/// One line: `changed target fw/192.0.2.13:6081: weight: 100 -> 50`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { kind, table, name, details, restart } = self;
        write!(f, "{kind} {table}")?;
        if !name.is_empty() {
            write!(f, " {name}")?;
        }
        if !details.is_empty() {
            write!(f, ": {}", details.join(", "))?;
        }
        if *restart {
            f.write_str(" (takes a restart)")?;
        }
        Ok(())
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        })
    }
}
