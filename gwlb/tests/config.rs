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
    self, AdminAddress, Causes, Failover, HealthProtocol, Matcher, Semantics, Settings,
    UnknownFlow, WhenNoneHealthy,
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
    // These two have no default: absent, they are off.
    let off = |line: &str| line.starts_with("# admin = ") || line.starts_with("# metrics = ");
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
    assert_eq!(count, 20, "the example shows every default");
    assert_eq!(explicit.gateway, absent.gateway);
    assert_eq!(explicit.services, absent.services);
    assert_eq!(explicit.load_balancers, absent.load_balancers);
    assert_eq!(format!("{:?}", explicit.target_groups), format!("{:?}", absent.target_groups));
}

#[test]
fn absent_keys_have_the_defaults_of_aws() {
    let settings = right(&minimal("", "", "", ""));
    let gateway = &settings.gateway;
    assert_eq!(gateway.semantics, Semantics::Aws);
    assert_eq!((gateway.workers, gateway.max_flows_per_worker), (0, 1_048_576));
    assert_eq!(gateway.source_ports_per_worker, 8);
    assert_eq!(gateway.secret_file, Path::new("/var/lib/gwlb/secret"));
    assert_eq!((&gateway.admin, gateway.metrics), (&None, None));
    let balancer = &settings.load_balancers[0];
    assert!(!balancer.cross_zone && balancer.netns.is_none());
    assert_eq!(balancer.timers.tcp_idle, Duration::from_secs(350));
    assert_eq!(balancer.timers.other_idle, Duration::from_mins(2));
    assert_eq!(balancer.tcp_unknown_flow, UnknownFlow::Drop);
    let group = &settings.target_groups[0];
    assert_eq!(group.dialect, Dialect::by_name("aws").unwrap());
    assert_eq!((group.port.get(), group.stickiness), (6081, Stickiness::FiveTuple));
    assert_eq!(group.deregistration_delay, Duration::from_mins(5));
    assert_eq!(group.target_failover, Causes::<Failover>::default());
    assert_eq!(group.when_none_healthy, WhenNoneHealthy::FailOpen);
    assert_eq!(group.targets[0].weight.get(), 100);
    let probe = &group.health_check;
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
    assert!(settings.load_balancers[0].cross_zone);
    assert_eq!(settings.target_groups[0].health_check.healthy_threshold, 2);
    let settings = right(&minimal("semantics = \"alibaba\"", "cross_zone = false", "", ""));
    assert!(!settings.load_balancers[0].cross_zone, "a preset is not a command");
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

#[test]
fn one_failover_switch_of_alibaba_is_both_causes_of_aws() {
    let group = "target_failover = { on_unhealthy = \"rebalance\" }";
    let count = |semantics: &str| {
        let text = minimal(&format!("semantics = {semantics:?}"), "", group, "");
        parse(&text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // In both, rebalancing is not available yet; in AWS's, the causes differ besides.
    assert_eq!(count("alibaba"), ["`on_unhealthy` is not available yet"]);
    assert_eq!(count("aws").len(), 2);
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
    "AWS would ignore"
)]
#[case::not_probed("", "", "does not probe targets")]
fn what_may_surprise_is_noted(#[case] balancer: &str, #[case] group: &str, #[case] expected: &str) {
    let settings = right(&minimal("", balancer, group, "interval_seconds = 20"));
    let found = settings.notes.iter().any(|note| note.message.contains(expected));
    assert!(found, "{:?}", settings.notes);
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
