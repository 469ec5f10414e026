//! Room for answers that wait for their readers.
//!
//! An answer is made whole, and is in memory until its reader has taken it, which a slow one does at
//! its own pace. What a crowd of slow readers can hold so is bounded: a large answer has room for its
//! bytes until the last of them is on its way, and one for which there is no room is not given.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Answers of at most so many bytes need no room: the number of connections bounds them.
const SMALL: u64 = 16 * 1024;

/// So much of a large answer is given to its connection at a time, which may copy what it is given.
const PIECE: usize = 16 * 1024;

/// Lets the large answers of a router have so many bytes of room altogether. One that is larger than
/// all of it is given alone.
pub(super) fn bounded(router: Router, bytes: u32) -> Router {
    let room = Room { bytes, free: Arc::new(Semaphore::new(bytes as usize)) };
    router.layer(from_fn_with_state(room, hold))
}

#[derive(Debug, Clone)]
struct Room {
    bytes: u32,
    /// A permit for each byte.
    free: Arc<Semaphore>,
}

async fn hold(State(room): State<Room>, request: Request, next: Next) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    // What has no length is made while it is taken: events and captures, which have places.
    let length = body.size_hint().exact().unwrap_or(0);
    if length <= SMALL {
        return Response::from_parts(parts, body);
    }
    let length = u32::try_from(length).unwrap_or(u32::MAX).min(room.bytes);
    let Ok(room) = room.free.try_acquire_many_owned(length) else {
        let detail = "there are too many large answers already that their readers have not taken; \
                      ask again, or for less";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    // It has a length and so is there already.
    match body.collect().await {
        Ok(whole) => {
            let bytes = Bytes::from_owner(Held { bytes: whole.to_bytes(), _room: room });
            Response::from_parts(parts, Body::new(Pieces(bytes)))
        }
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// Bytes of an answer with their room, which is free when the last of them is.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What of an answer has not been given to its connection yet.
struct Pieces(Bytes);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let length = PIECE.min(self.0.len());
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::super::Limits;
    use super::super::testing::{Api, exchange};
    use super::*;
    use crate::runtime::clock;

    const LARGE: &str = "/v1/openapi.json";

    #[test]
    fn large_answers_that_nobody_takes_leave_no_room_for_more() {
        // Each is larger than that, so that there is room for one at a time.
        let api = Api::with(Limits { answers: 1, ..Limits::default() });
        let status = || api.ask("GET", LARGE).0;
        for _ in 0..5 {
            assert_eq!(status(), 200, "who takes it makes room");
        }
        // More than fits on the way to somebody who does not read.
        let mut deaf = api.connect();
        let request = format!("GET {LARGE} HTTP/1.1\r\nHost: x\r\n\r\n");
        deaf.write_all(request.repeat(100).as_bytes()).unwrap();
        let begun = clock::now();
        let in_time = || assert!(begun.elapsed() < Duration::from_secs(8), "nothing has changed");
        while status() != 503 {
            in_time();
        }
        let (_, problem) = api.ask("GET", LARGE);
        assert!(problem["detail"].as_str().unwrap().contains("too many large answers"));
        assert_eq!(api.ask("GET", "/v1/target-groups").0, 200, "small ones need no room");
        drop(deaf);
        while status() != 200 {
            in_time();
        }
    }

    #[test]
    fn a_large_answer_comes_as_it_was_made() {
        let whole = |answers| {
            let api = Api::with(Limits { answers, ..Limits::default() });
            let (head, body) = exchange(&api.socket, "GET", LARGE, &[], b"");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            body
        };
        let body = whole(1);
        assert!(body.len() > 2 * PIECE && body.len() as u64 > SMALL);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        assert_eq!(body, whole(u32::MAX));
    }
}
