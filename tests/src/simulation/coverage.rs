//! What simulations have reached, so that what they never reach can be seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gwlb::control::Event;
use gwlb::control::event::{DrainEnd, FailoverAction};
use gwlb::control::{TargetState, TargetStatus, silence};
use gwlb::dataplane::verdict::{DropReason, ReplyCause};

use super::configuration::{Loss, Policy};
use crate::gateway::journal::{Happened, Judgement, Step};

/// How often what was reached, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<Kind, BTreeMap<String, u64>>,
}

/// Kinds of what can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Why packets are dropped.
    Drop,
    /// Why the gateway answers packets itself.
    Reply,
    /// Targets' states, with their reason codes.
    Target,
    /// What becomes of the flows of targets that are lost: cause and policy.
    Failover,
    /// How far TCP connections are when something happens to them.
    Tcp,
    /// What happens to flows.
    Flow,
    /// What happens in the control plane.
    Event,
    /// What the world does.
    World,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Kind; 8] = [
        Kind::Drop,
        Kind::Reply,
        Kind::Target,
        Kind::Failover,
        Kind::Tcp,
        Kind::Flow,
        Kind::Event,
        Kind::World,
    ];

    /// In a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Drop => "drop reasons",
            Kind::Reply => "replies",
            Kind::Target => "target states",
            Kind::Failover => "failover rows",
            Kind::Tcp => "TCP states",
            Kind::Flow => "flows",
            Kind::Event => "events",
            Kind::World => "world",
        }
    }

    /// All names of this kind, if it is known which there are.
    pub fn names(self) -> Vec<String> {
        let of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        match self {
            Kind::Drop => DropReason::ALL.iter().map(|it| it.name().to_owned()).collect(),
            Kind::Reply => of(&[
                "idle_timeout",
                "packet_too_big",
                "target_gone_deregistration",
                "target_gone_unhealthy",
                "unknown_tcp_flow",
            ]),
            Kind::Target => of(&[
                "healthy",
                "initial Elb.InitialHealthChecking",
                "initial Elb.RegistrationInProgress",
                "unavailable Elb.InternalError",
                "unavailable Target.HealthCheckDisabled",
                "unhealthy Target.FailedHealthChecks",
                "unhealthy Target.ResponseCodeMismatch",
                "unhealthy Target.Timeout",
            ]),
            Kind::Failover => {
                let causes = ["unhealthy", "deregistered"];
                let policies = ["stay", "rebalance", "reset next packet", "reset both ends"];
                let mut rows: Vec<_> = causes
                    .iter()
                    .flat_map(|cause| {
                        policies.iter().map(move |policy| format!("{cause}: {policy}"))
                    })
                    .collect();
                for (none, policies) in [
                    ("fail_closed", &["drop"][..]),
                    ("bypass", &["past them, then inspected", "past them, then kept"]),
                ] {
                    rows.extend(policies.iter().map(|it| format!("none healthy, {none}: {it}")));
                }
                rows
            }
            Kind::Tcp => of(&[
                "aborted",
                "close_wait",
                "closed",
                "established",
                "fin_wait_1",
                "fin_wait_2",
                "gave_up",
                "reset",
                "syn_received",
                "syn_sent",
                "time_wait",
            ]),
            Kind::Flow => of(&[
                "adopted",
                "created",
                "expired",
                "rebalanced",
                "reopened",
                "reset",
                "table_full",
                "too_fast",
                "untracked",
            ]),
            Kind::Event | Kind::World => Vec::new(),
        }
    }
}

impl Coverage {
    /// Something was reached, so often.
    pub fn add(&mut self, kind: Kind, name: &str, times: u64) {
        if times == 0 {
            return;
        }
        let of_kind = self.counts.entry(kind).or_default();
        match of_kind.get_mut(name) {
            Some(count) => *count += times,
            None => {
                of_kind.insert(name.to_owned(), times);
            }
        }
    }

    /// Adds what another simulation has reached.
    pub fn merge(&mut self, other: &Coverage) {
        for (kind, names) in &other.counts {
            for (name, count) in names {
                self.add(*kind, name, *count);
            }
        }
    }

    /// What of a kind was reached, and how often.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&str, u64)> {
        let names = self.counts.get(&kind).into_iter().flatten();
        names.map(|(name, count)| (name.as_str(), *count))
    }

    /// What of a kind is known and was never reached.
    pub fn missed(&self, kind: Kind) -> Vec<String> {
        let names = kind.names().into_iter();
        let reached = self.counts.get(&kind);
        names.filter(|name| !reached.is_some_and(|it| it.contains_key(name))).collect()
    }

    /// Notes what a step reaches, where `switched` says whether a load balancer is switched to
    /// bypass, and `target` what is thought of a target.
    pub(super) fn note(
        &mut self,
        step: &Step,
        policy: &Policy,
        switched: bool,
        target: impl Fn(SocketAddr) -> Option<TargetStatus>,
    ) {
        match &step.what {
            Happened::Judged { verdict, .. } => match verdict {
                Judgement::Drop(DropReason::NoTarget)
                    if policy.when_none_healthy == "fail_closed" =>
                {
                    self.add(Kind::Failover, "none healthy, fail_closed: drop", 1);
                }
                Judgement::Bypass(_) if policy.when_none_healthy == "bypass" && !switched => {
                    let then = if policy.inspect_after_bypass { "inspected" } else { "kept" };
                    let row = format!("none healthy, bypass: past them, then {then}");
                    self.add(Kind::Failover, &row, 1);
                }
                Judgement::Reply { cause, .. } => self.reply(*cause),
                _ => {}
            },
            Happened::Reply { cause, .. } => self.reply(*cause),
            Happened::Event(event) => self.event(event, policy, target),
            _ => {}
        }
    }

    fn reply(&mut self, cause: ReplyCause) {
        use gwlb::dataplane::snapshot::ResetCause;
        let name = match cause {
            ReplyCause::PacketTooBig => "packet_too_big",
            ReplyCause::UnknownTcpFlow => "unknown_tcp_flow",
            ReplyCause::IdleTimeout => "idle_timeout",
            ReplyCause::TargetGone(ResetCause::Unhealthy) => "target_gone_unhealthy",
            ReplyCause::TargetGone(ResetCause::Deregistration) => "target_gone_deregistration",
        };
        self.add(Kind::Reply, name, 1);
    }

    fn event(
        &mut self,
        event: &Event,
        policy: &Policy,
        status: impl Fn(SocketAddr) -> Option<TargetStatus>,
    ) {
        match event {
            Event::Registered { .. } => self.add(Kind::Event, "registered", 1),
            Event::TargetState { target, from, to, .. } => {
                for standing in [from, to] {
                    let reason = standing.reason.map(|reason| format!(" {}", reason.name()));
                    let name = format!("{}{}", standing.state.name(), reason.unwrap_or_default());
                    self.add(Kind::Target, &name, 1);
                }
                // Nobody tells of flows that stay.
                let stay = policy.on_unhealthy == Loss::Stay;
                let has_flows = || status(*target).is_some_and(|it| it.active_flows > 0);
                if stay && to.state == TargetState::Unhealthy && has_flows() {
                    self.add(Kind::Failover, "unhealthy: stay", 1);
                }
                if from.state == TargetState::Unhealthy && to.state == TargetState::Healthy {
                    self.add(Kind::Event, "recovered", 1);
                }
            }
            // No site has groups; scenarios and histories have.
            Event::EndpointGroup { .. } => {}
            Event::DrainBegun { .. } => self.add(Kind::Event, "drain begun", 1),
            Event::DrainEnded { cause, flows, .. } => {
                let name = match cause {
                    DrainEnd::LastFlow => "drain ended with the last flow",
                    DrainEnd::Deadline => "drain ended at its deadline",
                    DrainEnd::Registered => "drain called off",
                };
                self.add(Kind::Event, name, 1);
                let stay = policy.on_deregistration == Loss::Stay;
                if stay && *cause == DrainEnd::Deadline && *flows > 0 {
                    self.add(Kind::Failover, "deregistered: stay", 1);
                }
            }
            Event::Failover { target, action, flows, .. } => {
                self.add(Kind::Event, "failover", 1);
                let is_gone = || status(*target).is_some_and(|it| it.state == TargetState::Unused);
                let gone = match action {
                    FailoverAction::Rebalance => is_gone(),
                    FailoverAction::ResetUnhealthy => false,
                    FailoverAction::ResetDeregistered => true,
                };
                let cause = if gone { "deregistered" } else { "unhealthy" };
                let what = match action {
                    FailoverAction::Rebalance => "rebalance",
                    _ if policy.both_ends => "reset both ends",
                    _ => "reset next packet",
                };
                if *flows > 0 {
                    self.add(Kind::Failover, &format!("{cause}: {what}"), 1);
                }
            }
            Event::Bypass { on, cause, .. } => {
                let name = format!("bypass {} by {cause:?}", if *on { "on" } else { "off" });
                self.add(Kind::Event, &name, 1);
            }
            Event::Reload { .. } => self.add(Kind::Event, "reload", 1),
            Event::UsableMtu { .. } => self.add(Kind::Event, "usable MTU", 1),
            Event::Diagnosed { diagnosis: silence::Diagnosis { code, .. }, .. } => {
                self.add(Kind::Event, &format!("diagnosed {}", code.name()), 1);
            }
            Event::Cleared { .. } => self.add(Kind::Event, "diagnosis cleared", 1),
        }
    }
}
