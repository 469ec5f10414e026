//! Chaos on the real programs: processes that are killed or stopped, cables that are cut, files
//! and memory that run out, floods, and appliances that mean harm, while real connections go
//! through the gateway.
//!
//! After each, the same has to hold ([`Ordeal::end`]): connections carried exactly what was sent,
//! everything is accounted for, nothing was delivered that no appliance let pass, and nobody has
//! panicked. They need root and `/dev/net/tun`, and say so where they are skipped; with `CI=true`
//! in the environment a skip is a failure.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod configuration;
mod exhaustion;
mod floods;
mod links;
mod processes;
mod rogues;
mod soak;

use gwlb_tests::notice;
use gwlb_tests::world::{Outcome, Plan, World};

/// Probes each 200 ms, two of a kind decide.
const FAST: &str = "[target_group.health_check]\nextended_ranges = true\ninterval_ms = 200\n\
                    timeout_ms = 200\nhealthy_threshold = 2\nunhealthy_threshold = 2\n";

/// The world of one test; `None` if it has to be skipped, after saying why.
fn world(test: &str, plan: Plan) -> Option<World> {
    World::new(test, env!("CARGO_BIN_EXE_gwlb-tests"), plan)
}

/// One zone with three appliances, whose health is probed.
fn three() -> Plan {
    Plan { appliances: vec![0, 0, 0], health: true, target_group: FAST, ..Plan::default() }
}

/// Says what was measured.
fn tell(test: &str, outcome: &Outcome) {
    notice::say(&format!(
        "{test}: {:.1} MB over the streams, which stood still for {:.2} s at most; {} packets of \
         the canary, none arrived; dropped: {:?}\n",
        outcome.bytes as f64 / 1e6,
        outcome.longest_pause.as_secs_f64(),
        outcome.canary,
        outcome.status.drops(),
    ));
}
