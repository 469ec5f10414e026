//! `/v1/capture`: copies of packets, as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::{self, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::dataplane::filter::{FilterError, FlowFilter, TargetName};
use crate::dataplane::snapshot::Snapshot;
use crate::runtime::capture::{self, Begun, CAPTURES, Point, Wanted};
use crate::runtime::clock;

/// How long a capture may be on, in seconds, and how long it is unless asked otherwise.
const SECONDS: Bound = Bound { least: 1, most: 3600, usual: 60 };
/// Packets.
const PACKETS: Bound = Bound { least: 1, most: 10_000_000, usual: 100_000 };
/// Bytes of the file.
const BYTES: Bound = Bound { least: 1024, most: 10 << 30, usual: 100 << 20 };
/// Bytes of each packet; the longest has fewer than the most.
const SNAPLEN: Bound = Bound { least: 64, most: 262_144, usual: 262_144 };

/// Pieces of a capture that wait for its client.
const PIECES: usize = 2;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(capture))
}

/// Which packets, and how many. Of the parts of the filter, all that are given have to be true.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CaptureRequest {
    /// Where: `in`, `to-appliance`, `from-appliance`, `out` and `drop`; all of them if nothing is
    /// said.
    #[serde(default)]
    points: Option<Vec<String>>,
    /// An address or a prefix that one end of the flow has.
    #[serde(default)]
    address: Option<String>,
    /// A port that one end of the flow has.
    #[serde(default)]
    #[schema(minimum = 1)]
    port: Option<u16>,
    /// The protocol: `tcp`, `udp`, `icmp`, `icmpv6` or a number.
    #[serde(default)]
    protocol: Option<String>,
    /// One flow, in either direction: `203.0.113.7:4711-10.0.1.11:443/tcp`.
    #[serde(default)]
    tuple: Option<String>,
    /// The endpoint that the flow goes through, by name or by its id on the wire.
    #[serde(default)]
    endpoint: Option<String>,
    /// The target that inspects the flow: its address, with or without port.
    #[serde(default)]
    target: Option<String>,
    /// The most bytes of each packet, outer headers included.
    #[serde(default)]
    #[schema(minimum = 64, maximum = 262_144, default = 262_144)]
    snaplen: Option<u64>,
    /// The capture ends with so many packets.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000_000, default = 100_000)]
    max_packets: Option<u64>,
    /// The capture ends with the packet that makes it so many bytes long.
    #[serde(default)]
    #[schema(minimum = 1024, maximum = 10_737_418_240_i64, default = 104_857_600)]
    max_bytes: Option<u64>,
    /// The capture ends after so many seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600, default = 60)]
    seconds: Option<u64>,
}

/// What a number may be.
struct Bound {
    least: u64,
    most: u64,
    usual: u64,
}

impl Bound {
    fn hold(&self, field: &'static str, given: Option<u64>) -> Result<u64, Problem> {
        let Self { least, most, usual } = *self;
        let given = given.unwrap_or(usual);
        let wrong =
            || Problem::bad(field, format!("{field} is {least} to {most}, and not {given}"));
        (least..=most).contains(&given).then_some(given).ok_or_else(wrong)
    }
}

impl CaptureRequest {
    fn check(&self, view: &Snapshot) -> Result<Wanted, Problem> {
        let points = match &self.points {
            None => Point::ALL.into_iter().collect(),
            Some(names) if names.is_empty() => {
                return Err(Problem::bad("points", "points are one at least; all if left out"));
            }
            Some(names) => {
                let point = |(index, name): (usize, &String)| {
                    let known = Point::ALL.map(Point::name).join(", ");
                    let wrong = || {
                        let detail = format!("there is no point {name:?}; there are {known}");
                        Problem::bad(format!("points[{index}]"), detail)
                    };
                    Point::by_name(name).ok_or_else(wrong)
                };
                names.iter().enumerate().map(point).collect::<Result<_, _>>()?
            }
        };
        let bad = |error: FilterError| Problem::bad(error.part, error.message);
        let port = self.port.map(|port| port.to_string());
        let parts = [
            ("address", &self.address),
            ("port", &port),
            ("protocol", &self.protocol),
            ("tuple", &self.tuple),
            ("endpoint", &self.endpoint),
            ("target", &self.target),
        ];
        let mut filter = FlowFilter::default();
        for (part, value) in parts {
            if let Some(value) = value {
                filter.set(part, value).map_err(bad)?;
            }
        }
        if filter.target == Some(TargetName::Bypass) {
            let detail = "target is an address: what goes past the appliances is at no target";
            return Err(Problem::bad("target", detail));
        }
        Ok(Wanted {
            points,
            matcher: filter.bind(view).map_err(bad)?,
            filter,
            snaplen: SNAPLEN.hold("snaplen", self.snaplen)? as usize,
            max_packets: PACKETS.hold("max_packets", self.max_packets)?,
            max_bytes: BYTES.hold("max_bytes", self.max_bytes)?,
            duration: Duration::from_secs(SECONDS.hold("seconds", self.seconds)?),
        })
    }
}

/// Captures packets as they pass: the answer is a pcapng file that grows until a bound is reached, the
/// client goes away, or the gateway drains.
///
/// Each point is an interface of the file, and each packet has a comment that says what the gateway
/// knows of it. Packets wait for no capture: what a client takes too slowly is left out of it, and so
/// is what workers have no time to look at; the statistics at its end say how many those are. At most
/// four captures are on at a time.
#[utoipa::path(
    post,
    path = "/v1/capture",
    tag = "gateway",
    request_body = CaptureRequest,
    responses(
        (status = 200, content_type = "application/x-pcapng", description = "The capture"),
        Refusals,
    ),
)]
async fn capture(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let asked: CaptureRequest = intake::json(&parts.headers, &body)?;
    let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    let view = served.view().await;
    let view = view.snapshot.as_ref().filter(|_| !served.shared.is_draining());
    let view = view.ok_or_else(|| unavailable("the gateway is shutting down".to_owned()))?;
    let wanted = asked.check(view)?;
    let now = (clock::now(), clock::wall_clock());
    let begun = Begun::new(Arc::clone(&served.shared), wanted, now).map_err(|_| {
        unavailable(format!("{CAPTURES} captures are on, and there may be no more at a time"))
    })?;
    let begun = Arc::new(begun);
    let (to, pieces) = mpsc::channel(PIECES);
    capture::start(Arc::clone(&begun), to)
        .map_err(|error| unavailable(format!("there is no thread for a capture: {error}")))?;
    let of_type = [(header::CONTENT_TYPE, "application/x-pcapng")];
    Ok((of_type, Body::new(Pieces { pieces, begun })).into_response())
}

/// An answer that comes piece by piece. When it is at its end, or nobody takes it any more, the capture
/// is over.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    begun: Arc<Begun>,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.begun.end();
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
