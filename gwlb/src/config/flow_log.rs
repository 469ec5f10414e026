//! `[[flow_log]]`: which records of flows are written where.

use std::time::Duration;

use router::config::RouterFile;
use router::source::{Located, Problem};

use super::form::FlowLogForm;
use super::names::Names;
use super::reader::{Reader, Table, suggestion};
use super::settings::{FlowLogSettings, GatewaySettings, LogDestination, LogResource, TrafficType};
use super::values::{Name, OutOfRange};

/// The intervals that AWS has (`MaxAggregationInterval`), in seconds; the longer one is its default.
const INTERVALS: [i64; 2] = [60, 600];
/// 100 MiB.
const FILE_BYTES: i64 = 100 << 20;
const FILES: i64 = 5;

/// A flow log as far as it was understood.
#[derive(Debug)]
pub(super) struct FlowLogDraft {
    name: Option<Name>,
    resource: Option<LogResource>,
    destination: Option<Located<LogDestination>>,
    /// In seconds, where it is given or else where the table is; if it was understood.
    interval: Option<Located<i64>>,
    rest: Option<(TrafficType, super::log_format::LogFormat, Duration)>,
}

/// Checks one table.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<FlowLogForm>,
    balancers: &Names,
    router: &RouterFile,
    gateway: &GatewaySettings,
) -> FlowLogDraft {
    let table = Table { name: "[[flow_log]]", span: form.span() };
    if !gateway.flow_records {
        let message = "flow logs are made of flow records, so there are some with \
                       `flow_records = false`, too";
        reader.note(table.span.clone(), message);
    }
    let form = form.into_inner();
    let name = reader.name(form.name, &table);
    let resource = match reader.optional("resource", form.resource) {
        None => Some(LogResource::All),
        Some(text) => resource(reader, &text, balancers, router),
    };
    let traffic_type = reader.or_default("traffic_type", form.traffic_type, TrafficType::default());
    let format = reader.optional("format", form.format);
    let given = format.is_some();
    let help = "fields as AWS writes them, such as ${version} ${srcaddr} ${dstaddr} ${action}; \
                docs/flow-logs.md lists them";
    let format = reader.checked("format", format, str::parse, help).map(Located::into_inner);
    let extended = reader.or_default("extended_ranges", form.extended_ranges, false);
    let interval = form.max_aggregation_interval_seconds;
    let was_given = interval.given().is_some();
    let interval = reader.number(
        "max_aggregation_interval_seconds",
        interval,
        |seconds| OutOfRange::check(seconds, 1, 600),
        Some("60 or 600; the default is 600"),
    );
    if let Some(seconds) = &interval
        && !extended
        && !INTERVALS.contains(&**seconds)
    {
        reader.report(
            seconds
                .problem(format!("`max_aggregation_interval_seconds` cannot be {}", **seconds))
                .label("60 or 600, as in AWS")
                .help("with `extended_ranges = true` in this table it may be 1 to 600"),
        );
    }
    let given_interval = match &interval {
        Some(seconds) => Some(Located::new(**seconds, seconds.span())),
        None if was_given => None,
        None => Some(Located::new(INTERVALS[1], table.span.clone())),
    };
    let bytes = |bytes| OutOfRange::check(bytes, 4096, 1 << 40);
    let bytes_help = Some("the default is 104857600, which is 100 MiB");
    let bytes = reader.number("max_file_bytes", form.max_file_bytes, bytes, bytes_help);
    let files = |files| OutOfRange::check(files, 1, 1000);
    let files_help = Some("the default is 5");
    let files = reader.number("max_files", form.max_files, files, files_help);
    let rotates = bytes.as_ref().map(Located::span).or(files.as_ref().map(Located::span));
    let destination = reader.required(
        "destination",
        form.destination,
        &table,
        "\"stdout\", or \"/var/log/gwlb/flows.log\"",
    );
    let destination = destination.and_then(|text| {
        let span = text.span();
        if text.get() == "stdout" {
            if let Some(span) = rotates {
                reader.report(
                    Problem::at(span, "what is written to stdout is no file")
                        .label("only for files")
                        .help("leave `max_file_bytes` and `max_files` out"),
                );
            }
            return Some(Located::new(LogDestination::Stdout, span));
        }
        let path = reader.absolute_path("destination", Some(text))?.into_inner();
        let max_bytes = bytes.map_or(FILE_BYTES, Located::into_inner).unsigned_abs();
        let files = files.map_or(FILES, Located::into_inner).unsigned_abs() as u32;
        Some(Located::new(LogDestination::File { path, max_bytes, files }, span))
    });
    let seconds = interval.map_or(INTERVALS[1], Located::into_inner).clamp(1, 600);
    let interval = Duration::from_secs(seconds.unsigned_abs());
    let rest =
        (!given || format.is_some()).then(|| (traffic_type, format.unwrap_or_default(), interval));
    FlowLogDraft { name, resource, destination, interval: given_interval, rest }
}

/// Reports files that two logs would write to, and intervals that do not go together.
pub(super) fn check_together(reader: &mut Reader<'_>, drafts: &[FlowLogDraft]) {
    check_intervals(reader, drafts);
    let path = |draft: &FlowLogDraft| match draft.destination.as_ref().map(Located::get) {
        Some(LogDestination::File { path, .. }) => Some(path.clone()),
        _ => None,
    };
    for (index, draft) in drafts.iter().enumerate() {
        let Some(own) = path(draft) else { continue };
        let first = drafts[..index].iter().find(|other| path(other).as_ref() == Some(&own));
        if let (Some(first), Some(second)) =
            (first.and_then(|it| it.destination.as_ref()), draft.destination.as_ref())
        {
            reader.report(
                second
                    .problem("two flow logs cannot write to one file")
                    .label("the second one")
                    .and(first.span(), "the first one")
                    .help("give each a file of its own"),
            );
        }
    }
}

/// Windows are as long as in the log with the shortest, and others put whole ones together.
fn check_intervals(reader: &mut Reader<'_>, drafts: &[FlowLogDraft]) {
    let intervals = || drafts.iter().filter_map(|draft| draft.interval.as_ref());
    let Some(shortest) = intervals().min_by_key(|seconds| ***seconds) else { return };
    for seconds in intervals().filter(|seconds| ***seconds % **shortest != 0) {
        reader.report(
            seconds
                .problem(format!("{} s cannot be made of windows of {} s", **seconds, **shortest))
                .label("the interval of this flow log")
                .and(shortest.span(), "the shortest one")
                .help(
                    "all logs are made of the same windows: let each \
                     `max_aggregation_interval_seconds` be a multiple of the shortest; \
                     it is 600 where it is left out",
                ),
        );
    }
}

fn resource(
    reader: &mut Reader<'_>,
    text: &Located<String>,
    balancers: &Names,
    router: &RouterFile,
) -> Option<LogResource> {
    let (kind, name) = text.split_once(':').unwrap_or((text.get(), ""));
    match kind {
        "all" if name.is_empty() => Some(LogResource::All),
        "load_balancer" if !name.is_empty() => {
            let name = Located::new(name.to_owned(), text.span());
            balancers.resolve(reader, &name)?;
            Some(LogResource::LoadBalancer(name.into_inner()))
        }
        "endpoint" if !name.is_empty() => {
            let names = router.endpoints.iter().map(|it| it.name.get().as_str());
            if names.clone().any(|known| known == name) {
                return Some(LogResource::Endpoint(name.to_owned()));
            }
            let help = suggestion(name, names, "this file has no [[endpoint]]");
            reader.report(
                text.problem(format!("there is no endpoint {name:?}"))
                    .label("no [[endpoint]] has this name")
                    .help(help),
            );
            None
        }
        _ => {
            reader.report(
                text.problem(format!("`resource` cannot be {:?}", text.get()))
                    .label("neither an endpoint nor a load balancer")
                    .help("\"all\", or such as \"endpoint:vpce-a\" or \"load_balancer:fw\""),
            );
            None
        }
    }
}

impl FlowLogDraft {
    /// The settings, if everything was understood.
    pub(super) fn finish(self) -> Option<FlowLogSettings> {
        let (traffic_type, format, interval) = self.rest?;
        Some(FlowLogSettings {
            name: self.name?,
            resource: self.resource?,
            traffic_type,
            format,
            interval,
            destination: self.destination?.into_inner(),
        })
    }
}
