//! Scenarios: a configuration, captures that enter, and what must come of them.
//!
//! A scenario is a folder.
//!
//! | file | what it is |
//! |---|---|
//! | `scenario.toml` | the steps, in the form of [`Scenario`] |
//! | `gateway.toml` | the gateway's configuration; absent: the one in the folder above |
//! | `01-from-igw.pcap`, … | what enters: IP packets from an attachment, called as its device, or what an appliance sends, with its outer headers |
//! | `expected/to-fw1.pcap`, … | what an appliance must get, with outer headers |
//! | `expected/at-igw.pcap`, … | what must leave through an attachment |
//! | `expected/counters.json` | what must have been counted |
//! | `expected/steps.txt` | the same for people: what each step brought about |
//!
//! Time is virtual; every step takes a millisecond, so that the times in the captures tell the
//! steps apart. With [`BLESS`] set, what was found becomes what is expected.

mod compare;
mod form;
mod outcome;
mod play;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gwlb::config::Settings;
use router::source::Source;
use thiserror::Error;

pub use compare::{differences, differences_between_workers};
pub use form::{
    Configure, Deregister, Echo, Empty, How, Input, PathMtu, Probe, Register, Reload, Scenario,
    Step, SwitchEndpointGroup,
};
pub use outcome::{Counters, Outcome};
pub use play::play;

use crate::appliance::Impossible;
use crate::capture;
use crate::gateway::{Queues, Setup};

/// The environment variable that has expectations written anew.
pub const BLESS: &str = "GWLB_BLESS";

/// Whether expectations are to be written anew.
pub fn blessing() -> bool {
    std::env::var_os(BLESS).is_some_and(|value| value == "1")
}

/// The scenario folders below `folder`, by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

/// What is wrong with a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// What must always hold, and does not.
    pub violations: Vec<String>,
    /// In what the outcome is not what is expected, or not that of another way to play it.
    pub differences: Vec<String>,
}

impl Problems {
    fn of(folder: &Path, found: &Outcome) -> Result<Problems, ScenarioError> {
        let differences = differences(folder, found)?;
        Ok(Problems { violations: found.violations.clone(), differences })
    }
}

/// Plays a scenario in every way that must make no difference, and says what is wrong with it.
///
/// The first way, with one worker, is compared with what is expected, byte for byte; the others
/// with the first.
///
/// # Errors
/// [`ScenarioError`] if the scenario itself is wrong.
pub fn check(folder: &Path) -> Result<Vec<String>, ScenarioError> {
    let Problems { violations, differences } = examine(folder)?;
    Ok([violations, differences].concat())
}

/// The same, with what must always hold and what is only expected here told apart.
///
/// # Errors
/// As [`check`].
pub fn examine(folder: &Path) -> Result<Problems, ScenarioError> {
    let scenario = Scenario::load(folder)?;
    let settings = configuration(folder, &scenario)?;
    let play = |setup| play(folder, &scenario, settings.clone(), setup);
    let mut plain = scenario.clone();
    plain.configure.extend(without_offload(&settings));
    let plain_settings = configuration(folder, &plain)?;
    let play_plain = |setup| self::play(folder, &plain, plain_settings.clone(), setup);
    let first = Setup::of(scenario.workers.unwrap_or(1));
    let found = play(first)?;
    let mut problems = Problems::of(folder, &found)?;
    if play(first)? != found {
        problems.differences.push("played again, it ends differently".to_owned());
    }
    if scenario.workers.is_some() {
        return Ok(problems);
    }
    for workers in 1..=3 {
        for queues in [Queues::ByFlow, Queues::InTurn] {
            let again = play(Setup { queues, ..Setup::of(workers) })?;
            let how = format!("with {workers} workers and packets read {queues:?}");
            let told = |problem| format!("{how}: {problem}");
            let more = differences_between_workers(&found, &again, scenario.limits_per_worker);
            problems.differences.extend(more.into_iter().map(told));
            problems.violations.extend(again.violations.into_iter().map(told));
        }
    }
    if scenario.super_packets {
        return Ok(problems);
    }
    for (workers, queues) in [(1, Queues::ByFlow), (3, Queues::InTurn)] {
        let again = play_plain(Setup { queues, ..Setup::of(workers) })?;
        let how = format!("with {workers} workers, packets read {queues:?}, and offload off");
        let told = |problem| format!("{how}: {problem}");
        let more = differences_between_workers(&found, &again, scenario.limits_per_worker);
        problems.differences.extend(more.into_iter().map(told));
        problems.violations.extend(again.violations.into_iter().map(told));
    }
    Ok(problems)
}

/// Has every attachment do without super-packets.
fn without_offload(settings: &Settings) -> impl Iterator<Item = Configure> {
    let devices = settings.attachments.iter().map(|attachment| attachment.tun.to_string());
    devices.map(|name| Configure {
        table: "attachment".to_owned(),
        name,
        set: toml::Table::from_iter([("offload".to_owned(), false.into())]),
        how: How::Change,
    })
}

/// Plays a scenario in the first of these ways only, and says what is wrong with it.
///
/// # Errors
/// As [`check`].
pub fn examine_once(folder: &Path) -> Result<Problems, ScenarioError> {
    let scenario = Scenario::load(folder)?;
    let settings = configuration(folder, &scenario)?;
    let found = play(folder, &scenario, settings, Setup::of(scenario.workers.unwrap_or(1)))?;
    Problems::of(folder, &found)
}

/// Makes what comes of a scenario what is expected of it.
///
/// # Errors
/// [`ScenarioError`] if the scenario itself is wrong.
pub fn bless(folder: &Path) -> Result<(), ScenarioError> {
    let scenario = Scenario::load(folder)?;
    let settings = configuration(folder, &scenario)?;
    let setup = Setup::of(scenario.workers.unwrap_or(1));
    play(folder, &scenario, settings, setup)?.write(folder)
}

/// The configuration of a scenario.
///
/// # Errors
/// [`ScenarioError::Configuration`] if the gateway would not take it.
pub fn configuration(folder: &Path, scenario: &Scenario) -> Result<Settings, ScenarioError> {
    configured(folder, &scenario.configure)
}

/// The configuration of the scenario in `folder`, with changes.
fn configured(folder: &Path, changes: &[Configure]) -> Result<Settings, ScenarioError> {
    let own = folder.join("gateway.toml");
    let path = if own.is_file() { own } else { folder.join("../gateway.toml") };
    let text = fs::read_to_string(&path).map_err(|error| ScenarioError::Io(path.clone(), error))?;
    let text = form::configure(&text, changes)?;
    let source = Source::new(path.display().to_string(), text);
    gwlb::config::parse(&source)
        .map_err(|problems| ScenarioError::Configuration(problems.to_string()))
}

/// Why a scenario cannot be played.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// A file cannot be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// `scenario.toml` is not of the form.
    #[error("{}: {}", .0.display(), .1)]
    Form(PathBuf, #[source] Box<toml::de::Error>),
    /// A capture cannot be used.
    #[error(transparent)]
    Capture(#[from] capture::Problem),
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// `[[configure]]` names a table that is not there.
    #[error("the configuration has no [[{table}]] called {name}")]
    NoTable {
        /// The kind of table.
        table: String,
        /// Its name or address.
        name: String,
    },
    /// A capture's name does not say where it enters.
    #[error("{0} is not called NUMBER-from-NAME.pcap, with the name of an attachment or appliance")]
    CaptureName(String),
    /// A capture from an appliance holds something else than datagrams to the gateway.
    #[error("{0}: packet {1} is no UDP datagram: {2}")]
    NoDatagram(String, usize, geneve::outer::OuterError),
    /// A step names an appliance that is not there.
    #[error("no appliance is called {0}")]
    NoAppliance(String),
    /// The configuration that a step loads differs in what a running gateway cannot change.
    #[error("step {0}: this configuration takes a restart")]
    Restart(usize),
    /// An appliance has an address that no target has.
    #[error("appliance {0} has the address {1}, which no target has")]
    NoTarget(String, IpAddr),
    /// A datagram cannot be changed as a step says.
    #[error("step {step}: {cause}")]
    Impossible {
        /// Which step, counted from 1.
        step: usize,
        /// Why.
        cause: Impossible,
    },
}
