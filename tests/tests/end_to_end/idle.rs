//! Flows that nobody uses any more are forgotten, and what then comes of them is treated as the
//! configuration says.

use std::io::{ErrorKind, Read as _, Write as _};

use gwlb_tests::world::traffic;
use gwlb_tests::world::{Family, LIMIT, Plan};

use super::{FAMILIES, world};

/// What is to become of connections that are idle for a second: the test's name, the setting, and
/// whether their data arrives.
fn idle(test: &str, unknown_flow: &'static str, goes_on: bool) {
    let Some(world) = world(test, Plan { unknown_flow, ..Plan::default() }) else { return };
    let _nva = world.start_appliances();
    let setting = format!("tcp_unknown_flow = \"{unknown_flow}\"\n");
    let timeout = format!("{setting}tcp_idle_timeout_seconds = 1\nextended_ranges = true\n");
    let configuration = world.configuration_with(&[(&setting, &timeout)]);
    let mut gateway = world.start_gateway_with(&configuration);
    let connect = |family: Family| {
        let listener = traffic::listen(&world.servers[0], family, 0);
        let to = listener.local_addr().unwrap();
        (traffic::connect(&world.client, to, LIMIT).unwrap(), listener.accept().unwrap().0)
    };
    let mut connections = FAMILIES.map(connect);
    let status = gateway.wait_until("the flows are forgotten", |status| status.flows.expired == 2);
    assert_eq!((status.flows.created, status.active_flows), (2, 0), "{status:#?}");

    for (client, server) in &mut connections {
        client.write_all(b"still there?").unwrap();
        if goes_on {
            server.set_read_timeout(Some(LIMIT)).unwrap();
            server.read_exact(&mut [0; 12]).unwrap();
        } else {
            let reset = client.read(&mut [0]).unwrap_err();
            assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{reset}");
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    assert_eq!(status.flows.created, if goes_on { 4 } else { 2 }, "{status:#?}");
    assert_eq!(status.tun.generated, if goes_on { 0 } else { 2 }, "{status:#?}");
    gateway.stop();
}

#[test]
fn an_idle_connection_can_be_reset() {
    idle("an_idle_connection_is_reset", "reset", false);
}

#[test]
fn an_idle_connection_can_go_on() {
    idle("an_idle_connection_goes_on", "adopt", true);
}
