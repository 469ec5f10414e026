//! `gwlb bench path` as a user starts it: that everything is measured, and that it leaves nothing
//! behind whichever way it ends. How fast anything is, is not for tests to say.

#![cfg(feature = "lab")]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]
#![expect(clippy::panic, reason = "the way of a test to fail")]

#[expect(dead_code, reason = "what only the tests of the demo need")]
mod lab;

use std::collections::BTreeSet;
use std::io::BufReader;
use std::process::{Command, Stdio};

use lab::{GWLB, assert_nothing_left, end, finish, json, read_until};
use serde_json::Value;

const SETUPS: [&str; 6] = ["gateway", "hairpin", "gateway-64k", "kernel", "tun", "tun-offload"];

/// The benchmark, as short as it can be.
fn bench(test: &str, pairs: &str) -> Option<Command> {
    let mut command = lab::command(test, &["bench", "path", "--quick", "--json", "-"])?;
    command.args(["--pairs", pairs, "--seconds", "0.2"]);
    Some(command)
}

fn assert_clean(id: u32) {
    assert_nothing_left(&format!("gwlb-bench-{id}"));
}

/// The rows of a case: set-up, metric and percentile, each with its median.
fn rows<'a>(report: &'a Value, case: &str) -> Vec<(&'a str, &'a str, &'a str, f64)> {
    let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["case"] == case);
    let text = |row: &'a Value, key| row[key].as_str().unwrap_or_default();
    rows.map(|row| {
        // What cannot be divided is null.
        let median = row["median"].as_f64().unwrap_or(f64::NAN);
        (text(row, "setup"), text(row, "metric"), text(row, "percentile"), median)
    })
    .collect()
}

#[test]
fn everything_is_measured_in_every_set_up() {
    let Some(mut command) = bench("everything_is_measured", "1") else { return };
    let (output, id) = finish(&mut command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let report = json(&output);
    assert_eq!(report["quick"], true);
    assert_clean(id);

    for (case, metric, percentiles) in [
        ("TCP, 1 stream", "throughput", &[""][..]),
        ("TCP, 8 streams", "throughput", &[""]),
        ("TCP, 8 streams, a thread for each", "throughput", &[""]),
        ("64-byte UDP, 16 flows in runs of 32", "rate", &[""]),
        ("64-byte UDP, 1000 flows interleaved", "rate", &[""]),
        ("round trip, idle", "latency", &["p50", "p99", "p99.9"]),
        ("round trip, at half load", "latency", &["p50", "p99", "p99.9"]),
        ("new TCP connections", "rate", &[""]),
    ] {
        let rows = rows(&report, case);
        for setup in SETUPS {
            for percentile in percentiles {
                let found =
                    rows.iter().find(|row| (row.0, row.1, row.2) == (setup, metric, percentile));
                assert!(found.is_some_and(|row| row.3 > 0.0), "{case}, {setup}: {rows:?}\n{said}");
            }
        }
    }
    let flood = rows(&report, "TCP, 1 stream, beside a flood of new flows");
    let figure = |setup, metric| {
        let found = flood.iter().find(|row| (row.0, row.1) == (setup, metric));
        found.unwrap_or_else(|| panic!("{setup}, {metric}: {flood:?}")).3
    };
    assert!(figure("quiet", "throughput") > 0.0 && figure("flooded", "throughput") > 0.0);
    assert!(figure("flooded", "new flows") > 0.0, "{flood:?}");
    assert!(figure("flooded", "established flows lost") < 1.0, "{flood:?}");

    let bars = report["bars"].as_array().unwrap();
    let names: BTreeSet<_> = bars.iter().map(|bar| bar["name"].as_str().unwrap()).collect();
    let expected = BTreeSet::from([
        "tcp1_vs_hairpin",
        "tcp8_vs_hairpin",
        "tcp8_threads_vs_hairpin",
        "efficiency_vs_hairpin",
        "udp64_runs_vs_hairpin",
        "udp64_interleaved_vs_hairpin",
        "syscalls_per_packet",
        "rtt_vs_hairpin",
        "flood_goodput",
        "observed_tcp1",
        "observed_udp64_runs",
        "observed_udp64_interleaved",
    ]);
    assert_eq!(names, expected);
    for bar in bars {
        assert_eq!(bar["pairs"], 1, "{bar}");
        assert_eq!(bar["spread"], 1.0, "{bar}");
    }
}

#[test]
fn what_is_not_asked_for_is_not_measured() {
    let Some(mut command) = bench("what_is_not_asked_for", "1") else { return };
    command.args(["--only", "latency", "--setups", "kernel,hairpin"]);
    let (output, id) = finish(&mut command);
    let report = json(&output);
    let told = |key: &str| {
        let rows = report["rows"].as_array().unwrap().iter();
        rows.map(|row| row[key].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(told("setup"), BTreeSet::from(["hairpin", "kernel"].map(str::to_owned)));
    let cases = ["round trip, at half load", "round trip, idle"].map(str::to_owned);
    assert_eq!(told("case"), BTreeSet::from(cases));
    assert_eq!(report["bars"].as_array().unwrap().len(), 0, "nothing to compare");
    assert_clean(id);
}

#[test]
fn nothing_is_left_when_it_is_told_to_end() {
    let Some(mut command) = bench("nothing_is_left_when_told", "1000") else { return };
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "TCP, 1 stream: hairpin");
    let id = child.id();
    assert_eq!(end(&mut child, stderr), Some(130));
    assert_clean(id);
}

#[test]
fn wrong_use_is_told_as_such() {
    for wrong in [
        &["--pairs", "0"][..],
        &["--seconds", "0"],
        &["--seconds", "much"],
        &["--only", "nothing"],
        &["--setups", "gateway,tap"],
    ] {
        let output = Command::new(GWLB).args(["bench", "path"]).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
