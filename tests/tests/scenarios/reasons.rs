//! Every reason to drop a packet is provoked by something that provokes no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gwlb::dataplane::verdict::DropReason;
use gwlb_tests::gateway::{Gateway, Packet, Queues, Setup};
use gwlb_tests::packets::Ip;
use gwlb_tests::scenario;
use router::source::Source;
use serde_json::Value;

use super::folder;

/// Reasons that take a kernel or a crowd of packets, or what no configuration brings about: which tests
/// do. Each names the reason where it holds that this was it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "send_failed",
        "tests/tests/end_to_end/faults.rs",
        "an_underlay_that_goes_away_is_used_again_when_it_is_back",
    ),
    (
        "delivery_failed",
        "tests/tests/end_to_end/faults.rs",
        "what_a_device_that_is_down_does_not_take_is_counted",
    ),
    (
        // Configurations that do so are refused.
        "routing_loop",
        "gwlb/src/dataplane/ingress/groups/tests.rs",
        "back_to_its_own_group_is_a_loop",
    ),
    ("gateway_stopping", "gwlb/src/runtime/shared.rs", "what_is_left_at_the_end_has_a_name"),
    (
        "handover_full",
        "tests/tests/scenarios/reasons.rs",
        "a_worker_that_takes_nothing_over_has_packets_dropped_for_that_alone",
    ),
];

/// The reasons that a scenario expects in `counters.json`.
fn expected(folder: &Path) -> BTreeSet<String> {
    let counters = fs::read(folder.join("expected/counters.json")).unwrap();
    let counters: Value = serde_json::from_slice(&counters).unwrap();
    let drops = ["tun", "udp"].map(|side| counters[side]["drops"].as_object().cloned());
    drops.into_iter().flatten().flatten().map(|(reason, _)| reason).collect()
}

/// What a scenario expects is what comes about: another test plays it.
#[test]
fn every_reason_is_provoked_by_itself() {
    let mut missing: BTreeSet<_> = DropReason::ALL.iter().map(|it| it.name().to_owned()).collect();
    for folder in scenario::folders(&folder()).unwrap() {
        let reasons = expected(&folder);
        if reasons.len() == 1 {
            missing.retain(|reason| !reasons.contains(reason));
        }
    }
    let elsewhere: BTreeSet<_> =
        ELSEWHERE.iter().map(|(reason, ..)| (*reason).to_owned()).collect();
    assert_eq!(missing, elsewhere, "these have no scenario, and these say that they need none");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (reason, file, test) in ELSEWHERE {
        let reason = DropReason::ALL.iter().find(|it| it.name() == *reason).unwrap();
        let text = fs::read_to_string(root.join(file)).unwrap();
        let (before, body) = text
            .split_once(&format!("fn {test}("))
            .unwrap_or_else(|| panic!("{file} has no test {test}"));
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(attributes.contains("test]"), "{test} is no test");
        let body = body.split("\n\n#[").next().unwrap().split("\n\n    #[").next().unwrap();
        let named = [format!("{:?}", reason.name()), format!("DropReason::{reason:?}")];
        assert!(named.iter().any(|name| body.contains(name)), "{test} does not name {reason}");
    }
}

#[test]
fn a_worker_that_takes_nothing_over_has_packets_dropped_for_that_alone() {
    let file = folder().join("gateway.toml");
    let source = Source::new("gateway.toml", fs::read_to_string(file).unwrap());
    let setup = Setup { inbox: 4, queues: Queues::InTurn, ..Setup::of(2) };
    let mut gateway = Gateway::new(gwlb::config::parse(&source).unwrap(), setup);
    gateway.hold();
    let ip = Ip::new("203.0.113.7", "10.0.1.11");
    let packets: Vec<_> = (0..64).map(|n| Packet::plain(ip.udp((1000 + n, 53), b"?"))).collect();
    gateway.enter(gateway.attachment("igw").unwrap(), &packets, None);
    let drops = gateway.totals().tun.drops;
    assert_eq!(drops.keys().copied().collect::<Vec<_>>(), ["handover_full"]);
    gateway.release();
    let totals = gateway.totals().tun;
    assert_eq!((totals.queued(), totals.drops), (0, drops));
}
