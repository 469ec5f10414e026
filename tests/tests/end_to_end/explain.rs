//! `gwlb explain` and `gwlb ping` against a gateway that runs, with appliances behind it.

use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, Plan};
use serde_json::Value;

use super::world;

fn json(text: &str) -> Value {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}")).unwrap()
}

#[test]
fn what_is_explained_of_a_running_gateway_is_what_it_does() {
    let plan = Plan { workers: 2, ..Plan::default() };
    let Some(world) = world("explain", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    let (own, there) = (socket.local_addr().unwrap(), server.address());
    let [source, port] = [own.ip().to_string(), own.port().to_string()];
    let [destination, to_port] = [there.ip().to_string(), there.port().to_string()];
    let admin = world.admin_socket();
    let explain = || {
        let arguments = [
            "gwlb",
            "explain",
            "--socket",
            admin.to_str().unwrap(),
            "--from",
            "internet_gateway:igw",
            "--source",
            &source,
            "--destination",
            &destination,
            "--protocol",
            "udp",
            "--source-port",
            &port,
            "--destination-port",
            &to_port,
        ];
        world.run(&arguments)
    };
    let flow = |explained: &Value| {
        let steps = explained["steps"].as_array().unwrap().clone();
        steps.into_iter().find(|step| step["step"] == "flow").unwrap()
    };
    let before = gateway.settled();
    let finished = explain();
    assert_eq!(finished.code, Some(0), "{}", finished.log);
    let told = json(&finished.stdout);
    assert_eq!(told["end"], "delivered to subnet:app-a");
    let last = told["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["step"], &last["device"]), (&"leaves".into(), &"app-a".into()));
    let expected = flow(&told)["becomes"]["target"].clone();
    assert!(flow(&told)["known"].is_null() && expected.is_string(), "{told:#}");
    let after = gateway.settled();
    assert_eq!(after.flows.created, before.flows.created, "nothing was sent");
    assert_eq!(after.tun.received, before.tun.received);

    traffic::exchange(&socket, b"for real").unwrap();
    let told = json(&explain().stdout);
    assert_eq!(flow(&told)["known"]["target"], expected, "as was told");
    assert!(flow(&told)["age_seconds"].as_f64().is_some_and(|age| age < 60.0), "{told:#}");
    gateway.stop();
}

#[test]
fn a_ping_goes_through_appliances_that_nobody_checks() {
    let Some(world) = world("ping", Plan::default()) else { return };
    let mut nva = world.start_appliance(0, &["passthrough"]);
    let mut gateway = world.start_gateway();
    let (admin, target) = (world.admin_socket(), world.plan.target(0).to_string());
    let ping = |more: &[&str]| {
        let of = ["gwlb", "ping", "vpce-a", "--interval", "10", "--socket"];
        world.run(&[&of[..], &[admin.to_str().unwrap()], more].concat())
    };
    let finished = ping(&["--count", "5", "--size", "1000", "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.log);
    let told = json(&finished.stdout);
    let summary = &told["targets"][0];
    assert_eq!((&summary["sent"], &summary["returned"]), (&5.into(), &5.into()), "{told:#}");
    for round in told["rounds"].as_array().unwrap() {
        assert_eq!(round[0]["size"], 1000);
        let times = &round[0]["times"];
        let us = |name: &str| times[name].as_f64().unwrap();
        assert!(us("kernel_us") <= us("returned_us"), "{told:#}");
        assert!(us("returned_us") <= us("verified_us"), "{told:#}");
    }
    let finished = ping(&["--count", "2", "--target", &target]);
    println!("{}", finished.stdout);
    assert!(finished.stdout.contains("2 returned, 0% lost"), "{}", finished.stdout);
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");

    nva.process.crash();
    let finished = ping(&["--count", "2", "--timeout", "200"]);
    assert_eq!(finished.code, Some(1), "{}", finished.log);
    assert!(finished.stdout.contains("100% lost"), "{}", finished.stdout);
    gateway.stop();
}
