//! `[target_group.health_check]`: how targets are probed.

use router::source::{Located, Problem};

use super::field::Field;
use super::form::HealthCheckForm;
use super::preset::Preset;
use super::reader::{Limited, Reader, listing};
use super::settings::{HealthCheck, HealthProtocol};
use super::values::{Matcher, Port};

/// The longest path that AWS takes (`HealthCheckPath`).
const MAX_PATH: usize = 1024;
/// AWS and Alibaba ask for the root unless told otherwise (semantics 1b).
const PATH: &str = "/";

/// Checks the table; an absent one is all defaults.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: HealthCheckForm,
    preset: &Preset,
) -> HealthCheck {
    let extended = reader.or_default("extended_ranges", form.extended_ranges, false);
    let protocol = check_protocol(reader, form.protocol, preset, extended);
    let port = reader.number("port", form.port, Port::new, Some("the default is 80"));
    let mut limited = |key, field, limit| reader.limited(key, field, limit, preset, extended);
    let interval = limited("interval_seconds", form.interval_seconds, &preset.interval);
    let timeout = limited("timeout_seconds", form.timeout_seconds, &preset.timeout);
    let healthy = limited("healthy_threshold", form.healthy_threshold, &preset.healthy_threshold);
    let unhealthy =
        limited("unhealthy_threshold", form.unhealthy_threshold, &preset.unhealthy_threshold);
    compare(reader, &interval, &timeout);
    let path = reader.optional("path", form.path);
    let help = "the absolute path of the request, such as \"/healthz\"";
    let path = reader.checked("path", path, check_path, help);
    let matcher = reader.optional("matcher", form.matcher);
    let help = "status codes and ranges from 200 to 399, with commas: \"200\", \"200-299,302\"";
    let matcher = reader.checked("matcher", matcher, Matcher::new, help);
    if protocol == Some(HealthProtocol::Tcp) {
        unless_default(reader, "path", path.as_ref(), &PATH.to_owned());
        unless_default(reader, "matcher", matcher.as_ref(), &Matcher::default());
    }
    HealthCheck {
        protocol: protocol.unwrap_or_default(),
        port: port.map_or(Port::HEALTH_CHECK, Located::into_inner),
        interval: interval.seconds(),
        timeout: timeout.seconds(),
        healthy_threshold: healthy.value,
        unhealthy_threshold: unhealthy.value,
        path: path.map_or_else(|| PATH.to_owned(), Located::into_inner),
        matcher: matcher.map(Located::into_inner).unwrap_or_default(),
    }
}

/// The protocol; none if it was not understood.
fn check_protocol(
    reader: &mut Reader<'_>,
    field: Field<HealthProtocol>,
    preset: &Preset,
    extended: bool,
) -> Option<HealthProtocol> {
    if let Field::Absent = field {
        return Some(HealthProtocol::default());
    }
    let protocol = reader.optional("protocol", field)?;
    if !extended && !preset.health_protocols.contains(protocol.get()) {
        reader.report(
            protocol
                .problem(format!("{} has no {} health check", preset.cloud, protocol.get()))
                .label(format!("not with `semantics = \"{}\"`", preset.cloud.to_lowercase()))
                .help(protocol_help(preset)),
        );
    }
    Some(protocol.into_inner())
}

/// Semantics 1b: the interval "must be >= timeout".
fn compare(reader: &mut Reader<'_>, interval: &Limited, timeout: &Limited) {
    if interval.value >= timeout.value || interval.wrong || timeout.wrong {
        return;
    }
    // The defaults fit each other, so one of the two is in the file.
    let Some(place) = timeout.span.as_ref().or(interval.span.as_ref()) else { return };
    let problem = Problem::at(
        place.clone(),
        format!(
            "a probe may take {} s, but the next one follows after {} s",
            timeout.value, interval.value
        ),
    )
    .label("the timeout is longer than the interval")
    .help("make `interval_seconds` at least `timeout_seconds`");
    reader.report(match (&timeout.span, &interval.span) {
        (Some(_), Some(interval)) => problem.and(interval.clone(), "the interval"),
        _ => problem,
    });
}

/// Reports a key that only HTTP and HTTPS look at.
fn unless_default<T: PartialEq>(
    reader: &mut Reader<'_>,
    key: &str,
    value: Option<&Located<T>>,
    default: &T,
) {
    if let Some(value) = value.filter(|value| value.get() != default) {
        reader.report(
            value
                .problem(format!("a TCP health check has no `{key}`"))
                .label("of no use with `protocol = \"TCP\"`")
                .help("add protocol = \"HTTP\", or leave this out"),
        );
    }
}

fn protocol_help(preset: &Preset) -> String {
    let names = preset.health_protocols.iter().map(|protocol| protocol.name());
    format!("it has {}; `extended_ranges = true` in this table permits the others", listing(names))
}

fn check_path(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        Err("a path starts with a slash")
    } else if path.len() > MAX_PATH {
        Err("longer than 1024 bytes")
    } else if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err("a path has no spaces; write them as %20")
    } else {
        Ok(path.to_owned())
    }
}
