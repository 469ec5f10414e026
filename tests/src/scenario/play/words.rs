//! Steps and states in words.

use std::fmt::Write as _;

use gwlb::config::TrafficMode;
use gwlb::control::{ProbeOutcome, ReasonCode, TargetState, TargetStatus};

use crate::gateway::ProbeKind;
use crate::scenario::{Configure, Echo, How, Input, Probe, Register, Step, SwitchEndpointGroup};

pub(super) fn what(step: &Step) -> String {
    let on = |queue: &Option<u16>| match queue {
        Some(queue) => format!(", on queue {queue}"),
        None => String::new(),
    };
    match step {
        Step::Input(Input { capture, queue, segment_size, partial_checksum }) => {
            let segments = segment_size.map(|size| format!(", segments of {size}"));
            let partial = if *partial_checksum { ", partial checksums" } else { "" };
            format!("{capture}{}{partial}{}", segments.unwrap_or_default(), on(queue))
        }
        Step::Echo(Echo { by, change, keep, queue }) => {
            let by = by.as_ref().map_or_else(|| "all".to_owned(), |names| names.join(", "));
            let changed = if change.is_empty() { "" } else { ", changed" };
            let kept = if *keep { ", kept" } else { "" };
            format!("echo by {by}{changed}{kept}{}", on(queue))
        }
        Step::AdvanceMs(milliseconds) => format!("{milliseconds} ms have passed"),
        Step::WallClockSeconds(seconds) => format!("the calendar is set to {seconds} s"),
        Step::PathMtu(path) => format!("path MTU to {} is {} now", path.appliance, path.bytes),
        Step::Probe(probe) => of_probe(probe),
        Step::Suspect(name) => format!("{name} is suspect"),
        Step::Register(Register { appliance, zone, weight, .. }) => {
            let zone = zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
            let weight = weight.map(|weight| format!(" with weight {weight}")).unwrap_or_default();
            format!("{appliance} is registered{zone}{weight}")
        }
        Step::Deregister(deregister) => format!("{} is deregistered", deregister.appliance),
        Step::TrafficMode(TrafficMode::Bypass) => "the traffic mode is bypass".to_owned(),
        Step::TrafficMode(TrafficMode::LoadBalance) => {
            "the traffic mode is load_balance".to_owned()
        }
        Step::SwitchEndpointGroup(SwitchEndpointGroup { group, to: Some(to) }) => {
            format!("{group} is switched to {to}")
        }
        Step::SwitchEndpointGroup(SwitchEndpointGroup { group, to: None }) => {
            format!("{group} is switched back")
        }
        Step::Reload(reload) => {
            let changes: Vec<_> = reload.configure.iter().map(of_change).collect();
            format!("reload: {}", changes.join(", "))
        }
        Step::Hold(_) => "workers take nothing over".to_owned(),
        Step::Release(_) => "workers take over what waits".to_owned(),
        Step::Targets(_) => "the targets".to_owned(),
    }
}

fn of_change(Configure { table, name, set, how }: &Configure) -> String {
    let how = match how {
        How::Change => "",
        How::Add => "new ",
        How::Remove => "without ",
    };
    let keys: Vec<_> = set.iter().map(|(key, value)| format!(" {key} = {value}")).collect();
    format!("{how}{table} {name}{}", keys.join(";"))
}

fn of_probe(Probe { appliance, outcome, node, kind, largest }: &Probe) -> String {
    let mut text = match kind {
        None => format!("probes of {appliance}"),
        Some(ProbeKind::Health) => format!("health probes of {appliance}"),
        Some(ProbeKind::Tunnel) => format!("probes through the tunnel to {appliance}"),
    };
    if let Some(node) = node {
        let _ = write!(text, " from {node}");
    }
    match outcome {
        ProbeOutcome::Passed => text.push_str(" pass"),
        ProbeOutcome::Refused => text.push_str(" are refused"),
        ProbeOutcome::TimedOut => text.push_str(" time out"),
        ProbeOutcome::Failed => text.push_str(" fail"),
        ProbeOutcome::Local => text.push_str(" cannot be made"),
        ProbeOutcome::Mismatch(status) => {
            let _ = write!(text, " are answered with {status}");
        }
    }
    if let Some(largest) = largest {
        let _ = write!(text, " up to {largest} bytes");
    }
    text
}

/// One line about a target.
pub(super) fn of_target(target: &TargetStatus) -> String {
    let mut text = format!("{} in {} is ", target.address, target.zone);
    state(&mut text, target.state, target.reason);
    let flows = target.active_flows;
    let _ = write!(text, ", weight {}, flows {flows}", target.effective_weight);
    if let Some(draining) = target.draining {
        let _ = write!(text, ", {} s left", draining.seconds_left);
    }
    if let Some(tunnel) = &target.tunnel {
        let _ = write!(text, ", tunnel {}", tunnel.state);
        let _ = write!(text, ", inner MTU {}", target.inner_mtu);
    }
    for zone in &target.zones {
        let _ = write!(text, "; for {} ", zone.zone);
        state(&mut text, zone.state, zone.reason);
    }
    text
}

fn state(text: &mut String, state: TargetState, reason: Option<ReasonCode>) {
    let _ = write!(text, "{state}");
    if let Some(reason) = reason {
        let _ = write!(text, " ({})", reason.name());
    }
}
