//! What the gateway is told in the second act: two load balancers that treat the flows of a dead
//! appliance differently. It changes from scene to scene, as a user would change the file.

use std::fmt::Write;
use std::time::Duration;

use crate::lab::plan::{ApplianceSpec, GATEWAY, Plan, Sabotage};

/// From the start of one health probe to the start of the next.
pub(super) const INTERVAL: Duration = Duration::from_millis(800);
/// How long a probe waits for its answer.
pub(super) const TIMEOUT: Duration = Duration::from_millis(400);
/// So many failures in a row make a target unhealthy.
pub(super) const UNHEALTHY: u32 = 2;
/// How long a closed connection stays in the flow table; draining waits for it.
pub(super) const CLOSED: Duration = Duration::from_secs(1);

/// By when a dead appliance gets no new flows: `threshold × interval + timeout`, and a twentieth for
/// the processors that everybody shares here.
pub(super) fn detection_limit() -> Duration {
    (UNHEALTHY * INTERVAL + TIMEOUT).mul_f64(1.05)
}

/// The group whose appliances take open connections over, in the first zone.
pub(super) const ELASTIC: &str = "elastic";
/// The group of strict firewalls, in the second zone.
pub(super) const STRICT: &str = "strict";

/// What becomes of the flows of an unhealthy appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failover {
    /// They stay where nobody is.
    Stay,
    /// They move to others.
    Rebalance,
    /// The next packet of each is answered by a reset.
    Reset,
    /// Both ends of each are reset at once.
    ResetBothEnds,
}

/// The changing part of the gateway's file.
#[derive(Clone, Debug)]
pub(super) struct Design {
    sabotage: Option<Sabotage>,
    /// The targets in the file, and their weights.
    pub targets: Vec<(ApplianceSpec, u16)>,
    /// What the strict group does.
    pub strict: Failover,
    /// Of the elastic group.
    pub deregistration_delay: Duration,
    /// Seconds without a packet after which a TCP flow is forgotten.
    pub tcp_idle_seconds: u32,
}

/// The weight of an appliance that is nothing special.
pub(super) const ORDINARY: u16 = 100;

impl Design {
    /// As the act begins: the fourth appliance is spare, and the third has three times the weight of
    /// the others.
    pub(super) fn new(plan: &Plan) -> Self {
        let registered = plan.appliances.iter().filter(|appliance| appliance.name != SPARE);
        let weight = |appliance: &ApplianceSpec| match appliance.name {
            HEAVY => 3 * ORDINARY,
            _ => ORDINARY,
        };
        Self {
            sabotage: plan.sabotage,
            targets: registered.map(|appliance| (*appliance, weight(appliance))).collect(),
            strict: Failover::Rebalance,
            deregistration_delay: Duration::from_mins(1),
            tcp_idle_seconds: 350,
        }
    }

    /// What the elastic group does.
    pub(super) fn elastic(&self) -> Failover {
        match self.sabotage {
            Some(Sabotage::NoRebalance) => Failover::Stay,
            _ => Failover::Rebalance,
        }
    }

    /// Takes a target out of the file.
    pub(super) fn remove(&mut self, name: &str) {
        self.targets.retain(|(appliance, _)| appliance.name != name);
    }

    /// Puts a target into the file.
    pub(super) fn add(&mut self, appliance: ApplianceSpec, weight: u16) {
        self.targets.push((appliance, weight));
    }

    /// The part of the file.
    pub(super) fn text(&self, plan: &Plan) -> String {
        let mut text = String::from(
            "[[endpoint_service]]\nname = \"inspection\"\n\
             load_balancers = [\"elastic\", \"strict\"]\n\n",
        );
        let strict = match self.sabotage {
            Some(Sabotage::NoReset) if self.strict != Failover::Rebalance => Failover::Stay,
            _ => self.strict,
        };
        let halves = [(ELASTIC, self.elastic()), (STRICT, strict)];
        for ((name, failover), zone) in halves.into_iter().zip(&plan.zones) {
            let (zone, node) = (zone.name, zone.node);
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "[[load_balancer]]\nname = \"{name}\"\ntarget_group = \"{name}\"\n\
                 nodes = [{{ zone = \"{zone}\", address = \"{node}\" }}]\nnetns = \"{}\"\n\
                 tcp_idle_timeout_seconds = {}\ntcp_closed_timeout_seconds = {}\n\n\
                 [[target_group]]\nname = \"{name}\"\nderegistration_delay_seconds = {}\n{}\n",
                plan.netns(GATEWAY),
                self.tcp_idle_seconds,
                CLOSED.as_secs(),
                self.deregistration_delay.as_secs(),
                failover.keys(),
            );
            self.health_check(&mut text);
            for (appliance, weight) in self.targets.iter().filter(|(it, _)| it.zone == zone) {
                let ApplianceSpec { name: target, kind, address, .. } = appliance;
                let _ = write!(
                    text,
                    "[[target]] # {target}, {kind}\ngroup = \"{name}\"\n\
                     address = \"{address}\"\nzone = \"{zone}\"\nweight = {weight}\n\n",
                );
            }
        }
        text
    }

    fn health_check(&self, text: &mut String) {
        let slower = if self.sabotage == Some(Sabotage::SlowHealth) { 2 } else { 1 };
        // HTTP, since the kernel goes on to accept the TCP connections of a process that hangs.
        let _ = write!(
            text,
            "[target_group.health_check]\nprotocol = \"HTTP\"\ninterval_ms = {}\n\
             timeout_ms = {}\nhealthy_threshold = 2\nunhealthy_threshold = {UNHEALTHY}\n\
             extended_ranges = true\n\n",
            slower * INTERVAL.as_millis(),
            slower * TIMEOUT.as_millis(),
        );
    }
}

/// The appliance that is registered while everything runs.
pub(super) const SPARE: &str = "nva-4";
/// The appliance that has most of the flows.
pub(super) const HEAVY: &str = "nva-3";

impl Failover {
    fn keys(self) -> &'static str {
        match self {
            Self::Stay => "",
            Self::Rebalance => "target_failover = { on_unhealthy = \"rebalance\" }\n",
            Self::Reset => "send_tcp_reset = { on_unhealthy = true }\n",
            Self::ResetBothEnds => "send_tcp_reset = { on_unhealthy = true, both_ends = true }\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::lab::configuration;

    #[test]
    fn the_gateway_takes_every_form_of_the_file() {
        let faults = [None, Some(Sabotage::NoRebalance), Some(Sabotage::SlowHealth)];
        for sabotage in faults.into_iter().chain([Some(Sabotage::NoReset)]) {
            let plan = Plan::of_failover("p".to_owned(), sabotage);
            let mut design = Design::new(&plan);
            for strict in [Failover::Rebalance, Failover::Reset, Failover::ResetBothEnds] {
                design.strict = strict;
                let text = configuration::gateway(&plan, &design.text(&plan), Path::new("/tmp/p"));
                let source = router::source::Source::new("gwlb.toml", text);
                let settings = crate::config::parse(&source).unwrap();
                assert_eq!(settings.target_groups.len(), 2);
                assert_eq!(settings.target_groups[0].targets.len(), 3);
            }
        }
    }

    #[test]
    fn the_limit_is_that_of_the_configured_check() {
        assert_eq!(detection_limit(), Duration::from_millis(2100));
        let plan = Plan::of_failover("p".to_owned(), None);
        let text = Design::new(&plan).text(&plan);
        assert!(text.contains("interval_ms = 800\ntimeout_ms = 400\n"), "{text}");
    }
}
