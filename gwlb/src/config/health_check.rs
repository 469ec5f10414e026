//! `[target_group.health_check]`: how targets are probed.

use std::ops::Range;

use router::source::{Located, Problem};

use super::address;
use super::field::Field;
use super::form::HealthCheckForm;
use super::preset::Preset;
use super::probe_times::{self, Fields, Limits};
use super::reader::{Reader, listing};
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
    if let Some((off, others)) = off_with_others(&form) {
        let have = if others.contains(" and ") { "have" } else { "has" };
        reader.note(off, format!("health checks are off: {others} of this table {have} no effect"));
    }
    let enabled = reader.or_default("enabled", form.enabled, true);
    let extended = reader.or_default("extended_ranges", form.extended_ranges, false);
    let protocol = check_protocol(reader, form.protocol, preset, extended);
    let port = reader.number("port", form.port, Port::new, Some("the default is 80"));
    let fields = Fields {
        interval_seconds: form.interval_seconds,
        interval_ms: form.interval_ms,
        timeout_seconds: form.timeout_seconds,
        timeout_ms: form.timeout_ms,
    };
    let (interval, timeout) = (&preset.interval, &preset.timeout);
    let limits = Limits { authority: preset.cloud, interval, timeout, extended };
    let times = probe_times::check(reader, fields, &limits);
    let mut limited =
        |key, field, limit| reader.limited(key, field, limit, preset.cloud, extended).value;
    let healthy = limited("healthy_threshold", form.healthy_threshold, &preset.healthy_threshold);
    let unhealthy =
        limited("unhealthy_threshold", form.unhealthy_threshold, &preset.unhealthy_threshold);
    let host = reader.optional("host", form.host);
    let help = "a DNS name or an IP address, without a port; the port is a key of its own";
    let host = reader.checked("host", host, address::host, help);
    let path = reader.optional("path", form.path);
    let help = "the absolute path of the request, such as \"/healthz\"";
    let path = reader.checked("path", path, check_path, help);
    let matcher = reader.optional("matcher", form.matcher);
    let help = "status codes and ranges from 200 to 399, with commas: \"200\", \"200-299,302\"";
    let matcher = reader.checked("matcher", matcher, Matcher::new, help);
    let ca_file = reader.optional("ca_file", form.ca_file);
    let ca_file = reader.absolute_path("ca_file", ca_file);
    let idle = |key, span: Option<Range<usize>>| span.map(|span| Idle { key, span });
    let for_http = [
        idle("host", host.as_ref().map(Located::span)),
        idle("path", given_unlike(path.as_ref(), &PATH.to_owned())),
        idle("matcher", given_unlike(matcher.as_ref(), &Matcher::default())),
    ];
    let certificates = idle("ca_file", ca_file.as_ref().map(Located::span));
    match protocol {
        Some(HealthProtocol::Tcp) => {
            refuse(reader, for_http.into_iter().flatten(), HealthProtocol::Tcp, "HTTP");
            refuse(reader, certificates, HealthProtocol::Tcp, "HTTPS");
        }
        Some(HealthProtocol::Http) => refuse(reader, certificates, HealthProtocol::Http, "HTTPS"),
        Some(HealthProtocol::Https) | None => {}
    }
    HealthCheck {
        enabled,
        protocol: protocol.unwrap_or_default(),
        port: port.map_or(Port::HEALTH_CHECK, Located::into_inner),
        interval: times.interval,
        timeout: times.timeout,
        healthy_threshold: healthy,
        unhealthy_threshold: unhealthy,
        host: host.map(Located::into_inner),
        path: path.map_or_else(|| PATH.to_owned(), Located::into_inner),
        matcher: matcher.map(Located::into_inner).unwrap_or_default(),
        ca_file: ca_file.map(Located::into_inner),
    }
}

/// Where health checks were switched off, and the names of the keys that this makes idle.
fn off_with_others(form: &HealthCheckForm) -> Option<(Range<usize>, String)> {
    // No `..`: a new key is not to be forgotten here.
    let HealthCheckForm {
        enabled,
        protocol,
        port,
        interval_seconds,
        interval_ms,
        timeout_seconds,
        timeout_ms,
        healthy_threshold,
        unhealthy_threshold,
        host,
        path,
        matcher,
        ca_file,
        extended_ranges,
    } = form;
    let off = enabled.given().filter(|enabled| !***enabled)?;
    let others = [
        ("protocol", protocol.given().is_some()),
        ("port", port.given().is_some()),
        ("interval_seconds", interval_seconds.given().is_some()),
        ("interval_ms", interval_ms.given().is_some()),
        ("timeout_seconds", timeout_seconds.given().is_some()),
        ("timeout_ms", timeout_ms.given().is_some()),
        ("healthy_threshold", healthy_threshold.given().is_some()),
        ("unhealthy_threshold", unhealthy_threshold.given().is_some()),
        ("host", host.given().is_some()),
        ("path", path.given().is_some()),
        ("matcher", matcher.given().is_some()),
        ("ca_file", ca_file.given().is_some()),
        ("extended_ranges", extended_ranges.given().is_some()),
    ];
    let others: Vec<String> =
        others.iter().filter(|(_, given)| *given).map(|(key, _)| format!("`{key}`")).collect();
    let (last, before) = others.split_last()?;
    let names = match before {
        [] => last.clone(),
        before => format!("{} and {last}", before.join(", ")),
    };
    Some((off.span(), names))
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

/// A key that the protocol does not look at.
struct Idle {
    key: &'static str,
    span: Range<usize>,
}

fn given_unlike<T: PartialEq>(value: Option<&Located<T>>, default: &T) -> Option<Range<usize>> {
    value.filter(|value| value.get() != default).map(Located::span)
}

/// Reports keys that only another protocol looks at.
fn refuse(
    reader: &mut Reader<'_>,
    keys: impl IntoIterator<Item = Idle>,
    protocol: HealthProtocol,
    other: &str,
) {
    for Idle { key, span } in keys {
        reader.report(
            Problem::at(
                span,
                format!("{} {protocol} health check has no `{key}`", article(protocol)),
            )
            .label(format!("of no use with `protocol = \"{protocol}\"`"))
            .help(format!("add protocol = \"{other}\", or leave this out")),
        );
    }
}

fn article(protocol: HealthProtocol) -> &'static str {
    match protocol {
        HealthProtocol::Tcp => "a",
        HealthProtocol::Http | HealthProtocol::Https => "an",
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
    } else if path.contains(['"', '<', '>', '`', '#']) {
        // RFC 3986 section 3.3 has none of these in a path, and a fragment is not sent at all.
        Err("a path has none of \" < > ` #; write them as %22, %3C, %3E, %60, %23")
    } else {
        Ok(path.to_owned())
    }
}
