//! What `semantics` presets: the defaults of each cloud, and the ranges that it allows.
//!
//! These are numbers with a source and nothing else. Whoever reads a value asks its [`Limit`].

use std::ops::RangeInclusive;

use super::settings::{HealthProtocol, Semantics};

/// One cloud's defaults and ranges.
#[derive(Debug)]
pub(super) struct Preset {
    /// As it is called in messages.
    pub(super) cloud: &'static str,
    /// Whether a node uses the targets of all zones.
    pub(super) cross_zone: bool,
    /// Whether one switch decides what happens to flows, whatever took their target.
    pub(super) one_failover_switch: bool,
    /// How many healthy targets a zone needs to keep its flows to itself.
    pub(super) spill_over_below: u32,
    /// Of TCP flows, in seconds.
    pub(super) tcp_idle_timeout: Limit,
    /// Of all other flows, in seconds.
    pub(super) other_idle_timeout: Limit,
    /// How long a target is `draining`, in seconds.
    pub(super) deregistration_delay: Limit,
    /// What health checks speak.
    pub(super) health_protocols: &'static [HealthProtocol],
    /// Between health checks, in seconds.
    pub(super) interval: Limit,
    /// Of a health check, in seconds.
    pub(super) timeout: Limit,
    /// Good health checks that make a target healthy.
    pub(super) healthy_threshold: Limit,
    /// Bad health checks that make a target unhealthy.
    pub(super) unhealthy_threshold: Limit,
}

/// What a number is when absent, and what it may be.
#[derive(Debug)]
pub(super) struct Limit {
    /// When the key is absent.
    pub(super) default: u32,
    /// What the cloud allows.
    pub(super) cloud: RangeInclusive<u32>,
    /// What `extended_ranges = true` allows.
    pub(super) extended: RangeInclusive<u32>,
}

impl Preset {
    /// The preset that goes with `semantics`.
    pub(super) fn of(semantics: Semantics) -> &'static Preset {
        match semantics {
            Semantics::Aws => &AWS,
            Semantics::Alibaba => &ALIBABA,
        }
    }
}

/// What both clouds say of `TcpIdleTimeout` (semantics 1a, 2a).
const TCP_IDLE_TIMEOUT: Limit = Limit { default: 350, cloud: 60..=6000, extended: 1..=6000 };

/// Fixed at 120 s in AWS (semantics 1a), unsaid by Alibaba; here it may be what TCP's may be.
const OTHER_IDLE_TIMEOUT: Limit = Limit { default: 120, cloud: 60..=6000, extended: 1..=6000 };

/// AWS: 0–3600 (semantics 1b). Alibaba: 1–3600 and a switch to turn it off (2b), which is 0 here.
const DEREGISTRATION_DELAY: Limit = Limit { default: 300, cloud: 0..=3600, extended: 0..=3600 };

/// AWS Gateway Load Balancer: semantics 1a for flows, 1b for health checks.
static AWS: Preset = Preset {
    cloud: "AWS",
    cross_zone: false,
    // "Independent per zone" (semantics 1a).
    spill_over_below: 0,
    one_failover_switch: false,
    tcp_idle_timeout: TCP_IDLE_TIMEOUT,
    other_idle_timeout: OTHER_IDLE_TIMEOUT,
    deregistration_delay: DEREGISTRATION_DELAY,
    health_protocols: &[HealthProtocol::Tcp, HealthProtocol::Http, HealthProtocol::Https],
    interval: Limit { default: 10, cloud: 5..=300, extended: 1..=300 },
    timeout: Limit { default: 5, cloud: 2..=120, extended: 1..=300 },
    healthy_threshold: Limit { default: 5, cloud: 2..=10, extended: 1..=10 },
    unhealthy_threshold: Limit { default: 2, cloud: 2..=10, extended: 1..=10 },
};

/// Alibaba Cloud Gateway Load Balancer: semantics 2a for flows, 2b for server groups.
static ALIBABA: Preset = Preset {
    cloud: "Alibaba",
    // "Always on and cannot be disabled"; as a preset it is where one starts from.
    cross_zone: true,
    // With cross-zone off, a zone whose appliances have all failed is still helped by the others.
    spill_over_below: 1,
    // `ServerFailoverMode`.
    one_failover_switch: true,
    tcp_idle_timeout: TCP_IDLE_TIMEOUT,
    other_idle_timeout: OTHER_IDLE_TIMEOUT,
    deregistration_delay: DEREGISTRATION_DELAY,
    health_protocols: &[HealthProtocol::Tcp, HealthProtocol::Http],
    interval: Limit { default: 10, cloud: 1..=50, extended: 1..=300 },
    timeout: Limit { default: 5, cloud: 1..=300, extended: 1..=300 },
    healthy_threshold: Limit { default: 2, cloud: 2..=10, extended: 1..=10 },
    unhealthy_threshold: Limit { default: 2, cloud: 2..=10, extended: 1..=10 },
};
