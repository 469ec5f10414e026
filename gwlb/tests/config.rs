//! Configuration files, right and wrong: what they become, and what is said about them.
//!
//! Each file of `wrong/` is a realistic mistake; the report stands beside it.
//! `INSTA_UPDATE=always cargo test -p gwlb --test config` rewrites the reports; read the diff.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set up its case fails"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use geneve::{Dialect, Stickiness};
use gwlb::config::{
    self, AdminAddress, AfterBypass, Causes, Failover, FlowTimers, HealthProtocol, Matcher,
    Semantics, Settings, TrafficMode, TunnelCheck, UnknownFlow, WhenNoneHealthy,
};
use proptest::prelude::*;
use router::source::{Look, Problems, Source};
use rstest::rstest;

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn example() -> String {
    fs::read_to_string(crate_file("examples/two-zones.toml")).unwrap()
}

fn parse(text: &str) -> Result<Settings, Problems> {
    config::parse(&Source::new("test.toml", text))
}

fn right(text: &str) -> Settings {
    parse(text).unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)))
}

/// One VPC with one endpoint, and only what is required; `gateway`, `balancer`, `group` and `probe`
/// are put into the tables of those names.
fn minimal(gateway: &str, balancer: &str, group: &str, probe: &str) -> String {
    format!(
        r#"
        [gateway]
        {gateway}
        [[vpc]]
        name = "app"
        cidrs = ["10.0.0.0/16"]
        [[subnet]]
        name = "gwlbe-a"
        vpc = "app"
        zone = "az1"
        cidrs = ["10.0.101.0/28"]
        [[endpoint]]
        name = "vpce-a"
        subnet = "gwlbe-a"
        service = "inspection"
        [[endpoint_service]]
        name = "inspection"
        load_balancers = ["fw"]
        [[load_balancer]]
        name = "fw"
        target_group = "fw"
        nodes = [{{ zone = "az1", address = "192.0.2.1" }}]
        {balancer}
        [[target]]
        group = "fw"
        address = "192.0.2.11"
        zone = "az1"
        [[attachment]]
        subnet = "gwlbe-a"
        tun = "gwlbe-a"
        [[target_group]]
        name = "fw"
        {group}
        [target_group.health_check]
        {probe}
        "#
    )
}

/// The files of `wrong/` and their names, in order.
fn wrong() -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(crate_file("tests/wrong"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn problems(name: &str, text: &str) -> Problems {
    // Reports show the name, which must not be the path on this machine.
    config::parse(&Source::new(format!("{name}.toml"), text))
        .expect_err("every file of the folder has mistakes")
}

#[test]
fn every_mistake_is_told_where_it_stands_with_what_would_help() {
    let files = wrong();
    assert!(files.len() >= 30, "only {} files", files.len());
    let folder = crate_file("tests/wrong");
    insta::with_settings!({
        snapshot_path => folder,
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        for (name, text) in files {
            insta::assert_snapshot!(name.as_str(), problems(&name, &text).render(Look::Plain));
        }
    });
}

#[test]
fn every_problem_has_a_place_within_the_text_a_label_and_a_hint() {
    for (name, text) in wrong() {
        for problem in &problems(&name, &text) {
            let place = problem.places().next().unwrap_or_else(|| panic!("{name}: {problem}"));
            assert!(place.span.end <= text.len(), "{name}: {problem}: {:?}", place.span);
            assert!(!place.text.is_empty(), "{name}: {problem}");
            // The TOML parser says what it expected, and that is the hint.
            assert!(problem.advice().is_some() || name == "syntax", "{name}: {problem}");
        }
    }
}

/// What makes the folder a test of the checks: without its mistake, each file would be right.
#[test]
fn the_files_differ_from_a_right_one_only_in_their_mistakes() {
    let shortest = wrong().into_iter().find(|(name, _)| name == "weight-too-large").unwrap().1;
    let settings = right(&shortest.replace("weight = 5000", "weight = 1000"));
    assert!(settings.topology.endpoints().len() == 1 && settings.attachments.len() == 2);
}

#[test]
fn the_example_is_right_and_says_what_it_shows() {
    let settings = right(&example());
    assert_eq!(settings.topology.vpcs().len(), 1);
    assert_eq!(settings.topology.endpoints().len(), 2);
    assert_eq!(settings.target_groups[0].targets.len(), 3);
    assert_eq!(settings.attachments.len(), 3);
    // Each endpoint is served in its own zone.
    for ((_, endpoint), binding) in settings.topology.endpoints().zip(&settings.bindings) {
        let balancer = &settings.load_balancers[binding.load_balancer];
        assert_eq!(balancer.nodes[binding.node].zone, endpoint.zone, "{}", endpoint.name);
    }
    assert_eq!(settings.target_groups[0].targets[1].weight.get(), 50);
    assert_eq!(settings.load_balancers[0].netns.as_ref().unwrap().as_str(), "gwlb");
}

#[test]
fn what_the_example_comments_out_is_the_default() {
    let text = example();
    let is_setting = |line: &str| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    // These have no default: absent, they are off.
    let off = ["admin", "metrics", "tunnel_check", "host", "ca_file", "gso_max_size"];
    let off = |line: &str| off.iter().any(|key| line.starts_with(&format!("# {key} = ")));
    let mut count = 0;
    let lines = text.lines().map(|line| {
        if is_setting(line) && !off(line) {
            count += 1;
            &line[2..]
        } else {
            line
        }
    });
    let explicit: Vec<&str> = lines.collect();
    let (explicit, absent) = (right(&explicit.join("\n")), right(&text));
    assert_eq!(count, 40, "the example shows every default");
    assert_eq!(explicit.gateway, absent.gateway);
    assert_eq!(explicit.services, absent.services);
    assert_eq!(explicit.load_balancers, absent.load_balancers);
    assert_eq!(explicit.target_groups, absent.target_groups);
}

#[test]
fn absent_keys_have_the_defaults_of_aws() {
    let settings = right(&minimal("", "", "", ""));
    let gateway = &settings.gateway;
    assert_eq!(gateway.semantics, Semantics::Aws);
    assert_eq!((gateway.workers, gateway.max_flows_per_worker), (0, 1_048_576));
    assert_eq!((gateway.source_ports_per_worker, gateway.max_new_flows_per_second), (8, 100_000));
    assert_eq!((gateway.pin_workers.len(), gateway.busy_poll), (0, Duration::ZERO));
    assert_eq!((gateway.udp_receive_buffer, gateway.udp_send_buffer), (4 << 20, 4 << 20));
    assert_eq!(gateway.secret_file, Path::new("/var/lib/gwlb/secret"));
    assert_eq!((&gateway.admin, gateway.metrics), (&None, None));
    let balancer = &settings.load_balancers[0];
    assert!(!balancer.cross_zone && balancer.netns.is_none());
    assert_eq!((balancer.spill_over_below, balancer.traffic_mode), (0, TrafficMode::LoadBalance));
    assert_eq!(
        balancer.timers,
        FlowTimers {
            tcp_idle: Duration::from_secs(350),
            tcp_half_open: Duration::from_mins(1),
            tcp_half_closed: Duration::from_mins(2),
            tcp_closed: Duration::from_secs(30),
            other_idle: Duration::from_mins(2),
        }
    );
    assert_eq!(balancer.tcp_unknown_flow, UnknownFlow::Drop);
    assert!(!balancer.send_tcp_reset_on_idle_timeout && balancer.adopt_after_start);
    assert!(!balancer.outer_dont_fragment && !balancer.tcp_mss_clamp);
    let group = &settings.target_groups[0];
    assert_eq!(group.dialect, Dialect::by_name("aws").unwrap());
    assert_eq!((group.port.get(), group.stickiness), (6081, Stickiness::FiveTuple));
    assert_eq!(group.deregistration_delay, Duration::from_mins(5));
    assert_eq!(group.target_failover, Causes::<Failover>::default());
    assert_eq!((group.send_tcp_reset, group.reset_both_ends), (Causes::default(), false));
    assert_eq!(group.when_none_healthy, WhenNoneHealthy::FailOpen);
    assert_eq!((group.after_bypass, group.slow_start), (AfterBypass::Keep, Duration::ZERO));
    assert!(!group.tolerate_bad_udp_checksum && group.tunnel_check.is_none());
    assert_eq!(group.targets[0].weight.get(), 100);
    let probe = &group.health_check;
    assert!(probe.enabled && probe.host.is_none() && probe.ca_file.is_none());
    assert_eq!((probe.protocol, probe.port.get()), (HealthProtocol::Tcp, 80));
    assert_eq!((probe.interval, probe.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    assert_eq!((probe.healthy_threshold, probe.unhealthy_threshold), (5, 2));
    assert_eq!((probe.path.as_str(), &probe.matcher), ("/", &Matcher::default()));
    let attachment = &settings.attachments[0];
    assert_eq!((attachment.mtu.get(), attachment.default_route), (1500, false));
}

#[test]
fn alibaba_presets_what_differs() {
    let settings = right(&minimal("semantics = \"alibaba\"", "", "", ""));
    let balancer = &settings.load_balancers[0];
    assert!(balancer.cross_zone);
    assert_eq!(balancer.spill_over_below, 1);
    assert_eq!(settings.target_groups[0].health_check.healthy_threshold, 2);
    let own = "cross_zone = false\nspill_over_below_healthy_targets = 0";
    let settings = right(&minimal("semantics = \"alibaba\"", own, "", ""));
    let balancer = &settings.load_balancers[0];
    let given = (balancer.cross_zone, balancer.spill_over_below);
    assert_eq!(given, (false, 0), "a preset is not a command");
}

#[test]
fn an_empty_tunnel_check_is_one_with_all_defaults() {
    let group = right(&minimal("", "", "tunnel_check = {}", "")).target_groups.remove(0);
    assert_eq!(
        group.tunnel_check,
        Some(TunnelCheck {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            source: None,
            destination: None,
            measure_mtu: true,
        })
    );
}

/// Every new key with a value that is not its default.
#[test]
fn what_is_given_is_what_the_settings_say() {
    let gateway = r"
        max_new_flows_per_second_per_worker = 0
        pin_workers = [3, 0]
        busy_poll_us = 100_000
        udp_receive_buffer_bytes = 65_536
        udp_send_buffer_bytes = 1_073_741_823
    ";
    let balancer = r#"
        spill_over_below_healthy_targets = 300
        traffic_mode = "bypass"
        tcp_idle_timeout_seconds = 6000
        tcp_half_open_timeout_seconds = 1
        tcp_half_closed_timeout_seconds = 6000
        tcp_closed_timeout_seconds = 2
        send_tcp_reset_on_idle_timeout = true
        tcp_unknown_flow = "adopt"
        adopt_after_start = false
        outer_dont_fragment = true
        tcp_mss_clamp = true
    "#;
    let group = r#"
        target_failover = { on_deregistration = "rebalance" }
        send_tcp_reset = { on_unhealthy = true, both_ends = true }
        when_none_healthy = "bypass"
        after_bypass = "inspect"
        slow_start_seconds = 900
        tolerate_bad_udp_checksum = true
        [target_group.tunnel_check]
        interval_ms = 100
        timeout_ms = 50
        healthy_threshold = 1
        unhealthy_threshold = 10
        source = "2001:db8::1"
        destination = "2001:db8::2"
        measure_mtu = false
        extended_ranges = true
    "#;
    let probe = r#"
        enabled = false
        protocol = "HTTPS"
        interval_ms = 300_000
        timeout_seconds = 300
        host = "fw.example.com"
        ca_file = "/etc/gwlb/ca.pem"
        extended_ranges = true
    "#;
    let settings = right(&minimal(gateway, balancer, group, probe));
    assert_eq!(settings.gateway.max_new_flows_per_second, 0);
    assert_eq!(settings.gateway.pin_workers, [3, 0]);
    assert_eq!(settings.gateway.busy_poll, Duration::from_millis(100));
    assert_eq!(settings.gateway.udp_receive_buffer, 65_536);
    assert_eq!(settings.gateway.udp_send_buffer, (1 << 30) - 1);
    let balancer = &settings.load_balancers[0];
    assert_eq!((balancer.spill_over_below, balancer.traffic_mode), (300, TrafficMode::Bypass));
    assert_eq!(
        balancer.timers,
        FlowTimers {
            tcp_idle: Duration::from_mins(100),
            tcp_half_open: Duration::from_secs(1),
            tcp_half_closed: Duration::from_mins(100),
            tcp_closed: Duration::from_secs(2),
            other_idle: Duration::from_mins(2),
        }
    );
    assert_eq!(balancer.tcp_unknown_flow, UnknownFlow::Adopt);
    assert!(balancer.send_tcp_reset_on_idle_timeout && !balancer.adopt_after_start);
    assert!(balancer.outer_dont_fragment && balancer.tcp_mss_clamp);
    let group = &settings.target_groups[0];
    let failover =
        Causes { on_unhealthy: Failover::NoRebalance, on_deregistration: Failover::Rebalance };
    assert_eq!(group.target_failover, failover);
    assert_eq!(group.send_tcp_reset, Causes { on_unhealthy: true, on_deregistration: false });
    assert!(group.reset_both_ends && group.tolerate_bad_udp_checksum);
    assert_eq!(group.when_none_healthy, WhenNoneHealthy::Bypass);
    assert_eq!(
        (group.after_bypass, group.slow_start),
        (AfterBypass::Inspect, Duration::from_mins(15))
    );
    let probe = &group.health_check;
    assert!(!probe.enabled);
    assert_eq!((probe.interval, probe.timeout), (Duration::from_mins(5), Duration::from_mins(5)));
    assert_eq!(probe.host.as_deref(), Some("fw.example.com"));
    assert_eq!(probe.ca_file.as_deref(), Some(Path::new("/etc/gwlb/ca.pem")));
    assert_eq!(
        group.tunnel_check,
        Some(TunnelCheck {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(50),
            healthy_threshold: 1,
            unhealthy_threshold: 10,
            source: Some("2001:db8::1".parse().unwrap()),
            destination: Some("2001:db8::2".parse().unwrap()),
            measure_mtu: false,
        })
    );
}

#[rstest]
#[case::all_longer(1, [1, 1, 1])]
#[case::between(45, [45, 45, 30])]
#[case::none_longer(120, [60, 120, 30])]
fn a_timer_that_is_not_given_is_never_longer_than_the_idle_timeout(
    #[case] idle: u64,
    #[case] expected: [u64; 3],
) {
    let balancer = format!("tcp_idle_timeout_seconds = {idle}\nextended_ranges = true");
    let timers = right(&minimal("", &balancer, "", "")).load_balancers[0].timers;
    let found = [timers.tcp_half_open, timers.tcp_half_closed, timers.tcp_closed];
    assert_eq!(found, expected.map(Duration::from_secs));
}

#[rstest]
#[case::aws_slow_enough("", "", "interval_seconds = 5\ntimeout_seconds = 2", true)]
#[case::aws_too_fast("", "", "interval_seconds = 4\ntimeout_seconds = 2", false)]
#[case::aws_slowest("", "", "interval_seconds = 300\ntimeout_seconds = 120", true)]
#[case::aws_timeout_too_long("", "", "interval_seconds = 300\ntimeout_seconds = 121", false)]
#[case::extended(
    "",
    "",
    "interval_seconds = 1\ntimeout_seconds = 1\nhealthy_threshold = 1\nextended_ranges = true",
    true
)]
#[case::extended_zero("", "", "interval_seconds = 0\nextended_ranges = true", false)]
#[case::alibaba_fastest("alibaba", "", "interval_seconds = 1\ntimeout_seconds = 1", true)]
#[case::alibaba_too_slow("alibaba", "", "interval_seconds = 51", false)]
#[case::alibaba_https("alibaba", "", "protocol = \"HTTPS\"", false)]
#[case::alibaba_https_extended("alibaba", "", "protocol = \"HTTPS\"\nextended_ranges = true", true)]
#[case::idle_shortest("", "tcp_idle_timeout_seconds = 60", "", true)]
#[case::idle_too_short("", "tcp_idle_timeout_seconds = 59", "", false)]
#[case::idle_longest(
    "",
    "tcp_idle_timeout_seconds = 6000\nother_idle_timeout_seconds = 6000",
    "",
    true
)]
#[case::idle_too_long("", "other_idle_timeout_seconds = 6001\nextended_ranges = true", "", false)]
#[case::idle_extended("", "tcp_idle_timeout_seconds = 1\nextended_ranges = true", "", true)]
fn ranges_are_those_of_the_cloud_unless_extended(
    #[case] semantics: &str,
    #[case] balancer: &str,
    #[case] probe: &str,
    #[case] ok: bool,
) {
    let gateway =
        if semantics.is_empty() { String::new() } else { format!("semantics = {semantics:?}") };
    let result = parse(&minimal(&gateway, balancer, "", probe));
    assert_eq!(result.is_ok(), ok, "{:?}", result.err().map(|p| p.render(Look::Plain)));
}

#[rstest]
#[case::one_switch("alibaba", "{ on_unhealthy = \"rebalance\" }", [true, true], false)]
#[case::either_cause("alibaba", "{ on_deregistration = \"rebalance\" }", [true, true], false)]
#[case::own_will(
    "alibaba",
    "{ on_unhealthy = \"rebalance\", on_deregistration = \"no_rebalance\" }",
    [true, false],
    true
)]
#[case::independent("aws", "{ on_unhealthy = \"rebalance\" }", [true, false], true)]
#[case::equal(
    "aws",
    "{ on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }",
    [true, true],
    false
)]
fn failover_has_one_switch_with_alibaba_and_two_with_aws(
    #[case] semantics: &str,
    #[case] failover: &str,
    #[case] expected: [bool; 2],
    #[case] noted: bool,
) {
    let group = format!("target_failover = {failover}");
    let settings = right(&minimal(&format!("semantics = {semantics:?}"), "", &group, ""));
    let causes = settings.target_groups[0].target_failover.map(|it| it == Failover::Rebalance);
    assert_eq!([causes.on_unhealthy, causes.on_deregistration], expected);
    let found = settings.notes.iter().any(|note| note.message.contains("to be equal"));
    assert_eq!(found, noted, "{:?}", settings.notes);
}

#[test]
fn a_cause_can_be_reset_while_the_other_one_rebalances() {
    let group = "target_failover = { on_unhealthy = \"rebalance\" }
                 send_tcp_reset = { on_deregistration = true }";
    assert!(parse(&minimal("", "", group, "")).is_ok());
    // Alibaba's one switch moves both.
    assert!(parse(&minimal("semantics = \"alibaba\"", "", group, "")).is_err());
}

#[rstest]
#[case("admin = \"/run/gwlb/main.sock\"", AdminAddress::Unix("/run/gwlb/main.sock".into()))]
#[case(
    "admin = \"[::1]:9960\"\nadmin_token_file = \"/etc/token\"",
    AdminAddress::Tcp { address: "[::1]:9960".parse().unwrap(), token_file: "/etc/token".into() },
)]
fn the_admin_api_is_on_a_unix_socket_or_a_guarded_port(
    #[case] gateway: &str,
    #[case] expected: AdminAddress,
) {
    assert_eq!(right(&minimal(gateway, "", "", "")).gateway.admin, Some(expected));
}

#[rstest]
#[case::aws_ignores_it(
    "tcp_idle_timeout_seconds = 600",
    "stickiness = \"3-tuple\"",
    "",
    "AWS would ignore"
)]
#[case::uninspected(
    "traffic_mode = \"bypass\"",
    "",
    "",
    "every packet of load balancer \"fw\" passes uninspected"
)]
#[case::uninspected_at_times(
    "",
    "when_none_healthy = \"bypass\"",
    "",
    "packets of new flows pass uninspected"
)]
#[case::spill_over_of_no_use(
    "cross_zone = true\nspill_over_below_healthy_targets = 2",
    "",
    "",
    "since `cross_zone` is on"
)]
#[case::reset_of_nothing(
    "",
    "send_tcp_reset = { both_ends = true }",
    "",
    "`both_ends` has no effect"
)]
#[case::check_is_off(
    "",
    "",
    "enabled = false\nport = 8080\npath = \"/\"",
    "health checks are off: `port` and `path` of this table have no effect"
)]
#[case::check_is_off_with_one_key(
    "",
    "",
    "enabled = false\nport = 80",
    "`port` of this table has no"
)]
fn what_may_surprise_is_noted(
    #[case] balancer: &str,
    #[case] group: &str,
    #[case] probe: &str,
    #[case] expected: &str,
) {
    let settings = right(&minimal("", balancer, group, probe));
    let found = settings.notes.iter().filter(|note| note.message.contains(expected));
    assert_eq!(found.count(), 1, "{:?}", settings.notes);
}

#[rstest]
#[case::defaults("", "", "")]
#[case::check_is_off_and_nothing_else("", "", "enabled = false")]
#[case::cross_zone_alone("cross_zone = true", "", "")]
#[case::no_spill_over("cross_zone = true\nspill_over_below_healthy_targets = 0", "", "")]
#[case::spill_over("spill_over_below_healthy_targets = 1", "", "")]
#[case::reset_both("", "send_tcp_reset = { on_unhealthy = true, both_ends = true }", "")]
fn what_is_plain_is_not_noted(#[case] balancer: &str, #[case] group: &str, #[case] probe: &str) {
    assert_eq!(right(&minimal("", balancer, group, probe)).notes, []);
    // A default of Alibaba's that is of no use is nothing that somebody asked for.
    let alibaba = minimal("semantics = \"alibaba\"", "", group, probe);
    assert_eq!(right(&alibaba).notes, []);
}

#[rstest]
#[case("fail_open", "packets have nowhere to go")]
#[case("fail_closed", "packets have nowhere to go")]
#[case("bypass", "packets pass uninspected")]
fn a_group_may_begin_without_targets(#[case] policy: &str, #[case] expected: &str) {
    let text = minimal("", "", &format!("when_none_healthy = {policy:?}"), "");
    let (before, rest) = text.split_once("[[target]]").unwrap();
    let (_, after) = rest.split_once("[[attachment]]").unwrap();
    let settings = right(&format!("{before}[[attachment]]{after}"));
    assert_eq!(settings.target_groups[0].targets, []);
    let note = format!("target group \"fw\" has no targets: until one is registered, {expected}");
    let found: Vec<_> = settings.notes.iter().filter(|it| it.message.contains("target")).collect();
    assert!(found.iter().any(|found| found.message == note), "{found:?}");
    assert!(!found.iter().any(|found| found.message.contains("no target in zone")), "{found:?}");
}

#[test]
fn the_bit_against_fragmenting_is_ipv4_s() {
    let noted =
        |text: &str| right(text).notes.iter().any(|note| note.message.contains("IPv6 addresses"));
    let text = minimal("", "outer_dont_fragment = true", "", "");
    assert!(!noted(&text));
    let text = text.replace("192.0.2.1\"", "2001:db8::1\"").replace("192.0.2.11", "2001:db8::11");
    assert!(noted(&text));
}

#[test]
fn the_host_s_own_default_route_is_not_taken_without_a_word() {
    let attachment = "tun = \"gwlbe-a\"";
    let routed = format!("{attachment}\naddresses = [\"10.0.101.5/28\"]\ndefault_route = true");
    let noted = |text: &str| {
        right(text).notes.iter().any(|note| note.message.contains("the gateway runs in"))
    };
    let text = minimal("", "", "", "").replace(attachment, &routed);
    assert!(noted(&text));
    assert!(!noted(&text.replace(attachment, "tun = \"gwlbe-a\"\nnetns = \"a\"")));
}

#[test]
fn a_zone_without_targets_is_noted_unless_cross_zone_is_on() {
    let text = example().replace(
        "address = \"192.0.2.21\"\nzone = \"az2\"",
        "address = \"192.0.2.21\"\nzone = \"az1\"",
    );
    let lost = |settings: &Settings| {
        settings.notes.iter().filter(|note| note.message.contains("nowhere to go")).count()
    };
    assert_eq!(lost(&right(&text)), 1);
    assert_eq!(lost(&right(&text.replace("# cross_zone = false", "cross_zone = true"))), 0);
    let spilling = text
        .replace("# spill_over_below_healthy_targets = 0", "spill_over_below_healthy_targets = 1");
    assert_eq!(lost(&right(&spilling)), 0);
    let bypass =
        text.replace("# when_none_healthy = \"fail_open\"", "when_none_healthy = \"bypass\"");
    let bypass = right(&bypass);
    assert_eq!(lost(&bypass), 0);
    assert!(bypass.notes.iter().any(|note| note.message.ends_with("there pass uninspected")));
}

#[test]
fn an_endpoint_is_served_by_the_first_load_balancer_with_a_node_in_its_zone() {
    let second = r#"
        [[load_balancer]]
        name = "elsewhere"
        target_group = "other"
        nodes = [{ zone = "az9", address = "192.0.2.9" }]
        [[target_group]]
        name = "other"
        [[target]]
        group = "other"
        address = "192.0.2.11"
        zone = "az9"
    "#;
    let text = minimal("", "", "", "") + second;
    let text =
        text.replace("load_balancers = [\"fw\"]", "load_balancers = [\"elsewhere\", \"fw\"]");
    let settings = right(&text);
    assert_eq!(settings.services[0].load_balancers, [1, 0]);
    assert_eq!((settings.bindings[0].load_balancer, settings.bindings[0].node), (0, 0));
}

proptest! {
    /// Whatever is done to a file: settings or problems, and a report of them, and no panic.
    #[test]
    fn a_mutated_file_never_panics(
        start in any::<prop::sample::Index>(),
        length in 0_usize..40,
        insert in "(\\PC{0,8}|\\[\\[|\\]\\]|[0-9]{1,22}|\"|\n|= |true|\\{ )",
    ) {
        let text = example();
        let mut from = start.index(text.len());
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let mut to = (from + length).min(text.len());
        while !text.is_char_boundary(to) {
            to -= 1;
        }
        let mutated = format!("{}{insert}{}", &text[..from], &text[to.max(from)..]);
        if let Err(problems) = parse(&mutated) {
            for problem in &problems {
                if let Some(span) = problem.span() {
                    prop_assert!(span.end <= mutated.len());
                }
            }
            prop_assert!(!problems.render(Look::Plain).is_empty());
        }
    }
}

#[test]
fn a_device_can_do_without_super_packets_or_with_longer_ones() {
    let with = |keys: &str| {
        let text = minimal("", "", "", "");
        let attached = "tun = \"gwlb-a\"";
        let text = text.replace("tun = \"gwlbe-a\"", &format!("{attached}\n{keys}"));
        assert!(text.contains(attached));
        let attachment = right(&text).attachments.remove(0);
        (attachment.offload, attachment.gso_max_size, attachment.big_tcp)
    };
    assert_eq!(with(""), (true, None, false));
    assert_eq!(with("gso_max_size = 65_536\nbig_tcp = true"), (true, Some(65_536), true));
    assert_eq!(with("gso_max_size = 1_500"), (true, Some(1500), false));
    assert_eq!(with("mtu = 576\ngso_max_size = 576"), (true, Some(576), false));
    assert_eq!(with("offload = false\nbig_tcp = false"), (false, None, false));
}

/// Devices of what routes lead to besides subnets and internet gateways, and what is reached through
/// the device of its subnet.
#[test]
fn everything_that_routes_lead_to_can_be_attached() {
    let text = minimal("", "", "", "")
        + r#"
        [[subnet]]
        name = "app-a"
        vpc = "app"
        zone = "az1"
        cidrs = ["10.0.1.0/24"]
        [[subnet]]
        name = "app-b"
        vpc = "app"
        zone = "az1"
        cidrs = ["10.0.2.0/24"]
        [[network_interface]]
        name = "eni-own"
        subnet = "app-a"
        [[network_interface]]
        name = "eni-through"
        subnet = "app-a"
        [[network_interface]]
        name = "eni-nowhere"
        subnet = "app-b"
        [[nat_gateway]]
        name = "nat-a"
        subnet = "app-a"
        [[virtual_private_gateway]]
        name = "vgw"
        vpc = "app"
        [[egress_only_internet_gateway]]
        name = "eigw"
        vpc = "app"
        [[opaque]]
        name = "pcx-1"
        kind = "vpc_peering_connection"
        vpc = "app"
        [[attachment]]
        interface = "eni-own"
        tun = "eni"
        [[attachment]]
        virtual_private_gateway = "vgw"
        tun = "vgw"
        addresses = ["192.168.0.1/24"]
        [[attachment]]
        egress_only_internet_gateway = "eigw"
        tun = "eigw"
        [[attachment]]
        opaque = "pcx-1"
        tun = "pcx"
        [[attachment]]
        subnet = "app-a"
        tun = "app-a"
        "#;
    let settings = right(&text);
    let exits = settings.exits().into_iter().map(|(at, attachment)| {
        let at = settings.topology.entry_name(at.into());
        (at, settings.attachments[attachment].tun.as_str().to_owned())
    });
    let exits: Vec<_> = exits.collect();
    let expected = [
        ("subnet:gwlbe-a", "gwlbe-a"),
        ("interface:eni-own", "eni"),
        ("virtual_private_gateway:vgw", "vgw"),
        ("egress_only_internet_gateway:eigw", "eigw"),
        ("opaque:pcx-1", "pcx"),
        ("subnet:app-a", "app-a"),
        ("interface:eni-through", "app-a"),
        ("nat_gateway:nat-a", "app-a"),
    ];
    assert_eq!(exits, expected.map(|(at, tun)| (at.to_owned(), tun.to_owned())));
}
