//! What happens in the control plane, for the log and for whoever listens.

use std::fmt;
use std::net::SocketAddr;

use router::failover::{Cause, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::silence::{Diagnosis, DiagnosisCode};
use super::target::{Standing, TargetState};
use crate::dataplane::snapshot::ResetCause;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = ControlEvent)]
pub enum Event {
    /// A target was registered.
    Registered {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// The zone that it stands in.
        zone: String,
        /// Its weight.
        weight: u16,
    },
    /// A node thinks otherwise of a target than before.
    TargetState {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// The load balancer.
        load_balancer: String,
        /// The zone of the node.
        zone: String,
        /// What it thought.
        from: Standing,
        /// What it thinks.
        to: Standing,
    },
    /// A target was deregistered: it gets no new flows.
    DrainBegun {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// Flows that it has.
        flows: u64,
        /// How long they may take at most, in seconds.
        seconds: f64,
    },
    /// A target drains no longer.
    DrainEnded {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// Why.
        cause: DrainEnd,
        /// Flows that are left.
        flows: u64,
    },
    /// Flows lose their target.
    Failover {
        /// The load balancer.
        load_balancer: String,
        /// The zone of the node.
        zone: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// What becomes of the flows.
        action: FailoverAction,
        /// Flows that the target has, by way of all nodes.
        flows: u64,
    },
    /// Packets go past the appliances, or do so no longer.
    Bypass {
        /// The load balancer.
        load_balancer: String,
        /// The zone of the node; absent: all of them.
        zone: Option<String>,
        /// Whether they do.
        on: bool,
        /// Why.
        cause: BypassCause,
    },
    /// A group of endpoints is otherwise than before.
    EndpointGroup {
        /// The group.
        endpoint_group: String,
        /// How it was.
        #[schema(value_type = String)]
        from: State,
        /// How it is.
        #[schema(value_type = String)]
        to: State,
        /// The endpoint that gets all new flows, if one does.
        active: Option<String>,
        /// Why.
        #[schema(value_type = String)]
        cause: Cause,
    },
    /// Another configuration is in force.
    Reload {
        /// Targets that came with it.
        registered: usize,
        /// Targets that it does not have any more.
        deregistered: usize,
        /// Targets with another zone or weight.
        changed: usize,
    },
    /// The largest packet that an appliance brings back was measured.
    UsableMtu {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// The length of the inner packet in bytes; absent: not even the smallest came back.
        usable_mtu: Option<u16>,
    },
    /// Something is wrong with a target that its health does not show.
    Diagnosed {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// What.
        diagnosis: Diagnosis,
    },
    /// What was wrong with a target, and its health did not show, is over.
    Cleared {
        /// The target group.
        target_group: String,
        /// The target.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// What it was.
        code: DiagnosisCode,
    },
}

/// Why a target drains no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainEnd {
    /// Its last flow has ended.
    LastFlow,
    /// The deregistration delay is over.
    Deadline,
    /// It was registered again.
    Registered,
}

/// What becomes of flows that lose their target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailoverAction {
    /// They move to others.
    Rebalance,
    /// They are reset: the target is unhealthy.
    ResetUnhealthy,
    /// They are reset: the target was deregistered.
    ResetDeregistered,
}

impl From<ResetCause> for FailoverAction {
    fn from(cause: ResetCause) -> Self {
        match cause {
            ResetCause::Unhealthy => Self::ResetUnhealthy,
            ResetCause::Deregistration => Self::ResetDeregistered,
        }
    }
}

/// Why packets go past the appliances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BypassCause {
    /// Somebody wants it (`traffic_mode`).
    TrafficMode,
    /// No target is healthy (`when_none_healthy`).
    NoneHealthy,
}

impl Event {
    /// Whether it is something to worry about.
    pub fn is_grave(&self) -> bool {
        match self {
            Self::Bypass { on, .. } => *on,
            Self::TargetState { to, .. } => to.state == TargetState::Unhealthy,
            Self::Failover { .. } | Self::Diagnosed { .. } => true,
            Self::EndpointGroup { to, .. } => {
                matches!(to, State::Switching | State::Abnormal | State::Unavailable)
            }
            Self::DrainEnded { cause, .. } => *cause == DrainEnd::Deadline,
            _ => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { target_group, target, zone, weight } => {
                write!(f, "{target_group}: {target} is registered in {zone} with weight {weight}")
            }
            Self::TargetState { target_group, target, load_balancer, zone, from, to } => {
                write!(
                    f,
                    "{target_group}: {target} is {to} for {load_balancer} in {zone}, it was {}",
                    from.state
                )
            }
            Self::DrainBegun { target_group, target, flows, seconds } => write!(
                f,
                "{target_group}: {target} is deregistered; its {} may take {seconds} s more",
                counted(*flows)
            ),
            Self::DrainEnded { target_group, target, cause, flows } => {
                write!(f, "{target_group}: {target} ")?;
                match cause {
                    DrainEnd::LastFlow => f.write_str("is drained: its last flow has ended"),
                    DrainEnd::Deadline => {
                        write!(f, "is not drained any longer: {} left", counted(*flows))
                    }
                    DrainEnd::Registered => write!(f, "is back: it keeps its {}", counted(*flows)),
                }
            }
            Self::Failover { load_balancer, zone, target, action, flows } => {
                let what = match action {
                    FailoverAction::Rebalance => "other targets",
                    FailoverAction::ResetUnhealthy => "resets, being unhealthy",
                    FailoverAction::ResetDeregistered => "resets, being deregistered",
                };
                let flows = counted(*flows);
                write!(f, "{load_balancer} in {zone}: {target} loses {flows} to {what}")
            }
            Self::Bypass { load_balancer, zone, on, cause } => {
                let zone = zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
                let why = match (cause, on) {
                    (BypassCause::TrafficMode, true) => "the traffic mode is bypass",
                    (BypassCause::TrafficMode, false) => "the traffic mode is load_balance again",
                    (BypassCause::NoneHealthy, true) => "no target is healthy",
                    (BypassCause::NoneHealthy, false) => "a target may take them",
                };
                if *on {
                    write!(f, "{load_balancer}{zone}: PACKETS PASS UNINSPECTED: {why}")
                } else {
                    write!(f, "{load_balancer}{zone}: new flows are inspected again: {why}")
                }
            }
            Self::EndpointGroup { endpoint_group, from, to, active, cause } => {
                let active = active.as_ref();
                let active = active.map(|it| format!(", new flows go to {it}")).unwrap_or_default();
                let why = match cause {
                    Cause::Health => "by the health of its zones",
                    Cause::Configuration => "by its configuration",
                    Cause::Manual => "somebody has switched it",
                    Cause::Returned => "the zone has been healthy again for long enough",
                    Cause::Confirmed => "all workers know",
                    Cause::Deleted => "another configuration does not have it",
                };
                if from == to {
                    return write!(f, "{endpoint_group} is still {to}{active}: {why}");
                }
                write!(f, "{endpoint_group} is {to}, it was {from}{active}: {why}")
            }
            Self::Reload { registered: 0, deregistered: 0, changed: 0 } => {
                f.write_str("another configuration is in force, with the same targets")
            }
            Self::Reload { registered, deregistered, changed } => write!(
                f,
                "another configuration is in force; targets: {registered} registered, \
                 {deregistered} deregistered, {changed} changed"
            ),
            Self::UsableMtu { target_group, target, usable_mtu } => match usable_mtu {
                Some(mtu) => {
                    write!(f, "{target_group}: {target} brings back packets of up to {mtu} bytes")
                }
                None => write!(f, "{target_group}: {target} brings back small packets only"),
            },
            Self::Diagnosed { target_group, target, diagnosis } => {
                write!(f, "{target_group}: {target}: {}", diagnosis.text)
            }
            Self::Cleared { target_group, target, code } => {
                write!(f, "{target_group}: {target} returns packets again ({code})")
            }
        }
    }
}

/// So many flows, in words.
fn counted(flows: u64) -> String {
    if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") }
}
