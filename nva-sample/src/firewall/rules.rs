//! The rules of the firewall, checked: what they say about a flow.
//!
//! Where they come from is [`file`](super::file)'s business, what a packet's flow is the
//! [firewall](super::Firewall)'s.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use geneve::flow::FlowKey;
use geneve::inner::protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It vanishes.
    Drop,
    /// It is refused: its sender is told.
    Reject,
}

/// Which way a flow is opened, seen from the networks that the firewall protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From outside to inside.
    Inbound,
    /// From inside to outside.
    Outbound,
}

/// One rule. An empty list means anything.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name in statistics.
    pub name: String,
    /// What becomes of a flow that it matches.
    pub verdict: Verdict,
    /// Where the flow comes from.
    pub from: Vec<IpNet>,
    /// Where it goes.
    pub to: Vec<IpNet>,
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// The TCP or UDP destination port.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The TCP or UDP source port.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Which way it is opened.
    pub direction: Option<Way>,
}

/// A whole set of rules; the first that matches decides.
#[derive(Debug)]
pub struct RuleSet {
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// What becomes of a flow that no rule matches.
    pub default: Verdict,
    /// The networks that the firewall protects.
    pub inside: Vec<IpNet>,
    /// Whether a TCP flow may be first seen by something else than a SYN.
    pub pick_up: bool,
    hits: Vec<AtomicU64>,
    default_hits: AtomicU64,
    without_syn: AtomicU64,
}

/// How often a rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// The rule's name; `default` for flows that no rule matched, `tcp-without-syn` for those that
    /// were not asked about because they are none.
    pub rule: String,
    /// Flows that it decided; for fragments, packets.
    pub hits: u64,
}

impl RuleSet {
    /// A set of rules that has not decided anything yet.
    pub fn new(rules: Vec<Rule>, default: Verdict, inside: Vec<IpNet>, pick_up: bool) -> Self {
        let hits = rules.iter().map(|_| AtomicU64::new(0)).collect();
        let (default_hits, without_syn) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rules, default, inside, pick_up, hits, default_hits, without_syn }
    }

    /// Decides on a flow by the packet that opens it, and counts the rule that did.
    pub fn judge(&self, opener: &FlowKey) -> Verdict {
        let (verdict, counter) = self.find(opener);
        counter.fetch_add(1, Ordering::Relaxed);
        verdict
    }

    /// Decides on a TCP flow that is first seen by something else than a SYN, by the direction of
    /// that packet.
    pub fn judge_without_syn(&self, key: &FlowKey) -> Verdict {
        if self.pick_up {
            return self.judge(key);
        }
        self.without_syn.fetch_add(1, Ordering::Relaxed);
        match self.default {
            Verdict::Reject => Verdict::Reject,
            Verdict::Allow | Verdict::Drop => Verdict::Drop,
        }
    }

    /// How often each rule decided.
    pub fn hits(&self) -> Vec<RuleHits> {
        let count = |rule: &str, hits: &AtomicU64| RuleHits {
            rule: rule.to_owned(),
            hits: hits.load(Ordering::Relaxed),
        };
        self.rules
            .iter()
            .zip(&self.hits)
            .map(|(rule, hits)| count(&rule.name, hits))
            .chain([
                count("default", &self.default_hits),
                count("tcp-without-syn", &self.without_syn),
            ])
            .collect()
    }

    fn find(&self, key: &FlowKey) -> (Verdict, &AtomicU64) {
        let way = self.way(key);
        self.rules
            .iter()
            .zip(&self.hits)
            .find(|(rule, _)| rule.matches(key, way))
            .map_or((self.default, &self.default_hits), |(rule, hits)| (rule.verdict, hits))
    }

    fn way(&self, key: &FlowKey) -> Option<Way> {
        let inside = |address| self.inside.iter().any(|network| network.contains(&address));
        match (inside(key.src()), inside(key.dst())) {
            (false, true) => Some(Way::Inbound),
            (true, false) => Some(Way::Outbound),
            _ => None,
        }
    }
}

impl Rule {
    fn matches(&self, key: &FlowKey, way: Option<Way>) -> bool {
        let within = |networks: &[IpNet], address| {
            networks.is_empty() || networks.iter().any(|network| network.contains(&address))
        };
        self.protocol.is_none_or(|protocol| protocol == key.protocol())
            && self.direction.is_none_or(|direction| Some(direction) == way)
            && within(&self.from, key.src())
            && within(&self.to, key.dst())
            && self.port_matches(&self.ports, key.dst_port(), key)
            && self.port_matches(&self.source_ports, key.src_port(), key)
    }

    /// A later fragment has no ports. What cannot be told is decided against the packet: a rule
    /// that allows does not match it, a rule that denies does.
    fn port_matches(&self, ports: &[RangeInclusive<u16>], port: u16, key: &FlowKey) -> bool {
        if ports.is_empty() {
            return true;
        }
        if !matches!(key.protocol(), protocol::TCP | protocol::UDP) {
            return false;
        }
        if key.src_port() == 0 && key.dst_port() == 0 {
            return self.verdict != Verdict::Allow;
        }
        ports.iter().any(|range| range.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn key(protocol: u8, from: &str, to: &str) -> FlowKey {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        FlowKey::new(address(from), address(to), protocol).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rule(name: &str, verdict: Verdict) -> Rule {
        Rule {
            name: name.to_owned(),
            verdict,
            from: Vec::new(),
            to: Vec::new(),
            protocol: None,
            ports: Vec::new(),
            source_ports: Vec::new(),
            direction: None,
        }
    }

    fn allow_web_in() -> Rule {
        Rule {
            to: vec![net("10.0.1.0/24"), net("2001:db8:1::/64")],
            protocol: Some(protocol::TCP),
            ports: vec![80..=80, 8000..=8099],
            direction: Some(Way::Inbound),
            ..rule("web", Verdict::Allow)
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let inside = vec![net("10.0.0.0/16"), net("2001:db8::/32")];
        let rules = RuleSet::new(vec![allow_web_in()], Verdict::Drop, inside, false);
        let cases = [
            (protocol::TCP, "198.51.100.1:4000", "10.0.1.9:80", true),
            (protocol::TCP, "198.51.100.1:4000", "10.0.1.9:8099", true),
            (protocol::TCP, "[2001:db9::1]:4000", "[2001:db8:1::9]:80", true),
            (protocol::TCP, "198.51.100.1:4000", "10.0.1.9:8100", false),
            (protocol::UDP, "198.51.100.1:4000", "10.0.1.9:80", false),
            (protocol::TCP, "198.51.100.1:4000", "10.0.2.9:80", false),
            (protocol::TCP, "10.0.2.1:4000", "10.0.1.9:80", false),
            (protocol::TCP, "10.0.1.9:80", "198.51.100.1:4000", false),
        ];
        for (protocol, from, to, allowed) in cases {
            let verdict = rules.judge(&key(protocol, from, to));
            assert_eq!(verdict == Verdict::Allow, allowed, "{protocol} {from} {to}");
        }
        let hits = rules.hits();
        assert_eq!((hits[0].hits, hits[1].hits), (3, 5));
    }

    #[test]
    fn the_first_match_decides() {
        let deny = Rule { from: vec![net("198.51.100.0/24")], ..rule("bad", Verdict::Reject) };
        let rules = RuleSet::new(
            vec![deny, rule("any", Verdict::Allow), rule("never", Verdict::Drop)],
            Verdict::Drop,
            Vec::new(),
            false,
        );
        assert_eq!(rules.judge(&key(17, "198.51.100.1:1", "10.0.0.1:1")), Verdict::Reject);
        assert_eq!(rules.judge(&key(17, "198.51.101.1:1", "10.0.0.1:1")), Verdict::Allow);
    }

    #[test]
    fn what_has_no_ports_is_judged_against_it() {
        let web = Rule { direction: None, ..allow_web_in() };
        let ssh = Rule {
            protocol: Some(protocol::TCP),
            ports: vec![22..=22],
            ..rule("ssh", Verdict::Drop)
        };
        let fragment = key(protocol::TCP, "198.51.100.1:0", "10.0.1.9:0");
        for (first, expected) in [(web, Verdict::Reject), (ssh, Verdict::Drop)] {
            let rules = RuleSet::new(vec![first], Verdict::Reject, Vec::new(), false);
            assert_eq!(rules.judge(&fragment), expected);
        }
    }

    #[test]
    fn without_a_syn_rules_are_asked_only_if_flows_may_be_picked_up() {
        let there = key(protocol::TCP, "198.51.100.1:4000", "10.0.1.9:80");
        for (pick_up, expected) in [(false, Verdict::Reject), (true, Verdict::Allow)] {
            let inside = vec![net("10.0.0.0/16")];
            let rules = RuleSet::new(vec![allow_web_in()], Verdict::Reject, inside, pick_up);
            assert_eq!(rules.judge_without_syn(&there), expected);
            assert_eq!(rules.judge_without_syn(&there.reversed()), Verdict::Reject);
            assert_eq!(rules.hits()[2].hits, if pick_up { 0 } else { 2 });
        }
    }
}
