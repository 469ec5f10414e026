//! `gwlb check`: looks a configuration over and brings nothing up.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use router::source::{Look, Problems, Source};
use serde::Serialize;

use super::WRONG_USE;
use crate::config::{self, Note, ProblemReport, Settings};

/// Check a configuration file, and bring nothing up.
///
/// All that is wrong is told at once, each with its place, the text underlined, and what would
/// help. What is allowed and may surprise is a note. Whether namespaces exist and addresses are
/// free is for `gwlb run` to find out.
///
/// Exit status: 0 the configuration is right; 2 it is not, or cannot be read.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration file (TOML).
    file: PathBuf,
    /// Print the result as JSON, problems included.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArgs) -> ExitCode {
    let name = arguments.file.display().to_string();
    let result = Source::read(&arguments.file)
        .and_then(|source| config::parse(&source).map(|settings| (settings, source)));
    let wrong = result.is_err();
    let printed = match &result {
        _ if arguments.json => super::print(&json(&Report::new(&name, result.as_ref()))),
        Ok((settings, _)) => super::print(&text(&name, settings)),
        Err(problems) => {
            let _ = io::stderr().write_all(problems.render(Look::of_stderr()).as_bytes());
            ExitCode::SUCCESS
        }
    };
    if wrong { ExitCode::from(WRONG_USE) } else { printed }
}

fn json(report: &Report<'_>) -> String {
    // Strings, numbers and lists: nothing that JSON cannot say.
    serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_default()
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    file: &'a str,
    summary: Option<Summary>,
    problems: Vec<ProblemReport>,
    notes: Vec<NoteReport<'a>>,
}

/// How much of each the configuration has.
#[derive(Debug, Serialize)]
struct Summary {
    vpcs: usize,
    subnets: usize,
    route_tables: usize,
    endpoints: usize,
    load_balancers: usize,
    target_groups: usize,
    targets: usize,
    attachments: usize,
}

#[derive(Debug, Serialize)]
struct NoteReport<'a> {
    message: &'a str,
    line: Option<usize>,
    column: Option<usize>,
}

impl<'a> Report<'a> {
    fn new(file: &'a str, result: Result<&'a (Settings, Source), &'a Problems>) -> Report<'a> {
        let settings = result.ok().map(|(settings, _)| settings);
        let problems = result.err().map(ProblemReport::list).unwrap_or_default();
        Report {
            ok: settings.is_some(),
            file,
            summary: settings.map(Summary::of),
            problems,
            notes: settings.into_iter().flat_map(|s| &s.notes).map(NoteReport::new).collect(),
        }
    }
}

impl<'a> NoteReport<'a> {
    fn new(note: &'a Note) -> NoteReport<'a> {
        let position = note.position;
        NoteReport {
            message: &note.message,
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
        }
    }
}

impl Summary {
    fn of(settings: &Settings) -> Summary {
        let topology = &settings.topology;
        Summary {
            vpcs: topology.vpcs().len(),
            subnets: topology.subnets().len(),
            route_tables: topology.tables().len() - topology.vpcs().len(),
            endpoints: topology.endpoints().len(),
            load_balancers: settings.load_balancers.len(),
            target_groups: settings.target_groups.len(),
            targets: settings.target_groups.iter().map(|group| group.targets.len()).sum(),
            attachments: settings.attachments.len(),
        }
    }
}

/// The answer for people: what there is, how it hangs together, and notes.
fn text(name: &str, settings: &Settings) -> String {
    let summary = Summary::of(settings);
    let topology = &settings.topology;
    let counts = [
        count(summary.vpcs, "VPC"),
        count(summary.subnets, "subnet"),
        count(summary.route_tables, "route table"),
        count(summary.endpoints, "endpoint"),
        count(summary.load_balancers, "load balancer"),
        count(summary.targets, "target"),
        count(summary.attachments, "attachment"),
    ];
    let counts = format!("{name}: no problems ({})", counts.join(", "));
    let bound = topology.endpoints().zip(&settings.bindings).map(|((_, endpoint), binding)| {
        let balancer = &settings.load_balancers[binding.load_balancer];
        let node = &balancer.nodes[binding.node];
        let group = &settings.target_groups[balancer.target_group];
        let own = group.targets.iter().filter(|target| target.zone == node.zone).count();
        let others = group.targets.len() - own;
        let (targets, help) = if balancer.cross_zone {
            (group.targets.len(), String::new())
        } else {
            (own, helpers(balancer.spill_over_below, others))
        };
        format!(
            "  endpoint {} in {} -> load balancer {} at {} -> {} of group {}{help}",
            endpoint.name,
            node.zone,
            balancer.name,
            node.address,
            count(targets, "target"),
            group.name,
        )
    });
    let notes = settings.notes.iter().map(|note| {
        let place = note.position.map(|position| format!(":{position}")).unwrap_or_default();
        format!("note: {name}{place}: {}", note.message)
    });
    let lines: Vec<String> = std::iter::once(counts).chain(bound).chain(notes).collect();
    lines.join("\n") + "\n"
}

/// Who helps out a zone with few healthy targets.
fn helpers(below: u32, others: usize) -> String {
    match (below, others) {
        (0, _) | (_, 0) => String::new(),
        (1, others) => format!(", and {others} of other zones when none of these is healthy"),
        (below, others) => {
            format!(", and {others} of other zones when fewer than {below} of these are healthy")
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
