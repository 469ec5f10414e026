//! When a load balancer forgets a flow: the timers of `[[load_balancer]]`.

use std::ops::Range;
use std::time::Duration;

use router::source::Problem;

use super::field::Field;
use super::preset::{Limit, Preset};
use super::reader::{Limited, Reader, in_words};
use super::settings::FlowTimers;

/// The keys of the table, as they stand in the file.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) tcp_idle: Field<i64>,
    pub(super) tcp_half_open: Field<i64>,
    pub(super) tcp_half_closed: Field<i64>,
    pub(super) tcp_closed: Field<i64>,
    pub(super) other_idle: Field<i64>,
}

/// The timers, and what others point to.
#[derive(Debug)]
pub(super) struct TimersDraft {
    pub(super) timers: FlowTimers,
    /// Where TCP's idle timeout was given, if it is not the default.
    pub(super) custom_tcp_idle: Option<Range<usize>>,
}

/// `nf_conntrack_tcp_timeout_syn_recv` of Linux: long enough for every retransmission of a SYN that
/// somebody waits for.
const HALF_OPEN: Limit = Limit { default: 60, cloud: 1..=6000, extended: 1..=6000 };
/// `nf_conntrack_tcp_timeout_fin_wait` of Linux.
const HALF_CLOSED: Limit = Limit { default: 120, cloud: 1..=6000, extended: 1..=6000 };
/// `nf_conntrack_tcp_timeout_last_ack` of Linux: long enough for the last retransmissions.
const CLOSED: Limit = Limit { default: 30, cloud: 1..=6000, extended: 1..=6000 };

/// Reads the five timers.
pub(super) fn check(
    reader: &mut Reader<'_>,
    fields: Fields,
    preset: &Preset,
    extended: bool,
) -> TimersDraft {
    let limit = &preset.tcp_idle_timeout;
    let key = "tcp_idle_timeout_seconds";
    let tcp = reader.limited(key, fields.tcp_idle, limit, preset.cloud, extended);
    let custom_tcp_idle = tcp.given_unlike(limit);
    let limit = &preset.other_idle_timeout;
    let key = "other_idle_timeout_seconds";
    let other = reader.limited(key, fields.other_idle, limit, preset.cloud, extended);
    let mut shorter = |key, field, limit| shorter(reader, key, field, limit, &tcp);
    let timers = FlowTimers {
        tcp_idle: tcp.seconds(),
        tcp_half_open: shorter("tcp_half_open_timeout_seconds", fields.tcp_half_open, &HALF_OPEN),
        tcp_half_closed: shorter(
            "tcp_half_closed_timeout_seconds",
            fields.tcp_half_closed,
            &HALF_CLOSED,
        ),
        tcp_closed: shorter("tcp_closed_timeout_seconds", fields.tcp_closed, &CLOSED),
        other_idle: other.seconds(),
    };
    TimersDraft { timers, custom_tcp_idle }
}

/// A timer of a flow that is not open, which lives no longer than one that is.
fn shorter(
    reader: &mut Reader<'_>,
    key: &str,
    field: Field<i64>,
    limit: &Limit,
    tcp: &Limited,
) -> Duration {
    let timer = reader.limited(key, field, limit, "this gateway", false);
    let idle = tcp.seconds();
    let Some(span) = &timer.span else { return timer.seconds().min(idle) };
    if timer.seconds() > idle && !tcp.wrong {
        let problem = Problem::at(
            span.clone(),
            format!("`{key}` cannot be longer than `tcp_idle_timeout_seconds`"),
        )
        .label(format!("longer than {}", in_words(idle)))
        .help("a flow that is not open is not kept for longer than one that is");
        reader.report(match &tcp.span {
            Some(tcp) => problem.and(tcp.clone(), "the timeout of an open flow"),
            None => problem,
        });
    }
    timer.seconds()
}
