//! The fewest events with which a seed still fails.

use std::collections::BTreeSet;

use super::{Options, Outcome, Violation, run};

/// What is left of a failing seed.
#[derive(Debug, Clone)]
pub struct Minimised {
    /// With which it still fails.
    pub options: Options,
    /// How many events are left.
    pub left: usize,
    /// How it fails.
    pub violation: Violation,
    /// How many times it was played.
    pub runs: u32,
}

/// Leaves out as many events as possible, so that the seed still fails in the same way, playing
/// it at most `runs` times (delta debugging: halves first, then smaller pieces, then single ones).
/// `None` if it does not fail at all.
pub fn minimise(seed: u64, options: &Options, runs: u32) -> Option<Minimised> {
    let first = run(seed, options).violation?;
    let like = first.clone();
    let mut left: Vec<u32> =
        (0..options.events).filter(|number| !options.without.contains(number)).collect();
    let mut found =
        Minimised { options: options.clone(), left: left.len(), violation: first, runs: 1 };
    let mut size = left.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < left.len() {
            if found.runs >= runs {
                return Some(found);
            }
            let end = (at + size).min(left.len());
            let kept: Vec<u32> = [&left[..at], &left[end..]].concat();
            let tried = without_all_but(options, &kept);
            found.runs += 1;
            match run(seed, &tried) {
                Outcome { violation: Some(violation), .. } if violation.is_like(&like) => {
                    (left, shrunk) = (kept, true);
                    (found.options, found.violation) = (tried, violation);
                    found.left = left.len();
                }
                _ => at = end,
            }
        }
        if size == 1 && !shrunk {
            return Some(found);
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
}

fn without_all_but(options: &Options, kept: &[u32]) -> Options {
    let kept: BTreeSet<u32> = kept.iter().copied().collect();
    let without = (0..options.events).filter(|number| !kept.contains(number)).collect();
    Options { without, ..options.clone() }
}
