//! Health checks: when probes are made, and what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use rstest::rstest;

use crate::config::HealthProtocol;
use crate::control::testing::{Manner, World, file};
use crate::control::{Input, Output, ProbeOutcome};
use crate::dataplane::snapshot::{Fate, TargetSlot};

const FAST: &str =
    "extended_ranges = true\ninterval_ms = 1000\ntimeout_ms = 500\nhealthy_threshold = 3";

fn two() -> String {
    file(["", "", FAST], &["az1"], &[(11, "az1"), (12, "az1")])
}

#[test]
fn a_probe_is_made_at_once_and_then_with_an_exact_period() {
    let mut world = World::new(&two());
    world.run_until(10_000);
    for target in [11, 12] {
        let times = world.take_probes(1, target);
        assert_eq!(times[0], 0);
        let phase = times[1];
        assert!((1..1000).contains(&phase), "{phase}");
        let expected: Vec<_> = (0..10).map(|k| phase + k * 1000).collect();
        assert_eq!(times[1..], expected);
    }
}

#[test]
fn a_probe_says_all_that_is_needed() {
    let check = "protocol = \"HTTP\"\nport = 8080\npath = \"/up\"\ntimeout_seconds = 7";
    let text = file(["", "", check], &["az1"], &[(11, "az1")]);
    let settings = crate::control::testing::settings(&text);
    let secret = crate::dataplane::keys::Secret::from_bytes([1; 32]);
    let now = crate::control::testing::start();
    let mut control = crate::control::Control::new(settings, secret, 1, Duration::ZERO, now);
    assert!(matches!(control.poll_output(), Some(Output::Publish(first)) if first.generation == 1));
    let probe = std::iter::from_fn(|| control.poll_output()).find_map(|output| match output {
        Output::Probe(probe) => Some(probe),
        _ => None,
    });
    let probe = probe.unwrap();
    assert_eq!(probe.source.to_string(), "192.0.2.1");
    assert_eq!(probe.address.to_string(), "192.0.2.11:8080");
    assert_eq!((probe.health.protocol, &*probe.health.path), (HealthProtocol::Http, "/up"));
    assert_eq!((probe.timeout, probe.load_balancer), (Duration::from_secs(7), 0));
}

#[test]
fn phases_spread() {
    let targets: Vec<_> = (10..110).map(|it| (it, "az1")).collect();
    let mut world = World::new(&file(["", "", ""], &["az1"], &targets));
    world.run_until(9_999);
    let mut by_second = [0; 10];
    for &(at, ..) in world.probes.iter().filter(|&&(at, ..)| at > 0) {
        by_second[(at / 1000) as usize] += 1;
    }
    assert_eq!(by_second.iter().sum::<u32>(), 100);
    // A hundred balls in ten bins: further off than this in one of a million draws.
    assert!(by_second.iter().all(|count| (1..=30).contains(count)), "{by_second:?}");
    // The phase belongs to target and node: the same after a restart.
    let mut again = World::new(&file(["", "", ""], &["az1"], &targets));
    again.run_until(9_999);
    assert_eq!(again.probes, world.probes);
}

#[rstest]
#[case(
    ProbeOutcome::TimedOut,
    "Target.Timeout",
    "TCP probes of port 80 are not answered within 0.5 s"
)]
#[case(ProbeOutcome::Refused, "Target.FailedHealthChecks", "connections to port 80 are refused")]
#[case(
    ProbeOutcome::Failed,
    "Target.FailedHealthChecks",
    "TCP probes of port 80 are not answered as they should be"
)]
#[case(
    ProbeOutcome::Mismatch(503),
    "Target.ResponseCodeMismatch",
    "TCP probes of port 80 are answered with status 503, which is not among 200-399"
)]
fn states_and_reasons(
    #[case] outcome: ProbeOutcome,
    #[case] reason: &str,
    #[case] description: &str,
) {
    let manners = BTreeMap::from([(11, Manner::answering(outcome))]);
    let mut world = World::with(&two(), manners);
    assert_eq!(world.state(11), ("initial", Some("Elb.RegistrationInProgress")));
    assert!(!world.control.is_settled());
    world.run_until(1);
    assert!(world.control.is_settled());
    if outcome == ProbeOutcome::Refused {
        // Its second probe follows at once.
        world.run_until(2);
    } else {
        assert_eq!(world.state(11), ("initial", Some("Elb.InitialHealthChecking")));
        assert_eq!(world.status(11).since_unix_seconds.to_bits(), 1000f64.to_bits());
        world.run_until(1_000);
    }
    assert_eq!(world.state(11), ("unhealthy", Some(reason)));
    assert_eq!(world.status(11).description.as_deref(), Some(description));
    assert_eq!(world.state(12), ("healthy", None));
    assert_eq!(world.status(12).description, None);
    assert!((world.status(12).since_unix_seconds - 1000.001).abs() < 1e-9);
    assert_eq!(world.candidates(0), [12]);

    world.manners.clear();
    world.run_until(5_000);
    assert_eq!(world.state(11), ("healthy", None));
    assert_eq!(world.candidates(0), [11, 12]);
}

#[test]
fn a_dead_target_is_out_in_time() {
    let mut world = World::new(&two());
    world.run_until(2_345);
    world.manners.insert(11, Manner::DEAD);
    world.take_probes(1, 11);
    world.run_until(10_000);
    let times = world.take_probes(1, 11);
    // Two probes that time out: less than two intervals and one timeout from its death.
    let out = times[1] + 500;
    assert!(out < 2_345 + 2_000 + 500);
    let events: Vec<_> = world.events.iter().map(|(at, event)| (*at, event.to_string())).collect();
    let text = "fw: 192.0.2.11:6081 is unhealthy (Target.Timeout) for lb in az1, it was healthy";
    assert!(events.contains(&(out, text.to_owned())), "{events:?}");
    assert!(world.published.contains(&out));
    assert_eq!(times[5] - times[4], 1_000, "the period is exact all the time");
}

#[test]
fn an_icmp_error_is_looked_into_and_shortens_the_wait() {
    let mut world = World::new(&two());
    world.run_until(2_000);
    let refusing = Manner::answering(ProbeOutcome::Failed);
    world.manners.insert(11, refusing);
    let phase = world.take_probes(1, 11)[1];
    // Just after a regular probe.
    world.run_until(2_000 + phase + 10);
    world.take_probes(1, 11);
    let died = world.ms;
    world
        .manners
        .insert(11, Manner { probe: (ProbeOutcome::Failed, Duration::from_millis(1)), ..refusing });
    world.handle(Input::Suspect(world.slot(11)));
    world.run_for(200);
    assert_eq!(world.state(11), ("unhealthy", Some("Target.FailedHealthChecks")));
    let out = world.status(11).since_unix_seconds - 1000.0;
    assert!(out * 1000.0 - died as f64 <= 52.0, "{out}");
}

#[test]
fn a_flood_of_icmp_errors_condemns_nobody() {
    let mut world = World::new(&two());
    world.run_until(5_000);
    world.probes.clear();
    world.events.clear();
    for _ in 0..1_000 {
        world.handle(Input::Suspect(world.slot(11)));
        world.handle(Input::Suspect(TargetSlot(77)));
        world.run_for(1);
    }
    assert_eq!(world.state(11), ("healthy", None));
    assert_eq!(world.take_events(), [""; 0]);
    let probes = world.take_probes(1, 11);
    // One regular, and of the fast ones (50 ms apart) three in a row, which prove it healthy. Two
    // suspicions may lie in one interval's time if it begins with one.
    assert!(probes.len() <= 1 + 2 * 3, "{probes:?}");
    assert!(probes.len() >= 4, "{probes:?}");
    assert_eq!(world.take_probes(1, 12).len(), 1, "the other one is not suspected");
}

#[test]
fn our_own_fault_changes_nothing_but_is_told() {
    let mut world = World::new(&two());
    world.run_until(3_000);
    for target in [11, 12] {
        world.manners.insert(target, Manner::answering(ProbeOutcome::Local));
    }
    world.run_until(6_000);
    assert_eq!(world.state(11), ("unavailable", Some("Elb.InternalError")));
    let description = world.status(11).description;
    assert_eq!(
        description.as_deref(),
        Some("the gateway cannot make its probes; the log says why")
    );
    assert_eq!(world.candidates(0), [11, 12], "both stay");
    world.manners.clear();
    world.run_until(8_000);
    assert_eq!(world.state(11), ("healthy", None));
}

#[test]
fn without_a_health_check_a_target_counts_as_healthy() {
    let closed = "when_none_healthy = \"fail_closed\"";
    let text = file(["", closed, "enabled = false"], &["az1"], &[(11, "az1"), (12, "az1")]);
    let mut world = World::new(&text);
    assert_eq!(world.state(11), ("unavailable", Some("Target.HealthCheckDisabled")));
    assert_eq!(world.candidates(0), [11, 12]);
    world.handle(Input::Suspect(world.slot(11)));
    world.run_until(60_000);
    assert!(world.probes.is_empty());
    assert_eq!(world.candidates(0), [11, 12]);
}

#[test]
fn outcomes_of_checks_that_are_gone_are_ignored() {
    let mut world = World::new(&two());
    world.run_until(3_000);
    let text = two().replace("timeout_ms = 500", "timeout_ms = 400");
    world.manners.insert(11, Manner::DEAD);
    world.run_for(1_000);
    // A probe of the old check is under way now, or its successor begins: whichever, nothing that
    // the old check asked for counts.
    world.reload(&text);
    let before = world.state(11);
    world.manners.clear();
    world.run_for(450);
    assert_eq!(before, ("healthy", None));
    assert_eq!(world.state(11), ("healthy", None));
}

/// What a start of a gateway with many targets and quick checks costs: agenda operations are
/// logarithmic, so ten times as many targets cost little more each.
#[test]
fn three_hundred_targets_with_quick_checks() {
    let check = "extended_ranges = true\ninterval_ms = 50\ntimeout_ms = 50";
    let mut text = file(["", "", check], &["az1"], &[]);
    for n in 0..300 {
        let _ = write!(
            text,
            "[[target]]\ngroup = \"fw\"\naddress = \"10.1.{}.{}\"\nzone = \"az1\"\n",
            n / 100,
            n % 100 + 1
        );
    }
    let mut world = World::new(&text);
    world.run_until(1_000);
    assert_eq!(world.candidates(0).len(), 300);
    // One at once and twenty in each second's time.
    assert!((300 * 20..=300 * 22).contains(&world.probes.len()), "{}", world.probes.len());
    let views = world.published.len();
    assert!(views <= 301, "one view for each that became healthy, none for a probe: {views}");
    let times: BTreeSet<_> = world.probes.iter().map(|&(at, ..)| at).collect();
    assert!(times.len() >= 900, "spread over nearly every millisecond: {}", times.len());
    assert_eq!(world.fate(0, 1), Fate::Stay);
}
