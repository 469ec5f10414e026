//! Has every seeded fault found, one after the other, by the tests that are to find such bugs: the
//! scenarios, random histories beside a model, and the simulator. What finds nothing here would
//! find nothing where it counts.
//!
//! Only the feature `seeded-faults` has any:
//! `cargo test -p gwlb-tests --features seeded-faults --test seeded_faults`.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

mod hunt;
#[path = "../histories.rs"]
mod random_histories;
mod table;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use gwlb::fault::{self, Fault};
use gwlb_tests::scenario::{BLESS, blessing};
use table::{Row, Table};

/// To add a fault: name it in `gwlb/src/fault.rs`, put its condition where it does harm, run this
/// test with `GWLB_BLESS=1`, and read the table. A fault that nothing finds shows that the tests are
/// too weak: strengthen them.
#[test]
fn every_fault_is_found() {
    let path = Table::path();
    let text = fs::read_to_string(&path).unwrap_or_default();
    let known = Table::read(&text);
    let found = Mutex::new(known.clone());
    for_each_fault(|fault| {
        // What has found it before is asked first; only then is searched.
        let before = known.row(fault).filter(|row| !row.finds.is_empty());
        if before.is_none_or(|row| !hunt::finds_again(fault, &row.finds)) {
            let row = Row { fault, finds: hunt::search(fault, blessing()) };
            println!("{row}");
            let mut found = found.lock().unwrap();
            found.put(row);
            // A long search can be interrupted: the next one goes on from here.
            if blessing() {
                fs::write(&path, found.to_string()).unwrap();
            }
        }
    });
    let found = found.into_inner().unwrap();
    let mut problems = String::new();
    for row in found.rows().filter(|row| !row.finds.suffice()) {
        writeln!(problems, "{}: found by no scenario and no simulation", row.fault).unwrap();
    }
    if blessing() {
        fs::write(&path, found.to_string()).unwrap();
    } else if found.to_string() != text {
        writeln!(problems, "{} is not what was found; {BLESS}=1 writes it", path.display())
            .unwrap();
        for row in found.rows().filter(|row| known.row(row.fault) != Some(row)) {
            writeln!(problems, "  now {row}").unwrap();
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

/// Nothing is found where nothing is wrong: the hunters do not cry wolf, in this very build.
#[test]
fn without_a_fault_nothing_is_found() {
    let finds = hunt::search_without_fault();
    assert!(finds.is_empty(), "without any fault: {finds:?}");
}

#[test]
fn a_fault_is_on_as_long_as_its_guard_lives_and_in_its_thread() {
    let [one, other] = [Fault::CookieUnchecked, Fault::OneFinCloses];
    {
        let _outer = fault::with(one);
        assert!(fault::on(one) && !fault::on(other));
        {
            let _inner = fault::with(other);
            assert!(fault::on(other) && !fault::on(one));
        }
        assert!(fault::on(one));
        thread::scope(|scope| {
            scope.spawn(|| assert!(!fault::on(one)));
        });
    }
    assert!(!fault::on(one));
}

/// Hunts faults on all processors, or by as many threads as `RUST_TEST_THREADS` says.
fn for_each_fault(hunt: impl Fn(Fault) + Sync) {
    let waiting = Mutex::new(Fault::ALL.iter());
    let work = || {
        loop {
            let fault = waiting.lock().unwrap().next();
            let Some(&fault) = fault else { break };
            hunt(fault);
        }
    };
    thread::scope(|scope| {
        let asked = env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
        let available = || thread::available_parallelism().map_or(2, NonZero::get);
        let threads = asked.unwrap_or_else(available);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
}
