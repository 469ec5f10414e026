//! `gwlb demo` as a user starts it: that it passes, that it fails for a named cause when the network
//! is broken on purpose, and that it leaves nothing behind whichever way it ends.

#![cfg(feature = "lab")]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]
#![expect(clippy::panic, reason = "the way of a test to fail")]

mod lab;

use std::io::BufReader;
use std::process::{Command, Stdio};

use lab::{GWLB, assert_clean, end, finish, json, read_until};
use netio::process::{CommandExt, Preflight, Start};

/// The transfers are about correctness here.
const LITTLE_DATA: [&str; 2] = ["--size", "4"];

/// The command with little data, or `None` where the demo cannot run.
fn demo(test: &str) -> Option<Command> {
    let mut command = lab::demo(test)?;
    command.args(LITTLE_DATA);
    Some(command)
}

#[test]
fn every_check_holds() {
    let Some(mut command) = demo("every_check_holds") else { return };
    command.args(["--json", "-"]);
    let (output, id) = finish(&mut command);
    let report = json(&output);
    let bad: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] != true).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(output.status.success());
    assert_eq!(report["ok"], true);

    let names: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for server in ["app-a", "app-b"] {
        for family in ["ipv4", "ipv6"] {
            for kind in ["routes", "http-in", "http-out", "udp", "ping", "bulk-in", "bulk-out"] {
                let name = format!("{kind}/{server}/{family}");
                assert!(names.contains(&name.as_str()), "{name} is not in {names:?}");
            }
        }
    }
    for name in [
        "port-denied/app-a/ipv4",
        "port-denied/app-a/ipv6",
        "port-open/app-b/ipv6",
        "denied-by-rule/nva-1",
        "symmetry/nva-3",
        "agreement/nva-2",
        "inspected",
        "conservation/networks",
        "conservation/appliances",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let carried: u64 =
        report["appliances"].as_array().unwrap().iter().map(|a| a["bytes"].as_u64().unwrap()).sum();
    assert!(carried > 8 * (4 << 20), "eight transfers of 4 MiB, but {carried} bytes");
    assert!(report["transfers"].as_array().unwrap().iter().all(|t| t["identical"] == true));
    assert_clean(id);
}

#[test]
fn the_text_ends_with_the_verdict() {
    let Some(mut command) = demo("the_text_ends_with_the_verdict") else { return };
    let (output, id) = finish(&mut command);
    let text = String::from_utf8(output.stdout).unwrap();
    let verdict = text.lines().last().unwrap();
    assert!(verdict.starts_with("PASS: all "), "{text}");
    assert!(text.contains("What went where"), "{text}");
    assert_clean(id);
}

/// Breaks the network and expects the demo to fail: `check` with a detail that says `cause`, and no
/// failure at the server that is not concerned.
fn broken(test: &str, fault: &str, check: &str, cause: &str, unharmed: &str) {
    let Some(mut command) = demo(test) else { return };
    command.args(["--json", "-", "--break", fault]);
    let (output, id) = finish(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output);
    assert_eq!(report["ok"], false);
    let failed: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    let named = failed.iter().any(|failed| {
        failed["name"] == check && failed["detail"].as_str().unwrap().contains(cause)
    });
    assert!(named, "{check} does not say {cause:?}: {failed:#?}");
    let at_unharmed = format!("/{unharmed}/");
    let harmed = failed.iter().any(|f| f["name"].as_str().unwrap().contains(&at_unharmed));
    assert!(!harmed, "{failed:#?}");
    assert_clean(id);
}

#[test]
fn a_wrong_route_is_noticed_before_and_after_the_traffic() {
    let test = "a_wrong_route_is_noticed";
    let route = "route table app-a leads to internet_gateway:igw in place of endpoint:vpce-a";
    broken(test, "wrong-route", "routes/app-a/ipv4", route, "app-b");
    broken(test, "wrong-route", "inspected", "delivered without inspection", "app-b");
}

#[test]
fn a_rewritten_byte_is_noticed() {
    let cause = "the data was changed on its way through nva-";
    broken("a_rewritten_byte_is_noticed", "rewrite", "bulk-in/app-b/ipv4", cause, "app-a");
}

#[test]
fn an_appliance_that_does_not_answer_is_named() {
    let cause = "nva-1 (firewall in az1) was sent";
    broken("a_silent_appliance", "silent", "http-in/app-a/ipv4", cause, "app-b");
}

#[test]
fn a_kept_network_goes_when_it_is_told_to() {
    let Some(mut command) = demo("a_kept_network") else { return };
    let mut child =
        command.arg("--keep").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let said = read_until(&mut stderr, "What the gateway does");
    assert!(said.contains(&format!("nsenter --net=/run/netns/gwlb-demo-{id}-client")), "{said}");

    let status = end(&mut child, stderr);
    assert_eq!(status, Some(0), "the checks had held");
    assert_clean(id);
}

#[test]
fn an_interruption_leaves_nothing() {
    if demo("an_interruption").is_none() {
        return;
    }
    // As much data as takes longer than this test.
    let mut command = Command::new(GWLB);
    command.args(["demo", "--size", "1048576"]).die_with_parent();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "which the firewall denies");
    assert_eq!(end(&mut child, stderr), Some(130));
    assert_clean(id);
}

#[test]
fn it_works_inside_a_user_namespace() {
    let Some(mut command) = demo("it_works_inside_a_user_namespace") else { return };
    if !user_namespaces("it_works_inside_a_user_namespace") {
        return;
    }
    command.in_user_namespace().unwrap();
    assert_passes(&mut command);
}

#[test]
fn without_capabilities_it_starts_over_in_a_user_namespace() {
    let test = "without_capabilities_it_starts_over_in_a_user_namespace";
    if demo(test).is_none() || !user_namespaces(test) {
        return;
    }
    // Takes root's capabilities away but for the one that lets root's id be mapped. Who is not root
    // has none to lose.
    let root = Preflight::check().start() == Start::Directly;
    let mut command = if root { Command::new("setpriv") } else { Command::new(GWLB) };
    if root {
        command.args(["--bounding-set=-all,+setfcap", "--inh-caps=-all", GWLB]);
    }
    assert_passes(command.arg("demo").args(LITTLE_DATA));
}

fn user_namespaces(test: &str) -> bool {
    let Err(error) = Preflight::check().user_namespaces else { return true };
    let must = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!must, "{test} may not be skipped here, but user namespaces: {error}");
    eprintln!("SKIP {test}: user namespaces: {error}");
    false
}

fn assert_passes(command: &mut Command) {
    let (output, id) = finish(command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_clean(id);
}

#[test]
fn wrong_use_is_told_as_such() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(GWLB);
        command.arg("demo").args(arguments).output().unwrap()
    };
    // A fault of the second act breaks nothing in the first.
    let alone = &["--break", "no-rebalance"][..];
    for wrong in [&["--break", "nothing"][..], &["--size", "0"], &["--no-such-option"], alone] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("--keep") && help.contains("wrong-route"), "{help}");
}
