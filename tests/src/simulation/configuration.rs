//! The configurations of simulated gateways: a few networks, and every policy that there is.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use gwlb::config::Settings;
use router::source::Source;

use super::random::Dice;

/// A network with endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// The canonical inspection design in two zones.
    TwoZones,
    /// Two VPCs with the same addresses and the same appliances.
    Overlapping,
    /// Two services in a row.
    Chained,
}

/// What becomes of the flows of a target that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    Stay,
    Rebalance,
    Reset,
}

/// What a configuration says, besides the network.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the configuration")]
pub(super) struct Policy {
    pub on_unhealthy: Loss,
    pub on_deregistration: Loss,
    pub both_ends: bool,
    pub when_none_healthy: &'static str,
    pub inspect_after_bypass: bool,
    pub delay: u64,
    pub slow_start: u64,
    pub cross_zone: bool,
    pub spill_over: u64,
    pub unknown: &'static str,
    pub adopt: bool,
    pub reset_on_idle: bool,
    pub clamp: bool,
    pub stickiness: &'static str,
    pub dialect: &'static str,
    /// TCP, half open, half closed, closed, everything else; in seconds.
    pub timers: [u64; 5],
    /// Interval and timeout in seconds, thresholds of health and of failure.
    pub checks: [u64; 4],
    pub health: bool,
    pub tunnel: bool,
    pub max_flows: usize,
    pub new_flows: u64,
    pub source_ports: u64,
    pub translated: bool,
    /// Whether the underlay is IPv6.
    pub six: bool,
    pub alibaba: bool,
}

/// A configuration that a reload brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    AsItWas,
    WithoutTheFirst,
    WithAFourth,
    /// Other weights, and places that are numbered otherwise.
    Renumbered,
    /// What becomes of flows is decided otherwise, and they are remembered for longer or shorter.
    OtherPolicy,
}

impl Variant {
    pub const ALL: [Variant; 5] = [
        Variant::AsItWas,
        Variant::WithoutTheFirst,
        Variant::WithAFourth,
        Variant::Renumbered,
        Variant::OtherPolicy,
    ];
}

/// Two hosts that talk, or networks full of such.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub vpc: u8,
    /// Outside, or at least not where the servers are: device and first address.
    pub near: (&'static str, &'static str),
    /// Where the servers are.
    pub far: (&'static str, &'static str),
    /// How the near side calls the far side, if not by its address.
    pub alias: Option<&'static str>,
    /// Whether an endpoint is on the way.
    pub inspected: bool,
}

/// The port that the firewalls let nobody through to.
pub(super) const DENIED: u16 = 25;

impl Layout {
    /// The target groups, each with the last bytes of its appliances' addresses and their zones.
    /// The last one of a group is not registered at first.
    pub fn appliances(self) -> &'static [(&'static str, u8, &'static str)] {
        match self {
            Layout::TwoZones => {
                &[("fw", 11, "az1"), ("fw", 12, "az1"), ("fw", 21, "az2"), ("fw", 13, "az1")]
            }
            Layout::Overlapping => &[("fw", 11, "az1"), ("fw", 12, "az1"), ("fw", 13, "az1")],
            Layout::Chained => &[
                ("fw", 11, "az1"),
                ("fw", 12, "az1"),
                ("ids", 31, "az1"),
                ("ids", 32, "az1"),
                ("fw", 13, "az1"),
            ],
        }
    }

    pub fn load_balancers(self) -> &'static [&'static str] {
        match self {
            Layout::TwoZones | Layout::Overlapping => &["fw"],
            Layout::Chained => &["fw", "ids"],
        }
    }

    /// Who can talk with whom.
    pub fn pairs(self, policy: &Policy) -> Vec<Pair> {
        let pair = |vpc, near, far, inspected| Pair { vpc, near, far, alias: None, inspected };
        let outside = "203.0.113.10";
        match self {
            Layout::TwoZones => {
                let (near, six) = (("igw", outside), ("igw", "2001:db8:113::10"));
                let mut pairs = vec![
                    pair(0, near, ("app-a", "10.0.1.30"), true),
                    pair(0, near, ("app-a", "10.0.1.30"), true),
                    pair(0, six, ("app-a", "fd00:10:0:1::11"), true),
                    pair(0, near, ("app-b", "10.0.2.11"), true),
                    pair(0, six, ("app-b", "fd00:10:0:2::11"), true),
                    pair(0, ("app-b", "10.0.2.100"), ("app-a", "10.0.1.40"), false),
                ];
                if policy.translated {
                    let alias = Some("198.18.0.11");
                    let far = ("app-a", "10.0.1.11");
                    pairs.push(Pair { vpc: 0, near, far, alias, inspected: true });
                }
                pairs
            }
            Layout::Overlapping => vec![
                pair(0, ("red-igw", outside), ("red-app", "10.0.1.11"), true),
                pair(1, ("blue-igw", outside), ("blue-app", "10.0.1.11"), true),
            ],
            Layout::Chained => vec![pair(0, ("igw", outside), ("app-a", "10.0.1.11"), true)],
        }
    }

    fn text(self) -> &'static str {
        match self {
            Layout::TwoZones => include_str!("../../scenarios/gateway.toml"),
            Layout::Overlapping => {
                include_str!("../../scenarios/overlapping-addresses/gateway.toml")
            }
            Layout::Chained => include_str!("../../scenarios/two-services/gateway.toml"),
        }
    }
}

impl Policy {
    /// Draws a policy.
    pub fn draw(dice: &mut Dice) -> Policy {
        let five = dice.per_mille(750);
        let loss = |dice: &mut Dice, reset: bool| {
            let reset = if reset { Loss::Reset } else { Loss::Stay };
            *dice.pick(&[Loss::Stay, Loss::Rebalance, reset])
        };
        let idle = *dice.pick(&[60, 60, 120, 350, 350, 900]);
        let interval = *dice.pick(&[5, 5, 10, 30]);
        Policy {
            on_unhealthy: loss(dice, five),
            on_deregistration: loss(dice, five),
            both_ends: five && dice.per_mille(400),
            when_none_healthy: dice.pick::<&str>(&["fail_open", "fail_closed", "bypass"]),
            inspect_after_bypass: dice.per_mille(500),
            delay: *dice.pick(&[0, 10, 60, 300]),
            slow_start: *dice.pick(&[0, 0, 30]),
            cross_zone: dice.per_mille(400),
            spill_over: *dice.pick(&[0, 0, 1, 2]),
            unknown: dice.pick::<&str>(&["drop", "reset", "adopt"]),
            adopt: dice.per_mille(500),
            reset_on_idle: five && dice.per_mille(300),
            clamp: dice.per_mille(300),
            stickiness: if five { "5-tuple" } else { dice.pick::<&str>(&["3-tuple", "2-tuple"]) },
            dialect: dice.pick::<&str>(&["aws", "aws", "tencent", "google"]),
            timers: [
                idle,
                *dice.pick(&[20, 60]),
                *dice.pick(&[30, 60]),
                *dice.pick(&[5, 30]),
                *dice.pick(&[60, 120, 350]),
            ],
            checks: [interval, *dice.pick(&[2, interval]), *dice.pick(&[2, 5]), 2],
            health: dice.per_mille(950),
            tunnel: dice.per_mille(300),
            max_flows: *dice.pick(&[4096, 4096, 4096, 64, 12]),
            new_flows: *dice.pick(&[0, 0, 0, 20]),
            source_ports: *dice.pick(&[1, 2, 8]),
            translated: dice.per_mille(300),
            six: dice.per_mille(150),
            alibaba: dice.per_mille(150),
        }
    }

    /// The same, with what a reload may change drawn anew.
    pub fn redrawn(&self, dice: &mut Dice) -> Policy {
        let other = Policy::draw(dice);
        let five = self.stickiness == "5-tuple";
        let loss = |loss: Loss| if loss == Loss::Reset && !five { Loss::Stay } else { loss };
        Policy {
            on_unhealthy: loss(other.on_unhealthy),
            on_deregistration: loss(other.on_deregistration),
            both_ends: other.both_ends && five,
            reset_on_idle: other.reset_on_idle && five,
            stickiness: self.stickiness,
            dialect: self.dialect,
            max_flows: self.max_flows,
            source_ports: self.source_ports,
            translated: self.translated,
            six: self.six,
            alibaba: self.alibaba,
            ..other
        }
    }

    /// The address of an appliance or of anything in its network.
    pub fn underlay(&self, last: u8) -> IpAddr {
        if self.six {
            // Its last digits are those of IPv4, read as hexadecimal ones.
            format!("2001:db8:2::{last}").parse().expect("an address")
        } else {
            IpAddr::from([192, 0, 2, last])
        }
    }

    /// The longest time after which a flow without packets is forgotten.
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.timers.into_iter().max().unwrap_or_default())
    }

    /// The soonest that any flow may be forgotten.
    pub fn soonest(&self) -> Duration {
        Duration::from_secs(self.timers.into_iter().min().unwrap_or_default())
    }

    /// The soonest that an open connection, or any other flow, is forgotten.
    pub fn shortest(&self) -> Duration {
        Duration::from_secs(self.timers[0].min(self.timers[4]))
    }

    /// The settings of a gateway.
    pub fn settings(&self, layout: Layout, variant: Variant) -> Settings {
        let mut text = layout.text().to_owned();
        self.insert(&mut text, layout);
        match variant {
            Variant::AsItWas | Variant::OtherPolicy => {}
            Variant::WithoutTheFirst => {
                let first =
                    "[[target]]\ngroup = \"fw\"\naddress = \"192.0.2.11\"\nzone = \"az1\"\n";
                text = text.replace(first, "");
            }
            Variant::WithAFourth => text.push_str(
                "\n[[target]]\ngroup = \"fw\"\naddress = \"192.0.2.13\"\nzone = \"az1\"\n",
            ),
            Variant::Renumbered => {
                let vpc = if layout == Layout::Overlapping { "red" } else { "app" };
                let new = format!(
                    "[[subnet]]\nname = \"new\"\nvpc = \"{vpc}\"\nzone = \"az1\"\n\
                     cidrs = [\"10.0.77.0/24\"]\n\n[[subnet]]\n"
                );
                text = text.replacen("[[subnet]]\n", &new, 1);
                let weight = "address = \"192.0.2.12\"\nweight = 30\n";
                text = text.replace("address = \"192.0.2.12\"\n", weight);
            }
        }
        if self.six {
            text = text.replace("192.0.2.", "2001:db8:2::");
        }
        let settings = gwlb::config::parse(&Source::new("simulation.toml", text.clone()));
        let mut settings = settings.unwrap_or_else(|problems| panic!("{problems:?} in {text}"));
        // Smaller than any file may ask for, so that few flows fill it.
        settings.gateway.max_flows_per_worker = self.max_flows;
        settings
    }

    fn insert(&self, text: &mut String, layout: Layout) {
        let mut head = format!(
            "[gateway]\nsource_ports_per_worker = {}\nmax_new_flows_per_second_per_worker = {}\n",
            self.source_ports, self.new_flows
        );
        if self.alibaba {
            head.push_str("semantics = \"alibaba\"\n");
        }
        text.insert_str(0, &head);
        for name in layout.load_balancers() {
            let group = format!("[[target_group]]\nname = \"{name}\"\n");
            *text = text.replace(&group, &format!("{group}{}", self.group()));
            let balancer = format!("[[load_balancer]]\nname = \"{name}\"\n");
            *text = text.replace(&balancer, &format!("{balancer}{}", self.balancer()));
        }
        if self.translated && layout == Layout::TwoZones {
            let igw = "route_table = \"igw\"\n\n[[route_table]]";
            let addresses = "addresses = [{ public = \"198.18.0.11\", private = \"10.0.1.11\" }]";
            let with = format!("route_table = \"igw\"\n{addresses}\n\n[[route_table]]");
            *text = text.replacen(igw, &with, 1);
        }
    }

    fn balancer(&self) -> String {
        let [idle, half_open, half_closed, closed, other] = self.timers;
        format!(
            "cross_zone = {}\nspill_over_below_healthy_targets = {}\ntcp_unknown_flow = \"{}\"\n\
             adopt_after_start = {}\nsend_tcp_reset_on_idle_timeout = {}\ntcp_mss_clamp = {}\n\
             tcp_idle_timeout_seconds = {idle}\ntcp_half_open_timeout_seconds = {half_open}\n\
             tcp_half_closed_timeout_seconds = {half_closed}\n\
             tcp_closed_timeout_seconds = {closed}\nother_idle_timeout_seconds = {other}\n",
            self.cross_zone,
            self.spill_over,
            self.unknown,
            self.adopt,
            self.reset_on_idle,
            self.clamp,
        )
    }

    fn group(&self) -> String {
        let failover = |loss: Loss| match loss {
            Loss::Rebalance => "rebalance",
            Loss::Stay | Loss::Reset => "no_rebalance",
        };
        let [interval, timeout, healthy, unhealthy] = self.checks;
        let mut text = format!(
            "dialect = \"{}\"\nstickiness = \"{}\"\nderegistration_delay_seconds = {}\n\
             slow_start_seconds = {}\nwhen_none_healthy = \"{}\"\nafter_bypass = \"{}\"\n\
             target_failover = {{ on_unhealthy = \"{}\", on_deregistration = \"{}\" }}\n\
             send_tcp_reset = {{ on_unhealthy = {}, on_deregistration = {}, both_ends = {} }}\n",
            self.dialect,
            self.stickiness,
            self.delay,
            self.slow_start,
            self.when_none_healthy,
            if self.inspect_after_bypass { "inspect" } else { "keep" },
            failover(self.on_unhealthy),
            failover(self.on_deregistration),
            self.on_unhealthy == Loss::Reset,
            self.on_deregistration == Loss::Reset,
            self.both_ends,
        );
        if self.health {
            let _ = writeln!(
                text,
                "health_check = {{ interval_seconds = {interval}, timeout_seconds = {timeout}, \
                 healthy_threshold = {healthy}, unhealthy_threshold = {unhealthy} }}"
            );
        } else {
            text.push_str("health_check = { enabled = false }\n");
        }
        if self.tunnel {
            let _ = writeln!(
                text,
                "tunnel_check = {{ interval_seconds = {interval}, timeout_seconds = {timeout} }}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::About;
    use super::*;

    #[test]
    fn every_configuration_is_one() {
        for seed in 0..40 {
            let mut dice = Dice::of(seed, About::World, &[]);
            let policy = Policy::draw(&mut dice);
            let other = policy.redrawn(&mut dice);
            for layout in [Layout::TwoZones, Layout::Overlapping, Layout::Chained] {
                let first = policy.settings(layout, Variant::AsItWas);
                for variant in Variant::ALL {
                    let policy = if variant == Variant::OtherPolicy { &other } else { &policy };
                    let next = policy.settings(layout, variant);
                    let difference = gwlb::config::diff(&first, &next);
                    assert!(!difference.iter().any(|change| change.restart), "{difference:?}");
                }
            }
        }
    }
}
