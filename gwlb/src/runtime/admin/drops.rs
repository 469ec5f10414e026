//! `/v1/drops`: what was dropped lately, with examples.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use geneve::flow_of_start;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::Query;
use super::problem::{Problem, Refusals};
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::{DropReason, Side};
use crate::runtime::clock;
use crate::runtime::datagrams::{Shown, endpoint_name, opened};
use crate::runtime::drops::{self, Example, MEMORY};
use crate::runtime::shared::Shared;

/// How far back it is told unless asked otherwise, in seconds.
const SECONDS: u64 = 60;

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(drops))
}

/// Looks at the counters once a second, for those who ask later; it never ends.
pub(super) async fn remember(shared: &Shared) -> std::convert::Infallible {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let workers = shared.stats.iter().map(AsRef::as_ref);
        shared.drop_history.lock().note(workers, clock::now());
    }
}

/// What was dropped.
#[derive(Debug, Serialize, ToSchema)]
struct Drops {
    /// How long the time is in fact that `count` is for: the counters are looked at once a second,
    /// and a gateway that has just been started has no more.
    seconds: f64,
    /// Every reason for which anything was dropped since the gateway started, the most frequent of
    /// these seconds first.
    reasons: Vec<Reason>,
}

/// The drops of one reason.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as everywhere in the API")]
struct Reason {
    /// Its name, as in `drops` of `/v1/status` and in the metrics.
    reason: &'static str,
    /// Packets dropped in these seconds; a super-packet counts as many as it stands for.
    count: u64,
    /// Packets dropped since the gateway started.
    total: u64,
    /// What it means.
    help: &'static str,
    /// What to do about it.
    advice: &'static str,
    /// Some of the last ones, the latest first; older than `seconds`, if there were none since.
    examples: Vec<DropExample>,
}

/// A packet that was dropped. Of many at a time only some are kept.
#[derive(Debug, Serialize, ToSchema)]
struct DropExample {
    /// When, in seconds since 1970.
    unix_seconds: f64,
    /// The worker that dropped it.
    worker: u16,
    /// In whose ledger it is counted: `tun`, what came from the networks, or `udp`, what came back
    /// from appliances.
    side: &'static str,
    /// Where it had come in or how far it had come, or where it was to leave: as `subnet:NAME`. Null
    /// for a datagram, and where the place is there no more.
    origin: Option<String>,
    /// Of a datagram, who sent it or to whom it was to go.
    #[schema(value_type = Option<String>)]
    peer: Option<SocketAddr>,
    /// The inner packet's protocol, addresses and ports, in its direction, such as
    /// `tcp 10.0.1.11:43512 > 203.0.113.7:443`. Null if there is nothing of the kind in it.
    flow: Option<String>,
    /// The endpoint that its Geneve header names: by its name or, if none has it, its id on the wire.
    endpoint: Option<String>,
    /// The flow cookie in its Geneve header.
    cookie: Option<String>,
    /// How many packets it stands for.
    segments: u64,
    /// Its length in bytes; of a datagram, from its Geneve header on.
    length: usize,
    /// Its first bytes in hexadecimal, at most 128 of them.
    head: String,
    /// Packets that the same worker has dropped since for the same reason.
    since: u64,
}

/// What was dropped in the last seconds, why, and what to do about it, with examples.
///
/// `seconds` is 1 to 600; 60 if nothing is said.
#[utoipa::path(
    get,
    path = "/v1/drops",
    tag = "gateway",
    params(("seconds" = Option<u64>, Query, minimum = 1, maximum = 600, description = "How far back")),
    responses((status = 200, body = Drops), Refusals),
)]
async fn drops(State(served): State<Served>, query: Query) -> Result<Json<Drops>, Problem> {
    query.only(&["seconds"])?;
    let seconds = query.number_within("seconds", 1, MEMORY)?.unwrap_or(SECONDS);
    let view = served.view().await;
    Ok(Json(told(&served.shared, view.snapshot.as_deref(), Duration::from_secs(seconds))))
}

fn told(shared: &Shared, view: Option<&Snapshot>, duration: Duration) -> Drops {
    let workers = || shared.stats.iter().map(AsRef::as_ref);
    let history = shared.drop_history.lock();
    let (counts, long) = history.in_the_last(duration, workers(), clock::now());
    drop(history);
    let totals = drops::total(workers());
    let happened = DropReason::ALL.iter().filter(|reason| totals[**reason as usize] > 0);
    let mut reasons: Vec<_> = happened
        .map(|&reason| {
            let records = shared.drops.iter();
            let mut examples: Vec<_> = records.flat_map(|record| record.examples(reason)).collect();
            examples.sort_by_key(|(example, _)| std::cmp::Reverse(example.time));
            examples.truncate(drops::EXAMPLES);
            Reason {
                reason: reason.name(),
                count: counts[reason as usize],
                total: totals[reason as usize],
                help: reason.help(),
                advice: reason.advice(),
                examples: examples
                    .iter()
                    .map(|(example, since)| decoded(example, *since, view))
                    .collect(),
            }
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse((reason.count, reason.total)));
    Drops { seconds: long.as_secs_f64(), reasons }
}

fn decoded(example: &Example, since: u64, view: Option<&Snapshot>) -> DropExample {
    let (tags, inner) =
        if example.is_encapsulated() { opened(&example.head) } else { (None, &example.head[..]) };
    let mut head = String::with_capacity(2 * example.head.len());
    for byte in &example.head {
        // A string takes anything.
        let _ = write!(head, "{byte:02x}");
    }
    DropExample {
        unix_seconds: example.time.as_secs_f64(),
        worker: example.worker.0,
        side: match example.side {
            Side::Tun => "tun",
            Side::Udp => "udp",
        },
        origin: (!example.place.is_empty()).then(|| example.place.clone()),
        peer: example.peer,
        flow: flow_of_start(inner).map(|flow| Shown(&flow).to_string()),
        endpoint: tags.map(|tags| endpoint_name(tags.endpoint, view)),
        cookie: tags.map(|tags| format!("{:#010x}", tags.cookie)),
        segments: example.segments,
        length: example.len,
        head,
        since,
    }
}
