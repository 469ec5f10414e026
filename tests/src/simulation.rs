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
use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

pub use coverage::{Coverage, Kind};
pub use minimise::{Minimised, minimise};
pub use regression::{OtherPlan, Regression, regressions};

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
    /// Whether that is a panic.
    pub panics: bool,
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

impl Violation {
    /// Whether this may well be the same failure as another: the same clause, and the same words but
    /// for numbers and names; of panics, the same place.
    pub fn is_like(&self, other: &Violation) -> bool {
        self.likeness() == other.likeness()
    }

    fn likeness(&self) -> (&str, String) {
        let line = self.text.lines().next().unwrap_or_default();
        if self.clause == NO_PANIC {
            return (&self.clause, line.to_owned());
        }
        let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        // What a step says in full is behind the first bracket.
        let said = line.split(['{', '(', '[']).next().unwrap_or_default();
        let words = said.split(|it: char| it.is_whitespace() || ":;,.".contains(it));
        (&self.clause, words.filter(is_word).collect::<Vec<_>>().join(" "))
    }
}

/// The clause that panics are against.
const NO_PANIC: &str = "NoPanic";

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
    let panicked = |text| Violation {
        clause: NO_PANIC.to_owned(),
        text,
        at: Duration::ZERO,
        gateway: None,
        trace: Vec::new(),
    };
    let mut world = match panics::caught(|| World::new(&plan, options)) {
        Ok(world) => world,
        Err(text) => {
            let (coverage, simulated) = (Coverage::default(), Duration::ZERO);
            return Outcome { trace_hash: 0, simulated, coverage, violation: Some(panicked(text)) };
        }
    };
    let violation = match panics::caught(|| world.run()) {
        Ok(result) => result.err(),
        // What is in the middle of something may not be able to say what it has done.
        Err(text) => {
            let told = panics::caught(|| world.panicked(text.clone()));
            Some(told.unwrap_or_else(|_| panicked(text)))
        }
    };
    let (trace_hash, simulated) = (world.trace_hash(), world.simulated());
    let coverage = panics::caught(|| world.coverage()).unwrap_or_default();
    Outcome { trace_hash, simulated, coverage, violation }
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

/// A number for what a seed has planned, by which it is known that it still plans the same.
pub fn plan_hash(seed: u64, options: &Options) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(7, 8);
    hasher.write(describe(seed, options).as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(clause: &str, text: &str) -> Violation {
        let (clause, text) = (clause.to_owned(), text.to_owned());
        Violation { clause, text, at: Duration::ZERO, gateway: None, trace: Vec::new() }
    }

    #[test]
    fn failures_are_alike_whatever_the_numbers_in_them() {
        let alike = |one: (&str, &str), other: (&str, &str)| {
            violation(one.0, one.1).is_like(&violation(other.0, other.1))
        };
        let reset = "nothing was done to it, and it is reset: event 7: Tcp from 192.0.2.1 port 1";
        let other = "nothing was done to it, and it is reset: event 12: Udp from 10.0.0.1 port 7";
        let given_up = "nothing was done to it, and it is given up: event 7: Tcp from 192.0.2.1";
        assert!(alike(("Unharmed", reset), ("Unharmed", other)));
        assert!(!alike(("Unharmed", reset), ("Unharmed", given_up)));
        assert!(!alike(("Unharmed", reset), ("Stability", reset)));
        let panics = ["panicked at a.rs:1:2:\nno 1", "panicked at a.rs:1:2:\nno 2"];
        assert!(alike((NO_PANIC, panics[0]), (NO_PANIC, panics[1])), "one place");
        assert!(!alike((NO_PANIC, panics[0]), (NO_PANIC, "panicked at a.rs:7:2:\nno 1")));
        let model =
            |step: u32, who: &str| format!("step {step} at 3s: bounded: {who} waits [{step}]");
        assert!(alike(("Model", &model(1, "a flow")), ("Model", &model(23, "a flow"))));
        assert!(!alike(("Model", &model(1, "a flow")), ("Model", &model(1, "a fragment"))));
    }
}
