//! `/v1/flows`: the flows that there are now, and why each is where it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::Query;
use super::problem::{Problem, Refusals};
use crate::config::{Settings, TrafficMode};
use crate::dataplane::filter::{FilterError, FlowFilter, FlowMatcher, protocol_word};
use crate::dataplane::flow_table::Inspector;
use crate::dataplane::select::scores;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::tcp_state::TcpState;
use crate::runtime::flows::{
    Cursor, Direction, FlowQuery, FoundFlows, MOST, Order, SeenFlow, SortKey, Unanswered,
};
use crate::runtime::{clock, underlay};

/// How many may have flows looked for at a time; others wait.
pub(super) const SEARCHES: usize = 4;

/// Flows in an answer, unless more or fewer are asked for.
const USUALLY: usize = 100;

/// The most flows of which the candidates are told, too.
const EXPLAINED: usize = 100;

/// The parameters besides the filter.
const OTHERS: [&str; 4] = ["sort", "limit", "next", "candidates"];

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(count))
}

/// Which flows are meant: those of which all is true that is said.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used: what is wrong is told by the filter")]
struct FilterParameters {
    /// An address or a prefix of either end.
    address: Option<String>,
    /// The port of either end.
    port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    protocol: Option<String>,
    /// One flow, in either direction: `SOURCE:PORT-DESTINATION:PORT/tcp`.
    tuple: Option<String>,
    /// The name of an endpoint, or its id on the wire.
    endpoint: Option<String>,
    /// The address of a target, with or without its port, or `bypass`: flows that nobody inspects now,
    /// those that are kept for a target included.
    target: Option<String>,
    /// How far the TCP connection is: `half_open`, `established`, `half_closed` or `closed`.
    state: Option<String>,
}

/// Which of them, and how they are told.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "as above")]
struct ListParameters {
    /// The largest first by `age`, `idle`, `packets`, `bytes` or `expires`; with a hyphen before it,
    /// the smallest. Absent: in the order of the tables.
    sort: Option<String>,
    /// How many at most: 100 unless told otherwise, and 10,000 at most.
    limit: Option<usize>,
    /// Where a list in the order of the tables goes on.
    next: Option<String>,
    /// Whether the candidates for each are told, the one that a new flow would get first; of 100
    /// flows at most.
    candidates: Option<bool>,
}

/// Flows.
#[derive(Debug, Serialize, ToSchema)]
struct FlowList {
    items: Vec<FlowEntry>,
    /// Where the list goes on, for the parameter `next`; null where nothing follows, and of sorted
    /// lists.
    next: Option<String>,
    /// How many flows match; told of sorted lists, for which all are looked at.
    matched: Option<u64>,
}

/// How many flows there are.
#[derive(Debug, Serialize, ToSchema)]
struct FlowCount {
    /// How many match.
    matched: u64,
}

/// A flow. What is null of times and counters is not known, since there are no flow records.
#[derive(Debug, Serialize, ToSchema)]
struct FlowEntry {
    /// The end that began it, where that was seen: the client.
    source: String,
    /// Its port; null where the flow is known without ports.
    source_port: Option<u16>,
    /// The other end.
    destination: String,
    /// Its port.
    destination_port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or a number; `0`: all protocols between these two.
    protocol: String,
    /// Whether it was seen who began it; if not, the source is the end with the lower address.
    initiator_known: bool,
    /// The endpoint that it goes through; by its id if it has no name any more.
    endpoint: String,
    /// The endpoint's id in the Geneve option.
    endpoint_id: String,
    /// The load balancer that serves the endpoint.
    load_balancer: Option<String>,
    /// The zone of its node.
    zone: Option<String>,
    /// The target group.
    target_group: Option<String>,
    /// Who inspects it, or whom it is kept for while it is `bypassed`; null: nobody.
    target: Option<String>,
    /// Whether its packets bypass the appliances now: it has no target, or the traffic mode of its
    /// load balancer is `bypass`. What health changes shows with its next packet.
    bypassed: bool,
    /// How far its connection is; null of all but followed TCP.
    state: Option<&'static str>,
    /// How long ago it began.
    age_seconds: Option<f64>,
    /// How long ago its last packet came.
    idle_seconds: Option<f64>,
    /// How long a flow in its state is remembered without a packet.
    idle_timeout_seconds: Option<f64>,
    /// When it will be forgotten, if no packet comes.
    expires_in_seconds: f64,
    /// Packets from source to destination, each segment of a super-packet counted.
    packets_to_destination: Option<u64>,
    /// Bytes of these, IP headers included.
    bytes_to_destination: Option<u64>,
    /// Packets from destination to source.
    packets_to_source: Option<u64>,
    /// Bytes of these.
    bytes_to_source: Option<u64>,
    /// The flow cookie, if it was made already.
    cookie: Option<String>,
    /// The UDP source port towards the target.
    outer_source_port: Option<u16>,
    /// The worker that owns it.
    worker: u16,
    /// How it came to its target.
    placed: Option<PlacedEntry>,
    /// Among whom a flow would be placed that began now.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<CandidateEntry>>,
}

/// How a flow came to its target.
#[derive(Debug, Serialize, ToSchema)]
struct PlacedEntry {
    /// `new`, `adopted`, `rebalanced`, `reopened` or `moved`.
    cause: &'static str,
    /// What that means.
    meaning: &'static str,
    /// How long ago.
    seconds_ago: f64,
}

/// A target that a flow could be placed on.
#[derive(Debug, Serialize, ToSchema)]
struct CandidateEntry {
    /// The target.
    target: String,
    /// Its effective weight.
    weight: u16,
    /// Its draw for this flow, −log2 of a uniform number, divided by the weight: the smallest wins.
    score: f64,
    /// Whether the flow is with it.
    current: bool,
}

/// The flows that there are now, of all workers. No packet waits for this.
#[utoipa::path(
    get,
    path = "/v1/flows",
    tag = "flows",
    params(FilterParameters, ListParameters),
    responses((status = 200, body = FlowList), Refusals),
)]
async fn list(State(served): State<Served>, query: Query) -> Result<Json<FlowList>, Problem> {
    let parameters: Vec<_> = FlowFilter::PARTS.iter().chain(&OTHERS).copied().collect();
    query.only(&parameters)?;
    let (sort, limit, next) = (query.get("sort"), query.get("limit"), query.get("next"));
    let candidates = query.flag("candidates")?;
    let limit = limit.map_or(Ok(USUALLY), |text| read_limit(text, MOST))?;
    if candidates && limit > EXPLAINED {
        let detail = format!("candidates are told of {EXPLAINED} flows at most: lower limit");
        return Err(Problem::bad("candidates", detail));
    }
    let order = match (sort, next) {
        (None, None) => Order::Table(Cursor::default()),
        (None, Some(next)) => Order::Table(read_cursor(next)?),
        (Some(sort), None) => read_sort(sort)?,
        (Some(_), Some(_)) => {
            let detail = "next goes on in the order of the tables, which sort is not";
            return Err(Problem::bad("next", detail));
        }
    };
    let shared = &served.shared;
    let published = shared.exchange.published.load_full();
    let matcher = matcher(&query, &published.snapshot)?;
    let found = {
        let _place = served.searches.acquire().await;
        shared.find_flows(FlowQuery { matcher, order, limit }).await?
    };
    let FoundFlows { flows, next, matched } = found;
    let teller = Teller {
        view: &published.snapshot,
        settings: shared.settings.load_full(),
        now: clock::now(),
        candidates,
    };
    let items = flows.iter().map(|flow| teller.entry(flow)).collect();
    let next = next.map(|Cursor { worker, number }| format!("{worker}:{number}"));
    Ok(Json(FlowList { items, next, matched }))
}

/// How many flows there are now.
#[utoipa::path(
    get,
    path = "/v1/flows/count",
    tag = "flows",
    params(FilterParameters),
    responses((status = 200, body = FlowCount), Refusals),
)]
async fn count(State(served): State<Served>, query: Query) -> Result<Json<FlowCount>, Problem> {
    query.only(&FlowFilter::PARTS)?;
    let published = served.shared.exchange.published.load_full();
    let meant = matcher(&query, &published.snapshot)?;
    let _place = served.searches.acquire().await;
    Ok(Json(FlowCount { matched: served.shared.count_flows(&meant).await? }))
}

fn matcher(query: &Query, view: &Snapshot) -> Result<FlowMatcher, Problem> {
    let mut filter = FlowFilter::default();
    for part in FlowFilter::PARTS {
        if let Some(value) = query.get(part) {
            filter.set(part, value)?;
        }
    }
    Ok(filter.bind(view)?)
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::bad(error.part, error.message)
    }
}

impl From<Unanswered> for Problem {
    fn from(error: Unanswered) -> Self {
        let detail = match error {
            Unanswered::Busy => "too many ask the workers already; try again",
            Unanswered::Ending => "the gateway is ending",
            Unanswered::Late => "a worker has too much to do to answer in time; ask for less",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

fn read_limit(text: &str, most: usize) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    let wrong = || Problem::bad("limit", format!("limit is 1 to {most}, and not {text:?}"));
    limit.ok_or_else(wrong)
}

fn read_cursor(text: &str) -> Result<Cursor, Problem> {
    let read = |(worker, number): (&str, &str)| {
        Some(Cursor { worker: worker.parse().ok()?, number: number.parse().ok()? })
    };
    text.split_once(':').and_then(read).ok_or_else(|| {
        Problem::bad("next", format!("next is what an answer has there, and not {text:?}"))
    })
}

fn read_sort(text: &str) -> Result<Order, Problem> {
    let (name, direction) = match text.strip_prefix('-') {
        Some(name) => (name, Direction::Smallest),
        None => (text, Direction::Largest),
    };
    let found = SortKey::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, key)| Order::By(*key, direction)).ok_or_else(|| {
        let known: Vec<_> = SortKey::ALL.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        Problem::bad("sort", format!("sort is one of {known}, or one with a hyphen before it"))
    })
}

/// Says of flows what people know things by.
struct Teller<'a> {
    view: &'a Snapshot,
    settings: Arc<Settings>,
    now: Instant,
    candidates: bool,
}

impl Teller<'_> {
    fn entry(&self, seen: &SeenFlow) -> FlowEntry {
        let (view, now, flow) = (self.view, self.now, &seen.flow);
        let ends = [flow.id.tuple.low(), flow.id.tuple.high()];
        let initiator = seen.record.and_then(|record| record.initiator);
        let source = initiator.unwrap_or_default();
        let port = |end: SocketAddr| (end.port() > 0).then_some(end.port());
        let endpoint = view.wire_ids.get(&flow.id.endpoint).copied();
        let pool = endpoint.map(|endpoint| view.pool(view.endpoint(endpoint).pool));
        let endpoint_id = format!("{:#018x}", flow.id.endpoint);
        let name = endpoint.map(|endpoint| view.topology.endpoint(endpoint).name.clone());
        let target = match flow.placement.inspector {
            Inspector::Target(slot) => view.targets.get(slot.0 as usize),
            Inspector::Bypass => None,
        };
        let group = target.and_then(|it| self.settings.target_groups.get(it.group));
        let off = pool.is_some_and(|pool| pool.traffic_mode == TrafficMode::Bypass);
        let timers = pool.map(|pool| &pool.timers);
        let timeout = timers.map(|timers| match flow.tcp {
            Some(state) => state.idle_timeout(timers),
            None => timers.other_idle,
        });
        let traffic = |end: usize| seen.record.map(|record| record.ends[end]);
        let (there, back) = (traffic(source), traffic(1 - source));
        let port_count = self.settings.gateway.source_ports_per_worker;
        let outer = usize::from(flow.placement.port) < port_count && target.is_some();
        FlowEntry {
            source: ends[source].ip().to_string(),
            source_port: port(ends[source]),
            destination: ends[1 - source].ip().to_string(),
            destination_port: port(ends[1 - source]),
            protocol: protocol_word(flow.id.tuple.protocol()),
            initiator_known: initiator.is_some(),
            endpoint: name.unwrap_or_else(|| endpoint_id.clone()),
            endpoint_id,
            load_balancer: pool.map(|pool| pool.load_balancer.clone()),
            zone: pool.map(|pool| pool.zone.clone()),
            target_group: group.map(|group| group.name.to_string()),
            target: target.map(|target| target.address.to_string()),
            bypassed: off || flow.placement.inspector == Inspector::Bypass,
            state: flow.tcp.map(TcpState::name),
            age_seconds: seen.age(now).map(seconds),
            idle_seconds: seen.idle(now).map(seconds),
            idle_timeout_seconds: timeout.map(seconds),
            expires_in_seconds: seconds(flow.deadline.saturating_duration_since(now)),
            packets_to_destination: there.map(|it| it.packets),
            bytes_to_destination: there.map(|it| it.bytes),
            packets_to_source: back.map(|it| it.packets),
            bytes_to_source: back.map(|it| it.bytes),
            cookie: seen.cookie.map(|cookie| format!("{cookie:#010x}")),
            outer_source_port: outer.then(|| {
                let port = u16::from(flow.placement.port);
                underlay::source_port(seen.worker.0, port, view.workers)
            }),
            worker: seen.worker.0,
            placed: seen.record.map(|record| PlacedEntry {
                cause: record.placed.name(),
                meaning: record.placed.help(),
                seconds_ago: seconds(seen.ago(record.placed_at, now)),
            }),
            candidates: pool.filter(|_| self.candidates).map(|pool| {
                let scores = scores(&view.keys.placement, &flow.id.tuple, &pool.candidates);
                let entry = |score: &crate::dataplane::select::Score<_>| CandidateEntry {
                    target: view.target(score.candidate.target).address.to_string(),
                    weight: score.candidate.weight,
                    score: score.cost as f64 / 2f64.powi(32) / f64::from(score.candidate.weight),
                    current: Inspector::Target(score.candidate.target) == flow.placement.inspector,
                };
                scores.iter().map(entry).collect()
            }),
        }
    }
}

/// In seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use geneve::flow::FlowKey;
    use rstest::rstest;

    use super::super::testing::Api;
    use super::*;
    use crate::dataplane::flow_table::{Flow, FlowId, Placement};
    use crate::dataplane::snapshot::TargetSlot;
    use crate::dataplane::verdict::WorkerId;
    use crate::runtime::shared::tests::idle;

    #[rstest]
    #[case("adress=10.0.0.1", "adress")]
    #[case("port=0", "port")]
    #[case("endpoint=vpce-x", "endpoint")]
    #[case("target=192.0.2.99", "target")]
    #[case("state=open", "state")]
    #[case("limit=0", "limit")]
    #[case("limit=10001", "limit")]
    #[case("sort=colour", "sort")]
    #[case("next=7", "next")]
    #[case("next=0:1&sort=age", "next")]
    #[case("candidates=true&limit=101", "candidates")]
    #[case("candidates=yes", "candidates")]
    fn what_is_wrong_is_said(#[case] parameters: &str, #[case] field: &str) {
        let api = Api::start();
        let (code, problem) = api.ask("GET", &format!("/v1/flows?{parameters}"));
        assert_eq!((code, problem["field"].as_str()), (400, Some(field)), "{problem}");
    }

    #[test]
    fn a_flow_that_is_kept_for_a_target_and_bypasses_it_is_told_as_that() {
        let shared = idle();
        let published = shared.exchange.published.load_full();
        let mut view = Snapshot::clone(&published.snapshot);
        let [from, to] = ["203.0.113.7:4711", "10.0.1.11:443"].map(|end| end.parse().unwrap());
        let tuple = FlowKey::new(from, to, 6).unwrap().canonical();
        let id = FlowId { endpoint: view.endpoints[0].wire_id, tuple };
        let told = |view: &Snapshot, inspector| {
            let now = clock::now();
            let placement = Placement { inspector, port: 0 };
            let flow = Flow { id, placement, tcp: None, deadline: now };
            let (worker, number) = (WorkerId(0), 0);
            let seen = SeenFlow { worker, number, flow, cookie: None, record: None, start: now };
            let settings = shared.settings.load_full();
            let entry = Teller { view, settings, now, candidates: false }.entry(&seen);
            (entry.target, entry.bypassed)
        };
        let with_one = Inspector::Target(TargetSlot(0));
        let address = Some(view.target(TargetSlot(0)).address.to_string());
        assert_eq!(told(&view, with_one), (address.clone(), false));
        assert_eq!(told(&view, Inspector::Bypass), (None, true));
        let pool = view.endpoints[0].pool;
        view.pools[pool.0 as usize].traffic_mode = TrafficMode::Bypass;
        assert_eq!(told(&view, with_one), (address, true));
        assert_eq!(told(&view, Inspector::Bypass), (None, true));
    }

    #[test]
    fn there_are_none_without_workers() {
        let api = Api::start();
        for sort in ["", "?sort=bytes", "?sort=-age&limit=10000"] {
            let (code, list) = api.ask("GET", &format!("/v1/flows{sort}"));
            assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(0)), "{list}");
        }
        let (code, count) = api.ask("GET", "/v1/flows/count?protocol=tcp&address=10.0.0.0/8");
        assert_eq!((code, &count["matched"]), (200, &serde_json::json!(0)));
    }
}
