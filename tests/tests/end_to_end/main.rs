//! The real programs, as processes in network namespaces that each test makes for itself: real
//! TCP, UDP and ICMP between real kernels' stacks, through `gwlb run` and `nva-sample`.
//!
//! They need root and `/dev/net/tun`, and say so where they are skipped; with `CI=true` in the
//! environment a skip is a failure.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod api;
mod bad_requests;
mod capture;
mod carrying;
mod commands;
mod detours;
mod explain;
mod faults;
mod firewall;
mod flow_logs;
mod health;
mod idle;
mod lifecycle;
mod metrics;
mod path_mtu;
mod privileges;
mod restart;
mod samples;
mod switches;
mod top;
mod translation;
mod unprivileged;
mod wire;
mod workers;
mod zones;

use gwlb_tests::world::{Family, Host, Plan, World};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The world of one test; `None` if it has to be skipped, after saying why.
fn world(test: &str, plan: Plan) -> Option<World> {
    World::new(test, env!("CARGO_BIN_EXE_gwlb-tests"), plan)
}

/// In and out: from the client to the first server, and from there to the client.
fn directions(world: &World) -> [(&Host, &Host); 2] {
    let (client, server) = (&world.client, &world.servers[0]);
    [(client, server), (server, client)]
}
