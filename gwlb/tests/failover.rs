//! `gwlb demo --failover` as a user starts it: that it passes with every scene judged, that each
//! fault is noticed by the check that it is for, and that nothing is left.
//!
//! It is a file of its own, and its tests run one after the other, since some of what they judge is
//! how long things take.

#![cfg(feature = "lab")]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]
#![expect(clippy::panic, reason = "the way of a test to fail")]

mod lab;

use std::io::BufReader;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lab::{assert_clean, finish, json};
use serde_json::Value;

/// One at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The demo with both acts, as JSON.
fn failover(test: &str) -> Option<Command> {
    let mut command = lab::demo(test)?;
    command.args(["--size", "1", "--failover", "--json", "-"]);
    Some(command)
}

fn failed(report: &Value) -> Vec<&Value> {
    report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] != true).collect()
}

#[test]
fn every_scene_holds() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut command) = failover("every_scene_holds") else { return };
    let (output, id) = finish(&mut command);
    let report = json(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(failed(&report).is_empty(), "{:#?}\n{said}", failed(&report));
    assert!(output.status.success(), "{said}");
    assert_eq!(report["ok"], true);

    let names: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in [
        "http-in/app-a/ipv4",
        "failover/steady/opened",
        "failover/steady/symmetric",
        "failover/steady/spread-az1",
        "failover/drain/no-new-flow",
        "failover/drain/progress",
        "failover/drain/ends-early",
        "failover/drain/nothing-lost",
        "failover/drain/nothing-broken",
        "failover/registration/none-moved",
        "failover/registration/new-flows",
        "failover/death/active",
        "failover/death/passive",
        "failover/rebalance/all-go-on-nva-2",
        "failover/rebalance/all-go-on-nva-1",
        "failover/rebalance/moved-once-nva-1",
        "failover/rebalance/strict-refuses",
        "failover/rebalance/state-allows",
        "failover/reset/next-packet",
        "failover/reset/both-ends",
        "failover/reload/none-moved",
        "failover/reload/nothing-lost",
        "failover/reload/wrong-file",
        "failover/restart/none-broken",
        "failover/restart/same-appliance",
        "failover/restart/in-time",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }

    let scenes = report["failover"].as_array().unwrap();
    assert_eq!(scenes.len(), 8);
    for scene in scenes {
        assert!(scene["seconds"].as_f64().unwrap() > 0.0, "{scene:#}");
        for figure in scene["figures"].as_array().unwrap() {
            let within = figure["limit"]
                .as_f64()
                .is_none_or(|limit| figure["value"].as_f64().unwrap() <= limit);
            assert!(within, "{figure:#}");
        }
    }

    let timeline = report["timeline"].as_array().unwrap();
    let times: Vec<_> = timeline.iter().map(|event| event["t"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.last().unwrap() < &Duration::from_mins(2).as_secs_f64());
    for event in [
        "nva-3 is deregistered",
        "nva-3 is draining (Target.DeregistrationInProgress)",
        "nva-3 is unused (Target.NotRegistered)",
        "nva-4 is registered",
        "nva-2 is unhealthy (Target.Timeout)",
        "nva-1 is unhealthy (Target.FailedHealthChecks)",
        "the gateway is killed (SIGKILL)",
    ] {
        let told = timeline.iter().any(|told| told["event"] == event);
        assert!(told, "{event} is not in {timeline:#?}");
    }
    assert_clean(id);
}

/// Breaks something and expects the checks for it to fail, and those of other scenes to hold.
fn broken(test: &str, fault: &str, checks: &[&str], unharmed: &[&str]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut command) = failover(test) else { return };
    let (output, id) = finish(command.args(["--break", fault]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report = json(&output);
    assert_eq!(report["ok"], false);
    let failed: Vec<_> =
        failed(&report).into_iter().map(|check| check["name"].as_str().unwrap()).collect();
    for check in checks {
        assert!(failed.contains(check), "{check} held: {failed:#?}\n{said}");
    }
    for scene in unharmed {
        let scene = format!("failover/{scene}/");
        assert!(!failed.iter().any(|name| name.starts_with(&scene)), "{failed:#?}\n{said}");
    }
    assert!(failed.iter().all(|name| name.starts_with("failover/")), "{failed:#?}");
    assert_clean(id);
}

#[test]
fn flows_that_stay_with_the_dead_are_noticed() {
    let checks = ["failover/rebalance/all-go-on-nva-1", "failover/rebalance/all-go-on-nva-2"];
    broken("flows_that_stay", "no-rebalance", &checks, &["steady", "drain", "registration"]);
}

#[test]
fn slow_health_checks_are_noticed() {
    let checks = ["failover/death/active"];
    broken("slow_health_checks", "slow-health", &checks, &["steady", "drain", "registration"]);
}

#[test]
fn missing_resets_are_noticed() {
    let checks = ["failover/reset/next-packet", "failover/reset/both-ends"];
    broken("missing_resets", "no-reset", &checks, &["steady", "drain", "rebalance"]);
}

#[test]
fn a_lost_secret_is_noticed() {
    let checks = ["failover/restart/same-appliance"];
    broken("a_lost_secret", "lost-secret", &checks, &["steady", "drain", "reload"]);
}

#[test]
fn an_interruption_leaves_nothing_even_of_what_hangs() {
    let test = "an_interruption_leaves_nothing_even_of_what_hangs";
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut command) = failover(test) else { return };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    lab::read_until(&mut stderr, "hangs (SIGSTOP)");
    assert_eq!(lab::end(&mut child, stderr), Some(130));
    assert_clean(id);
}
