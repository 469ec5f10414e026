//! Looks for a fault: plays what the other tests play while it is on, and notes what fails.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use gwlb::fault::{self, Fault};
use gwlb_tests::model::Clause;
use gwlb_tests::scenario::{self, Problems, ScenarioError};
use gwlb_tests::simulation;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use super::random_histories::{course, play};

/// How many random histories are played in search of a fault, of those that the test of histories
/// plays.
pub(crate) const HISTORIES: u32 = 8;
/// How many seeds are simulated in search of a fault.
pub(crate) const SEEDS: u64 = 16;

/// What has found a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Finds {
    /// The first scenario that ends otherwise than expected, and how many do.
    pub expectation: Option<(String, usize)>,
    /// The first scenario on whose way something does not hold that must always hold, and what.
    pub scenario: Option<(String, Breach)>,
    /// The first history in which something does not hold, by its number, and what.
    pub history: Option<(u32, Breach)>,
    /// The first seed of the simulation with which something does not hold, and what.
    pub seed: Option<(u64, Breach)>,
}

impl Finds {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Finds::default()
    }

    /// Whether a scenario or the simulator is among them. Random histories may help, but that is
    /// not what they are for.
    pub(crate) fn suffice(&self) -> bool {
        self.expectation.is_some() || self.scenario.is_some() || self.seed.is_some()
    }
}

/// What does not hold: a clause of what must always hold, or, quoted, what the harness asserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach(pub String);

impl Breach {
    fn of(text: &str) -> Breach {
        let of = |clause: &&Clause| text.contains(&format!(": {clause}: "));
        let clause = Clause::ALL.iter().find(of);
        Breach(clause.map_or_else(|| asserted(text), Clause::to_string))
    }
}

/// From what a panic says, without the values that were compared: ``panicked at …:⏎assertion `left ==
/// right` failed: this⏎ left: …``.
fn asserted(said: &str) -> String {
    let (_, message) = said.split_once('\n').unwrap_or(("", said));
    let line = message.lines().next().unwrap_or_default();
    format!("“{}”", line.split_once(" failed: ").map_or(line, |(_, this)| this))
}

/// Whether every way that has found a fault before still does: the same scenario, and any history or
/// seed, since those are others whenever their makers change.
pub(crate) fn finds_again(fault: Fault, before: &Finds) -> bool {
    let _fault = fault::with(fault);
    let Finds { expectation, scenario, history, seed } = before;
    let play = |name: &String| {
        let folder = folder().join(name);
        let once = examine(&folder, scenario::examine_once);
        if once.is_empty() { examine(&folder, scenario::examine) } else { once }
    };
    expectation.as_ref().is_none_or(|(name, _)| !play(name).is_empty())
        && scenario.as_ref().is_none_or(|(name, _)| play(name).breach().is_some())
        && (history.is_none() || first_history(HISTORIES).is_some())
        && seed.as_ref().is_none_or(|(seed, _)| simulate(*seed).is_some() || first_seed().is_some())
}

/// Searches for a fault: everywhere, or only until something finds it.
pub(crate) fn search(fault: Fault, everywhere: bool) -> Finds {
    let _fault = fault::with(fault);
    let mut finds = Finds::default();
    search_scenarios(&mut finds, everywhere);
    if everywhere || finds.is_empty() {
        finds.history = first_history(HISTORIES);
    }
    if everywhere || finds.is_empty() {
        finds.seed = first_seed();
    }
    finds
}

/// What is found while nothing is wrong.
pub(crate) fn search_without_fault() -> Finds {
    let mut finds = Finds::default();
    search_scenarios(&mut finds, true);
    finds.history = first_history(HISTORIES);
    finds.seed = first_seed();
    finds
}

/// Plays all scenarios in one way, and then, as long as nothing is found, in the others.
fn search_scenarios(finds: &mut Finds, everywhere: bool) {
    for play in [scenario::examine_once, scenario::examine] {
        for folder in scenario::folders(&self::folder()).unwrap() {
            let name = || folder.file_name().unwrap().to_string_lossy().into_owned();
            let found = examine(&folder, play);
            if found.is_empty() {
                continue;
            }
            finds.expectation.get_or_insert_with(|| (name(), 0)).1 += 1;
            if let Some(breach) = found.breach() {
                finds.scenario.get_or_insert_with(|| (name(), breach));
            }
            if !everywhere {
                return;
            }
        }
        if !finds.is_empty() {
            return;
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// What playing a scenario has shown.
#[derive(Default)]
struct Examined {
    broken: Vec<String>,
    different: bool,
}

impl Examined {
    fn is_empty(&self) -> bool {
        self.broken.is_empty() && !self.different
    }

    fn breach(&self) -> Option<Breach> {
        self.broken.first().map(|text| Breach::of(text))
    }
}

fn examine(folder: &Path, play: impl FnOnce(&Path) -> Result<Problems, ScenarioError>) -> Examined {
    match quietly(|| play(folder)) {
        Ok(Ok(Problems { violations, differences })) => {
            Examined { broken: violations, different: !differences.is_empty() }
        }
        // A fault made it impossible to go on.
        Ok(Err(_)) => Examined { broken: Vec::new(), different: true },
        Err(said) => Examined { broken: vec![said], different: true },
    }
}

/// The number of the first of so many histories in which something does not hold, and what.
fn first_history(most: u32) -> Option<(u32, Breach)> {
    let config = Config {
        cases: most,
        max_shrink_iters: 0,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(super::random_histories::SEED),
        ..Config::default()
    };
    let number = Cell::new(0);
    let result = TestRunner::new(config).run(&course(), |course| {
        number.set(number.get() + 1);
        quietly(|| play(&course)).map_err(TestCaseError::fail)
    });
    match result {
        Err(TestError::Fail(said, _)) => Some((number.get(), Breach::of(said.message()))),
        _ => None,
    }
}

/// The first seed of the simulation with which something does not hold, and what.
fn first_seed() -> Option<(u64, Breach)> {
    (0..SEEDS).find_map(|seed| simulate(seed).map(|breach| (seed, breach)))
}

fn simulate(seed: u64) -> Option<Breach> {
    let violation = simulation::run(seed, &simulation::Options::default()).violation?;
    let clause = violation.clause.as_str();
    Some(Breach(clause.strip_prefix("Model, ").map_or_else(|| in_words(clause), str::to_owned)))
}

/// `NoUninspectedPath` as "no uninspected path".
fn in_words(clause: &str) -> String {
    let mut words = String::new();
    for letter in clause.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

thread_local! {
    /// What the last panic said, in a thread whose panics are expected.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may panic, and says what that said, to the caller only.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let aloud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if QUIET.get() {
                SAID.set(Some(panic.to_string()));
            } else {
                aloud(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|_| SAID.take().unwrap_or_default())
}
