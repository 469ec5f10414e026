//! `gwlb bench sdk` as a user starts it: that it measures what it says, and leaves nothing behind.

#![cfg(feature = "lab")]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::fs;
use std::process::{Command, Output, Stdio};

use netio::process::{CommandExt, Preflight, Start};
use serde_json::Value;

/// What the command said, and its process id; or `None` where it cannot run.
fn bench(test: &str, arguments: &[&str]) -> Option<(Output, u32)> {
    let preflight = Preflight::check();
    if preflight.start() == Start::Impossible {
        netio::netns::skip_test(test, preflight);
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_gwlb"));
    command.args(["bench", "sdk", "--quick", "--repetitions", "1"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).die_with_parent();
    let child = command.spawn().unwrap();
    let id = child.id();
    Some((child.wait_with_output().unwrap(), id))
}

/// Nothing that bears the run's name is left.
fn assert_clean(id: u32) {
    for directory in ["/run/netns".into(), std::env::temp_dir()] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let left: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&format!("gwlb-bench-{id}")))
            .collect();
        assert!(left.is_empty(), "{} still has {left:?}", directory.display());
    }
}

#[test]
fn every_case_is_measured_and_nothing_stays_behind() {
    let name = "every_case_is_measured_and_nothing_stays_behind";
    let Some((output, id)) = bench(name, &["--json", "-"]) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{errors}"));
    assert_eq!(report["quick"], true);

    let [bar] = report["bars"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!(bar["name"], "sdk_cpu_per_packet_us");
    assert_eq!((bar["pairs"].as_u64(), bar["void"].as_bool()), (Some(1), Some(false)));
    assert!(bar["value"].as_f64().unwrap() > 0.0);

    let rows = report["rows"].as_array().unwrap();
    for setup in ["pass-through", "pass-through on all cores", "firewall", "IDS"] {
        for metric in ["cost", "rate", "syscalls"] {
            let mut of_it =
                rows.iter().filter(|row| row["setup"] == setup && row["metric"] == metric);
            let cases = of_it.clone().count();
            assert!(cases >= 2, "{setup}: {cases} cases of {metric}");
            assert!(of_it.all(|row| row["runs"] == 1 && row["median"].as_f64().unwrap() > 0.0));
        }
    }
    // Whoever batches makes far fewer calls than there are packets.
    let syscalls = rows.iter().find(|row| {
        row["setup"] == "pass-through"
            && row["metric"] == "syscalls"
            && row["case"].as_str().unwrap().contains("runs of 32")
    });
    let syscalls = syscalls.unwrap()["median"].as_f64().unwrap();
    assert!(syscalls < 0.25, "{syscalls} system calls for each packet");
    assert_clean(id);
}

#[test]
fn a_case_that_is_not_there_is_said_before_anything_is_built() {
    let name = "a_case_that_is_not_there_is_said_before_anything_is_built";
    let Some((output, id)) = bench(name, &["--only", "no such case"]) else { return };
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no case has \"no such case\""));
    assert_clean(id);
}
