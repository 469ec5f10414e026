//! A million flows that nobody opened: more than the tables hold, and than they take in a second.

use gwlb_tests::notice;
use gwlb_tests::world::canary::flood_denied;
use gwlb_tests::world::flood::{Patience, flood, flood_of_fragments};
use gwlb_tests::world::status::Status;
use gwlb_tests::world::{Ordeal, Plan};

use super::{tell, world};

/// Flows of a flood that waits for the gateway to take each packet: three times what the tables
/// hold.
const FILLING: u64 = 100_000;
/// Flows of a flood at the rate of the kernel, in which most is lost before the gateway.
const AT_ONCE: u64 = 100_000;
/// How often that is done: a million flows in all.
const TIMES: u64 = 9;

/// The most packets that a million others may cost streams which send a megabyte a second at most.
const LOST_OF_STREAMS: u64 = 10_000;

/// Fragments of a flood, and why they are dropped.
const FRAGMENTS: u64 = 30_000;
const FRAGMENT_REASONS: [&str; 2] = ["fragment_without_first", "fragment_queue_full"];

/// What the tables of both workers hold.
const TABLES: u64 = 2 * 16_384;
/// What a flow takes at most in a full table, index included.
const BYTES_OF_A_FLOW: u64 = 400;
/// All writable memory of its own that the gateway may have, stacks and what the allocator holds
/// included (`RLIMIT_DATA`): what it has at rest, and full tables.
const MEMORY: u64 = 40 << 20;
/// How far the memory in use may be off: buffers that have not been used before, and what the
/// allocator keeps.
const MARGIN: u64 = 8 << 20;

/// Small tables that take in as many flows as come, until they are full.
fn small_tables() -> Plan {
    Plan {
        appliances: vec![0, 0],
        gateway: "max_flows_per_worker = 16384\nmax_new_flows_per_second_per_worker = 0",
        load_balancer: "other_idle_timeout_seconds = 20\nextended_ranges = true",
        ..Plan::default()
    }
}

/// The same with a limit on how many they take in.
fn slow_tables() -> Plan {
    Plan {
        gateway: "max_flows_per_worker = 16384\nmax_new_flows_per_second_per_worker = 1000",
        ..small_tables()
    }
}

#[test]
fn a_million_spoofed_flows_harm_no_connection_and_fill_no_more_than_the_tables() {
    let Some(world) = world("a_million_spoofed_flows", small_tables()) else { return };
    let limit = format!("--data={MEMORY}:{MEMORY}");
    let mut ordeal = Ordeal::begin_by(world, &["prlimit", &limit]);
    ordeal.open_streams(1);
    let before = ordeal.gateway.process.resident();
    let quarter = FILLING / 4;
    let mut took = std::time::Duration::ZERO;
    for number in 0..4 {
        let part = number * quarter..(number + 1) * quarter;
        took += flood(&ordeal.world, part, Patience::Waits).took;
        ordeal.breathe();
    }
    let status = ordeal.gateway.status();
    assert!(status.flows.created >= TABLES, "the tables were not filled: {status:#?}");
    assert!(status.active_flows <= TABLES, "{status:#?}");
    assert!(status.flows.untracked > 0, "{status:#?}");
    let told = ordeal.gateway.wait_for_events("flood_begun", 2);
    assert!(told.iter().all(|event| event["limit"] == "flow_table"), "{told:#?}");
    // What begins while nothing is remembered goes on when there is room again.
    ordeal.open_streams(1);
    let full = ordeal.gateway.process.resident();
    let allowed = before + TABLES * BYTES_OF_A_FLOW + MARGIN;
    assert!(full < allowed, "{full} bytes with full tables, {before} before");

    let mut lost = std::time::Duration::ZERO;
    for number in 0..TIMES {
        let start = FILLING + number * AT_ONCE;
        lost += flood(&ordeal.world, start..start + AT_ONCE, Patience::None).took;
        ordeal.breathe();
    }
    let after = ordeal.gateway.process.resident();
    assert!(after < full + MARGIN / 2, "{full} bytes with full tables, {after} bytes later");
    let reports = ordeal.appliances.iter().flatten().map(|nva| flood_denied(&nva.report()));
    let denied: u64 = reports.sum();
    let outcome = ordeal.end();
    let dropped = outcome.assert_only(&["handover_full"]);
    let queue: u64 = outcome.status.attachments.iter().filter_map(|at| at.tx_dropped).sum();
    let lost_behind: u64 = outcome.status.targets.iter().map(|target| target.kept_packets).sum();
    let sent = FILLING + TIMES * AT_ONCE;
    // Each packet of the flood, and each of the canary, was denied by an appliance or lost where it
    // is counted; what is counted besides, the streams have lost.
    let (counted, silenced) = (lost_behind + dropped + queue, sent + outcome.canary);
    assert!(denied > 0 && denied <= sent, "{denied} of {sent} denied");
    assert!(silenced <= counted, "{silenced} sent, {counted} counted: {:#?}", outcome.status);
    let of_streams = counted - silenced;
    assert!(of_streams <= LOST_OF_STREAMS, "{of_streams} more than sent: {:#?}", outcome.status);
    tell("a million spoofed flows", &outcome);
    notice::say(&format!(
        "a million spoofed flows, with 40 MiB: {FILLING} in {:.1} s one by one, the others in {:.1} s; {denied} \
         reached an appliance, {queue} were lost in the device's queue, {dropped} between workers; \
         {of_streams} packets of streams were lost; {} not remembered; {} MB before, {} MB with full \
         tables, {} MB afterwards\n",
        took.as_secs_f64(),
        lost.as_secs_f64(),
        outcome.status.flows.untracked,
        before >> 20,
        full >> 20,
        after >> 20,
    ));
}

#[test]
fn a_flood_fills_tables_no_faster_than_they_may_be_filled() {
    let Some(world) = world("a_flood_and_a_cap", slow_tables()) else { return };
    let workers = world.plan.workers as u64;
    let mut ordeal = Ordeal::begin(world);
    ordeal.open_streams(1);
    let before = ordeal.gateway.status().flows.created;
    let took = flood(&ordeal.world, 0..FILLING / 2, Patience::Waits).took;
    // A second's worth more for what it takes to ask, and a tenth of a second's that may come at
    // once.
    let status = ordeal.gateway.status();
    let (new, seconds) = (status.flows.created - before, took.as_secs() + 2);
    assert!(new <= workers * 1000 * seconds, "{new} new flows in {took:?}: {status:#?}");
    assert!(status.flows.untracked > 0, "{status:#?}");
    ordeal.breathe();
    // Each worker tells of it when it begins and when it is over, and of each packet.
    let begun = ordeal.gateway.wait_for_events("flood_begun", workers as usize);
    let over = ordeal.gateway.wait_for_events("flood_over", begun.len());
    assert!(begun.iter().all(|it| it["limit"] == "new_flows_per_second"), "{begun:#?}");
    let told: u64 = over.iter().map(|event| event["packets"].as_u64().unwrap()).sum();
    assert_eq!(told, ordeal.gateway.status().flows.untracked, "{over:#?}");
    let outcome = ordeal.end();
    outcome.assert_only(&["handover_full"]);
    tell("a flood and a cap of 1000 new flows a second", &outcome);
    notice::say(&format!("a flood and a cap: {new} of {} remembered in {took:.1?}\n", FILLING / 2));
}

#[test]
fn fragments_of_packets_that_never_come_are_dropped_by_name_and_take_no_room() {
    let Some(world) = world("a_flood_of_fragments", small_tables()) else { return };
    let limit = format!("--data={MEMORY}:{MEMORY}");
    let mut ordeal = Ordeal::begin_by(world, &["prlimit", &limit]);
    ordeal.open_streams(1);
    let before = ordeal.gateway.process.resident();
    flood_of_fragments(&ordeal.world, 0..FRAGMENTS, Patience::Waits);
    ordeal.breathe();
    // Those that wait for their first fragment do so for a second.
    let of_fragments = |status: &Status| -> u64 {
        let drops = &status.tun.drops;
        FRAGMENT_REASONS.iter().filter_map(|&reason| drops.get(reason)).sum()
    };
    let lost = |status: &Status| -> u64 {
        let queues = status.attachments.iter().filter_map(|at| at.tx_dropped);
        queues.sum::<u64>() + status.tun.drops.get("handover_full").unwrap_or(&0)
    };
    let status = ordeal.gateway.wait_until("each of them is accounted for", |status| {
        of_fragments(status) + lost(status) >= FRAGMENTS
    });
    assert!(of_fragments(&status) <= FRAGMENTS, "{status:#?}");
    let after = ordeal.gateway.process.resident();
    assert!(after < before + MARGIN, "{before} bytes before, {after} after");
    let outcome = ordeal.end();
    let [first, second] = FRAGMENT_REASONS;
    outcome.assert_only(&[first, second, "handover_full"]);
    tell("fragments of packets that never come", &outcome);
}
