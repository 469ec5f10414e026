//! What a monitoring system asks for: `/live`, `/ready`, `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::problem::Problem;
use crate::runtime::metrics;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(show))
}

/// Whether the process lives.
#[utoipa::path(
    get,
    path = "/live",
    tag = "monitoring",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
async fn live() -> &'static str {
    "live\n"
}

/// Whether the gateway takes packets in.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "monitoring",
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "It does"),
        (status = 503, body = String, content_type = "text/plain", description = "It is ending"),
    ),
)]
async fn ready(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.shared.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Every counter and gauge, in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "monitoring",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
async fn show(State(served): State<Served>) -> Response {
    match metrics::render(served.status().await) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}
