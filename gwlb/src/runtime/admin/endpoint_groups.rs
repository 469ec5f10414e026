//! `/v1/endpoint-groups`: which zone's endpoint gets new flows, and the switch to another.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::api::List;
use super::intake::{self, InPath, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::control::{CommandError, EndpointGroupStatus};

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(switch))
}

/// Which endpoint is to get new flows.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EndpointGroupSwitch {
    /// The endpoint. It gets new flows as long as it is `Normal`, until this is taken back. Absent:
    /// back to the endpoint that is configured as active.
    #[serde(default)]
    to: Option<String>,
}

/// Every group of endpoints with its members.
#[utoipa::path(
    get,
    path = "/v1/endpoint-groups",
    tag = "endpoint groups",
    responses((status = 200, body = List<EndpointGroupStatus>), Refusals),
)]
async fn list(State(served): State<Served>) -> Json<List<EndpointGroupStatus>> {
    Json(served.view().await.endpoint_groups.clone().into())
}

/// One group of endpoints.
#[utoipa::path(
    get,
    path = "/v1/endpoint-groups/{endpoint_group}",
    tag = "endpoint groups",
    params(("endpoint_group" = String, Path, description = "The group of endpoints")),
    responses((status = 200, body = EndpointGroupStatus), Refusals),
)]
async fn show(
    State(served): State<Served>,
    InPath(name): InPath<String>,
) -> Result<Json<EndpointGroupStatus>, Problem> {
    served.endpoint_group(&name).await.map(Json)
}

/// Switches a group of endpoints to one of them, or back. Established flows stay where they are.
#[utoipa::path(
    post,
    path = "/v1/endpoint-groups/{endpoint_group}/switch",
    tag = "endpoint groups",
    params(("endpoint_group" = String, Path, description = "The group of endpoints")),
    request_body = EndpointGroupSwitch,
    responses((status = 200, body = EndpointGroupStatus), Refusals),
)]
async fn switch(
    State(served): State<Served>,
    InPath(name): InPath<String>,
    query: Query,
    request: Request,
) -> Result<Json<EndpointGroupStatus>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let EndpointGroupSwitch { to } = intake::json(&parts.headers, &body)?;
    {
        let (_turn, control) = served.in_turn().await;
        control.switch_endpoint_group(name.clone(), to).await?;
    }
    served.endpoint_group(&name).await.map(Json)
}

impl Served {
    async fn endpoint_group(&self, name: &str) -> Result<EndpointGroupStatus, Problem> {
        let view = self.view().await;
        let group = view.endpoint_groups.iter().find(|group| group.name == name).cloned();
        let settings = self.shared.settings.load();
        group.ok_or_else(|| CommandError::unknown_endpoint_group(name, &settings).into())
    }
}
