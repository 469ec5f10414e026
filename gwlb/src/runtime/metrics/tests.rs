//! Tests of the catalogue, of what is made of it, and of the files in `contrib` that rely on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily};
use router::source::Source;
use serde_json::Value;

use super::instrument::Kind;
use super::*;
use crate::control::Control;
use crate::dataplane::verdict::DropReason;
use crate::runtime::clock;
use crate::runtime::control_handle::View;
use crate::runtime::minutes::Minutes;
use crate::runtime::shared::Shared;
use crate::runtime::shared::tests::idle_with_control;
use crate::runtime::status::FlowLogStatus;

/// The environment variable that says, under `CI=true`, that `promtool` must be there.
const NEEDED: &str = "GWLB_NEED_PROMTOOL";

/// A gateway where something of everything has happened.
fn status() -> Status {
    let (shared, mut control) = idle_with_control();
    let Shared { settings, exchange, .. } = shared;
    let published =
        crate::runtime::shared::Published { snapshot: control.snapshot(), rig: Arc::default() };
    drop(exchange);
    let shared = Shared::new(settings.load_full(), published, vec![Arc::default()], Vec::new());
    let (now, wall) = (clock::now(), Duration::from_secs(60 * 1000 + 59));
    let mut minutes = Minutes::new(now, wall);
    let look = |minutes: &mut Minutes, control: &Control, seconds| {
        let passed = Duration::from_secs(seconds);
        minutes.look(control, now + passed, wall + passed);
    };
    // Nothing is told of a minute that was not seen from its beginning.
    look(&mut minutes, &control, 2);
    let view = control.snapshot();
    for (endpoint, size) in view.endpoints.iter().zip([100, 1000]) {
        let counters = endpoint.counters.of(0);
        counters.new_flows.add(size);
        counters.ended_flows.add(size / 2);
        counters.inspected_packets.add(7 * size);
        counters.dropped_packets.add(3);
    }
    for target in &view.targets {
        target.counters[0].sent_packets.add(11);
        for micros in [40, 60, 2_000_000] {
            target.round_trips[0].times.record(micros);
        }
    }
    let mut probes = Vec::new();
    while let Some(output) = control.poll_output() {
        if let crate::control::Output::Probe(request) = output {
            probes.push(request.check);
        }
    }
    for check in probes {
        let took = Duration::from_micros(700);
        control.handle(crate::control::Input::ProbeTook { check, took }, now);
    }
    shared.stats[0].flow_life.record(Duration::from_millis(1500));
    let batches = &shared.stats[0].batches;
    for histogram in [&batches.read, &batches.received, &batches.sent] {
        histogram.record(16);
    }
    look(&mut minutes, &control, 4);
    look(&mut minutes, &control, 62);
    let mut status = Status::of(&shared, &View::of(&control, minutes.told()));
    for attachment in &mut status.attachments {
        (attachment.tx_dropped, attachment.rx_dropped) = (Some(1), Some(2));
    }
    status.flow_logs.push(FlowLogStatus { name: "records".to_owned(), lines: 5, lines_lost: 1 });
    status
}

#[test]
fn every_instrument_has_a_name_of_its_own_by_the_rules_and_says_what_it_is() {
    let mut names = BTreeSet::new();
    for Instrument { name, kind, labels, help, .. } in catalogue() {
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(help.ends_with('.') && !help.starts_with(' '), "{name}: {help:?}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        if name.starts_with("gwlb_") {
            let snake = |text: &str| text.chars().all(|it| it.is_ascii_lowercase() || it == '_');
            assert!(snake(&name) && labels.iter().all(|label| snake(label)), "{name} {labels:?}");
        } else {
            assert!(name.starts_with("aws_"), "{name}");
            assert!(labels.iter().all(|label| label.starts_with("dimension_")), "{name}");
        }
    }
}

#[test]
fn each_instrument_has_series_with_its_labels_and_no_others() {
    let status = status();
    for instrument in catalogue() {
        let family = instrument.read(&status);
        let family = family.unwrap_or_else(|| panic!("{} has no series", instrument.name));
        let named = family.get_metric().iter().flat_map(Metric::get_label);
        let named: BTreeSet<_> = named.map(|pair| pair.name().to_owned()).collect();
        let said: BTreeSet<_> = instrument.labels.iter().map(|it| (*it).to_owned()).collect();
        // Who counts no targets has no label for them.
        let missing: Vec<_> = said.difference(&named).collect();
        assert!(named.is_subset(&said), "{}: {named:?}", instrument.name);
        assert!(
            missing.is_empty() || instrument.name.starts_with("aws_gatewayelb_"),
            "{missing:?}"
        );
        has_each_series_once(&family);
    }
}

#[test]
fn a_minute_with_a_load_balancers_old_and_new_target_group_has_each_series_once() {
    let (shared, mut control) = idle_with_control();
    let other = crate::runtime::shared::tests::file()
        .replace("group = \"fw\"", "group = \"fw2\"")
        .replace("[[target_group]]\nname = \"fw\"", "[[target_group]]\nname = \"fw2\"");
    let other = crate::config::parse(&Source::new("gateway.toml", other)).unwrap();
    let (start, wall) = (clock::now(), Duration::from_mins(1000));
    let mut minutes = Minutes::new(start, wall);
    let mut reload = Some(Arc::new(other));
    for second in [30, 60, 80, 100, 120] {
        let passed = Duration::from_secs(second);
        if let Some(other) = reload.take_if(|_| second == 100) {
            control.reload(other, start + passed);
        }
        minutes.look(&control, start + passed, wall + passed);
    }
    let status = Status::of(&shared, &View::of(&control, minutes.told()));
    let mut hosts = 0;
    for family in catalogue().iter().filter_map(|instrument| instrument.read(&status)) {
        has_each_series_once(&family);
        if family.name() == "aws_gatewayelb_healthy_host_count_maximum" {
            hosts = family.get_metric().len();
        }
    }
    assert_eq!(hosts, 4, "two zones, with either group");
}

fn has_each_series_once(family: &MetricFamily) {
    let mut series = BTreeSet::new();
    for metric in family.get_metric() {
        let pairs = metric.get_label().iter();
        let pairs: Vec<_> = pairs.map(|it| (it.name().to_owned(), it.value().to_owned())).collect();
        assert!(series.insert(pairs), "{}: a series is there twice", family.name());
    }
}

#[test]
fn the_text_says_what_was_counted() {
    let text = render(status()).unwrap();
    let of_endpoint = r#"{endpoint="vpce-b",load_balancer="fw",service="inspection",zone="az2"}"#;
    let of_target = r#"target="192.0.2.12:6081",target_group="fw",zone="az1""#;
    for line in [
        format!("gwlb_endpoint_active_flows{of_endpoint} 500"),
        format!("gwlb_endpoint_inspected_packets_total{of_endpoint} 7000"),
        format!("gwlb_target_sent_packets_total{{{of_target}}} 11"),
        format!("gwlb_target_round_trip_seconds_bucket{{{of_target},le=\"0.00005\"}} 1"),
        format!("gwlb_target_round_trip_seconds_bucket{{{of_target},le=\"0.0001\"}} 2"),
        format!("gwlb_target_round_trip_seconds_bucket{{{of_target},le=\"1\"}} 2"),
        format!("gwlb_target_round_trip_seconds_bucket{{{of_target},le=\"+Inf\"}} 3"),
        format!("gwlb_target_round_trip_seconds_count{{{of_target}}} 3"),
        format!("gwlb_target_probe_duration_seconds_bucket{{{of_target},le=\"0.0005\"}} 0"),
        format!("gwlb_target_probe_duration_seconds_bucket{{{of_target},le=\"0.001\"}} 1"),
        "gwlb_batch_sent_packets_sum 16".to_owned(),
        r#"gwlb_attachment_tx_dropped_total{attachment="internet_gateway:igw",device="internet"} 1"#
            .to_owned(),
        r#"aws_gatewayelb_new_flow_count_sum{dimension_LoadBalancer="fw"} 1100"#.to_owned(),
        r#"aws_gatewayelb_new_flow_count_sum{dimension_AvailabilityZone="az2",dimension_LoadBalancer="fw"} 1000"#.to_owned(),
        r#"aws_gatewayelb_processed_packets_sum{dimension_Target="192.0.2.12:6081",dimension_TargetGroup="fw"} 11"#.to_owned(),
        r#"aws_gatewayelb_peak_packets_per_second_maximum{dimension_LoadBalancer="fw"} 3850"#.to_owned(),
        r#"aws_privatelinkservices_endpoints_count_average{dimension_Service_Id="inspection"} 2"#.to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    let dropped = "aws_privatelinkendpoints_packets_dropped_sum{";
    assert_eq!(text.lines().filter(|it| it.starts_with(dropped)).count(), 2, "{text}");
}

#[test]
fn the_table_in_the_documentation_is_the_catalogue() {
    let mut table = "| metric | kind | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for Instrument { name, kind, labels, help, .. } in catalogue() {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (kind, labels) = (kind.name(), labels.join(", "));
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    let file = root().join("docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- metrics: begin").unwrap();
    let (marker, rest) = rest.split_once("-->\n").unwrap();
    let (_, after) = rest.split_once("<!-- metrics: end").unwrap();
    let written =
        format!("{before}<!-- metrics: begin{marker}-->\n{table}<!-- metrics: end{after}");
    if std::env::var_os("GWLB_BLESS").is_some() {
        std::fs::write(&file, &written).unwrap();
        return;
    }
    assert!(text == written, "docs/metrics.md lists other metrics; GWLB_BLESS=1 rewrites it");
}

#[test]
fn the_dashboard_and_the_alerts_name_what_there_is() {
    let known = known();
    let expressions = [dashboard_expressions(), alert_expressions()].concat();
    assert!(expressions.len() > 50, "{}", expressions.len());
    for expression in expressions {
        let wrong = wrong(&without_variables(&expression), &known);
        assert!(wrong.is_empty(), "{wrong:?} in {expression}");
    }
}

#[test]
fn an_expression_that_names_what_is_not_there_is_found_out() {
    for (expression, expected) in [
        ("sum(gwlb_nothing)", "gwlb_nothing"),
        (r#"rate(gwlb_flows_active{side="tun"}[1m])"#, "side"),
        ("sum by (zone) (gwlb_flows_active) and gwlb_node_bypassed", "zone"),
        (r#"gwlb_packets_dropped_total{reason=~"bad_cookie|bad_luck"} > 1"#, "bad_luck"),
        ("gwlb_target_weight / on (side) gwlb_target_active_flows", "side"),
        (
            "histogram_quantile(0.5, sum by (le) (rate(gwlb_batch_read_packets[5m])))",
            "gwlb_batch_read_packets",
        ),
    ] {
        assert_eq!(wrong(expression, &known()), [expected], "{expression}");
    }
    let right = r#"sum by (side) (rate(gwlb_packets_dropped_total{reason="no_route"}[5m])) > 0.5"#;
    assert_eq!(wrong(right, &known()), [""; 0]);
}

#[test]
fn promtool_finds_nothing_wrong() {
    if !promtool_is_there() {
        return;
    }
    let contrib = root().join("gwlb/contrib");
    let promtool = |arguments: &[&str], input: Option<&str>| {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(&contrib);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]] {
        let (well, said) = promtool(&arguments, None);
        assert!(well, "{arguments:?}: {said}");
    }
    // The dashboard's expressions, as what a rule may be.
    let rules = tempfile::NamedTempFile::new().unwrap();
    let mut file = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expression) in dashboard_expressions().into_iter().enumerate() {
        let quoted = serde_json::to_string(&without_variables(&expression)).unwrap();
        writeln!(file, "      - {{ record: \"dashboard:{number}\", expr: {quoted} }}").unwrap();
    }
    std::fs::write(&rules, file).unwrap();
    let (well, said) = promtool(&["check", "rules", rules.path().to_str().unwrap()], None);
    assert!(well, "{said}");
    let text = render(status()).unwrap();
    let own: String =
        text.lines().filter(|line| !line.contains("aws_")).flat_map(|line| [line, "\n"]).collect();
    let (well, said) = promtool(&["check", "metrics"], Some(&own));
    assert!(well && said.is_empty(), "{said}");
    // The others' names are not ours to choose; that is all that is wrong with them.
    let (_, said) = promtool(&["check", "metrics"], Some(&text));
    let style = ["should not have \"_sum\" suffix", "should be written in 'snake_case'"];
    for line in said.lines() {
        let known = line.starts_with("aws_") && style.iter().any(|it| line.contains(it));
        assert!(known, "{line}");
    }
}

#[test]
fn ten_thousand_targets_are_scraped_in_bounded_time() {
    const TARGETS: usize = 10_000;
    let mut status = status();
    let like = status.targets[0].clone();
    status.targets = (0..TARGETS)
        .map(|number| {
            let address =
                format!("10.{}.{}.{}:6081", number >> 16, number >> 8 & 255, number & 255);
            crate::control::TargetStatus { address, ..like.clone() }
        })
        .collect();
    let begun = clock::now();
    let text = render(status).unwrap();
    let took = clock::now().saturating_duration_since(begun);
    eprintln!("{TARGETS} targets: {} bytes in {took:?}", text.len());
    assert_eq!(text.matches("\ngwlb_target_weight{").count(), TARGETS);
    // A scraper's usual patience, on a machine that has other things to do.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// The labels of every series name that a query may have.
fn known() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut known = BTreeMap::new();
    // Prometheus' own.
    known.insert("up".to_owned(), BTreeSet::new());
    for Instrument { name, kind, labels, .. } in catalogue() {
        let mut labels: BTreeSet<_> = labels.iter().copied().collect();
        if kind == Kind::Histogram {
            for part in ["sum", "count"] {
                known.insert(format!("{name}_{part}"), labels.clone());
            }
            labels.insert("le");
            known.insert(format!("{name}_bucket"), labels);
        } else {
            known.insert(name, labels);
        }
    }
    for labels in known.values_mut() {
        // What a scrape adds.
        labels.extend(["instance", "job"]);
    }
    known
}

/// What an expression of Prometheus consists of, as far as names go.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut rest = expression.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(first) = rest.next() {
        if first == '"' {
            tokens.push(Token::Text(rest.by_ref().take_while(|it| *it != '"').collect()));
        } else if first.is_ascii_alphabetic() || first == '_' {
            let mut word = first.to_string();
            while let Some(next) = rest.next_if(|it| it.is_ascii_alphanumeric() || *it == '_') {
                word.push(next);
            }
            tokens.push(Token::Word(word));
        } else if first.is_ascii_digit() {
            // A number or a time.
            while rest.next_if(|it| it.is_ascii_alphanumeric() || *it == '.').is_some() {}
        } else if !first.is_whitespace() {
            tokens.push(Token::Sign(first));
        }
    }
    tokens
}

/// Where the bracket at the beginning is closed.
fn closed(tokens: &[Token], open: char, close: char) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign(sign) if *sign == open => depth += 1,
            Token::Sign(sign) if *sign == close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("{open} is not closed in {tokens:?}");
}

/// What an expression names that is not there: metrics, labels, or reasons of drops. That it is one
/// is for promtool to say.
fn wrong(expression: &str, known: &BTreeMap<String, BTreeSet<&'static str>>) -> Vec<String> {
    // Grafana and Prometheus: what is asked by name is a function, if brackets follow.
    const OPERATORS: [&str; 3] = ["and", "or", "unless"];
    let tokens = tokens(expression);
    let has_label = |among: &[Token], label: &str| {
        let words = among.iter().filter_map(|token| match token {
            Token::Word(word) => known.get(word),
            _ => None,
        });
        words.into_iter().all(|labels| labels.contains(label))
    };
    let mut wrong = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let rest = &tokens[at + 1..];
        let next = rest.first();
        if ["by", "on"].contains(&word.as_str()) {
            let end = closed(rest, '(', ')');
            // Of what is put together, or of all.
            let among = match rest.get(end + 1) {
                Some(Token::Sign('(')) if word == "by" => {
                    &rest[end + 1..=end + 1 + closed(&rest[end + 1..], '(', ')')]
                }
                _ => &tokens[..],
            };
            for label in &rest[..end] {
                if let Token::Word(label) = label
                    && !has_label(among, label)
                {
                    wrong.push(label.clone());
                }
            }
            at += end + 2;
        } else if let Some(labels) = known.get(word) {
            at += 1;
            if next == Some(&Token::Sign('{')) {
                let end = closed(rest, '{', '}');
                for matcher in rest[1..end].split(|token| *token == Token::Sign(',')) {
                    let [Token::Word(label), .., Token::Text(value)] = matcher else {
                        panic!("{matcher:?} in {expression}");
                    };
                    if !labels.contains(label.as_str()) {
                        wrong.push(label.clone());
                    }
                    let named = |it: &&str| DropReason::ALL.iter().any(|known| known.name() == *it);
                    if label == "reason" {
                        let reasons = value.split('|').filter(|it| !named(it));
                        wrong.extend(reasons.map(str::to_owned));
                    }
                }
                at += end + 1;
            }
        } else {
            let called = matches!(next, Some(Token::Sign('(')))
                || matches!(next, Some(Token::Word(by)) if by == "by");
            if !called && !OPERATORS.contains(&word.as_str()) {
                wrong.push(word.clone());
            }
            at += 1;
        }
    }
    wrong
}

/// An expression of the dashboard as Grafana asks it.
fn without_variables(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
}

/// Every `expr` of the dashboard.
fn dashboard_expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(root().join("gwlb/contrib/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|it| it["type"] == "row" || it["targets"][0]["expr"].is_string()));
    found
}

/// Every `expr` of the alerts: each is one line, so that nobody has to read YAML here.
fn alert_expressions() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("gwlb/contrib/alerts.yml")).unwrap();
    let lines = || text.lines().map(str::trim);
    let found: Vec<_> = lines().filter_map(|line| line.strip_prefix("expr: ")).collect();
    let alerts = lines().filter(|line| line.starts_with("- alert: ")).count();
    assert_eq!(found.len(), alerts, "one each, in one line");
    found.into_iter().map(str::to_owned).collect()
}

fn promtool_is_there() -> bool {
    let version = Command::new("promtool").arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    let is = |name, value| std::env::var_os(name).is_some_and(|found| found == value);
    assert!(!(is("CI", "true") && is(NEEDED, "1")), "this may not be skipped: no promtool");
    eprintln!("SKIP promtool_finds_nothing_wrong: promtool is not installed");
    false
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
