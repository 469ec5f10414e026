//! Commands and a gateway: what is done, what is said, and the exit status.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::json;

use crate::rig::{Gateway, Script, at_terminal, command, text};

#[test]
fn targets_come_and_go() {
    let gateway = Gateway::start();
    let target = gateway.target.to_string();
    let registered = gateway.json(&["target", "register", "fw", &target, "--wait"]);
    assert_eq!(registered["state"], "healthy");
    let other = gateway.json(&["target", "register", "fw", "192.0.2.13", "--weight", "7"]);
    assert_eq!((&other["weight"], &other["zone"]), (&json!(7), &json!("az1")));
    let list = gateway.json(&["target", "list", "fw"]);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.json(&["target", "list"])["items"].as_array().unwrap().len(), 2);
    let one = gateway.json(&["target", "health", "fw", &target]);
    assert_eq!(one["items"][0]["state"], "healthy");
    let gone = gateway.json(&["target", "deregister", "fw", "192.0.2.13"]);
    assert!(["draining", "unused"].contains(&gone["state"].as_str().unwrap()), "{gone}");
    // Nothing was ever sent to it: it is drained soon.
    let output = gateway.run(&["target", "deregister", "fw", "192.0.2.13", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("its last flow has ended"), "{}", text(&output.stdout));
}

#[test]
fn a_group_of_endpoints_is_switched_and_back() {
    let gateway = Gateway::grouped();
    let target = gateway.target.to_string();
    gateway.json(&["target", "register", "fw", &target, "--wait"]);
    let list = gateway.json(&["endpoint-group", "list"]);
    assert_eq!(list["items"][0]["members"][1]["health"], "Normal", "{list}");
    let switched = gateway.json(&["endpoint-group", "switch", "inspection", "--to", "vpce-b"]);
    assert_eq!(switched["active"], "vpce-b");
    let shown = |arguments: &[&str]| {
        let (code, shown) = at_terminal(command(&gateway.socket(), arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {shown}");
        shown
    };
    let groups = shown(&["endpoint-group", "list"]);
    let line = groups.lines().find(|line| line.trim_start().starts_with("vpce-b")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["vpce-b", "az2", "0", "Normal", "yes"], "{groups}");
    assert!(groups.contains("switched to vpce-b by hand"), "{groups}");
    assert!(shown(&["status"]).contains("new flows go to vpce-b"));
    let back = shown(&["endpoint-group", "switch", "inspection"]);
    assert!(back.contains("new flows go to vpce-a"), "{back}");
    let output = gateway.run(&["endpoint-group", "switch", "inspection", "--to", "vpce-c"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("gwlb: to: endpoint group \"inspection\" has no member"));
}

#[test]
fn a_packet_is_followed_to_its_target() {
    let gateway = Gateway::start();
    let target = gateway.target.to_string();
    gateway.json(&["target", "register", "fw", &target, "--wait"]);
    let way = ["trace", "--from", "internet_gateway:igw", "--to", "10.0.1.11"];
    let flow = ["--source", "203.0.113.7", "--protocol", "tcp", "--source-port", "4711"];
    let whole = [&way[..], &flow[..], &["--port", "443"]].concat();
    let trace = gateway.json(&whole);
    let sent_to = trace["hops"][0]["passage"]["target"]["target"].as_str().unwrap();
    assert!(sent_to.starts_with(&target), "{trace}");
    let (code, shown) = at_terminal(command(&gateway.socket(), &whole));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(&format!("load balancer fw sends it to {sent_to}")), "{shown}");
    assert!(shown.trim_end().ends_with("delivered to subnet:app-a"), "{shown}");
    // The answer goes nowhere from there: the endpoint's subnet has only local routes.
    let output = gateway.run(&[&way[..], &["--answer"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let output = gateway.run(&["trace", "--from", "subnet:app-x", "--to", "10.0.1.11"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean \"app-a\"?"), "{}", text(&output.stderr));
}

#[test]
fn people_get_tables() {
    let gateway = Gateway::start();
    let target = gateway.target.to_string();
    gateway.json(&["target", "register", "fw", &target, "--wait"]);
    let shown = |arguments: &[&str]| {
        let (code, shown) = at_terminal(command(&gateway.socket(), arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {shown}");
        shown
    };
    let health = shown(&["target", "health"]);
    let line = health.lines().find(|line| line.contains(&target)).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[1..4], ["fw", "az1", "healthy"], "{health}");
    assert!(line.contains(" s ago"), "{health}");
    assert!(shown(&["target", "list", "fw"]).contains("weight"));

    let calm = shown(&["status"]);
    assert!(!calm.contains("!!!"), "{calm}");
    let bypass = shown(&["bypass", "on", "fw"]);
    assert!(bypass.starts_with("fw: PACKETS PASS UNINSPECTED"), "{bypass}");
    let status = shown(&["status"]);
    assert!(status.contains("!!! fw: PACKETS PASS UNINSPECTED"), "{status}");
    let line = status.lines().find(|line| line.contains(&target)).unwrap();
    assert!(line.contains("healthy"), "{status}");
    shown(&["bypass", "off", "fw"]);
    assert!(!shown(&["status"]).contains("!!!"));

    let registered = shown(&["target", "register", "fw", "192.0.2.13", "--weight", "9"]);
    assert!(registered.contains("192.0.2.13:6081 is registered in az1 with weight 9"));
    assert!(
        shown(&["target", "deregister", "fw", "192.0.2.13"]).contains("fw: 192.0.2.13:6081 is")
    );
    // Whoever asks for JSON gets it here, too.
    assert!(shown(&["status", "--json"]).starts_with('{'));
}

#[rstest]
#[case::weight(&["target", "register", "fw", "192.0.2.13", "--weight", "1001"], 2,
    "gwlb: weight is 0 to 1000, and not 1001")]
#[case::negative(&["target", "register", "fw", "192.0.2.13", "--weight", "-1"], 2, "and not -1")]
#[case::zone(&["target", "register", "fw", "192.0.2.13", "--zone", "az9"], 2,
    "gwlb: zone: no load balancer of the target group has a node in zone \"az9\"; there are nodes in: az1")]
#[case::family(&["target", "register", "fw", "2001:db8::1"], 2, "gwlb: address: the target is IPv6")]
#[case::group(&["target", "list", "fx"], 2, "there is no target group \"fx\"; did you mean \"fw\"?")]
#[case::odd_group(&["target", "list", "a/b c?"], 2, "there is no target group \"a/b c?\"")]
#[case::target(&["target", "deregister", "fw", "192.0.2.99", "--wait"], 2, "no target 192.0.2.99:6081")]
#[case::port(&["target", "health", "fw", "192.0.2.99", "--port", "7"], 2, "no target 192.0.2.99:7")]
#[case::balancer(&["bypass", "on", "nope"], 2, "there is no load balancer \"nope\"")]
#[case::no_address(&["target", "register", "fw", "fw-1"], 2, "invalid value 'fw-1'")]
#[case::no_port(&["target", "register", "fw", "192.0.2.1", "--port", "0"], 2, "1..=65535")]
#[case::no_switch(&["bypass", "maybe", "fw"], 2, "possible values: on, off")]
#[case::other_url(&["status", "--url", "https://gw", "--token-file", "/nowhere"], 2,
    "--url is such as http://127.0.0.1:9960")]
#[case::no_token(&["status", "--url", "http://127.0.0.1:1", "--token-file", "/nowhere"], 2,
    "cannot read the token file /nowhere")]
#[case::half_a_url(&["status", "--url", "http://127.0.0.1:1"], 2, "--token-file")]
fn what_is_refused_is_said(#[case] arguments: &[&str], #[case] code: i32, #[case] said: &str) {
    let gateway = Gateway::start();
    // Another way to the gateway than its socket is said here.
    let output = if arguments.contains(&"--url") {
        Command::new(env!("CARGO_BIN_EXE_gwlb")).args(arguments).output().unwrap()
    } else {
        gateway.run(arguments)
    };
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
    assert_eq!(text(&output.stdout), "");
}

/// A command of each kind that asks a gateway.
const ASKING: &[&[&str]] = &[
    &["status"],
    &["reload"],
    &["diff"],
    &["target", "list"],
    &["target", "health"],
    &["target", "register", "fw", "192.0.2.13"],
    &["target", "register", "fw", "192.0.2.13", "--wait"],
    &["target", "deregister", "fw", "192.0.2.13"],
    &["target", "deregister", "fw", "192.0.2.13", "--wait"],
    &["bypass", "on", "fw"],
    &["endpoint-group", "list"],
    &["endpoint-group", "switch", "inspection"],
    &["trace", "--from", "subnet:app-a", "--to", "10.0.1.11"],
    &["explain", "--from", "subnet:app-a", "--hex", "45"],
    &["explain", "--drops"],
    &["ping", "vpce-a"],
    &["flows"],
    &["flows", "--all"],
    &["flows", "--count"],
    &["flow", "203.0.113.7:4711-10.0.1.11:443/tcp"],
    &["events"],
    &["events", "--follow"],
    &["log"],
    &["log", "info"],
    &["capture"],
];

#[test]
fn every_command_ends_with_the_same_status_for_the_same_reason() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody.sock");
    let statuses = |socket: &Path| -> Vec<(&[&str], Option<i32>)> {
        let ended = |arguments: &&'static [&'static str]| {
            let output = command(socket, arguments).output().unwrap();
            assert_eq!(text(&output.stdout), "", "{arguments:?}");
            assert!(text(&output.stderr).starts_with("gwlb: "), "{arguments:?}");
            (*arguments, output.status.code())
        };
        ASKING.iter().map(ended).collect()
    };
    let all = |status: i32| -> Vec<_> {
        ASKING.iter().map(|&arguments| (arguments, Some(status))).collect()
    };
    assert_eq!(statuses(&nobody), all(1), "nobody is there");
    for (refused, field, status) in
        [(503, None, 1), (409, None, 1), (400, Some("x"), 2), (404, Some("x"), 2), (422, None, 2)]
    {
        let refusal = json!({ "status": refused, "detail": "it says no", "field": field });
        let script = Script::start(vec![(refused, refusal)]);
        assert_eq!(statuses(&script.socket()), all(status), "{refused}");
    }
}

#[test]
fn who_cannot_be_reached_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nobody.sock");
    let said = |code| {
        let output = command(&socket, &["status"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        text(&output.stderr).to_owned()
    };
    let missing = said(1);
    assert!(missing.contains("nobody.sock") && missing.contains("Is the gateway running"));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let left = said(1);
    assert!(left.contains("has ended") && left.contains("gwlb run"), "{left}");
}

#[test]
fn a_file_is_compared_and_taken_up() {
    let gateway = Gateway::start();
    let run = |arguments: &[&str]| {
        let output = gateway.run(arguments);
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    assert_eq!(run(&["diff"]).0, Some(0));
    let (code, none) = at_terminal(command(&gateway.socket(), &["diff"]));
    assert_eq!((code, none.trim()), (Some(0), "no difference"));
    gateway.edit("weight = 100", "weight = 50");
    let (code, shown, _) = run(&["diff"]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("weight: 100 -> 50"), "{shown}");
    let (_, table) = at_terminal(command(&gateway.socket(), &["diff"]));
    assert!(table.starts_with("changed target fw/127."), "{table}");
    let weight = || gateway.json(&["target", "list"])["items"][0]["weight"].clone();
    assert_eq!(weight(), 100, "a difference is looked at and not taken up");
    let (code, shown) = at_terminal(command(&gateway.socket(), &["reload"]));
    assert_eq!(code, Some(0));
    assert!(shown.starts_with("changed target fw/"), "{shown}");
    assert_eq!(weight(), 50);
    assert_eq!(run(&["diff"]).0, Some(0));

    // Another file.
    let other = gateway.directory.path().join("other.toml");
    let before = fs::read_to_string(gateway.file()).unwrap();
    fs::write(&other, before.replace("weight = 50", "weight = 60")).unwrap();
    let other = other.to_str().unwrap();
    assert_eq!(run(&["diff", other]).0, Some(1));
    assert_eq!(run(&["reload", "--file", other]).0, Some(0));
    assert_eq!(weight(), 60);

    // A wrong one, here and there.
    gateway.edit("weight = 50", "weight = 1001");
    let file = gateway.file();
    for arguments in [&["diff", file.to_str().unwrap()][..], &["diff"], &["reload"]] {
        let (code, _, said) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains("gateway.toml:44:10"), "{said}");
    }
    assert_eq!(weight(), 60);

    // What takes a restart is a difference, and is refused.
    gateway.edit("weight = 1001", "weight = 60");
    gateway.edit("workers = 1", "workers = 2");
    let (code, shown, _) = run(&["diff"]);
    assert!(code == Some(1) && shown.contains("\"restart\": true"), "{shown}");
    let (code, _, said) = run(&["reload"]);
    assert!(code == Some(1) && said.contains("workers: 1 -> 2 (takes a restart)"), "{said}");
}

#[test]
fn a_hang_up_reads_the_file_again() {
    let gateway = Gateway::start();
    gateway.edit("weight = 100", "weight = 50");
    gateway.signal(Signal::SIGHUP);
    let log = gateway.log_until("reloaded changes=1");
    assert!(log.iter().any(|line| line.contains("weight: 100 -> 50")), "{log:#?}");
    let weight = || gateway.json(&["target", "list"])["items"][0]["weight"].clone();
    assert_eq!(weight(), 50);

    gateway.edit("weight = 50", "weight = 1001\nwheight = 1");
    gateway.signal(Signal::SIGHUP);
    let log = gateway.log_until("gateway.toml:45:1").join("\n");
    for place in ["not reloaded", "(the first of 2 problems)", "gateway.toml:44:10"] {
        assert!(log.contains(place), "{place}: {log}");
    }
    assert_eq!(weight(), 50);
}

#[test]
fn flows_are_asked_for() {
    let gateway = Gateway::start();
    for arguments in
        [&["flows"][..], &["flows", "--all"], &["flows", "--sort", "-idle", "--state", "closed"]]
    {
        assert_eq!(gateway.json(arguments)["items"], json!([]), "nothing has come in");
    }
    let count = ["flows", "--count", "--address", "10.0.0.0/8", "--endpoint", "vpce-a"];
    assert_eq!(gateway.json(&count), json!({ "matched": 0 }));
    let (code, shown) = at_terminal(command(&gateway.socket(), &["flows", "--port", "443"]));
    assert_eq!((code, shown.trim()), (Some(0), "0 flows"));
    let flow = ["flow", "203.0.113.7:4711-10.0.1.11:443/tcp"];
    let output = gateway.run(&flow);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no such flow now"), "{}", text(&output.stderr));
    for (arguments, status, said) in [
        (&["flows", "--endpoint", "vpce-x"][..], 2, "did you mean \"vpce-a\"?"),
        (&["flows", "--state", "open"], 2, "--state: \"open\" is no state"),
        (&["flows", "--port", "http"], 2, "--port: \"http\" is no port"),
        (&["flows", "--sort", "colour"], 2, "age, idle, packets, bytes, expires"),
        (&["flow", "10.0.1.11:443/tcp"], 2, "write SOURCE:PORT-DESTINATION:PORT/tcp"),
        (&["flow"], 2, "which flow?"),
    ] {
        let output = gateway.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}
