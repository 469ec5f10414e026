//! The form of `scenario.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use gwlb::config::TrafficMode;
use gwlb::control::ProbeOutcome;
use serde::{Deserialize, Deserializer, de};
use toml::{Table, Value};

use super::ScenarioError;
use crate::appliance::Change;
use crate::gateway::ProbeKind;

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
    /// How targets answer probes from the start; absent: they pass them.
    #[serde(default)]
    pub probe: Vec<Probe>,
    /// Played with so many workers only: what waits between two of them is what it is about.
    pub workers: Option<u16>,
    /// Played with any number of workers, but what is counted of flows depends on it: limits are
    /// each worker's own.
    #[serde(default)]
    pub limits_per_worker: bool,
    /// It is about packets that are treated as one though they are several: not played without
    /// offload, where they come one by one.
    #[serde(default)]
    pub super_packets: bool,
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

/// Something else in one table of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The kind of table, such as `load_balancer`.
    pub table: String,
    /// Its name; the address for a `target`, the device for an `attachment`; absent for the
    /// `gateway`.
    #[serde(default)]
    pub name: String,
    /// The keys that are laid over it, and their values.
    #[serde(default)]
    pub set: Table,
    /// Whether it is there at all: `add` it with these keys, or `remove` it.
    #[serde(default)]
    pub how: How,
}

/// What becomes of a table of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Keys are laid over it.
    #[default]
    Change,
    /// It is new.
    Add,
    /// It is gone.
    Remove,
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
    /// Somebody sets the calendar, forwards or back: so many seconds since 1970.
    WallClockSeconds(u64),
    /// The underlay's way to an appliance has another MTU now.
    PathMtu(PathMtu),
    /// An appliance answers probes in another way from now on.
    Probe(Probe),
    /// An ICMP error or the like makes this appliance suspect.
    Suspect(String),
    /// A target is registered, or registered anew.
    Register(Register),
    /// A target is deregistered.
    Deregister(Deregister),
    /// Every load balancer inspects, or has everything bypass its appliances.
    TrafficMode(TrafficMode),
    /// A group of endpoints is switched to one of them, or back.
    SwitchEndpointGroup(SwitchEndpointGroup),
    /// Another configuration takes the place of the present one, from which it differs by this.
    Reload(Reload),
    /// Packets stay in the queues between workers from now on.
    Hold(Empty),
    /// The queues between workers are emptied.
    Release(Empty),
    /// What is thought of all targets is written down.
    Targets(Empty),
}

/// `{}`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

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
    /// Only their pseudo-headers are summed.
    #[serde(default)]
    pub partial_checksum: bool,
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

/// A group of endpoints is switched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchEndpointGroup {
    /// Which.
    pub group: String,
    /// The endpoint that gets new flows; absent: the one that is configured as active, again.
    pub to: Option<String>,
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

/// An appliance answers probes in another way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Who.
    pub appliance: String,
    /// How: `passed`, `refused`, `timed_out`, `failed`, `local`, or `status 503`. Through the
    /// tunnel, probes come back or do not.
    #[serde(deserialize_with = "outcome")]
    pub outcome: ProbeOutcome,
    /// To the node of this address; absent: to all.
    pub node: Option<IpAddr>,
    /// To health checks or to probes through the tunnel; absent: to both.
    #[serde(default, deserialize_with = "kind")]
    pub kind: Option<ProbeKind>,
    /// The largest inner packet that it brings back, in bytes; absent: any.
    pub largest: Option<usize>,
}

/// A target is registered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Who.
    pub appliance: String,
    /// In which group; absent: the first.
    pub group: Option<String>,
    /// In which zone; absent: as before, or the only one.
    pub zone: Option<String>,
    /// Its share; absent: as before, or the default.
    pub weight: Option<u16>,
}

/// A target is deregistered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deregister {
    /// Who.
    pub appliance: String,
    /// From which group; absent: the first.
    pub group: Option<String>,
}

/// Another configuration takes the place of the present one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// In what it differs.
    pub configure: Vec<Configure>,
}

fn outcome<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ProbeOutcome, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(match text.as_str() {
        "passed" => ProbeOutcome::Passed,
        "refused" => ProbeOutcome::Refused,
        "timed_out" => ProbeOutcome::TimedOut,
        "failed" => ProbeOutcome::Failed,
        "local" => ProbeOutcome::Local,
        other => {
            let status = other.strip_prefix("status ").and_then(|status| status.parse().ok());
            let unknown = || de::Error::custom(format!("{other:?} is no outcome of a probe"));
            ProbeOutcome::Mismatch(status.ok_or_else(unknown)?)
        }
    })
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ProbeKind>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "health" => Ok(Some(ProbeKind::Health)),
        "tunnel" => Ok(Some(ProbeKind::Tunnel)),
        other => Err(de::Error::custom(format!("{other:?} is no kind of probe"))),
    }
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
    for change in changes {
        let Configure { table, name, set, how } = change;
        let unknown = || ScenarioError::NoTable { table: table.clone(), name: name.clone() };
        if name.is_empty() {
            let single = file.entry(table).or_insert_with(|| Table::new().into());
            single.as_table_mut().ok_or_else(unknown)?.extend(set.clone());
            continue;
        }
        let tables = file.entry(table).or_insert_with(|| Value::Array(Vec::new()));
        let tables = tables.as_array_mut().ok_or_else(unknown)?;
        let position = tables.iter().position(|entry| is_called(entry, name));
        match (how, position) {
            (How::Add, None) => tables.push(added(change).into()),
            (How::Change, Some(position)) => {
                let found = tables[position].as_table_mut().ok_or_else(unknown)?;
                found.extend(set.clone());
            }
            (How::Remove, Some(position)) => drop(tables.remove(position)),
            _ => return Err(unknown()),
        }
    }
    toml::to_string(&file).map_err(|error| configuration(&error))
}

/// The keys by which tables of one kind are told apart.
const IDS: [&str; 3] = ["name", "address", "tun"];

fn is_called(table: &Value, name: &str) -> bool {
    let id = IDS.iter().find_map(|key| table.get(key));
    id.and_then(Value::as_str) == Some(name)
}

fn added(change: &Configure) -> Table {
    let id = match change.table.as_str() {
        "target" => "address",
        "attachment" => "tun",
        _ => "name",
    };
    let mut table = change.set.clone();
    table.insert(id.to_owned(), change.name.clone().into());
    table
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
            how: How::Change,
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
    fn tables_come_and_go() {
        let text = "[[a]]\nname = \"x\"\n[[attachment]]\ntun = \"t\"\n";
        let change = |table: &str, name: &str, how| Configure {
            table: table.to_owned(),
            name: name.to_owned(),
            set: Table::new(),
            how,
        };
        let changes = [
            change("a", "x", How::Remove),
            change("a", "y", How::Add),
            change("target", "1.2.3.4", How::Add),
            change("attachment", "t", How::Remove),
            change("gateway", "", How::Change),
        ];
        let result: Table = toml::from_str(&configure(text, &changes).unwrap()).unwrap();
        let expected = "attachment = []\n[gateway]\n[[a]]\nname = \"y\"\n\
                        [[target]]\naddress = \"1.2.3.4\"";
        assert_eq!(result, toml::from_str(expected).unwrap());
        for wrong in [change("a", "x", How::Add), change("a", "y", How::Remove)] {
            assert!(configure(text, &[wrong]).is_err());
        }
    }

    #[test]
    fn a_misspelt_step_is_refused() {
        for (step, expected) in [
            ("inputs = { capture = \"x\" }", "unknown variant `inputs`"),
            ("input = { capture = \"x\", que = 1 }", "unknown field `que`"),
            ("echo = { change = [{ sets = 1 }] }", "unknown variant `sets`"),
            ("probe = { appliance = \"x\", outcome = \"maybe\" }", "no outcome of a probe"),
            ("hold = { on = 1 }", "unknown field `on`"),
        ] {
            let text = format!("about = \"\"\n[[step]]\n{step}\n");
            let error = toml::from_str::<Scenario>(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
