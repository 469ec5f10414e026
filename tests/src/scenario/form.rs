//! The form of `scenario.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::ScenarioError;
use crate::appliance::Change;

/// What `scenario.toml` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub about: String,
    /// The calendar's time at the start, in seconds since 1970.
    #[serde(default)]
    pub wall_clock_seconds: u64,
    /// The targets that take part, by the names that captures and steps use.
    #[serde(default)]
    pub appliances: BTreeMap<String, IpAddr>,
    /// In what the configuration differs from the file.
    #[serde(default)]
    pub configure: Vec<Configure>,
    /// What happens, in order.
    pub step: Vec<Step>,
}

impl Scenario {
    /// Reads the scenario in a folder.
    ///
    /// # Errors
    /// [`ScenarioError::Io`] or [`ScenarioError::Form`].
    pub fn load(folder: &Path) -> Result<Scenario, ScenarioError> {
        let path = folder.join("scenario.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Err(ScenarioError::Io(path, error)),
        };
        toml::from_str(&text).map_err(|error| ScenarioError::Form(path, Box::new(error)))
    }
}

/// Keys laid over one table of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The kind of table, such as `load_balancer`.
    pub table: String,
    /// Its name; the address for a `target`.
    pub name: String,
    /// The keys and their values.
    pub set: Table,
}

/// Something that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Packets of a capture enter.
    Input(Input),
    /// Appliances send back what they got since they did so last, each in its order.
    Echo(Echo),
    /// Time passes, on the clock and in the calendar; in milliseconds.
    AdvanceMs(u64),
    /// The underlay's way to an appliance has another MTU now.
    PathMtu(PathMtu),
}

/// Packets of a capture enter: from an attachment, or from an appliance with their outer headers,
/// as the capture's name says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The file.
    pub capture: String,
    /// Which worker reads them, counted from 0 and around; absent: whoever the kernel would have.
    pub queue: Option<u16>,
    /// Packets with more payload than this are super-packets, to be cut into such segments.
    pub segment_size: Option<u16>,
}

/// Appliances send back what they got.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// Which; absent: all, in the order of their names.
    pub by: Option<Vec<String>>,
    /// What they do to it, one change after the other.
    #[serde(default)]
    pub change: Vec<Change>,
    /// They keep what they got, to send it once more later.
    #[serde(default)]
    pub keep: bool,
    /// Which worker receives it, as in [`Input::queue`].
    pub queue: Option<u16>,
}

/// The underlay's way to an appliance has another MTU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathMtu {
    /// To which.
    pub appliance: String,
    /// In bytes, outer IP header included.
    pub bytes: u16,
}

/// Lays `changes` over the tables of a configuration.
pub(super) fn configure(text: &str, changes: &[Configure]) -> Result<String, ScenarioError> {
    if changes.is_empty() {
        return Ok(text.to_owned());
    }
    let configuration = |error: &dyn std::fmt::Display| {
        ScenarioError::Configuration(format!("the configuration to change: {error}"))
    };
    let mut file: Table = toml::from_str(text).map_err(|error| configuration(&error))?;
    for Configure { table, name, set } in changes {
        let found = file
            .get_mut(table)
            .and_then(Value::as_array_mut)
            .and_then(|tables| tables.iter_mut().find(|entry| is_called(entry, name)))
            .and_then(Value::as_table_mut);
        let Some(found) = found else {
            return Err(ScenarioError::NoTable { table: table.clone(), name: name.clone() });
        };
        found.extend(set.clone());
    }
    toml::to_string(&file).map_err(|error| configuration(&error))
}

fn is_called(table: &Value, name: &str) -> bool {
    let id = table.get("name").or_else(|| table.get("address"));
    id.and_then(Value::as_str) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_over_the_table_that_is_named() {
        let text = "[[a]]\nname = \"x\"\nk = 1\n[[a]]\nname = \"y\"\nk = 1\n[[t]]\naddress = \"1.2.3.4\"\n";
        let change = |table: &str, name: &str| Configure {
            table: table.to_owned(),
            name: name.to_owned(),
            set: toml::from_str("k = 2\nl = 3").unwrap(),
        };
        let changed = configure(text, &[change("a", "y"), change("t", "1.2.3.4")]).unwrap();
        let changed: Table = toml::from_str(&changed).unwrap();
        let expected = "[[a]]\nname = \"x\"\nk = 1\n[[a]]\nname = \"y\"\nk = 2\nl = 3\n\
                        [[t]]\naddress = \"1.2.3.4\"\nk = 2\nl = 3";
        assert_eq!(changed, toml::from_str(expected).unwrap());
        let error = configure(text, &[change("a", "z")]).unwrap_err();
        assert_eq!(error.to_string(), "the configuration has no [[a]] called z");
    }

    #[test]
    fn a_misspelt_step_is_refused() {
        for (step, expected) in [
            ("inputs = { capture = \"x\" }", "unknown variant `inputs`"),
            ("input = { capture = \"x\", que = 1 }", "unknown field `que`"),
            ("echo = { change = [{ sets = 1 }] }", "unknown variant `sets`"),
        ] {
            let text = format!("about = \"\"\n[[step]]\n{step}\n");
            let error = toml::from_str::<Scenario>(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
