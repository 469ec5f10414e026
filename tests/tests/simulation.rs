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
    // What is not reached is not tested. All but what these name is in this few seeds already.
    for kind in Kind::ALL {
        let missed = coverage.missed(kind);
        let allowed = match kind {
            Kind::Drop => RARE_DROPS,
            Kind::Failover => RARE_FAILOVERS,
            _ => &[],
        };
        let unforeseen: Vec<_> =
            missed.iter().filter(|it| !allowed.contains(&it.as_str())).collect();
        assert!(unforeseen.is_empty(), "{} never reached: {unforeseen:?}", kind.name());
    }
    // Conversations to which nothing was done are those that must end well.
    let talks = |name: &str| {
        let of_world = coverage.of(Kind::World);
        let found = of_world.filter(|(it, _)| it.starts_with(name)).map(|(_, count)| count);
        found.sum::<u64>()
    };
    let (unharmed, excused) = (talks("talks unharmed"), talks("talks excused"));
    assert!(unharmed * 6 > unharmed + excused, "{unharmed} are unharmed, {excused} excused");
}

/// Drop reasons that so few seeds may miss: those that nothing in memory can bring about, and those
/// that are rare.
const RARE_DROPS: &[&str] =
    &["delivery_failed", "gateway_stopping", "routing_loop", "send_failed", "target_gone"];
/// The same of failover rows.
const RARE_FAILOVERS: &[&str] = &["none healthy, bypass: past them, then inspected"];

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
        if let Err(other) = regression.check() {
            panic!("{name}: {other}");
        }
        let outcome = run(regression.seed, &regression.options());
        if let Some(violation) = outcome.violation {
            panic!("{name}: {violation}");
        }
    }
}

#[test]
fn a_panic_is_a_violation_with_its_time_and_what_was_reached() {
    let artificial = Some(Artificial { event: 7, panics: true });
    let options = Options { artificial, events: 20, ..Options::default() };
    let outcome = run(3, &options);
    let violation = outcome.violation.unwrap();
    assert_eq!(violation.clause, "NoPanic");
    assert!(violation.text.contains("event 7 happened"), "{violation}");
    assert!(!violation.at.is_zero() && violation.at == outcome.simulated);
    assert!(outcome.coverage.of(Kind::World).next().is_some());
    assert_ne!(outcome.trace_hash, 0);
}

#[test]
fn a_failing_seed_is_left_with_the_event_that_matters() {
    let artificial = Some(Artificial { event: 7, panics: false });
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
    assert_eq!(kept.check(), Ok(()));
    let other = Regression { seed: 4, ..kept };
    assert!(other.check().unwrap_err().to_string().contains("means something else now"));

    let clean = Options { events: 20, ..Options::default() };
    assert!(minimise(3, &clean, 100).is_none(), "nothing is wrong with it");
}
