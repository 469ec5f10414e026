//! Simulations that are played with every change: some seeds, everything that has failed once, and
//! whether a seed is all that decides.

use std::collections::BTreeSet;
use std::path::Path;

use gwlb_tests::simulation::{
    Artificial, Coverage, Kind, Options, Regression, minimise, regressions, run,
};

/// Seeds that are played here; `simulate` plays others.
const SEEDS: u64 = 32;

#[test]
fn nothing_is_wrong_in_any_of_some_seeds() {
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, &Options::default());
        if let Some(violation) = outcome.violation {
            panic!("seed {seed}: {violation}\nplay it again: simulate --seed {seed}");
        }
        coverage.merge(&outcome.coverage);
    }
    // What is not reached is not tested: most of it is in this few seeds already.
    for (kind, at_most) in [(Kind::Drop, 9), (Kind::Reply, 1), (Kind::Tcp, 2), (Kind::Flow, 0)] {
        let missed = coverage.missed(kind);
        assert!(missed.len() <= at_most, "{} never reached: {missed:?}", kind.name());
    }
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let mut hashes = BTreeSet::new();
    for seed in 100..108 {
        let [one, other] = [0, 1].map(|_| run(seed, &Options::default()));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.coverage, other.coverage, "seed {seed}");
        hashes.insert(one.trace_hash);
    }
    assert_eq!(hashes.len(), 8, "another seed is another execution");
}

#[test]
fn what_has_failed_once_fails_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations");
    let all = regressions(&folder).unwrap();
    assert!(!all.is_empty());
    for (name, regression) in all {
        let outcome = run(regression.seed, &regression.options());
        if let Some(violation) = outcome.violation {
            panic!("{name}: {violation}");
        }
    }
}

#[test]
fn a_failing_seed_is_left_with_the_event_that_matters() {
    let artificial = Some(Artificial { event: 7 });
    let options = Options { artificial, events: 20, ..Options::default() };
    let least = minimise(3, &options, 100).unwrap();
    assert_eq!(least.left, 1, "of 20");
    let kept: Vec<_> = (0..20).filter(|number| !least.options.without.contains(number)).collect();
    assert_eq!(kept, [7]);
    assert_eq!(least.violation.clause, "Artificial");

    let kept = Regression::of("an example", 3, &least.options);
    let text = toml::to_string(&kept).unwrap();
    assert_eq!(toml::from_str::<Regression>(&text).unwrap(), kept);
    assert_eq!(kept.options().without, least.options.without);

    let clean = Options { events: 20, ..Options::default() };
    assert!(minimise(3, &clean, 100).is_none(), "nothing is wrong with it");
}
