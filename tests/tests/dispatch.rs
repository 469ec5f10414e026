//! The one binary that is every command: the end-to-end tests stand on it.
#![expect(clippy::unwrap_used, reason = "helpers of tests, and nothing else")]

use std::process::Command;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gwlb-tests")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_first_argument_is_the_command() {
    for (command, expected) in
        [("gwlb", "Usage: gwlb"), ("nva-sample", "Usage: nva-sample"), ("router", "Usage: router")]
    {
        let (code, text) = run(&[command, "--help"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_unknown_command_is_refused() {
    for arguments in [&[][..], &["gwlbb"]] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(2));
        assert!(text.starts_with("usage: gwlb-tests gwlb|nva-sample|router"), "{text}");
    }
}

#[test]
fn arguments_and_exit_status_are_passed_on() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/gateway.toml");
    let (code, text) = run(&["gwlb", "check", path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("no problems"), "{text}");
    let (code, _) = run(&["router", "check", "/nonexistent.toml"]);
    assert_eq!(code, Some(2));
}
