//! The API as its clients meet it.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rstest::rstest;
use serde_json::json;

use super::super::shared::tests::file;
use super::listen::SOCKET_MODE;
use super::testing::{Api, exchange, read_answer, served, status};
use super::*;
use crate::config::{AdminAddress, GatewaySettings};
use crate::dataplane::verdict::DropReason;
use crate::runtime::clock;

fn start(settings: &GatewaySettings, shared: &Arc<Shared>, control: &ControlHandle) -> AdminServer {
    let listeners = Listeners::bind(settings).unwrap();
    AdminServer::start(listeners, Arc::clone(shared), control).unwrap()
}

/// The body of a good answer, or status and body of another.
fn get(socket: &Path, path: &str) -> Result<Vec<u8>, String> {
    let (head, body) = exchange(socket, "GET", path, &[], b"");
    match status(&head) {
        200 => Ok(body),
        status => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

#[test]
fn the_socket_answers_and_is_gone_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/admin.sock");
    let (shared, control, mut settings) = served();
    settings.admin = Some(AdminAddress::Unix(path.clone()));
    settings.metrics = None;
    // What a gateway that was killed left behind is no obstacle.
    std::fs::create_dir_all(directory.path().join("run")).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let server = start(&settings, &shared, &control);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
    let second = Listeners::bind(&settings).unwrap_err().to_string();
    assert!(second.contains("in use"), "{second}");

    let json = |path_: &str| -> serde_json::Value {
        serde_json::from_slice(&get(&path, path_).unwrap()).unwrap()
    };
    let status = json("/v1/status");
    assert_eq!(status["state"], "running");
    assert_eq!(status["tun"]["received"], 0);
    assert_eq!(status["targets"].as_array().unwrap().len(), 3);
    let targets = json("/v1/target-groups/fw/targets");
    assert_eq!(targets["items"], status["targets"]);
    assert_eq!(targets["next"], serde_json::Value::Null);

    let unknown = get(&path, "/v1/target-groups/nope/targets").unwrap_err();
    assert!(unknown.contains("404") && unknown.contains(r#""field":"group""#), "{unknown}");
    let nothing = get(&path, "/v2").unwrap_err();
    assert!(nothing.contains("there is nothing at /v2"), "{nothing}");

    let metrics = get(&path, "/metrics").unwrap();
    let metrics = std::str::from_utf8(&metrics).unwrap();
    for reason in DropReason::ALL {
        for side in ["tun", "udp"] {
            let series = format!(
                "gwlb_packets_dropped_total{{reason=\"{}\",side=\"{side}\"}} 0",
                reason.name()
            );
            assert!(metrics.contains(&series), "{series} in {metrics}");
        }
    }
    assert!(metrics.contains("# HELP gwlb_packets_received_total Packets that entered."));

    assert!(get(&path, "/ready").is_ok());
    shared.drain();
    let draining = get(&path, "/ready").unwrap_err();
    assert!(draining.contains("503"), "{draining}");
    assert!(get(&path, "/live").is_ok());
    server.stop();
    assert!(!path.exists());
}

#[test]
fn a_client_that_says_no_more_does_not_hold_up_the_end() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (shared, control, mut settings) = served();
    settings.admin = None;
    settings.metrics = Some(address);
    let server = start(&settings, &shared, &control);
    let stuck = std::net::TcpStream::connect(address).unwrap();
    stuck.set_write_timeout(Some(GRACE)).unwrap();
    // Asked for more than fits on the way to somebody who does not read.
    while (&stuck).write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}

    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        server.stop();
        ended.send(true)
    });
    assert_eq!(end.recv_timeout(GRACE * 20), Ok(true));
}

#[test]
fn over_tcp_the_token_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "open-sesame-0123456789\n").unwrap();
    std::fs::set_permissions(&token_file, Permissions::from_mode(0o600)).unwrap();
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (shared, control, mut settings) = served();
    settings.admin = Some(AdminAddress::Tcp { address, token_file });
    settings.metrics = None;
    let server = start(&settings, &shared, &control);
    for (token, expected) in [
        ("", "401"),
        ("Authorization: Bearer wrong\r\n", "401"),
        ("Authorization: Bearer open-sesame-0123456789\r\n", "200"),
    ] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{token}: {answer}");
    }
    server.stop();
}

const SWITCH: &str = "/v1/endpoint-groups/inspection/switch";
const TARGET: &str = "/v1/target-groups/fw/targets/192.0.2.13";

#[test]
fn a_target_is_registered_and_changed() {
    let api = Api::start();
    let (code, unknown) = api.ask("GET", TARGET);
    assert_eq!((code, &unknown["field"]), (404, &json!("address")), "{unknown}");

    let (code, target) = api.json("PUT", TARGET, r#"{"zone": "az1"}"#);
    assert_eq!(code, 200, "{target}");
    assert_eq!((&target["address"], &target["weight"]), (&json!("192.0.2.13:6081"), &json!(100)));
    assert_eq!((&target["state"], &target["zone"]), (&json!("initial"), &json!("az1")));
    let (code, target) = api.json("PUT", TARGET, r#"{"weight": 7}"#);
    assert_eq!((code, &target["weight"], &target["zone"]), (200, &json!(7), &json!("az1")));
    let (code, again) = api.ask("PUT", TARGET);
    assert_eq!((code, &again["weight"]), (200, &json!(7)), "no body changes nothing");
    assert_eq!(api.ask("GET", TARGET).1["weight"], 7);

    // Another port is another target.
    let (code, other) = api.json("PUT", &format!("{TARGET}?port=6082"), r#"{"zone":"az2"}"#);
    assert_eq!((code, &other["address"]), (200, &json!("192.0.2.13:6082")));
    let (_, list) = api.ask("GET", "/v1/target-groups/fw/targets");
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    let (_, groups) = api.ask("GET", "/v1/target-groups");
    assert_eq!(groups["items"][0]["targets"]["initial"], 5, "{groups}");
}

#[test]
fn a_target_is_drained_and_restored() {
    let api = Api::start();
    let path = "/v1/target-groups/fw/targets/192.0.2.11";
    let published = api.shared.exchange.published.load_full();
    let counters = &published.snapshot.targets[0].counters[0];
    counters.new_flows.add(3);
    counters.ended_flows.add(1);
    // Who says it twice is told how far it is.
    for _ in 0..2 {
        let (code, going) = api.ask("DELETE", path);
        assert_eq!((code, &going["state"]), (200, &json!("draining")), "{going}");
        assert_eq!(going["draining"]["flows_left"], 2);
        let left = going["draining"]["seconds_left"].as_f64().unwrap();
        assert!(left > 200.0 && left <= 300.0, "{left}");
    }
    let (code, back) = api.ask("PUT", path);
    assert_eq!((code, &back["state"]), (200, &json!("initial")));
    assert_eq!((&back["active_flows"], &back["draining"]), (&json!(2), &json!(null)));
    counters.ended_flows.add(2);
    api.ask("DELETE", path);
    while api.ask("GET", path).1["state"] == "draining" {}
    let (code, gone) = api.ask("DELETE", path);
    assert_eq!((code, &gone["reason"]), (200, &json!("Target.NotRegistered")), "{gone}");
}

#[test]
fn a_load_balancer_is_bypassed_and_not() {
    let api = Api::start();
    let path = "/v1/load-balancers/fw";
    let (_, list) = api.ask("GET", "/v1/load-balancers");
    assert_eq!(list["items"][0]["nodes"][1]["zone"], "az2", "{list}");
    for (mode, packets) in [("bypass", "bypassed"), ("load_balance", "inspected")] {
        let body = json!({ "traffic_mode": mode }).to_string();
        let (code, balancer) = api.json("PATCH", path, &body);
        assert_eq!((code, &balancer["traffic_mode"]), (200, &json!(mode)), "{balancer}");
        assert_eq!(balancer["nodes"][0]["packets"], packets);
        assert_eq!(api.ask("GET", path).1, balancer);
    }
}

#[test]
fn a_group_of_endpoints_is_switched_and_back() {
    let api = Api::start();
    let path = "/v1/endpoint-groups/inspection";
    let (_, list) = api.ask("GET", "/v1/endpoint-groups");
    assert_eq!(list["items"][0]["members"][1]["zone"], "az2", "{list}");
    for (body, active) in [
        (r#"{"to":"vpce-b"}"#, "vpce-b"),
        ("{}", "vpce-a"),
        (r#"{"to":"vpce-b"}"#, "vpce-b"),
        ("", "vpce-a"),
    ] {
        let (code, group) = api.json("POST", &format!("{path}/switch"), body);
        assert_eq!((code, &group["active"]), (200, &json!(active)), "{group}");
        let (_, status) = api.ask("GET", "/v1/status");
        assert_eq!(status["endpoint_groups"][0]["active"], active);
    }
}

#[test]
fn a_packet_is_followed_to_its_target_and_back() {
    let api = Api::start();
    let body = json!({
        "from": "internet_gateway:igw",
        "to": "10.0.1.11",
        "source": "203.0.113.7",
        "protocol": "tcp",
        "source_port": 40_000,
        "destination_port": 443,
        "answer": true,
        "text": true,
    });
    let (code, answer) = api.json("POST", "/v1/trace", &body.to_string());
    assert_eq!(code, 200, "{answer}");
    let target = |trace: &serde_json::Value| trace["hops"][0]["passage"]["target"].clone();
    let (there, back) = (target(&answer["trace"]), target(&answer["trace"]["back"]));
    assert!(there["target"].as_str().unwrap().starts_with("192.0.2."), "{answer}");
    assert_eq!(there, back, "{answer}");
    assert_eq!(answer["trace"]["delivered"], true);
    assert_eq!(answer["trace"]["back"]["delivered"], true);
    let text = answer["text"].as_str().unwrap();
    let sends = format!("load balancer fw sends it to {}", there["target"].as_str().unwrap());
    assert_eq!(text.matches(&sends).count(), 2, "{text}");
}

#[rstest]
#[case::no_group(
    "POST",
    "/v1/endpoint-groups/inspect/switch",
    "",
    404,
    "endpoint_group",
    "inspection"
)]
#[case::no_such_group(
    "GET",
    "/v1/endpoint-groups/x",
    "",
    404,
    "endpoint_group",
    "there are: inspection"
)]
#[case::no_member("POST", SWITCH, r#"{"to":"vpce-c"}"#, 400, "to", "did you mean")]
#[case::member_type("POST", SWITCH, r#"{"to":1}"#, 400, "to", "expected a string")]
#[case::member_key("POST", SWITCH, r#"{"endpoint":"vpce-b"}"#, 400, "endpoint", "expected `to`")]
#[case::trace_from_nowhere("POST", "/v1/trace", r#"{"to": "10.0.1.11"}"#, 400, "from", "is needed")]
#[case::trace_to_nowhere(
    "POST",
    "/v1/trace",
    r#"{"from": "subnet:app-a"}"#,
    400,
    "to",
    "is needed"
)]
#[case::trace_from_no_place(
    "POST",
    "/v1/trace",
    r#"{"from": "subnet:app-x", "to": "10.0.1.11"}"#,
    400,
    "from",
    "did you mean"
)]
#[case::trace_of_two_families(
    "POST",
    "/v1/trace",
    r#"{"from": "subnet:app-a", "to": "10.0.1.11", "source": "2001:db8::1"}"#,
    400,
    "source",
    "two families"
)]
#[case::trace_of_no_protocol(
    "POST",
    "/v1/trace",
    r#"{"from": "subnet:app-a", "to": "10.0.1.11", "protocol": "tpc"}"#,
    400,
    "protocol",
    "tcp, udp"
)]
#[case::weight_too_large("PUT", TARGET, r#"{"weight": 1001}"#, 400, "weight", "0 to 1000")]
#[case::weight_negative(
    "PUT",
    TARGET,
    r#"{"weight": -1}"#,
    400,
    "weight",
    "weight is 0 to 1000, and not -1"
)]
#[case::weight_huge("PUT", TARGET, r#"{"weight": 1e99}"#, 400, "weight", "0 to 1000")]
#[case::weight_no_number("PUT", TARGET, r#"{"weight": "1"}"#, 400, "weight", "not \"1\"")]
#[case::unknown_key(
    "PUT",
    TARGET,
    r#"{"weigth": 1}"#,
    400,
    "weigth",
    "expected `zone` or `weight`"
)]
#[case::twice("PUT", TARGET, r#"{"weight":1,"weight":2}"#, 400, "", "duplicate field `weight`")]
#[case::zone_type("PUT", TARGET, r#"{"zone": 1}"#, 400, "zone", "expected a string")]
#[case::zone_empty("PUT", TARGET, r#"{"zone": ""}"#, 400, "zone", "a name")]
#[case::zone_unknown("PUT", TARGET, r#"{"zone":"az9"}"#, 400, "zone", "az1, az2")]
#[case::zone_missing("PUT", TARGET, "", 400, "zone", "must be given")]
#[case::no_json("PUT", TARGET, "{", 400, "", "EOF")]
#[case::trailing("PUT", TARGET, "{} {}", 400, "", "trailing")]
#[case::not_an_object("PUT", TARGET, "7", 400, "", "invalid type")]
#[case::no_address("PUT", "/v1/target-groups/fw/targets/fw-1", "", 400, "address", "2001:db8::13")]
#[case::with_port(
    "GET",
    "/v1/target-groups/fw/targets/192.0.2.13:6081",
    "",
    400,
    "address",
    "?port="
)]
#[case::family(
    "PUT",
    "/v1/target-groups/fw/targets/%5B2001%3Adb8%3A%3A1%5D",
    r#"{"zone":"az1"}"#,
    400,
    "address",
    "the target is IPv6"
)]
#[case::family_bare(
    "PUT",
    "/v1/target-groups/fw/targets/2001:db8::1",
    r#"{"zone":"az1"}"#,
    400,
    "address",
    "the target is IPv6"
)]
#[case::brackets("GET", "/v1/target-groups/fw/targets/[192.0.2.13]", "", 400, "address", "no IP")]
#[case::not_utf8("GET", "/v1/target-groups/fw/targets/%ff", "", 400, "", "UTF-8")]
#[case::port("GET", &format!("{TARGET}?port=65536"), "", 400, "port", "1 to 65535")]
#[case::port_zero("DELETE", &format!("{TARGET}?port=0"), "", 400, "port", "1 to 65535")]
#[case::port_twice("GET", &format!("{TARGET}?port=1&port=2"), "", 400, "port", "twice")]
#[case::parameter("GET", &format!("{TARGET}?prt=1"), "", 400, "prt", "it takes port")]
#[case::group("PUT", "/v1/target-groups/fx/targets/192.0.2.13", "", 404, "group", "\"fw\"?")]
#[case::group_listed("GET", "/v1/target-groups/f%2Fw/targets", "", 404, "group", "\"f/w\"")]
#[case::target("DELETE", TARGET, "", 404, "address", "no target 192.0.2.13:6081")]
#[case::mode(
    "PATCH",
    "/v1/load-balancers/fw",
    r#"{"traffic_mode":"off"}"#,
    400,
    "traffic_mode",
    "`load_balance` or `bypass`"
)]
#[case::no_mode("PATCH", "/v1/load-balancers/fw", "{}", 400, "traffic_mode", "is needed")]
#[case::balancer(
    "PATCH",
    "/v1/load-balancers/x",
    r#"{"traffic_mode":"bypass"}"#,
    404,
    "load_balancer",
    "fw"
)]
#[case::balancer_shown("GET", "/v1/load-balancers/x", "", 404, "load_balancer", "fw")]
#[case::follow("GET", "/v1/events?follow=yes", "", 400, "follow", "true or false")]
#[case::since("GET", "/v1/events?since=-1", "", 400, "since", "a number from 0 on")]
#[case::since_what("GET", "/v1/events?sinc=1", "", 400, "sinc", "it takes follow, since")]
#[case::dry_run("POST", "/v1/reload?dry_run=yes", "", 400, "dry_run", "true or false")]
#[case::no_file("POST", "/v1/reload", "", 409, "", "was not started from a file")]
#[case::method("POST", TARGET, "", 405, "", "does not take POST")]
#[case::path("GET", "/v1/", "", 404, "", "nothing at /v1/")]
fn what_is_wrong_is_said(
    #[case] method: &str,
    #[case] path: &str,
    #[case] body: &str,
    #[case] code: u16,
    #[case] field: &str,
    #[case] detail: &str,
) {
    let api = Api::start();
    let before = api.ask("GET", "/v1/status").1["targets"].clone();
    let (got, problem) = api.json(method, path, body);
    assert_eq!((got, &problem["status"]), (code, &json!(code)), "{problem}");
    assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    assert_eq!(api.ask("GET", "/v1/status").1["targets"], before);
}

#[test]
fn a_body_is_of_the_type_that_is_taken() {
    let api = Api::start();
    let (code, problem) = api.send("PUT", TARGET, &[], b"{}");
    assert_eq!((code, &problem["field"]), (415, &json!("content-type")), "{problem}");
    let (code, problem) = api.json("POST", "/v1/reload", "{}");
    assert_eq!(code, 415, "{problem}");
    let utf8 = "Content-Type: Application/JSON; charset=utf-8";
    assert_eq!(api.send("PUT", TARGET, &[utf8], br#"{"zone":"az1"}"#).0, 200);
    let (code, problem) =
        api.send("POST", "/v1/reload", &["Content-Type: application/toml"], b"\xff");
    assert_eq!(code, 400, "{problem}");
}

#[test]
fn a_refused_method_names_those_that_are_taken() {
    let api = Api::start();
    let (head, _) = exchange(&api.socket, "POST", TARGET, &[], b"");
    let allow = head.lines().find(|line| line.starts_with("allow: ")).expect("an allow header");
    assert!(["GET", "PUT", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
}

#[test]
fn a_body_may_be_so_long_and_no_longer() {
    let api = Api::start();
    let body = |length: usize| {
        let zone = r#"{"zone":"az1"}"#;
        zone.to_owned() + &" ".repeat(length - zone.len())
    };
    assert_eq!(api.json("PUT", TARGET, &body(intake::MAX_JSON)).0, 200);
    let (code, problem) = api.json("PUT", TARGET, &body(intake::MAX_JSON + 1));
    assert_eq!((code, &problem["title"]), (413, &json!("Payload Too Large")), "{problem}");
    // One that is refused in its middle is read on, so that who sends it gets to the answer.
    let (code, problem) = api.json("PUT", TARGET, &body(5 << 20));
    assert_eq!(code, 413, "{problem}");
    // Who asks first is told at once.
    let mut stream = api.connect();
    let head = format!(
        "PUT {TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 65537\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(status(&read_answer(stream).0), 413);
}

const TOML: &[&str] = &["Content-Type: application/toml"];

#[test]
fn another_configuration_is_looked_at_and_taken_up() {
    let two_zones = file();
    let api = Api::start();
    let new = two_zones.replace("weight = 50", "weight = 60");
    let (code, same) = api.send("POST", "/v1/reload", TOML, two_zones.as_bytes());
    assert_eq!((code, &same["changes"]), (200, &json!([])), "{same}");
    let weight = || api.ask("GET", "/v1/target-groups/fw/targets/192.0.2.12").1["weight"].clone();
    for (dry_run, then) in [(true, 50), (false, 60)] {
        let path = format!("/v1/reload?dry_run={dry_run}");
        let (code, report) = api.send("POST", &path, TOML, new.as_bytes());
        assert_eq!((code, &report["applied"]), (200, &json!(!dry_run)), "{report}");
        assert_eq!(report["changes"][0]["name"], "fw/192.0.2.12:6081");
        assert_eq!(report["changes"][0]["details"], json!(["weight: 50 -> 60"]));
        assert_eq!(weight(), then);
    }

    let wrong = two_zones.replace("weight = 50", "weight = 1001");
    let (code, problem) = api.send("POST", "/v1/reload", TOML, wrong.as_bytes());
    assert_eq!((code, problem["problems"].as_array().unwrap().len()), (422, 1), "{problem}");
    let line = wrong.lines().position(|line| line.contains("1001")).unwrap() + 1;
    assert_eq!(problem["problems"][0]["places"][0]["line"], line);

    let other = new.replace("semantics = \"aws\"", "semantics = \"aws\"\nworkers = 3");
    let other = other.replace("weight = 60", "weight = 70");
    let (code, problem) = api.send("POST", "/v1/reload", TOML, other.as_bytes());
    assert_eq!((code, problem["changes"].as_array().unwrap().len()), (409, 2), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("workers"), "{problem}");
    assert!(!problem["detail"].as_str().unwrap().contains("weight"), "{problem}");
    assert_eq!(weight(), 60, "a configuration that is refused changes nothing");
}

/// Short times for clients.
fn impatient() -> Limits {
    let short = Duration::from_millis(100);
    Limits { head: short, body: short, answer: short, ..Limits::default() }
}

#[test]
fn slow_clients_are_let_go() {
    let api = Api::with(impatient());
    // One that says nothing, one that stops in the head, one that has had an answer and idles.
    let silent = api.connect();
    let mut hesitant = api.connect();
    hesitant.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
    let mut idle = api.connect();
    idle.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    for (mut stream, answers) in [(silent, 0), (hesitant, 0), (idle, 1)] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches("200 OK").count(), answers, "{answer}");
    }
    // One that stops in the body is told.
    let mut slow = api.connect();
    let head = format!(
        "PUT {TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\
         Content-Type: application/json\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).unwrap();
    let (head, body) = read_answer(&slow);
    assert_eq!(status(&head), 408);
    assert!(String::from_utf8(body).unwrap().contains("did not come within 0.1 s"));
}

#[test]
fn who_does_not_take_answers_loses_the_place() {
    let api = Api::with(Limits { connections: 1, ..impatient() });
    let mut stuck = api.connect();
    stuck.set_write_timeout(Some(GRACE)).unwrap();
    while stuck.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}
    // The write failed since the other end is closed, or since nobody reads any more; in the
    // latter case it is closed in a moment.
    while get(&api.socket, "/live").is_err() {}
}

#[test]
fn who_finds_no_place_is_told_so() {
    let api = Api::with(Limits { connections: 3, ..Limits::default() });
    let mut holders: Vec<_> = (0..3).map(|_| api.connect()).collect();
    // The places are taken when each has been answered.
    for holder in &mut holders {
        holder.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut start = [0; 12];
        holder.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    let (head, body) = exchange(&api.socket, "GET", "/live", &[], b"");
    assert_eq!(status(&head), 503);
    assert!(String::from_utf8(body).unwrap().contains("too many clients"), "{head}");
    holders.pop();
    while get(&api.socket, "/live").is_err() {}
}

/// Clients at a time, as the API must stand them.
const CROWD: usize = 1000;
const SILENT: usize = 200;

#[test]
fn a_crowd_does_not_delay_the_control_plane() {
    let api = Api::with(Limits { connections: 2 * CROWD, ..Limits::default() });
    let silent: Vec<_> = (0..SILENT).map(|_| api.connect()).collect();
    let clients: Vec<_> = (0..CROWD).map(|_| api.connect()).collect();
    let over = AtomicBool::new(false);
    let (answered, begun) = (AtomicUsize::new(0), Barrier::new(5));
    let mut took = std::thread::scope(|scope| {
        for share in clients.chunks(CROWD / 4) {
            let (over, answered, begun) = (&over, &answered, &begun);
            scope.spawn(move || {
                let mut first = true;
                while !over.load(Ordering::Relaxed) {
                    for (number, mut client) in share.iter().enumerate() {
                        let (method, path) = match number % 4 {
                            0 => ("PUT", TARGET),
                            1 => ("GET", TARGET),
                            2 => ("GET", "/metrics"),
                            _ => ("GET", "/v1/status"),
                        };
                        let body = if method == "PUT" { r#"{"zone":"az1"}"# } else { "" };
                        write!(
                            client,
                            "{method} {path} HTTP/1.1\r\nHost: x\r\n\
                             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        )
                        .unwrap();
                    }
                    if std::mem::take(&mut first) {
                        // All have asked, and none has been listened to.
                        begun.wait();
                    }
                    for client in share {
                        assert_eq!(take_one(client), 200);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        begun.wait();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut took = Vec::new();
        // Until everybody has had an answer, and some more.
        while took.len() < 20 || answered.load(Ordering::Relaxed) < CROWD {
            let asked = clock::now();
            let target = runtime.block_on(async {
                let address = "192.0.2.14".parse().unwrap();
                let (port, zone, weight) = (None, Some("az2".to_owned()), None);
                let target = crate::control::TargetSpec { address, port, zone, weight };
                api.control.register("fw".to_owned(), target).await.unwrap();
                let targets = api.control.targets().await;
                targets.iter().any(|target| target.address == "192.0.2.14:6081")
            });
            assert!(target);
            took.push(clock::now() - asked);
        }
        over.store(true, Ordering::Relaxed);
        took
    });
    // Half of them at least did not have to wait behind the crowd, and none of them for long.
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
    assert!(took[took.len() - 1] < Duration::from_millis(500), "{took:?}");
    // Nobody who says nothing has been sent away for it yet, or stands in anybody's way.
    assert_eq!(silent.len(), SILENT);
    assert!(get(&api.socket, "/live").is_ok());
}

/// The status of the next answer on a connection that stays open.
fn take_one(mut stream: &UnixStream) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    status(&head)
}

#[test]
fn gauges_say_what_there_is() {
    let api = Api::start();
    let counters = &api.shared.exchange.published.load_full().snapshot.targets[1].counters[0];
    counters.new_flows.add(5);
    counters.ended_flows.add(2);
    api.ask("DELETE", "/v1/target-groups/fw/targets/192.0.2.12");
    api.json("PATCH", "/v1/load-balancers/fw", r#"{"traffic_mode":"bypass"}"#);
    let metrics = String::from_utf8(get(&api.socket, "/metrics").unwrap()).unwrap();
    let of = r#"{target="192.0.2.12:6081",target_group="fw",zone="az1"}"#;
    for line in [
        format!("gwlb_target_active_flows{of} 3"),
        format!("gwlb_target_weight{of} 50"),
        format!("gwlb_target_effective_weight{of} 0"),
        r#"gwlb_target_group_targets{state="draining",target_group="fw",zone="az1"} 1"#.to_owned(),
        r#"gwlb_target_group_targets{state="initial",target_group="fw",zone="az1"} 1"#.to_owned(),
        r#"gwlb_target_group_targets{state="initial",target_group="fw",zone="az2"} 1"#.to_owned(),
        r#"gwlb_target_group_targets{state="healthy",target_group="fw",zone="az2"} 0"#.to_owned(),
        r#"gwlb_node_bypassed{load_balancer="fw",zone="az2"} 1"#.to_owned(),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }
    for help in metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, text) = help.split_once(' ').unwrap();
        assert!(!text.starts_with(' ') && text.ends_with('.'), "{name}: {text:?}");
        assert_eq!(metrics.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
    }
}

#[test]
fn names_are_decoded() {
    let api = Api::start();
    let (code, list) = api.ask("GET", "/v1/target-groups/%66%77/targets");
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 3), "{list}");
    let (code, target) = api.ask("GET", "/v1/target-groups/fw/targets/192%2E0.2.11");
    assert_eq!((code, &target["address"]), (200, &json!("192.0.2.11:6081")));
}
