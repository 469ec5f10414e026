//! `/v1/target-groups/{group}/targets`: what is thought of targets, registration, deregistration.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::api::List;
use super::intake::{self, InPath, MAX_JSON, Query};
use super::problem::{Problem, Refusals};
use crate::config::{Port, Weight};
use crate::control::{CommandError, TargetSpec, TargetStatus};
use crate::runtime::control_handle::ControlError;

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, register, deregister))
}

/// What of a target is to be as said. What is not said stays as it is; for a new target the zone is
/// the only one that there is, and the weight 100.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    /// The zone that it stands in: one in which its load balancer has a node.
    #[serde(default, deserialize_with = "zone")]
    #[schema(example = "az1", min_length = 1)]
    zone: Option<String>,
    /// Its share of new flows, relative to the others. 0: it gets none.
    #[serde(default, deserialize_with = "weight")]
    #[schema(value_type = Option<u16>, minimum = 0, maximum = 1000, example = 100)]
    weight: Option<Weight>,
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let zone = Option::<String>::deserialize(deserializer)?;
    match zone {
        Some(zone) if zone.is_empty() => Err(de::Error::custom("a zone has a name")),
        zone => Ok(zone),
    }
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Weight>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    let weight = value.as_i64().and_then(|weight| Weight::new(weight).ok());
    let wrong = || de::Error::custom(format!("weight is 0 to {}, and not {value}", Weight::MAX));
    weight.map(Some).ok_or_else(wrong)
}

/// The targets of a group, those that drain included.
#[utoipa::path(
    get,
    path = "/v1/target-groups/{group}/targets",
    tag = "targets",
    params(("group" = String, Path, description = "The target group")),
    responses((status = 200, body = List<TargetStatus>), Refusals),
)]
async fn list(
    State(served): State<Served>,
    InPath(group): InPath<String>,
) -> Result<Json<List<TargetStatus>>, Problem> {
    let view = served.view().await;
    let targets = view.targets.iter().filter(|target| target.target_group == group);
    let targets: Vec<_> = targets.cloned().collect();
    if targets.is_empty() {
        // A group that a reload has taken away is there until its targets are.
        served.group(&group)?;
    }
    Ok(Json(targets.into()))
}

/// One target.
#[utoipa::path(
    get,
    path = "/v1/target-groups/{group}/targets/{address}",
    tag = "targets",
    params(
        ("group" = String, Path, description = "The target group"),
        ("address" = String, Path, description = "The target's IP address", example = "192.0.2.13"),
        ("port" = Option<u16>, Query, description = "Its port; absent: the group's", minimum = 1),
    ),
    responses((status = 200, body = TargetStatus), Refusals),
)]
async fn show(
    State(served): State<Served>,
    InPath((group, address)): InPath<(String, String)>,
    query: Query,
) -> Result<Json<TargetStatus>, Problem> {
    let Named { address, port } = Named::take(&address, &query)?;
    served.target(&group, address, port).await.map(Json)
}

/// Registers a target, or changes zone or weight of one that is registered. One that drains is
/// restored with the flows that it has.
#[utoipa::path(
    put,
    path = "/v1/target-groups/{group}/targets/{address}",
    tag = "targets",
    params(
        ("group" = String, Path, description = "The target group"),
        ("address" = String, Path, description = "The target's IP address", example = "192.0.2.13"),
        ("port" = Option<u16>, Query, description = "Its port; absent: the group's", minimum = 1),
    ),
    request_body(content = Option<Registration>, description = "Empty: all as it is, or as usual"),
    responses((status = 200, body = TargetStatus), Refusals),
)]
async fn register(
    State(served): State<Served>,
    InPath((group, address)): InPath<(String, String)>,
    query: Query,
    request: Request,
) -> Result<Json<TargetStatus>, Problem> {
    let Named { address, port } = Named::take(&address, &query)?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_JSON, served.limits).await?;
    let Registration { zone, weight } = intake::json(&parts.headers, &body)?;
    {
        let (_turn, control) = served.in_turn().await;
        let target = TargetSpec { address, port, zone, weight };
        control.register(group.clone(), target).await?;
    }
    served.target(&group, address, port).await.map(Json)
}

/// Deregisters a target: it gets no new flows, and drains. One that drains already goes on.
#[utoipa::path(
    delete,
    path = "/v1/target-groups/{group}/targets/{address}",
    tag = "targets",
    params(
        ("group" = String, Path, description = "The target group"),
        ("address" = String, Path, description = "The target's IP address", example = "192.0.2.13"),
        ("port" = Option<u16>, Query, description = "Its port; absent: the group's", minimum = 1),
    ),
    responses((status = 200, body = TargetStatus), Refusals),
)]
async fn deregister(
    State(served): State<Served>,
    InPath((group, address)): InPath<(String, String)>,
    query: Query,
) -> Result<Json<TargetStatus>, Problem> {
    let Named { address, port } = Named::take(&address, &query)?;
    let done = {
        let (_turn, control) = served.in_turn().await;
        control.deregister(group.clone(), address, port).await
    };
    match done {
        // It may be on its way out already.
        Ok(()) | Err(ControlError::Command(CommandError::UnknownTarget { .. })) => {
            served.target(&group, address, port).await.map(Json)
        }
        Err(error) => Err(error.into()),
    }
}

/// Which target is meant.
struct Named {
    address: IpAddr,
    port: Option<Port>,
}

impl Named {
    fn take(address: &str, query: &Query) -> Result<Self, Problem> {
        query.only(&["port"])?;
        Ok(Self { address: intake::address(address)?, port: query.port()? })
    }
}

impl Served {
    /// The port of a group that there is.
    fn group(&self, name: &str) -> Result<Port, CommandError> {
        let settings = self.shared.settings.load();
        let mut groups = settings.target_groups.iter();
        let group = groups.find(|group| group.name.as_str() == name);
        let unknown = || CommandError::unknown_group(name, &settings);
        group.map(|group| group.port).ok_or_else(unknown)
    }

    async fn target(
        &self,
        group: &str,
        address: IpAddr,
        port: Option<Port>,
    ) -> Result<TargetStatus, Problem> {
        let view = self.view().await;
        let port = match port {
            Some(port) => port,
            None => self.group(group)?,
        };
        let address = SocketAddr::new(address, port.get());
        let name = address.to_string();
        let mut targets = view.targets.iter();
        let target = targets.find(|it| it.target_group == group && it.address == name);
        if target.is_none() {
            self.group(group)?;
        }
        let unknown = || CommandError::UnknownTarget { group: group.to_owned(), address }.into();
        target.cloned().ok_or_else(unknown)
    }
}
