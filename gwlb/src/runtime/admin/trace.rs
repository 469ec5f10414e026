//! `/v1/trace`: the way of a packet through the tables of the running gateway, with the target that
//! its flow would get.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use router::trace::{Packet, Protocol, Trace, UnknownProtocol};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::{self, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::dataplane::inspection::Balancer;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(trace))
}

/// A packet that nobody sends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TraceRequest {
    /// Where it enters: `internet_gateway:NAME`, `subnet:NAME`, `endpoint:NAME`, …
    #[serde(default)]
    #[schema(value_type = String)]
    from: Option<String>,
    /// The address that it is for.
    #[serde(default)]
    #[schema(value_type = String)]
    to: Option<IpAddr>,
    /// The address that it comes from.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    source: Option<IpAddr>,
    /// Its protocol: `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    #[serde(default)]
    protocol: Option<String>,
    /// The port that it comes from.
    #[serde(default)]
    source_port: Option<u16>,
    /// The port that it goes to.
    #[serde(default)]
    destination_port: Option<u16>,
    /// Whether its answer is followed, too; without a source, to a likely address.
    #[serde(default)]
    answer: bool,
    /// Whether the way is told in words, too: `text` of the answer.
    #[serde(default)]
    text: bool,
}

/// The way of a packet.
#[derive(Debug, Serialize, ToSchema)]
struct TraceAnswer {
    /// Hop by hop, as `router trace --json` prints it.
    #[schema(value_type = Object)]
    trace: Trace,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Follows a packet hop by hop, without sending one. Flows that there are may be with other targets:
/// what is told is what a new one would get.
#[utoipa::path(
    post,
    path = "/v1/trace",
    tag = "routing",
    request_body = TraceRequest,
    responses(
        (status = 200, body = TraceAnswer),
        Refusals,
    ),
)]
async fn trace(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Json<TraceAnswer>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let asked: TraceRequest = intake::json(&parts.headers, &body)?;
    let to = asked.to.ok_or_else(|| Problem::bad("to", "to is needed: an address"))?;
    let from = asked.from.ok_or_else(|| Problem::bad("from", "from is needed: a place"))?;
    let view = served.view().await;
    let Some(snapshot) = &view.snapshot else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down"));
    };
    let topology = &*snapshot.topology;
    let from = topology.entry(&from).map_err(|error| Problem::bad("from", error.to_string()))?;
    let protocol: Option<Protocol> = asked
        .protocol
        .map(|protocol| protocol.parse())
        .transpose()
        .map_err(|error: UnknownProtocol| Problem::bad("protocol", error.to_string()))?;
    let likely = || asked.answer.then(|| topology.likely_source(from, to)).flatten();
    let packet = Packet {
        source: asked.source.or_else(likely),
        destination: to,
        protocol,
        source_port: asked.source_port,
        destination_port: asked.destination_port,
    };
    if packet.source.is_some_and(|source| source.is_ipv4() != to.is_ipv4()) {
        return Err(Problem::bad("source", "source and to are of two families"));
    }
    let inside = topology.inside(from, &packet);
    let balancer = Balancer::new(snapshot, &inside);
    let mut trace = topology.trace_packet(from, &packet, &balancer);
    if asked.answer {
        trace.back = topology.trace_answer(&trace, &balancer).map(Box::new);
    }
    let text = asked.text.then(|| trace.to_string());
    Ok(Json(TraceAnswer { trace, text }))
}
