//! What is shown: the JSON of targets and events.

use serde_json::json;

use crate::control::testing::{Manner, World, file};
use crate::control::{ReasonCode as R, TargetState as S};

#[test]
fn states_and_reasons_are_spelled_as_aws_spells_them() {
    let reasons = [
        (R::RegistrationInProgress, "Elb.RegistrationInProgress"),
        (R::InitialHealthChecking, "Elb.InitialHealthChecking"),
        (R::InternalError, "Elb.InternalError"),
        (R::ResponseCodeMismatch, "Target.ResponseCodeMismatch"),
        (R::Timeout, "Target.Timeout"),
        (R::FailedHealthChecks, "Target.FailedHealthChecks"),
        (R::NotRegistered, "Target.NotRegistered"),
        (R::NotInUse, "Target.NotInUse"),
        (R::DeregistrationInProgress, "Target.DeregistrationInProgress"),
        (R::HealthCheckDisabled, "Target.HealthCheckDisabled"),
    ];
    for (reason, name) in reasons {
        assert_eq!(serde_json::to_value(reason).unwrap(), name);
        assert_eq!(reason.to_string(), name);
    }
    for state in [S::Initial, S::Healthy, S::Unhealthy, S::Unused, S::Draining, S::Unavailable] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
}

#[test]
fn a_target_as_json() {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1")]));
    world.manners.insert(11, Manner::DEAD);
    world.run_until(100_000);
    let since = world.status(11).since_unix_seconds;
    world.flows(11, 3, 1);
    let value = serde_json::to_value(world.status(11)).unwrap();
    assert_eq!(
        value,
        json!({
            "target_group": "fw",
            "address": "192.0.2.11:6081",
            "zone": "az1",
            "weight": 100,
            "effective_weight": 100,
            "state": "unhealthy",
            "reason": "Target.Timeout",
            "description": "TCP probes of port 80 are not answered within 5 s",
            "since_unix_seconds": since,
            "path_mtu": 1500,
            "inner_mtu": 1432,
            "active_flows": 2,
            "sent_packets": 0,
            "sent_bytes": 0,
            "returned_packets": 0,
            "returned_bytes": 0,
            "new_flows": 3,
            "ended_flows": 1,
            "kept_packets": 0,
            "draining": null,
            "zones": [],
            "diagnosis": null,
            "tunnel": null,
            "probe_latency_ms": null,
            "appliance_latency_us": null,
        })
    );
    world.deregister(11);
    let value = serde_json::to_value(world.status(11)).unwrap();
    assert_eq!(value["draining"], json!({ "flows_left": 2, "seconds_left": 300.0 }));
}

#[test]
fn events_as_json() {
    let mut world = World::new(&file(["", "", ""], &["az1"], &[(11, "az1")]));
    world.run_until(10);
    world.deregister(11);
    let events: Vec<_> =
        world.events.iter().map(|(_, it)| serde_json::to_value(it).unwrap()).collect();
    assert_eq!(
        events,
        [
            json!({
                "event": "registered", "target_group": "fw", "target": "192.0.2.11:6081",
                "zone": "az1", "weight": 100,
            }),
            json!({
                "event": "target_state", "target_group": "fw", "target": "192.0.2.11:6081",
                "load_balancer": "lb", "zone": "az1",
                "from": { "state": "initial", "reason": "Elb.RegistrationInProgress" },
                "to": { "state": "healthy", "reason": null },
            }),
            json!({
                "event": "drain_begun", "target_group": "fw", "target": "192.0.2.11:6081",
                "flows": 0, "seconds": 300.0,
            }),
            json!({
                "event": "drain_ended", "target_group": "fw", "target": "192.0.2.11:6081",
                "cause": "last_flow", "flows": 0,
            }),
        ]
    );
}
