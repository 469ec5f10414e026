//! What a gateway tells of itself: events, its log, and what systemd hears.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::{Value, json};

use crate::rig::{Gateway, Script, at_terminal, command, text};

const GWLB: &str = env!("CARGO_BIN_EXE_gwlb");

#[test]
fn events_are_listed_and_followed_to_the_end() {
    let gateway = Gateway::start();
    let list = gateway.json(&["events"]);
    let items = list["items"].as_array().unwrap();
    let started = items.iter().find(|event| event["event"] == "gateway_started").unwrap();
    assert_eq!((&started["workers"], &started["severity"]), (&json!(1), &json!("info")));
    let newest = items.last().unwrap()["id"].to_string();

    let mut follow = command(&gateway.socket(), &["events", "--follow", "--since", &newest])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |event: &str| -> Value {
        let found = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        found.into_iter().find(|it| it["event"] == event).unwrap_or_else(|| panic!("no {event}"))
    };
    gateway.json(&["log", "info,gwlb::control=warn"]);
    let change = next("log_filter");
    assert_eq!(
        (&change["from"], &change["to"]),
        (&json!("info"), &json!("info,gwlb::control=warn"))
    );
    gateway.edit("weight = 100", "weight = 1001");
    assert_eq!(gateway.run(&["reload"]).status.code(), Some(2));
    let refused = next("reload_refused");
    assert_eq!(refused["severity"], "warning");
    assert!(refused["reason"].as_str().unwrap().contains("1001"), "{refused}");

    let (code, shown) = at_terminal(command(&gateway.socket(), &["events"]));
    assert_eq!(code, Some(0), "{shown}");
    let line = shown.lines().find(|line| line.contains("not reloaded")).unwrap();
    let number = line.split_whitespace().next().unwrap();
    assert_eq!(number, refused["id"].to_string(), "as --since takes it: {line}");
    assert!(line.contains("Z  \x1b[33mwarning  not reloaded, and nothing has changed"), "{line:?}");
    let mut plain = command(&gateway.socket(), &["events"]);
    let (_, shown) = at_terminal({
        plain.env("NO_COLOR", "1");
        plain
    });
    assert!(shown.contains("warning  not reloaded") && !shown.contains('\x1b'), "{shown:?}");

    drop(gateway);
    assert_eq!(next("gateway_draining")["severity"], "info");
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn who_reads_no_further_ends_it() {
    let gateway = Gateway::start();
    let mut follow = command(&gateway.socket(), &["events", "--follow"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(follow.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with(r#"{"id":"#), "{first}");
    // It finds out when it has something to say.
    for filter in ["warn", "info", "warn"] {
        gateway.json(&["log", filter]);
    }
    let output = follow.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn the_log_is_changed_while_the_gateway_runs() {
    let gateway = Gateway::start_in(&[("RUST_LOG", "error"), ("GWLB_LOG", "warn")]);
    assert_eq!(gateway.json(&["log"]), json!({ "filter": "warn" }), "ours comes first");
    assert_eq!(
        gateway.json(&["log", " info , gwlb=debug"]),
        json!({ "filter": "info,gwlb=debug" })
    );
    gateway.log_until("INFO the log filter is");
    let (code, shown) = at_terminal(command(&gateway.socket(), &["log"]));
    assert_eq!((code, shown.trim_end()), (Some(0), "info,gwlb=debug"));
    let wrong = gateway.run(&["log", "inof"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = text(&wrong.stderr);
    assert!(said.contains(r#""inof" is no log filter ("inof" is no level)"#), "{said}");
    assert_eq!(gateway.json(&["log"])["filter"], "info,gwlb=debug");
    let alone = gateway.run(&["log", "gwlb::nosuch=debug"]);
    let said = text(&alone.stderr);
    assert!(
        said.contains("nothing else is logged") && said.contains("info,gwlb::nosuch"),
        "{said}"
    );
    assert_eq!(text(&gateway.run(&["log", "info"]).stderr), "");
}

#[test]
fn a_filter_tells_the_terminal_nothing() {
    let script = Script::start(vec![(200, json!({ "filter": "info,a\u{1b}[2J=debug" }))]);
    let (code, shown) = at_terminal(command(&script.socket(), &["log"]));
    assert_eq!((code, shown.trim_end()), (Some(0), "info,a [2J=debug"));
}

#[test]
fn a_capture_is_for_its_owner_alone() {
    let gateway = Gateway::start();
    let file = gateway.directory.path().join("it.pcapng");
    let capture = ["capture", "--seconds", "1", "-w", file.to_str().unwrap()];
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    let captured = gateway.run(&capture);
    assert_eq!(captured.status.code(), Some(0), "{}", text(&captured.stderr));
    assert_eq!(mode(), 0o600);
    // Who has said otherwise of a file is right.
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(gateway.run(&capture).status.code(), Some(0));
    assert_eq!(mode(), 0o640);
}

#[test]
fn a_log_that_no_person_reads_is_json() {
    // A pipe is no terminal.
    let gateway = Gateway::start_in(&[("GWLB_LOG_FORMAT", "auto"), ("RUST_LOG", "info")]);
    gateway.edit("weight = 100", "weight = 50");
    gateway.signal(Signal::SIGHUP);
    let mut lines = gateway.log_until(r#""message":"reloaded""#);
    // Whoever asked may be told before the event is.
    let event = r#""event":"reload""#;
    if lines.iter().all(|line| !line.contains(event)) {
        lines.extend(gateway.log_until(event));
    }
    assert!(lines.len() > 2);
    let mut told = Vec::new();
    for line in &lines {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message", "module"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
        told.push(line);
    }
    let reloaded = told.iter().find(|line| line["message"] == "reloaded").unwrap();
    assert_eq!(reloaded["changes"], 1, "{reloaded}");
    // An event has the fields that it has in the stream of events, and its time, severity and text
    // are those of the line.
    let events = gateway.json(&["events"]);
    let reload = events["items"].as_array().unwrap().iter().find(|it| it["event"] == "reload");
    let mut reload = reload.unwrap().as_object().unwrap().clone();
    let line = told.iter().find(|line| line["id"] == reload["id"]).unwrap();
    assert_eq!(line["message"], reload["text"]);
    for of_each_line in ["time", "severity", "text"] {
        reload.remove(of_each_line).unwrap();
    }
    for (field, value) in &reload {
        assert_eq!(line[field], *value, "{field}: {line}");
    }
    assert_eq!(line["changed"], 1, "{line}");
}

#[rstest]
#[case("GWLB_LOG", "gwlb=loud", "\"gwlb=loud\" is no log filter")]
#[case("RUST_LOG", "inof", "\"inof\" is no log filter")]
#[case("GWLB_LOG_FORMAT", "xml", "invalid value 'xml'")]
fn a_wrong_environment_is_told(#[case] variable: &str, #[case] value: &str, #[case] said: &str) {
    let output = Command::new(GWLB)
        .args(["run", "/nowhere/gateway.toml"])
        .env_remove("GWLB_LOG")
        .env_remove("RUST_LOG")
        .env(variable, value)
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_told_in_whole_lines() {
    let output = Command::new(GWLB).args(["run", "/nowhere/gateway.toml"]).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("there is no file") && error.ends_with('\n'), "{error:?}");
}

/// What systemd hears, message by message.
struct Systemd {
    socket: UnixDatagram,
}

impl Systemd {
    /// The messages until one of them has this line, which is the last one.
    fn hear(&self, line: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{error}: no {line:?} in {heard:?}");
            });
            let message = text(&buffer[..length]).to_owned();
            let last = message.lines().any(|it| it == line);
            heard.push(message);
            if last {
                return heard;
            }
        }
    }
}

#[test]
fn systemd_hears_how_the_service_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = Systemd { socket: UnixDatagram::bind(&path).unwrap() };
    systemd.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let path = path.to_str().unwrap();
    let gateway = Gateway::start_in(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "300000")]);
    let ready = systemd.hear("READY=1").pop().unwrap();
    assert!(ready.contains("STATUS=1 worker; "), "{ready}");
    let target = gateway.target.to_string();
    gateway.json(&["target", "register", "fw", &target, "--wait"]);
    gateway.json(&["bypass", "on", "fw"]);
    let bypassed = "1 of 1 targets take new flows; PACKETS PASS UNINSPECTED at fw";
    systemd.hear(&format!("STATUS=1 worker; {bypassed}"));
    for _ in 0..3 {
        systemd.hear("WATCHDOG=1");
    }
    gateway.signal(Signal::SIGHUP);
    let reloading = systemd.hear("RELOADING=1").pop().unwrap();
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let since: u64 = since.unwrap_or_else(|| panic!("{reloading}")).parse().unwrap();
    let up = std::fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
    assert!((up - since as f64 / 1e6).abs() < 20.0, "{up} {since}");
    systemd.hear("READY=1");
    gateway.signal(Signal::SIGTERM);
    systemd.hear("STOPPING=1");
}

#[test]
fn the_manual_and_completions_are_written() {
    let run = |arguments: &[&str]| {
        let output = Command::new(GWLB).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("man1");
    run(&["man", "--out", folder.to_str().unwrap()]);
    for page in ["gwlb.1", "gwlb-run.1", "gwlb-target.1", "gwlb-target-deregister.1"] {
        assert!(folder.join(page).is_file(), "{page}");
    }
    assert_eq!(run(&["man"]), std::fs::read_to_string(folder.join("gwlb.1")).unwrap());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).contains("deregister"), "{shell}");
    }
    let into_a_file = Command::new(GWLB).args(["man", "--out", "/dev/null/man"]).output().unwrap();
    assert_eq!(into_a_file.status.code(), Some(1));
}

#[test]
fn the_unit_lets_flow_logs_be_written_where_they_are_said_to_be() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let unit = std::fs::read_to_string(format!("{folder}/contrib/gwlb.service")).unwrap();
    assert!(unit.contains("\nProtectSystem=strict\n"), "all else is read only");
    let logs = unit.lines().find_map(|line| line.strip_prefix("LogsDirectory=")).unwrap();
    let document = std::fs::read_to_string(format!("{folder}/../docs/flow-logs.md")).unwrap();
    let told: Vec<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("destination = \"/")?.split_once('"'))
        .collect();
    assert!(!told.is_empty());
    for (file, _) in told {
        assert!(file.starts_with(&format!("var/log/{logs}/")), "/{file}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/gwlb.service");
    let text_of_it = std::fs::read_to_string(unit).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        return netio::netns::skip_test("the_unit", "systemd-analyze is not installed");
    };
    let version = text(&version.stdout).split_whitespace().nth(1).unwrap();
    let version: u32 = version.split('.').next().unwrap().parse().unwrap();
    // The program is not installed here, and everything else is as it is, unless systemd is too old.
    let mut unit = text_of_it.replace("/usr/local/bin/gwlb", GWLB);
    if version < 253 {
        assert!(unit.contains("Type=notify-reload"));
        unit = unit.replace("Type=notify-reload", "Type=notify");
    }
    let here = directory.path().join("gwlb.service");
    std::fs::write(&here, unit).unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here).output();
    let verified = verified.unwrap();
    let said = text(&verified.stderr);
    assert!(verified.status.success() && !said.contains("gwlb.service"), "{said}");
}
