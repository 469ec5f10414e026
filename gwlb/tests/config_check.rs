//! `gwlb check` and `gwlb schema` as a user runs them: exit status, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case fails")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn gwlb(arguments: &[&str]) -> Output {
    let crate_folder = env!("CARGO_MANIFEST_DIR");
    Command::new(env!("CARGO_BIN_EXE_gwlb"))
        .args(arguments)
        .current_dir(crate_folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_right_file_is_summed_up_on_stdout() {
    let output = gwlb(&["check", "examples/two-zones.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn a_right_file_is_summed_up_as_json() {
    let output = gwlb(&["check", "--json", "examples/two-zones.toml"]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["summary"]["targets"], 3);
    assert_eq!(report["summary"]["route_tables"], 5);
    assert_eq!(report["problems"], Value::Array(Vec::new()));
}

#[test]
fn targets_that_help_out_are_summed_up() {
    let two_zones = include_str!("../examples/two-zones.toml");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    for (line, expected) in [
        ("spill_over_below_healthy_targets = 0", "1 target of group fw\n"),
        (
            "spill_over_below_healthy_targets = 1",
            "1 target of group fw, and 2 of other zones when none of these is healthy\n",
        ),
        (
            "spill_over_below_healthy_targets = 3",
            "1 target of group fw, and 2 of other zones when fewer than 3 of these are healthy\n",
        ),
    ] {
        let was = "# spill_over_below_healthy_targets = 0       # 1: other";
        assert!(two_zones.contains(was));
        std::fs::write(&path, two_zones.replace(was, &format!("{line} # other"))).unwrap();
        let output = gwlb(&["check", path.to_str().unwrap()]);
        assert!(text(&output.stdout).contains(expected), "{}", text(&output.stdout));
    }
}

#[test]
fn a_wrong_file_is_told_on_stderr() {
    let output = gwlb(&["check", "tests/wrong/weight-too-large.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let report = text(&output.stderr);
    assert!(report.contains("tests/wrong/weight-too-large.toml:78:10"), "{report}");
    assert!(report.ends_with("1 problem in tests/wrong/weight-too-large.toml\n"), "{report}");
}

#[test]
fn a_wrong_file_is_told_as_json() {
    let output = gwlb(&["check", "tests/wrong/duplicate-zone.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["summary"]), (&Value::Bool(false), &Value::Null));
    insta::assert_json_snapshot!(report["problems"]);
}

#[test]
fn a_file_that_is_not_there_is_no_right_one() {
    let missing: PathBuf = tempfile::tempdir().unwrap().path().join("missing.toml");
    let output = gwlb(&["check", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no file"), "{}", text(&output.stderr));
}

#[test]
fn the_schema_is_json() {
    let output = gwlb(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["target"]["items"]["$ref"], "#/$defs/Target");
    assert_eq!(schema["$defs"]["Target"]["properties"]["weight"]["default"], 100);
}
