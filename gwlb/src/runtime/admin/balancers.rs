//! `/v1/load-balancers`: what becomes of their packets, and the switch for bypass.

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
use crate::config::TrafficMode;
use crate::control::{CommandError, LoadBalancerStatus};

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, change))
}

/// What of a load balancer is to be as said, until the next change or reload.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoadBalancerChange {
    /// Whether its packets are inspected. `bypass` lets all of them pass uninspected.
    #[serde(default)]
    #[schema(value_type = TrafficMode)]
    traffic_mode: Option<TrafficMode>,
}

/// Every load balancer with its nodes.
#[utoipa::path(
    get,
    path = "/v1/load-balancers",
    tag = "load balancers",
    responses((status = 200, body = List<LoadBalancerStatus>), Refusals),
)]
async fn list(State(served): State<Served>) -> Json<List<LoadBalancerStatus>> {
    Json(served.view().await.load_balancers.clone().into())
}

/// One load balancer.
#[utoipa::path(
    get,
    path = "/v1/load-balancers/{load_balancer}",
    tag = "load balancers",
    params(("load_balancer" = String, Path, description = "The load balancer")),
    responses((status = 200, body = LoadBalancerStatus), Refusals),
)]
async fn show(
    State(served): State<Served>,
    InPath(name): InPath<String>,
) -> Result<Json<LoadBalancerStatus>, Problem> {
    served.load_balancer(&name).await.map(Json)
}

/// Has a load balancer's packets inspected, or lets them pass uninspected.
#[utoipa::path(
    patch,
    path = "/v1/load-balancers/{load_balancer}",
    tag = "load balancers",
    params(("load_balancer" = String, Path, description = "The load balancer")),
    request_body = LoadBalancerChange,
    responses((status = 200, body = LoadBalancerStatus), Refusals),
)]
async fn change(
    State(served): State<Served>,
    InPath(name): InPath<String>,
    query: Query,
    request: Request,
) -> Result<Json<LoadBalancerStatus>, Problem> {
    query.only(&[])?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let LoadBalancerChange { traffic_mode } = intake::json(&parts.headers, &body)?;
    let mode = traffic_mode.ok_or_else(|| {
        Problem::bad("traffic_mode", "traffic_mode is needed: load_balance or bypass")
    })?;
    {
        let (_turn, control) = served.in_turn().await;
        control.set_traffic_mode(name.clone(), mode).await?;
    }
    served.load_balancer(&name).await.map(Json)
}

impl Served {
    async fn load_balancer(&self, name: &str) -> Result<LoadBalancerStatus, Problem> {
        let view = self.view().await;
        let mut balancers = view.load_balancers.iter();
        let balancer = balancers.find(|balancer| balancer.name == name).cloned();
        let settings = self.shared.settings.load();
        balancer.ok_or_else(|| CommandError::unknown_load_balancer(name, &settings).into())
    }
}
