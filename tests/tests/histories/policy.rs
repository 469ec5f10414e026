//! The configurations that histories are played with.

use std::fmt::Write as _;
use std::path::Path;

use gwlb::config::Settings;
use proptest::prelude::*;
use proptest::sample::select;
use router::source::Source;

/// What becomes of the flows of a target that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Stay,
    Rebalance,
    Reset,
}

/// What the configuration says of failover.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the configuration")]
pub(crate) struct Policy {
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
}

/// A configuration that a reload brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    AsItWas,
    WithoutTheFirst,
    WithAFourth,
    /// Other weights, and places that are numbered otherwise.
    Renumbered,
}

impl Variant {
    pub(crate) const ALL: [Variant; 4] =
        [Variant::AsItWas, Variant::WithoutTheFirst, Variant::WithAFourth, Variant::Renumbered];
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let loss = || select(vec![Loss::Stay, Loss::Rebalance, Loss::Reset]);
    let none_healthy = select(vec!["fail_open", "fail_closed", "bypass"]);
    let unknown = select(vec!["drop", "reset", "adopt"]);
    let numbers = (select(vec![0_u64, 10, 60]), select(vec![0_u64, 30]), select(vec![0_u64, 2]));
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (loss(), loss(), none_healthy, unknown, numbers, switches).prop_map(
        |(on_unhealthy, on_deregistration, when_none_healthy, unknown, numbers, switches)| {
            let (delay, slow_start, spill_over) = numbers;
            let (both_ends, inspect_after_bypass, cross_zone, adopt) = switches;
            Policy {
                on_unhealthy,
                on_deregistration,
                both_ends,
                when_none_healthy,
                inspect_after_bypass,
                delay,
                slow_start,
                cross_zone,
                spill_over,
                unknown,
                adopt,
            }
        },
    )
}

impl Policy {
    /// The configuration, with what else `edit` makes of the file.
    pub(crate) fn settings(&self, variant: Variant, edit: impl FnOnce(&mut String)) -> Settings {
        let mut text = self.text(variant);
        edit(&mut text);
        gwlb::config::parse(&Source::new("histories.toml", text)).unwrap()
    }

    fn text(&self, variant: Variant) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
        let mut text = std::fs::read_to_string(path).unwrap();
        let mut insert = |behind: &str, keys: &str| {
            assert_eq!(text.matches(behind).count(), 1, "{behind}");
            text = text.replace(behind, &format!("{behind}{keys}"));
        };
        insert("[[target_group]]\nname = \"fw\"\n", &self.group());
        let Policy { cross_zone, spill_over, unknown, adopt, .. } = self;
        let balancer = format!(
            "cross_zone = {cross_zone}\nspill_over_below_healthy_targets = {spill_over}\n\
             tcp_unknown_flow = \"{unknown}\"\nadopt_after_start = {adopt}\n"
        );
        insert("[[load_balancer]]\nname = \"fw\"\n", &balancer);
        match variant {
            Variant::AsItWas => {}
            Variant::WithoutTheFirst => {
                let first =
                    "[[target]]\ngroup = \"fw\"\naddress = \"192.0.2.11\"\nzone = \"az1\"\n";
                assert!(text.contains(first));
                text = text.replace(first, "");
            }
            Variant::WithAFourth => text.push_str(
                "\n[[target]]\ngroup = \"fw\"\naddress = \"192.0.2.13\"\nzone = \"az1\"\n",
            ),
            Variant::Renumbered => {
                let first = "[[subnet]]\nname = \"app-a\"\n";
                let before = "[[subnet]]\nname = \"new\"\nvpc = \"app\"\nzone = \"az1\"\n\
                              cidrs = [\"10.0.77.0/24\"]\n\n";
                text = text.replace(first, &format!("{before}{first}"));
                let weight = "address = \"192.0.2.12\"\nweight = 30\n";
                text = text.replace("address = \"192.0.2.12\"\n", weight);
            }
        }
        text
    }

    fn group(&self) -> String {
        let Policy { on_unhealthy, on_deregistration, both_ends, .. } = self;
        let Policy { when_none_healthy, delay, slow_start, .. } = self;
        let failover = |loss: &Loss| match loss {
            Loss::Rebalance => "rebalance",
            Loss::Stay | Loss::Reset => "no_rebalance",
        };
        let reset = |loss: &Loss| *loss == Loss::Reset;
        let mut text = format!(
            "deregistration_delay_seconds = {delay}\nslow_start_seconds = {slow_start}\n\
             when_none_healthy = \"{when_none_healthy}\"\n\
             target_failover = {{ on_unhealthy = \"{}\", on_deregistration = \"{}\" }}\n\
             send_tcp_reset = {{ on_unhealthy = {}, on_deregistration = {}, both_ends = {both_ends} }}\n\
             health_check = {{ interval_seconds = 5, timeout_seconds = 2, healthy_threshold = 2, \
             unhealthy_threshold = 2 }}\n",
            failover(on_unhealthy),
            failover(on_deregistration),
            reset(on_unhealthy),
            reset(on_deregistration),
        );
        let after = if self.inspect_after_bypass { "inspect" } else { "keep" };
        let _ = writeln!(text, "after_bypass = \"{after}\"");
        text
    }
}
