//! Byte patterns, all looked for at once, in pieces that arrive one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::automaton::Automaton;
use aho_corasick::automaton::StateID;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, BuildError, MatchKind, StartKind};

use crate::firewall::rules::RuleHits;

/// Something to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Its name in alerts and statistics.
    pub name: String,
    /// The bytes; at least one.
    pub bytes: Vec<u8>,
    /// Whether ASCII letters match whatever their case.
    pub ignore_case: bool,
    /// Whether the flow is blocked, besides telling.
    pub block: bool,
}

/// How much of patterns there may be, in bytes of all of them: the tables that find them take up
/// to a kilobyte for each.
pub const MAX_BYTES: usize = 16 * 1024;

/// Patterns that are looked for together.
#[derive(Debug)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    exact: Part,
    folded: Part,
    hits: Vec<AtomicU64>,
}

/// How far a stream has got; as good as having all its bytes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    exact: StateID,
    folded: StateID,
}

/// Patterns of one kind, and the automaton that finds them.
#[derive(Debug)]
struct Part {
    automaton: DFA,
    start: StateID,
    /// By the automaton's number of a pattern, its number in the set.
    numbers: Vec<usize>,
}

/// Why there is no set of these patterns.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// There are too many of them, or they are too long.
    #[error("the patterns have {0} bytes together, more than {MAX_BYTES}")]
    TooLong(usize),
    /// The search library refused.
    #[error("the patterns cannot be compiled: {0}")]
    Build(#[from] BuildError),
    /// As above.
    #[error("the patterns cannot be searched: {0}")]
    Start(#[from] aho_corasick::MatchError),
}

impl PatternSet {
    /// Compiles patterns.
    pub fn new(patterns: Vec<Pattern>) -> Result<Self, PatternError> {
        let bytes = patterns.iter().map(|pattern| pattern.bytes.len()).sum();
        if bytes > MAX_BYTES {
            return Err(PatternError::TooLong(bytes));
        }
        Ok(Self {
            exact: Part::new(&patterns, false)?,
            folded: Part::new(&patterns, true)?,
            hits: patterns.iter().map(|_| AtomicU64::new(0)).collect(),
            patterns,
        })
    }

    /// The patterns; their numbers are their places here.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The beginning of a stream.
    pub fn start(&self) -> Progress {
        Progress { exact: self.exact.start, folded: self.folded.start }
    }

    /// Looks at the next bytes of a stream. Every pattern that ends among them, wherever it began,
    /// is given to `found` by number.
    pub fn scan(&self, progress: &mut Progress, bytes: &[u8], found: &mut dyn FnMut(usize)) {
        let (exact, folded) = (&self.exact, &self.folded);
        if exact.numbers.is_empty() {
            folded.scan(&mut progress.folded, bytes, found);
        } else if folded.numbers.is_empty() {
            exact.scan(&mut progress.exact, bytes, found);
        } else {
            // Each step waits for the memory that the one before it read: two automata side by side
            // wait at the same time, not one after the other.
            for &byte in bytes {
                exact.step(&mut progress.exact, byte, found);
                folded.step(&mut progress.folded, byte, found);
            }
        }
    }

    /// Looks at bytes that stand alone.
    pub fn scan_alone(&self, bytes: &[u8], found: &mut dyn FnMut(usize)) {
        self.scan(&mut self.start(), bytes, found);
    }

    /// Counts a flow that a pattern was found in.
    pub fn count(&self, pattern: usize) {
        if let Some(hits) = self.hits.get(pattern) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// In how many flows each pattern was found.
    pub fn hits(&self) -> Vec<RuleHits> {
        let count = |(pattern, hits): (&Pattern, &AtomicU64)| RuleHits {
            rule: pattern.name.clone(),
            hits: hits.load(Ordering::Relaxed),
        };
        self.patterns.iter().zip(&self.hits).map(count).collect()
    }
}

impl Part {
    fn new(patterns: &[Pattern], ignore_case: bool) -> Result<Self, PatternError> {
        let mine = patterns.iter().enumerate().filter(|(_, p)| p.ignore_case == ignore_case);
        let (numbers, bytes): (Vec<usize>, Vec<&[u8]>) =
            mine.map(|(number, pattern)| (number, pattern.bytes.as_slice())).unzip();
        let automaton = DFA::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .ascii_case_insensitive(ignore_case)
            .prefilter(false)
            .build(bytes)?;
        let start = automaton.start_state(Anchored::No)?;
        Ok(Self { automaton, start, numbers })
    }

    fn scan(&self, state: &mut StateID, bytes: &[u8], found: &mut dyn FnMut(usize)) {
        for &byte in bytes {
            self.step(state, byte, found);
        }
    }

    #[inline]
    fn step(&self, state: &mut StateID, byte: u8, found: &mut dyn FnMut(usize)) {
        *state = self.automaton.next_state(Anchored::No, *state, byte);
        if self.automaton.is_special(*state) {
            self.tell(*state, found);
        }
    }

    /// The patterns that end here, if any do.
    #[cold]
    fn tell(&self, state: StateID, found: &mut dyn FnMut(usize)) {
        if !self.automaton.is_match(state) {
            return;
        }
        for index in 0..self.automaton.match_len(state) {
            let pattern = self.automaton.match_pattern(state, index);
            if let Some(&number) = self.numbers.get(pattern.as_usize()) {
                found(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(patterns: &[(&str, bool)]) -> PatternSet {
        let pattern = |&(text, ignore_case): &(&str, bool)| Pattern {
            name: text.to_owned(),
            bytes: text.as_bytes().to_vec(),
            ignore_case,
            block: false,
        };
        PatternSet::new(patterns.iter().map(pattern).collect()).unwrap()
    }

    fn found(set: &PatternSet, pieces: &[&[u8]]) -> Vec<usize> {
        let mut progress = set.start();
        let mut found = Vec::new();
        for piece in pieces {
            set.scan(&mut progress, piece, &mut |number| found.push(number));
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn patterns_are_found_across_pieces_and_within_each_other() {
        let set = set(&[("needle", false), ("EED", false), ("eed", true), ("le", false)]);
        assert_eq!(found(&set, &[b"a nee", b"", b"dle"]), [0, 2, 3]);
        assert_eq!(found(&set, &[b"N", b"E", b"E", b"D"]), [1, 2]);
        assert_eq!(found(&set, &[b"ne", b"xedle"]), [3]);
    }

    #[test]
    fn there_is_a_limit() {
        let huge = Pattern {
            name: "huge".to_owned(),
            bytes: vec![b'a'; MAX_BYTES + 1],
            ignore_case: false,
            block: false,
        };
        assert!(matches!(PatternSet::new(vec![huge]), Err(PatternError::TooLong(_))));
        assert!(found(&set(&[]), &[b"anything"]).is_empty());
    }

    proptest! {
        /// However a stream is cut, the same is found as in one piece, and what a plain search
        /// finds.
        #[test]
        fn cuts_make_no_difference(
            text in "[abAB]{0,60}",
            patterns in proptest::collection::vec(("[abAB]{1,4}", any::<bool>()), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let named: Vec<_> = patterns.iter().map(|(p, fold)| (p.as_str(), *fold)).collect();
            let set = set(&named);
            let (left, right) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let whole = found(&set, &[text.as_bytes()]);
            prop_assert_eq!(&found(&set, &[left, right]), &whole);
            for (number, (pattern, fold)) in patterns.iter().enumerate() {
                let occurrences = text.as_bytes().windows(pattern.len()).filter(|window| {
                    let equal = *window == pattern.as_bytes();
                    equal || (*fold && window.eq_ignore_ascii_case(pattern.as_bytes()))
                });
                let reported = whole.iter().filter(|n| **n == number).count();
                prop_assert_eq!(reported, occurrences.count());
            }
        }
    }
}
