//! A simulation of whole gateways with everything around them: one seed, one execution.
//!
//! A seed decides what there is (`plan`), and what happens: gateways with several workers, the
//! SDK's sessions as appliances, hosts that talk over TCP and other protocols, and a network that
//! loses, delays and corrupts, on one virtual clock. Nothing else decides anything: the same seed
//! has the same trace. What must always hold is held at every step (`judge`).
//!
//! The faults here are those of the world. Faults that are put into the gateway on purpose are
//! something else.

mod appliances;
mod configuration;
mod coverage;
mod hosts;
mod judge;
mod minimise;
mod network;
mod panics;
mod plan;
mod random;
mod regression;
mod trace;
mod world;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

pub use coverage::{Coverage, Kind};
pub use minimise::{Minimised, minimise};
pub use regression::{Regression, regressions};

use plan::{EVENTS, Plan};
use world::World;

/// How a seed is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many events there are to draw.
    pub events: u32,
    /// Numbers of events that do not happen, all the others being as they are.
    pub without: BTreeSet<u32>,
    /// Whether every step of the gateways is told on standard error, a line each.
    pub tell: bool,
    /// What counts as a violation besides what is wrong.
    pub artificial: Option<Artificial>,
}

impl Default for Options {
    fn default() -> Options {
        Options { events: EVENTS, without: BTreeSet::new(), tell: false, artificial: None }
    }
}

/// A violation that is none, so that what is done about violations can be tested: any of these
/// events happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Artificial {
    /// One of the events.
    pub event: u32,
}

impl Artificial {
    fn is_broken_by(self, event: u32) -> bool {
        self.event == event
    }
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Stands for everything that happened.
    pub trace_hash: u64,
    /// How much time passed in it.
    pub simulated: Duration,
    /// What it reached.
    pub coverage: Coverage,
    /// What was wrong first, if anything was.
    pub violation: Option<Violation>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which clause of what must always hold.
    pub clause: String,
    /// What is wrong.
    pub text: String,
    /// When, since the beginning.
    pub at: Duration,
    /// In which gateway, if it was one of them.
    pub gateway: Option<usize>,
    /// What happened in it just before.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.clause, self.at)?;
        if let Some(gateway) = self.gateway {
            write!(f, " in gateway {gateway}")?;
        }
        write!(f, ": {}", self.text)?;
        for line in &self.trace {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Plays a seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let plan = Plan::draw(seed, options.events, &options.without);
    let played = panics::caught(|| {
        let mut world = World::new(&plan, options);
        let result = world.run();
        (result, world.results())
    });
    match played {
        Ok((result, (trace_hash, coverage, simulated))) => {
            Outcome { trace_hash, simulated, coverage, violation: result.err() }
        }
        Err(text) => Outcome {
            trace_hash: 0,
            simulated: Duration::ZERO,
            coverage: Coverage::default(),
            violation: Some(Violation {
                clause: "NoPanic".to_owned(),
                text,
                at: Duration::ZERO,
                gateway: None,
                trace: Vec::new(),
            }),
        },
    }
}

/// What a seed has planned, one event a line, for people.
pub fn describe(seed: u64, options: &Options) -> String {
    let plan = Plan::draw(seed, options.events, &options.without);
    let mut text = format!("{:?}\n", plan.world);
    let mut events: Vec<_> = plan.events.iter().collect();
    events.sort_by_key(|event| event.at);
    for event in events {
        let plan::Event { number, at, what } = event;
        let _ = writeln!(text, "{at:>12.3?} {number:>3} {what:?}");
    }
    text
}
