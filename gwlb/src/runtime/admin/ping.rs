//! `/v1/ping`: a packet of the gateway's own through an appliance and back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::{self, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::control::PingError;
use crate::runtime::pings::{Outcome, PingRefused, Pinged, Times, Wanted};

/// How long a ping may take, if nothing is said.
const TIMEOUT_MS: u64 = 1_000;
/// How long it may take at most.
const MAX_TIMEOUT_MS: u64 = 10_000;
/// The longest inner packet: what fits into one UDP datagram with the longest Geneve header.
const MAX_SIZE: u16 = 65_000;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(ping))
}

/// Whom to ping.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PingRequest {
    /// The endpoint that the packets seem to come through.
    #[serde(default)]
    #[schema(value_type = String)]
    endpoint: Option<String>,
    /// The target's address; without it, every target of the endpoint's node is pinged.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    target: Option<IpAddr>,
    /// The length of the packet inside in bytes, at most 65000; shorter than it can be, it is as
    /// short as it can be, and so it is without this.
    #[serde(default)]
    size: Option<u16>,
    /// How long it may take to come back, in milliseconds: 1 to 10000, and 1000 without this.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// What became of one packet to each target.
#[derive(Debug, Serialize, ToSchema)]
struct PingAnswer {
    /// The endpoint.
    endpoint: String,
    /// By target.
    pings: Vec<Ping>,
}

/// What became of one packet.
#[derive(Debug, Serialize, ToSchema)]
struct Ping {
    /// Who was to return it.
    #[schema(value_type = String)]
    target: SocketAddr,
    /// The length of the packet inside in bytes.
    size: u16,
    /// `returned`, `lost` (not within the time), `too_long` (for the way there), or `not_sent`.
    outcome: &'static str,
    /// What the kernel said, where it refused the packet.
    error: Option<String>,
    /// How long it took to each place, if it came back.
    times: Option<PingTimes>,
}

/// How long a packet took from when it was given to the kernel, in microseconds.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "each says its unit, and the fields are the API's")]
struct PingTimes {
    /// Until the kernel had taken it.
    kernel_us: f64,
    /// Until a worker had it back from the appliance: the round trip.
    returned_us: f64,
    /// Until its mark was verified, and it was known whose it was.
    verified_us: f64,
}

impl From<Times> for PingTimes {
    fn from(Times { kernel, returned, verified }: Times) -> Self {
        let [kernel_us, returned_us, verified_us] =
            // To the nanosecond, which is what was measured.
            [kernel, returned, verified].map(|it| it.as_nanos() as f64 / 1e3);
        Self { kernel_us, returned_us, verified_us }
    }
}

impl From<PingRefused> for Problem {
    fn from(refused: PingRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            PingRefused::Nobody(PingError::UnknownEndpoint { .. }) => {
                Self::new(StatusCode::NOT_FOUND, detail).field("endpoint")
            }
            PingRefused::Nobody(PingError::UnknownTarget { .. }) => {
                Self::new(StatusCode::NOT_FOUND, detail).field("target")
            }
            PingRefused::Nobody(PingError::NoTarget { .. } | PingError::NoAddress { .. }) => {
                Self::new(StatusCode::CONFLICT, detail).field("endpoint")
            }
            PingRefused::Nobody(PingError::TooMany { .. })
            | PingRefused::TooMany
            | PingRefused::Ending => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    }
}

/// Sends one marked packet to each target of an endpoint's node, over the gateway's own sockets and
/// through the appliance, and answers when all are back or their time is over.
#[utoipa::path(
    post,
    path = "/v1/ping",
    tag = "targets",
    request_body = PingRequest,
    responses(
        (status = 200, body = PingAnswer),
        Refusals,
    ),
)]
async fn ping(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Json<PingAnswer>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let asked: PingRequest = intake::json(&parts.headers, &body)?;
    let endpoint = asked.endpoint;
    let endpoint =
        endpoint.ok_or_else(|| Problem::bad("endpoint", "endpoint is needed: a name"))?;
    let size = asked.size.unwrap_or_default();
    if size > MAX_SIZE {
        let detail = format!("size is at most {MAX_SIZE}, and not {size}");
        return Err(Problem::bad("size", detail));
    }
    let timeout = asked.timeout_ms.unwrap_or(TIMEOUT_MS);
    if !(1..=MAX_TIMEOUT_MS).contains(&timeout) {
        let detail = format!("timeout_ms is 1 to {MAX_TIMEOUT_MS}, and not {timeout}");
        return Err(Problem::bad("timeout_ms", detail));
    }
    let timeout = Duration::from_millis(timeout);
    let wanted = Wanted { endpoint: endpoint.clone(), target: asked.target, size, timeout };
    let sent = {
        let (_turn, control) = served.in_turn().await;
        control.ping(wanted).await?
    };
    let mut pings = Vec::new();
    for Pinged { target, size, outcome } in sent {
        // Without an answer, the gateway is ending.
        let outcome = outcome.await.map_err(|_| PingRefused::Ending)?;
        let (outcome, error, times) = match outcome {
            Outcome::Returned(times) => ("returned", None, Some(times.into())),
            Outcome::Lost => ("lost", None, None),
            Outcome::TooLong => ("too_long", None, None),
            Outcome::NotSent(error) => ("not_sent", Some(error), None),
        };
        pings.push(Ping { target, size, outcome, error, times });
    }
    Ok(Json(PingAnswer { endpoint, pings }))
}
