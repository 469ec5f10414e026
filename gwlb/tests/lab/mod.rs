//! Running `gwlb demo` and `gwlb bench` in tests, and what is left of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use netio::process::{ChildExt, CommandExt, Preflight, Start};
use serde_json::Value;

pub const GWLB: &str = env!("CARGO_BIN_EXE_gwlb");

/// Much longer than a demo takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// The command, or `None` and the reason on stderr where the demo cannot run.
pub fn demo(test: &str) -> Option<Command> {
    command(test, &["demo"])
}

/// A command that builds networks, or `None` and the reason on stderr where it cannot.
pub fn command(test: &str, arguments: &[&str]) -> Option<Command> {
    let preflight = Preflight::check();
    if preflight.start() == Start::Impossible {
        let must = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!must, "{test} may not be skipped here, but: {preflight}");
        eprintln!("SKIP {test}: {preflight}");
        return None;
    }
    let mut command = Command::new(GWLB);
    command.args(arguments).stdin(Stdio::null()).die_with_parent();
    Some(command)
}

/// Runs it to its end: what it said, and its process id.
pub fn finish(command: &mut Command) -> (Output, u32) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    (child.wait_with_output().unwrap(), id)
}

/// Nothing that bears the name of this run of the demo is left.
pub fn assert_clean(id: u32) {
    assert_nothing_left(&format!("gwlb-demo-{id}"));
}

/// Nothing that bears a run's name is left.
pub fn assert_nothing_left(name: &str) {
    for directory in ["/run/netns".into(), std::env::temp_dir()] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let left: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|entry| entry == name || entry.starts_with(&format!("{name}-")))
            .collect();
        assert!(left.is_empty(), "{} still has {left:?}", directory.display());
    }
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Everything up to and including the line with `text`.
pub fn read_until(stderr: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut said = String::new();
    while !said.lines().last().is_some_and(|line| line.contains(text)) {
        let read = stderr.read_line(&mut said).unwrap();
        assert!(read > 0, "it ended without saying {text:?}: {said}");
    }
    said
}

/// Asks the demo to end; its exit status. The few lines that it still says wait in the pipe.
pub fn end(child: &mut Child, mut stderr: BufReader<ChildStderr>) -> Option<i32> {
    child.terminate().unwrap();
    let Some(status) = child.wait_timeout(PATIENCE).unwrap() else {
        child.kill().unwrap();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        panic!("it does not end: {rest}");
    };
    status.code()
}
