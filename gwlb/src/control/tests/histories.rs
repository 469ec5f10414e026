//! Whatever happens in whatever order: what must always hold.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::config::TrafficMode;
use crate::control::testing::{Manner, World, address, file};
use crate::control::{Input, ProbeOutcome, TargetState};
use crate::dataplane::snapshot::Fate;

#[derive(Debug, Clone, Copy)]
enum Step {
    Register(u8, bool),
    Deregister(u8),
    Manner(u8, u8),
    Suspect(u8),
    Flows(u8, u64),
    NoFlows(u8),
    Acknowledges(bool),
    Bypass(bool),
    Reload(u8),
    PathMtu(u8, u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let target = 11u8..17;
    prop_oneof![
        (target.clone(), any::<bool>()).prop_map(|(it, zone)| Step::Register(it, zone)),
        target.clone().prop_map(Step::Deregister),
        (target.clone(), 0u8..6).prop_map(|(it, manner)| Step::Manner(it, manner)),
        target.clone().prop_map(Step::Suspect),
        (target.clone(), 1u64..5).prop_map(|(it, flows)| Step::Flows(it, flows)),
        target.clone().prop_map(Step::NoFlows),
        any::<bool>().prop_map(Step::Acknowledges),
        any::<bool>().prop_map(Step::Bypass),
        (0u8..8).prop_map(Step::Reload),
        (target, 600u16..9_000).prop_map(|(it, mtu)| Step::PathMtu(it, mtu)),
        (0u64..60_000).prop_map(Step::Pass),
        (0u64..500).prop_map(Step::Pass),
    ]
}

/// One of eight files.
fn version(number: u8) -> String {
    let bit = |bit: u8, yes: &'static str, no: &'static str| {
        if number >> bit & 1 == 1 { yes } else { no }
    };
    let balancer = bit(0, "cross_zone = true", "spill_over_below_healthy_targets = 2");
    let group = [
        bit(1, "when_none_healthy = \"bypass\"\n", "slow_start_seconds = 30\n"),
        "deregistration_delay_seconds = 40\n",
        "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }\n",
        bit(2, "[target_group.tunnel_check]\ninterval_seconds = 5\n", ""),
    ];
    let check = bit(1, "interval_seconds = 5", "enabled = true");
    let targets: &[_] = if number.is_multiple_of(3) {
        &[(11, "az1"), (12, "az2"), (13, "az1")]
    } else {
        &[(12, "az1"), (14, "az2")]
    };
    file([balancer, &group.concat(), check], &["az1", "az2"], targets)
}

fn take(world: &mut World, step: Step) {
    let now = world.now();
    let known = |world: &World, target: u8| {
        let ending = format!(".{target}:6081");
        let known = world.control.targets().iter().any(|it| it.address.ends_with(&ending));
        known.then(|| world.slot(target))
    };
    match step {
        Step::Register(target, first) => {
            world.register(target, if first { "az1" } else { "az2" });
        }
        Step::Deregister(target) => {
            // It may not be registered.
            let _ = world.control.deregister("fw", address(target), None, now);
        }
        Step::Manner(target, manner) => {
            let manner = match manner {
                0 => Manner::GOOD,
                1 => Manner::DEAD,
                2 => Manner::answering(ProbeOutcome::Refused),
                3 => Manner::answering(ProbeOutcome::Local),
                4 => Manner::answering(ProbeOutcome::Mismatch(500)),
                _ => Manner { tunnel: (700, std::time::Duration::from_millis(3)), ..Manner::GOOD },
            };
            world.manners.insert(target, manner);
        }
        Step::Suspect(target) => {
            if let Some(slot) = known(world, target) {
                world.handle(Input::Suspect(slot));
            }
        }
        Step::Flows(target, flows) => {
            if known(world, target).is_some() {
                world.flows(target, flows, 0);
            }
        }
        Step::NoFlows(target) => {
            if known(world, target).is_some() {
                let flows = world.status(target).active_flows;
                world.flows(target, 0, flows);
            }
        }
        Step::Acknowledges(yes) => {
            world.acknowledges = yes;
            if yes {
                let generation = world.snapshot().generation;
                world.handle(Input::Acknowledged(generation));
            }
        }
        Step::Bypass(on) => {
            let mode = if on { TrafficMode::Bypass } else { TrafficMode::LoadBalance };
            world.control.set_traffic_mode("lb", mode, now).unwrap();
        }
        Step::Reload(number) => world.reload(&version(number)),
        Step::PathMtu(target, mtu) => {
            if let Some(target) = known(world, target) {
                world.handle(Input::PathMtu { target, mtu });
            }
        }
        Step::Pass(ms) => world.run_for(ms),
    }
    // Commands leave their outputs for the next call.
    world.run_for(0);
}

fn hold(world: &World) {
    let view = world.snapshot();
    let sources: Vec<_> = view.sources.values().flatten().copied().collect();
    let unique: BTreeSet<_> = sources.iter().map(|&slot| view.target(slot).address).collect();
    assert_eq!(unique.len(), sources.len(), "one slot for each target");
    let targets = world.control.targets();
    assert_eq!(targets.len(), sources.len());
    for pool in &view.pools {
        for candidate in pool.candidates.iter() {
            let target = view.target(candidate.target);
            assert!(sources.contains(&candidate.target));
            let address = target.address.to_string();
            let status = targets.iter().find(|it| it.address == address).unwrap();
            assert!(!matches!(status.state, TargetState::Draining | TargetState::Unused));
            assert!((1..=status.weight).contains(&candidate.weight));
            assert_eq!(pool.fate(candidate.target), Fate::Stay, "who takes flows keeps them");
        }
    }
    for status in &targets {
        assert!(status.inner_mtu <= status.path_mtu - 68);
        assert_eq!(status.draining.is_some(), status.state == TargetState::Draining);
        if status.state == TargetState::Draining {
            assert!(status.draining.unwrap().seconds_left > 0.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_must_always_hold(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(&version(0));
        let mut again = World::new(&version(0));
        let mut generation = 0;
        for &step in &steps {
            take(&mut world, step);
            hold(&world);
            prop_assert!(world.snapshot().generation >= generation, "generations count up");
            generation = world.snapshot().generation;
            take(&mut again, step);
        }
        prop_assert_eq!(&world.probes, &again.probes);
        prop_assert_eq!(&world.events, &again.events);
        prop_assert_eq!(&world.published, &again.published);

        // In the end everything that is good and registered is found to be so, and the rest is gone.
        world.manners.clear();
        take(&mut world, Step::Acknowledges(true));
        for target in 11..17 {
            take(&mut world, Step::NoFlows(target));
        }
        world.run_for(200_000);
        for status in world.control.targets() {
            prop_assert_eq!(status.state, TargetState::Healthy, "{:?}", status);
            prop_assert_eq!(status.effective_weight, status.weight);
        }
    }
}
