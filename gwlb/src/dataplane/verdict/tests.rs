use router::source::Source;

use super::*;
use crate::config::{self, Settings};

#[test]
fn reasons_are_numbered_in_order_and_named_once() {
    let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    for (number, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, number);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len());
}

#[test]
fn help_is_the_documentation() {
    assert_eq!(DropReason::NoRoute.help(), "No route matches the destination.");
}

#[test]
fn every_reason_says_what_it_means_and_another_thing_to_do() {
    let mut texts = std::collections::BTreeSet::new();
    for reason in DropReason::ALL {
        for text in [reason.help(), reason.advice()] {
            assert!(text.len() > 20 && text.ends_with('.'), "{reason}: {text:?}");
            assert!(!text.contains("  "), "{reason}: {text:?}");
            assert!(texts.insert(text), "{reason} says what another text says: {text:?}");
        }
    }
}

/// A file that has all that advice may change.
const FILE: &str = include_str!("../../config/diff/everything.toml");

/// What advice says of keys, done: reason, key or setting as the advice has it, and what stands in the
/// file before and after.
#[rustfmt::skip]
const DONE: &[(DropReason, &str, &str, &str)] = &[
    (DropReason::MalformedPacket, "offload = false",
     "offload = true # of app-a", "offload = false"),
    (DropReason::NoRoute, "routes",
     "routes = [{ destination = \"192.168.0.0/16\", blackhole = true }]",
     "routes = [{ destination = \"192.168.0.0/16\", blackhole = true }, { destination = \"192.169.0.0/16\", internet_gateway = \"igw\" }]"),
    (DropReason::Blackhole, "blackhole = true",
     "destination = \"192.168.0.0/16\", blackhole = true", "destination = \"192.168.0.0/16\", internet_gateway = \"igw\""),
    (DropReason::NoSubnet, "cidrs",
     "[[subnet]]\nname = \"spare\"",
     "[[subnet]]\nname = \"new\"\nvpc = \"app\"\nzone = \"az1\"\ncidrs = [\"10.0.77.0/24\"]\n\n[[subnet]]\nname = \"spare\""),
    (DropReason::NoSubnet, "[[attachment]]",
     "[[flow_log]]", "[[attachment]]\nsubnet = \"spare\"\ntun = \"spare\"\n\n[[flow_log]]"),
    (DropReason::RoutingLoop, "local",
     "{ destination = \"0.0.0.0/0\", internet_gateway = \"igw\" }",
     "{ destination = \"0.0.0.0/0\", internet_gateway = \"igw\" }, { destination = \"10.0.1.0/24\", local = true }"),
    (DropReason::NotAttached, "routes",
     "routes = [{ destination = \"192.168.0.0/16\", blackhole = true }]",
     "routes = [{ destination = \"192.168.0.0/16\", internet_gateway = \"igw\" }]"),
    (DropReason::NotAttached, "[[attachment]]",
     "[[flow_log]]", "[[attachment]]\nsubnet = \"spare\"\ntun = \"spare\"\n\n[[flow_log]]"),
    (DropReason::NoTarget, "cross_zone = true",
     "cross_zone = false # of fw\nspill_over_below_healthy_targets = 2", "cross_zone = true"),
    (DropReason::NoTarget, "when_none_healthy",
     "when_none_healthy = \"fail_open\"", "when_none_healthy = \"bypass\""),
    (DropReason::UnknownTcpFlow, "tcp_idle_timeout_seconds",
     "tcp_idle_timeout_seconds = 350", "tcp_idle_timeout_seconds = 600"),
    (DropReason::UnknownTcpFlow, "tcp_unknown_flow = \"adopt\"",
     "tcp_unknown_flow = \"drop\"", "tcp_unknown_flow = \"adopt\""),
    (DropReason::UnknownTcpFlow, "tcp_unknown_flow = \"reset\"",
     "tcp_unknown_flow = \"drop\"", "tcp_unknown_flow = \"reset\""),
    (DropReason::TargetGone, "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }",
     "target_failover = { on_unhealthy = \"no_rebalance\", on_deregistration = \"no_rebalance\" }",
     "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }"),
    (DropReason::TargetGone, "send_tcp_reset",
     "target_failover = { on_unhealthy = \"no_rebalance\", on_deregistration = \"no_rebalance\" }\nsend_tcp_reset = { on_unhealthy = false, on_deregistration = false, both_ends = false }",
     "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }"),
    (DropReason::FragmentWithoutFirst, "tcp_mss_clamp = true",
     "tcp_mss_clamp = false", "tcp_mss_clamp = true"),
    (DropReason::ExceedsMtu, "tcp_mss_clamp = true",
     "tcp_mss_clamp = false", "tcp_mss_clamp = true"),
    (DropReason::ExceedsMtu, "mtu",
     "mtu = 1400", "mtu = 1300"),
    (DropReason::HandoverFull, "workers",
     "\nworkers = 0", "\nworkers = 2"),
    (DropReason::HandoverFull, "pin_workers",
     "pin_workers = [0, 1]", "pin_workers = [0, 2]"),
    (DropReason::SendFailed, "udp_send_buffer_bytes",
     "udp_send_buffer_bytes = 2000000", "udp_send_buffer_bytes = 2500000"),
    (DropReason::CriticalOption, "dialect",
     "dialect = \"aws\"", "dialect = \"tencent\""),
    (DropReason::DialectOptions, "dialect",
     "dialect = \"aws\"", "dialect = \"tencent\""),
    (DropReason::UnknownEndpoint, "wire_id",
     "wire_id = \"0x0000000000000001\"", "wire_id = \"0x0000000000000007\""),
    (DropReason::WrongGatewayAddress, "nodes",
     "nodes = [{ zone = \"az2\", address = \"192.0.2.4\" }]", "nodes = [{ zone = \"az2\", address = \"192.0.2.44\" }]"),
    (DropReason::BadCookie, "secret_file",
     "secret_file = \"/var/lib/gwlb/secret\"", "secret_file = \"/var/lib/gwlb/common\""),
];

fn settings(text: &str) -> Settings {
    let parsed = config::parse(&Source::new("everything.toml", text.to_owned()));
    parsed.unwrap_or_else(|problems| panic!("{problems}"))
}

/// What a text has between backticks, but for commands and for tables, which are named where a key is.
fn keys(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|it| !["gwlb ", "ip ", "[["].iter().any(|front| it.starts_with(front)))
}

#[test]
fn advice_can_be_followed_and_says_where_a_restart_is_needed() {
    let before = settings(FILE);
    for (reason, key, old, new) in DONE {
        assert_eq!(FILE.matches(old).count(), 1, "{reason}: {old}");
        let (table, _) = key.split_once(" = ").unwrap_or((key, ""));
        assert!(old.contains(key) || new.contains(key) || old.contains(table), "{reason}: {key}");
        let changes = config::diff(&before, &settings(&FILE.replace(old, new)));
        assert!(!changes.is_empty(), "{reason}: {key}");
        let refused = changes.iter().any(|change| change.restart);
        let named = format!("`{key}`");
        let advice = reason.advice().split_inclusive(". ");
        let said: Vec<_> = advice.filter(|sentence| sentence.contains(&named)).collect();
        assert!(!said.is_empty(), "{reason} does not advise {key}: {}", reason.advice());
        for sentence in said {
            let warned = sentence.contains("takes a restart");
            assert_eq!(warned, refused, "{reason}: a reload with {key}: {sentence}");
            assert!(!(warned && sentence.contains("gwlb reload")), "{reason}: {sentence}");
        }
    }
    for reason in DropReason::ALL {
        for key in keys(reason.advice()) {
            let done = DONE.iter().any(|row| (row.0, row.1) == (*reason, key));
            assert!(done, "{reason} advises `{key}`, which nobody has tried");
        }
    }
}
