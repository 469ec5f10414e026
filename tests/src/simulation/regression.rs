//! Seeds that have failed once, kept as small files, all of which are played by the tests.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Options, plan_hash};

/// A seed, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// What was wrong, in a sentence.
    pub about: String,
    /// The seed.
    pub seed: u64,
    /// How many events are drawn.
    pub events: u32,
    /// The events that happen; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<BTreeSet<u32>>,
    /// What the seed planned when it was kept ([`plan_hash`], in hexadecimal).
    pub plan: String,
}

/// A seed plans something else than when it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "seed {seed} means something else now: its plan was {kept} when it was kept, and is {now}. If \
     only the words of plans have changed, write the new number into the file; otherwise look for \
     a seed that does again what the file is about"
)]
pub struct OtherPlan {
    seed: u64,
    kept: String,
    now: String,
}

impl Regression {
    /// Keeps what fails like this.
    pub fn of(about: &str, seed: u64, options: &Options) -> Regression {
        let all = 0..options.events;
        let only = all.filter(|number| !options.without.contains(number)).collect();
        let only = (!options.without.is_empty()).then_some(only);
        let (about, events) = (about.to_owned(), options.events);
        Regression { about, seed, events, only, plan: hash(seed, options) }
    }

    /// Holds that the seed still plans what it did when it was kept.
    ///
    /// # Errors
    /// [`OtherPlan`], if it does not.
    pub fn check(&self) -> Result<(), OtherPlan> {
        let (kept, now) = (self.plan.clone(), hash(self.seed, &self.options()));
        if kept == now { Ok(()) } else { Err(OtherPlan { seed: self.seed, kept, now }) }
    }

    /// How it is played.
    pub fn options(&self) -> Options {
        let left_out = |number: &u32| self.only.as_ref().is_some_and(|only| !only.contains(number));
        let without = (0..self.events).filter(left_out).collect();
        Options { events: self.events, without, ..Options::default() }
    }
}

fn hash(seed: u64, options: &Options) -> String {
    format!("{:016x}", plan_hash(seed, options))
}

/// Every regression in a folder, by the file's name.
///
/// # Errors
/// If the folder cannot be read, or a file is none.
pub fn regressions(folder: &Path) -> io::Result<Vec<(String, Regression)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parsed = toml::from_str(&fs::read_to_string(&path)?);
        let regression = parsed.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        all.push((name, regression));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}
