//! The routes of the API, and their description.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json, Router};
use serde::Serialize;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, Refusals};
use super::{
    Served, balancers, capture, drops, endpoint_groups, events, explain, flows, groups, log, ping,
    probes, reload, targets, trace,
};
use crate::runtime::status::Status;

/// A list, as every listing of the API has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    /// What there is.
    pub items: Vec<T>,
    /// Where the list goes on, for a parameter of the same name; null where it is whole.
    pub next: Option<String>,
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// Everything that the admin socket serves.
pub(super) fn router(served: Served) -> Router {
    let (router, openapi) = described().split_for_parts();
    // Names, numbers and sentences: nothing that JSON cannot say.
    let openapi: Arc<str> = openapi.to_json().unwrap_or_default().into();
    with_fallbacks(router.with_state(served).layer(Extension(openapi)))
}

/// Says of what is not there that it is not.
pub(super) fn with_fallbacks(router: Router) -> Router {
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

/// The routes together with what is said of them: each is described, for this is the only way in.
fn described() -> OpenApiRouter<Served> {
    OpenApiRouter::with_openapi(document())
        .routes(routes!(status))
        .merge(groups::router())
        .merge(targets::router())
        .merge(balancers::router())
        .merge(endpoint_groups::router())
        .merge(flows::router())
        .merge(events::router())
        .merge(log::router())
        .merge(reload::router())
        .merge(probes::router())
        .merge(trace::router())
        .merge(drops::router())
        .merge(capture::router())
        .merge(explain::router())
        .merge(ping::router())
        .routes(routes!(describe))
}

fn document() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("gwlb")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The admin API of the open gateway load balancer."))
        .license(Some(license))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    let mut components = utoipa::openapi::Components::new();
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    document.components = Some(components);
    document
}

/// What the gateway does: where packets went, what was dropped and why, every load balancer, every
/// target, every device.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "gateway",
    responses((status = 200, body = Status), Refusals),
)]
async fn status(State(served): State<Served>) -> Json<Status> {
    Json(served.status().await)
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "gateway",
    responses((status = 200, body = Object), Refusals),
)]
async fn describe(Extension(document): Extension<Arc<str>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

async fn no_such_path(request: Request) -> Problem {
    let path = request.uri().path();
    let detail = format!("there is nothing at {path}; /v1/openapi.json says what there is");
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn no_such_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
}
