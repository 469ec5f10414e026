//! The rules as a file has them, and what can be wrong with them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use geneve::inner::protocol;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::rules::{Rule, RuleSet, Verdict, Way};
use crate::problem::{Problem, Problems, Source};

/// Reads a set of rules; on failure says everything that is wrong with them.
pub fn parse(source: &Source) -> Result<RuleSet, Problems> {
    let form: FileForm = source.parse()?;
    let mut check = Check { source, problems: Vec::new() };
    let rules = check.file(form);
    if check.problems.is_empty() { Ok(rules) } else { Err(source.problems(check.problems)) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    default: Spanned<String>,
    deny_by: Option<Spanned<String>>,
    #[serde(default)]
    inside: Vec<Spanned<String>>,
    #[serde(default)]
    pick_up: bool,
    #[serde(default, rename = "rule")]
    rules: Vec<RuleForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    name: Option<Spanned<String>>,
    action: Spanned<String>,
    deny_by: Option<Spanned<String>>,
    from: Option<Spanned<Vec<Spanned<String>>>>,
    to: Option<Spanned<Vec<Spanned<String>>>>,
    protocol: Option<Spanned<NumberOrText>>,
    ports: Option<Spanned<Vec<Spanned<NumberOrText>>>>,
    source_ports: Option<Spanned<Vec<Spanned<NumberOrText>>>>,
    direction: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a string")]
enum NumberOrText {
    Number(i64),
    Text(String),
}

/// Goes through a file and collects what is wrong with it.
struct Check<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn file(&mut self, form: FileForm) -> RuleSet {
        let deny = self.deny_by(form.deny_by.as_ref()).unwrap_or(Verdict::Drop);
        let default = self.action(&form.default, deny);
        let inside = form.inside.iter().filter_map(|text| self.network(text)).collect();
        let has_inside = !form.inside.is_empty();

        let mut seen = HashMap::new();
        let mut rules = Vec::with_capacity(form.rules.len());
        for (index, rule) in form.rules.into_iter().enumerate() {
            let name = match &rule.name {
                Some(name) => name.get_ref().clone(),
                None => format!("rule {}", index + 1),
            };
            if let Some(spanned) = &rule.name
                && let Some(other) = seen.insert(name.clone(), index + 1)
            {
                self.add(
                    format!("two rules have the name \"{name}\""),
                    spanned,
                    format!("rule {other} has it too"),
                    "hits are counted by name: give each rule a name of its own",
                );
            }
            rules.push(self.rule(name, &rule, deny, has_inside));
        }
        RuleSet::new(rules, default, inside, form.pick_up)
    }

    fn rule(&mut self, name: String, form: &RuleForm, deny: Verdict, has_inside: bool) -> Rule {
        let own_deny = self.deny_by(form.deny_by.as_ref());
        let verdict = self.action(&form.action, own_deny.unwrap_or(deny));
        if let Some(text) = form.deny_by.as_ref().filter(|_| verdict == Verdict::Allow) {
            self.add(
                "a rule that allows has nothing to deny",
                text,
                "has no effect",
                "remove deny_by, or write action = \"deny\"",
            );
        }
        let protocol = form.protocol.as_ref().and_then(|text| self.protocol(text));
        let rule = Rule {
            name,
            verdict,
            from: self.networks(form.from.as_ref()),
            to: self.networks(form.to.as_ref()),
            protocol,
            ports: self.ports(form.ports.as_ref(), form.protocol.as_ref(), protocol),
            source_ports: self.ports(form.source_ports.as_ref(), form.protocol.as_ref(), protocol),
            direction: form.direction.as_ref().and_then(|text| self.direction(text, has_inside)),
        };
        let ipv4 = |networks: &[IpNet]| networks.iter().map(|n| n.addr().is_ipv4()).collect();
        let (from, to): (Vec<bool>, Vec<bool>) = (ipv4(&rule.from), ipv4(&rule.to));
        if let (Some(spanned), false, false) = (&form.to, from.is_empty(), to.is_empty())
            && !from.iter().any(|version| to.contains(version))
        {
            self.add(
                "no packet goes from IPv4 to IPv6, or the other way",
                spanned,
                "never of the same IP version as `from`",
                "write one rule for each IP version, or leave one of the two out",
            );
        }
        rule
    }

    fn action(&mut self, text: &Spanned<String>, deny: Verdict) -> Verdict {
        match text.get_ref().as_str() {
            "allow" => return Verdict::Allow,
            "deny" => {}
            other => self.add(
                format!("there is no action \"{other}\""),
                text,
                "unknown",
                "\"allow\" or \"deny\"",
            ),
        }
        deny
    }

    fn deny_by(&mut self, text: Option<&Spanned<String>>) -> Option<Verdict> {
        let text = text?;
        match text.get_ref().as_str() {
            "drop" => return Some(Verdict::Drop),
            "reject" => return Some(Verdict::Reject),
            other => self.add(
                format!("there is no way to deny by \"{other}\""),
                text,
                "unknown",
                "\"drop\" (say nothing) or \"reject\" (a TCP reset, an ICMP error)",
            ),
        }
        None
    }

    fn direction(&mut self, text: &Spanned<String>, has_inside: bool) -> Option<Way> {
        if !has_inside {
            self.add(
                "a direction means nothing without an inside",
                text,
                "from where to where?",
                "name the networks that are protected: inside = [\"10.0.0.0/16\"]",
            );
        }
        match text.get_ref().as_str() {
            "inbound" => return Some(Way::Inbound),
            "outbound" => return Some(Way::Outbound),
            other => self.add(
                format!("there is no direction \"{other}\""),
                text,
                "unknown",
                "\"inbound\" (to the networks that are `inside`) or \"outbound\"",
            ),
        }
        None
    }

    fn networks(&mut self, list: Option<&Spanned<Vec<Spanned<String>>>>) -> Vec<IpNet> {
        let Some(list) = list else { return Vec::new() };
        if list.get_ref().is_empty() {
            self.empty(list);
        }
        list.get_ref().iter().filter_map(|text| self.network(text)).collect()
    }

    fn network(&mut self, text: &Spanned<String>) -> Option<IpNet> {
        let written = text.get_ref();
        let network =
            written.parse().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(network) = network else {
            self.add(
                format!("\"{written}\" is no network"),
                text,
                "not understood",
                "an address with a prefix length, like 10.0.0.0/16 or 2001:db8::/32",
            );
            return None;
        };
        if network.addr() != network.network() {
            self.add(
                format!("{network} is an address within a network"),
                text,
                "has bits set behind the prefix",
                format!("{} for the network, {} for the address", network.trunc(), network.addr()),
            );
        }
        Some(network)
    }

    fn protocol(&mut self, value: &Spanned<NumberOrText>) -> Option<u8> {
        let known = match value.get_ref() {
            NumberOrText::Number(number) => u8::try_from(*number).ok(),
            NumberOrText::Text(name) => {
                PROTOCOLS.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
            }
        };
        if known.is_none() {
            let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.add(
                "there is no such protocol",
                value,
                "unknown",
                format!("{}, or a number from 0 to 255", names.join(", ")),
            );
        }
        known
    }

    fn ports(
        &mut self,
        list: Option<&Spanned<Vec<Spanned<NumberOrText>>>>,
        protocol: Option<&Spanned<NumberOrText>>,
        number: Option<u8>,
    ) -> Vec<RangeInclusive<u16>> {
        let Some(list) = list else { return Vec::new() };
        if list.get_ref().is_empty() {
            self.empty(list);
        }
        let help = "write protocol = \"tcp\" or \"udp\" beside them";
        match (protocol, number) {
            (None, _) => self.add("only TCP and UDP have ports", list, "ports of what?", help),
            (Some(named), Some(number)) if !matches!(number, protocol::TCP | protocol::UDP) => {
                self.add("only TCP and UDP have ports", named, "has no ports", help);
            }
            _ => {}
        }
        list.get_ref().iter().filter_map(|value| self.port_range(value)).collect()
    }

    fn port_range(&mut self, value: &Spanned<NumberOrText>) -> Option<RangeInclusive<u16>> {
        let range = match value.get_ref() {
            NumberOrText::Number(port) => u16::try_from(*port).ok().map(|port| port..=port),
            NumberOrText::Text(text) => {
                let (low, high) = text.split_once('-').unwrap_or((text, text));
                let bounds = (low.trim().parse(), high.trim().parse());
                if let (Ok(low), Ok(high)) = bounds { Some(low..=high) } else { None }
            }
        };
        let range = range.filter(|range| *range.start() > 0 && !range.is_empty());
        if range.is_none() {
            self.add(
                "not a port, nor a range of ports",
                value,
                "not understood",
                "a number from 1 to 65535, or a range in quotes, like \"8000-8099\"",
            );
        }
        range
    }

    fn empty<T>(&mut self, list: &Spanned<T>) {
        self.add(
            "an empty list matches nothing",
            list,
            "the rule would never match",
            "leave it out to match everything",
        );
    }

    fn add<T>(
        &mut self,
        message: impl Into<String>,
        at: &Spanned<T>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(self.source.problem(message, at.span(), label, Some(help.into())));
    }
}

/// The protocols that have a name here.
const PROTOCOLS: [(&str, u8); 7] = [
    ("icmp", protocol::ICMP),
    ("icmpv6", protocol::ICMPV6),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("gre", 47),
    ("esp", 50),
    ("sctp", 132),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::plain_report;

    fn report(text: &str) -> String {
        plain_report(&parse(&Source::new("rules.toml", text)).unwrap_err())
    }

    #[test]
    fn a_whole_file_is_understood() {
        let rules = parse(&Source::new(
            "rules.toml",
            r#"
            default = "deny"
            deny_by = "reject"
            inside = ["10.0.0.0/16", "fd00:10::/48"]
            pick_up = true

            [[rule]]
            name = "web"
            action = "allow"
            from = ["0.0.0.0/0"]
            to = ["10.0.1.11"]
            protocol = "tcp"
            ports = [80, "8000-8099"]
            source_ports = ["1024-65535"]
            direction = "inbound"

            [[rule]]
            action = "deny"
            deny_by = "drop"
            protocol = 47
            "#,
        ))
        .unwrap();
        assert_eq!(rules.default, Verdict::Reject);
        assert!(rules.pick_up);
        assert_eq!(rules.inside.len(), 2);
        let [web, second] = &rules.rules[..] else { panic!("{:?}", rules.rules) };
        assert_eq!(web.ports, [80..=80, 8000..=8099]);
        assert_eq!(web.to, ["10.0.1.11/32".parse().unwrap()]);
        assert_eq!((second.name.as_str(), second.verdict), ("rule 2", Verdict::Drop));
        assert_eq!(second.protocol, Some(47));
    }

    #[test]
    fn everything_wrong_is_reported_at_once_and_where_it_stands() {
        insta::assert_snapshot!(report(
            r#"default = "maybe"
inside = ["10.0.1.11/16"]

[[rule]]
name = "web"
action = "allow"
deny_by = "reject"
from = ["10.0.0.0/8"]
to = ["fd00::/8"]

[[rule]]
name = "web"
action = "deny"
deny_by = "shouting"
protocol = "icmp"
ports = [0, "90-80", "http"]
direction = "sideways"

[[rule]]
action = "deny"
from = []
to = ["everywhere"]
ports = [22]
protocol = "tpc"
"#
        ));
    }

    #[test]
    fn a_direction_needs_an_inside() {
        insta::assert_snapshot!(report(
            "default = \"deny\"\n[[rule]]\naction = \"allow\"\ndirection = \"inbound\"\n"
        ));
    }

    #[test]
    fn ports_need_a_protocol() {
        insta::assert_snapshot!(report(
            "default = \"deny\"\n[[rule]]\naction = \"allow\"\nports = [80]\n"
        ));
    }

    #[test]
    fn an_unknown_key_is_shown() {
        insta::assert_snapshot!(report(
            "default = \"deny\"\n[[rule]]\naction = \"deny\"\nport = 80\n"
        ));
    }

    #[test]
    fn what_is_no_toml_is_shown() {
        insta::assert_snapshot!(report("default = deny\n"));
    }

    #[test]
    fn a_missing_default_is_a_problem() {
        insta::assert_snapshot!(report("[[rule]]\naction = \"allow\"\n"));
    }
}
