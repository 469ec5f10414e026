//! `/v1/events`: what has happened, and what happens, as a stream that stays open.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::List;
use super::intake::Query;
use super::problem::{Problem, Refusals};
use super::{Limits, Served, until};
use crate::runtime::events::{Event, Reader};

/// JSON, one value in each line.
const JSON_LINES: &str = "application/x-ndjson";

/// What a client sends that comes back after its connection was lost.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What has happened and what happens: the last events, and then each that comes, as server-sent
/// events or as lines of JSON.
///
/// Server-sent events are the default; lines of JSON come if `Accept` has `application/x-ndjson`. With
/// `follow=false` the answer is the list of those that there are.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "gateway",
    params(
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on; default true"),
        (
            "since" = Option<u64>,
            Query,
            description = "Only events after the one of this number; absent: all that are kept",
        ),
        (
            "Last-Event-ID" = Option<u64>,
            Header,
            description = "The same, as clients for server-sent events give it",
        ),
    ),
    responses(
        (status = 200, content(
            (List<Event> = "application/json"),
            (Event = "application/x-ndjson"),
            (String = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn events(
    State(served): State<Served>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    query.only(&["follow", "since"])?;
    let since = match query.number("since")? {
        Some(since) => Some(since),
        None => last_event_id(&headers)?,
    };
    if !query.flag_or("follow", true)? {
        let list = List::from(served.shared.events.after(since));
        return Ok(Json(list).into_response());
    }
    let Ok(place) = Arc::clone(&served.streams).try_acquire_owned() else {
        let detail = format!(
            "{} clients follow the events already, and no more can; ask with follow=false",
            served.limits.streams
        );
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let reader = served.shared.events.reader(since);
    let follower = Follower { reader, stopped: served.stopped, _place: place };
    Ok(if wants_lines(&headers) {
        ([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines(follower, served.limits)))
            .into_response()
    } else {
        let alive = KeepAlive::new().interval(served.limits.alive);
        Sse::new(server_sent(follower)).keep_alive(alive).into_response()
    })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    let wrong = || Problem::bad(LAST_EVENT_ID, "Last-Event-ID is the number of an event");
    number.map(Some).ok_or_else(wrong)
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let mut accepted = accepted.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    accepted.any(|it| it.split(';').next().is_some_and(|it| it.trim() == JSON_LINES))
}

/// Somebody who listens, in one of the places for that.
struct Follower {
    reader: Reader,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event; nothing any more when the gateway has ended.
    async fn next(&mut self) -> Option<Arc<Event>> {
        self.reader.next(until(self.stopped.clone())).await
    }
}

fn server_sent(follower: Follower) -> impl Stream<Item = Result<sse::Event, axum::Error>> {
    unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        let sent = sse::Event::default().id(event.id.to_string()).json_data(&*event);
        Some((sent, follower))
    })
}

/// The same as lines. An empty one tells whoever listens that the gateway is still there, and finds
/// out whether anybody does.
fn lines(follower: Follower, limits: Limits) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(follower, move |mut follower| async move {
        let mut line = match timeout(limits.alive, follower.next()).await {
            // Names, numbers and sentences: nothing that JSON cannot say.
            Ok(event) => serde_json::to_vec(&*event?).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        line.push(b'\n');
        Some((Ok(line.into()), follower))
    })
}
