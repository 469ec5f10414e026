//! Waiting: for health, and for the end of a drain.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{Gateway, Script, at_terminal, command, text};

/// A target of which so many flows are left.
fn draining(flows: u64) -> (u16, Value) {
    (200, target("draining", flows, json!({ "flows_left": flows, "seconds_left": 99.5 })))
}

fn target(state: &str, flows: u64, draining: impl Into<Value>) -> Value {
    let draining: Value = draining.into();
    json!({
        "target_group": "fw", "address": "192.0.2.11:6081", "zone": "az1", "weight": 100,
        "effective_weight": 0, "state": state, "reason": null, "description": null,
        "since_unix_seconds": 0.0, "active_flows": flows, "draining": draining, "zones": [],
        "diagnosis": null,
    })
}

const DEREGISTER: &[&str] = &["target", "deregister", "fw", "192.0.2.11", "--wait"];

#[test]
fn a_drain_is_told_line_by_line() {
    let unused = (200, target("unused", 0, Value::Null));
    let script = || {
        let answers = vec![draining(3), draining(3), draining(1), unused.clone()];
        Script::start(answers)
    };
    let output = command(&script().socket(), DEREGISTER).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "192.0.2.11:6081: 3 flows, 100 s left\n192.0.2.11:6081: 1 flow, 100 s left\n\
         it is drained: its last flow has ended\n"
    );
    let script = script();
    let output = command(&script.socket(), DEREGISTER).arg("--json").output().unwrap();
    let lines = text(&output.stdout).lines();
    let left: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let left: Vec<_> = left.iter().map(|line| line["active_flows"].as_u64().unwrap()).collect();
    assert_eq!(left, [3, 1, 0]);
}

#[test]
fn a_drain_is_shown_as_a_bar() {
    let unused = (200, target("unused", 2, Value::Null));
    let script = Script::start(vec![draining(4), draining(4), draining(3), unused]);
    let (code, shown) = at_terminal(command(&script.socket(), DEREGISTER));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("4 of 4 flows left, 100 s left"), "{shown:?}");
    assert!(shown.contains("3 of 4 flows left") && shown.contains("[======="), "{shown:?}");
    assert!(shown.contains("192.0.2.11:6081: the delay is over; 2 flows left"), "{shown:?}");
}

#[test]
fn a_drain_ends_with_its_target() {
    let gone = (404, json!({ "status": 404, "detail": "gone", "field": "address" }));
    let script = Script::start(vec![draining(1), gone]);
    let output = command(&script.socket(), DEREGISTER).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).ends_with("it is gone\n"));

    let back = (200, target("healthy", 1, Value::Null));
    let script = Script::start(vec![draining(1), back]);
    let output = command(&script.socket(), DEREGISTER).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("registered again"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupt_leaves_the_drain_alone() {
    let script = Script::start(vec![draining(1)]);
    let mut child = command(&script.socket(), DEREGISTER)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("1 flow"), "{line}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("the drain of 192.0.2.11:6081 goes on"));
}

#[test]
fn a_target_that_does_not_get_healthy_is_not_waited_for_for_ever() {
    let gateway = Gateway::start();
    // Nobody answers there.
    let nobody = format!("127.{}.0.1", gateway.target.octets()[1]);
    let output = gateway.run(&["target", "register", "fw", &nobody, "--wait", "--timeout", "1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is unhealthy (Target.FailedHealthChecks) after 1 s"), "{said}");
    assert!(said.contains("are refused"), "{said}");
    // It is registered all the same.
    assert_eq!(gateway.json(&["target", "list"])["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_target_that_goes_while_it_is_waited_for_was_right_to_ask_for() {
    let waiting = target("initial", 0, Value::Null);
    let gone = (404, json!({ "status": 404, "detail": "gone", "field": "address" }));
    let script = Script::start(vec![(200, waiting), gone]);
    let register = ["target", "register", "fw", "192.0.2.11", "--wait"];
    let output = command(&script.socket(), &register).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("somebody has deregistered the target"));
}
