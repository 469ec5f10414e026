//! `[target_group.tunnel_check]`: how targets are probed through the tunnel. No cloud has it, so
//! its ranges and defaults are this gateway's.

use router::source::Located;

use super::address::{family, one_host};
use super::form::TunnelCheckForm;
use super::preset::Limit;
use super::probe_times::{self, Fields, Limits};
use super::reader::Reader;
use super::settings::TunnelCheck;

/// As messages call who sets the ranges.
const AUTHORITY: &str = "a tunnel check";
/// As a health check of both clouds.
const INTERVAL: Limit = Limit { default: 10, cloud: 1..=300, extended: 1..=300 };
/// As a health check of both clouds.
const TIMEOUT: Limit = Limit { default: 5, cloud: 1..=300, extended: 1..=300 };
/// Two each way, so that one lost packet decides nothing.
const THRESHOLD: Limit = Limit { default: 2, cloud: 2..=10, extended: 1..=10 };

/// Checks the table.
pub(super) fn check(reader: &mut Reader<'_>, form: TunnelCheckForm) -> TunnelCheck {
    let extended = reader.or_default("extended_ranges", form.extended_ranges, false);
    let fields = Fields {
        interval_seconds: form.interval_seconds,
        interval_ms: form.interval_ms,
        timeout_seconds: form.timeout_seconds,
        timeout_ms: form.timeout_ms,
    };
    let limits = Limits { authority: AUTHORITY, interval: &INTERVAL, timeout: &TIMEOUT, extended };
    let times = probe_times::check(reader, fields, &limits);
    let mut threshold =
        |key, field| reader.limited(key, field, &THRESHOLD, AUTHORITY, extended).value;
    let healthy_threshold = threshold("healthy_threshold", form.healthy_threshold);
    let unhealthy_threshold = threshold("unhealthy_threshold", form.unhealthy_threshold);
    let help = "the address of one host, such as \"198.51.100.1\"; absent, the gateway chooses";
    let mut address = |key, field| {
        let text = reader.optional(key, field);
        reader.checked(key, text, one_host, help)
    };
    let source = address("source", form.source);
    let destination = address("destination", form.destination);
    if let (Some(source), Some(destination)) = (&source, &destination)
        && source.is_ipv4() != destination.is_ipv4()
    {
        reader.report(
            destination
                .problem("a packet is of one address family")
                .label(format!("{} here", family(**destination)))
                .and(source.span(), format!("{} there", family(**source)))
                .help("give `source` and `destination` addresses of one family"),
        );
    }
    TunnelCheck {
        interval: times.interval,
        timeout: times.timeout,
        healthy_threshold,
        unhealthy_threshold,
        source: source.map(Located::into_inner),
        destination: destination.map(Located::into_inner),
        measure_mtu: reader.or_default("measure_mtu", form.measure_mtu, true),
    }
}
