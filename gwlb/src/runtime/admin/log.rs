//! `/v1/log`: what is logged.

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
use crate::logging::{self, FilterError};
use crate::runtime::events::GatewayEvent;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(show, change))
}

/// What is logged.
#[derive(Debug, Serialize, ToSchema)]
struct Log {
    /// Levels, for all of the program or for parts of it.
    #[schema(example = "info,gwlb::control=debug")]
    filter: String,
}

/// What is to be logged, until the next change or the end.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogChange {
    /// Levels (`error`, `warn`, `info`, `debug`, `trace` or `off`), for all of the program or for
    /// parts of it.
    #[serde(default)]
    #[schema(value_type = String, example = "info,gwlb::control=debug")]
    filter: Option<String>,
}

/// What is logged now.
#[utoipa::path(
    get,
    path = "/v1/log",
    tag = "gateway",
    responses((status = 200, body = Log), Refusals),
)]
async fn show() -> Result<Json<Log>, Problem> {
    Ok(Json(Log { filter: logging::filter()? }))
}

/// Has something else logged.
#[utoipa::path(
    put,
    path = "/v1/log",
    tag = "gateway",
    request_body = LogChange,
    responses((status = 200, body = Log), Refusals),
)]
async fn change(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Json<Log>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let LogChange { filter } = intake::json(&parts.headers, &body)?;
    let filter = filter.ok_or_else(|| {
        Problem::bad("filter", "filter is needed, such as \"info,gwlb::control=debug\"")
    })?;
    let (from, to) = logging::set_filter(&filter)?;
    if from != to {
        served.shared.events.publish(GatewayEvent::LogFilter { from, to: to.clone() });
    }
    Ok(Json(Log { filter: to }))
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        let detail = error.to_string();
        match error {
            FilterError::Wrong { .. } | FilterError::TooLong => Self::bad("filter", detail),
            FilterError::NotOurs => Self::new(StatusCode::CONFLICT, detail),
        }
    }
}
