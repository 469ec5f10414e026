//! Plays every scenario of the folder `scenarios`, and proves that a wrong one is found.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

mod inputs;
mod reasons;
mod wrong;

use std::fmt::Write as _;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use gwlb_tests::scenario;
use inputs::Inputs;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// To add a scenario: make a folder with a `scenario.toml` and captures (or list them in `inputs`),
/// run this test with `GWLB_BLESS=1`, and read what it wrote.
#[test]
fn every_scenario_ends_as_expected() {
    if scenario::blessing() {
        Inputs::all().write(&folder());
    }
    let folders = scenario::folders(&folder()).unwrap();
    assert!(folders.len() >= 50, "only {} scenarios", folders.len());
    let mut report = String::new();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy();
        // The harness panics where the kernel would refuse: that is one scenario's failure.
        let check = || {
            if scenario::blessing() {
                scenario::bless(folder)?;
            }
            scenario::check(folder)
        };
        let problems = match panic::catch_unwind(check) {
            Ok(Ok(problems)) => problems,
            Ok(Err(error)) => vec![error.to_string()],
            Err(_) => vec!["panics, see above".to_owned()],
        };
        for problem in problems {
            writeln!(report, "scenario {name}: {problem}").unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn inputs_are_what_the_code_makes() {
    if scenario::blessing() {
        return;
    }
    for (path, bytes) in Inputs::all().files() {
        let is = fs::read(folder().join(&path)).unwrap_or_default();
        assert!(
            is == bytes,
            "{path} is not what the code in tests/scenarios/inputs makes: {}=1 writes it",
            scenario::BLESS,
        );
    }
}

/// No capture lies about unused, and none is used that is not there.
#[test]
fn every_capture_is_a_step() {
    if scenario::blessing() {
        return;
    }
    for folder in scenario::folders(&folder()).unwrap() {
        let mut there: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "pcap"))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        there.sort();
        let steps = scenario::Scenario::load(&folder).unwrap().step;
        let mut used: Vec<_> = steps
            .into_iter()
            .filter_map(|step| match step {
                scenario::Step::Input(input) => Some(input.capture),
                _ => None,
            })
            .collect();
        used.sort();
        used.dedup();
        assert_eq!(there, used, "{}", folder.display());
    }
}
