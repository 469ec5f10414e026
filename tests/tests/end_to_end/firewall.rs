//! The firewall decides, and what it decides reaches the hosts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, LIMIT, Plan};
use nix::sys::signal::Signal;

use super::{FAMILIES, world};

const WEB: u16 = 80;
const TELNET: u16 = 23;

/// How long a connection is tried that must not come about: two repetitions of its first packet.
const IN_VAIN: Duration = Duration::from_millis(1500);

/// Rules that let the ports pass, and turn all other TCP away so that the client is told.
fn rules(allowed: &[u16]) -> String {
    format!(
        "default = \"allow\"\n\
         [[rule]]\nname = \"allowed\"\naction = \"allow\"\nprotocol = \"tcp\"\nports = {allowed:?}\n\
         [[rule]]\nname = \"other\"\naction = \"deny\"\ndeny_by = \"reject\"\nprotocol = \"tcp\"\n"
    )
}

#[test]
fn a_denied_port_is_refused_and_new_rules_turn_it_round() {
    let Some(world) = world("a_denied_port", Plan::default()) else { return };
    let file = world.write("rules.toml", rules(&[WEB]));
    let mut firewall = world.start_appliance(0, &["firewall", "--rules", file.to_str().unwrap()]);
    let mut gateway = world.start_gateway();
    let server = &world.servers[0];
    let _listeners: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| [WEB, TELNET].map(|port| traffic::listen(server, family, port)))
        .collect();
    let connect = |family: Family, port: u16| {
        traffic::connect(&world.client, SocketAddr::new(server.address(family), port), LIMIT)
    };
    let check = |allowed: u16, denied: u16| {
        for family in FAMILIES {
            connect(family, allowed).unwrap();
            let refused = connect(family, denied).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{family:?}: {refused}");
        }
    };
    check(WEB, TELNET);
    let report = firewall.report();
    assert_eq!((report.hits("allowed"), report.hits("other")), (2, 2));

    // A file that is wrong changes nothing.
    world.write("rules.toml", "default = \"maybe\"");
    firewall.process.signal(Signal::SIGHUP);
    firewall.process.wait_for_line("the old rules stay in force");
    check(WEB, TELNET);

    // What is still said on the connections of before would be judged by the new rules, too.
    gateway.settled();
    world.write("rules.toml", rules(&[TELNET]));
    firewall.process.signal(Signal::SIGHUP);
    firewall.process.wait_for_line("new rules are in force");
    check(TELNET, WEB);
    let report = firewall.report();
    assert_eq!((report.hits("allowed"), report.hits("other")), (2, 2));

    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert!(report.kept_packets >= 6, "a SYN for each refusal: {report:?}");
    gateway.stop();
}

#[test]
fn new_rules_end_a_connection_that_they_deny() {
    let Some(world) = world("new_rules_end_a_connection", Plan::default()) else { return };
    let file = world.write("rules.toml", rules(&[WEB]));
    let mut firewall = world.start_appliance(0, &["firewall", "--rules", file.to_str().unwrap()]);
    let mut gateway = world.start_gateway();
    let server = &world.servers[0];
    let listener = traffic::listen(server, Family::V4, WEB);
    let to = SocketAddr::new(server.address(Family::V4), WEB);
    let mut client = traffic::connect(&world.client, to, LIMIT).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    client.write_all(b"before").unwrap();
    accepted.read_exact(&mut [0; 6]).unwrap();

    world.write("rules.toml", rules(&[TELNET]));
    firewall.process.signal(Signal::SIGHUP);
    firewall.process.wait_for_line("new rules are in force");
    client.write_all(b"after").unwrap();
    let reset = client.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{reset}");
    gateway.stop();
}

#[test]
fn what_is_dropped_in_silence_never_arrives() {
    let Some(world) = world("what_is_dropped", Plan::default()) else { return };
    let rules = "default = \"deny\"\n\
        [[rule]]\nname = \"dns\"\naction = \"allow\"\nprotocol = \"udp\"\nfrom = [\"10.0.0.0/8\"]\n";
    let file = world.write("rules.toml", rules);
    let firewall = world.start_appliance(0, &["firewall", "--rules", file.to_str().unwrap()]);
    let mut gateway = world.start_gateway();
    let (client, server) = (&world.client, &world.servers[0]);

    // From inside, UDP passes, and its answers with it; TCP does not.
    let echo = EchoServer::start(client, Family::V4);
    traffic::exchange(&traffic::datagrams(server, echo.address()), b"allowed").unwrap();
    let listener = traffic::listen(client, Family::V4, 0);
    let error = traffic::connect(server, listener.local_addr().unwrap(), IN_VAIN).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

    let status = gateway.settled();
    let (target, report) = (&status.targets[0], firewall.report());
    assert!(target.kept_packets >= 2, "{status:#?}");
    assert_eq!(target.kept_packets, report.kept_packets);
    assert_eq!(target.returned_packets, 2, "a question and its answer");
    gateway.stop();
}
