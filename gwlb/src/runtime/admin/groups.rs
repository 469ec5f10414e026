//! `/v1/target-groups`: what groups there are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::api::List;
use super::problem::Refusals;
use crate::config::{TargetGroup, WhenNoneHealthy};
use crate::control::{TargetState, TargetStatus};

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A target group, and how many of its targets are in which state.
#[derive(Debug, Serialize, ToSchema)]
struct GroupStatus {
    /// Its name.
    name: String,
    /// The load balancers that forward to it.
    load_balancers: Vec<String>,
    /// The Geneve options that its targets understand.
    dialect: &'static str,
    /// The UDP port on which targets take Geneve, unless they have one of their own.
    port: u16,
    /// Which packets count as one flow: `5-tuple`, `3-tuple` or `2-tuple`.
    stickiness: &'static str,
    /// How long a deregistered target drains at most.
    deregistration_delay_seconds: u64,
    /// Where new flows go when no target is healthy.
    when_none_healthy: WhenNoneHealthy,
    /// How many targets are in which state.
    targets: StateCounts,
}

/// How many targets are in which state.
#[derive(Debug, Default, Serialize, ToSchema)]
struct StateCounts {
    /// Registered, and not found healthy or unhealthy yet.
    initial: usize,
    /// They pass their checks.
    healthy: usize,
    /// They fail them.
    unhealthy: usize,
    /// They get no flows: deregistered, or behind no load balancer.
    unused: usize,
    /// Deregistered, and the delay has not passed.
    draining: usize,
    /// Health checks are off, or cannot be made.
    unavailable: usize,
}

impl StateCounts {
    fn of<'a>(targets: impl Iterator<Item = &'a TargetStatus>) -> Self {
        let mut counts = Self::default();
        for target in targets {
            *match target.state {
                TargetState::Initial => &mut counts.initial,
                TargetState::Healthy => &mut counts.healthy,
                TargetState::Unhealthy => &mut counts.unhealthy,
                TargetState::Unused => &mut counts.unused,
                TargetState::Draining => &mut counts.draining,
                TargetState::Unavailable => &mut counts.unavailable,
            } += 1;
        }
        counts
    }
}

/// Every target group.
#[utoipa::path(
    get,
    path = "/v1/target-groups",
    tag = "targets",
    responses((status = 200, body = List<GroupStatus>), Refusals),
)]
async fn list(State(served): State<Served>) -> Json<List<GroupStatus>> {
    let view = served.view().await;
    let settings = served.shared.settings.load();
    let status = |group: &TargetGroup| {
        let name = group.name.as_str();
        let balancers = view.load_balancers.iter().filter(|it| it.target_group == name);
        GroupStatus {
            name: name.to_owned(),
            load_balancers: balancers.map(|balancer| balancer.name.clone()).collect(),
            dialect: group.dialect.name(),
            port: group.port.get(),
            stickiness: group.stickiness.name(),
            deregistration_delay_seconds: group.deregistration_delay.as_secs(),
            when_none_healthy: group.when_none_healthy,
            targets: StateCounts::of(view.targets.iter().filter(|it| it.target_group == name)),
        }
    };
    Json(settings.target_groups.iter().map(status).collect::<Vec<_>>().into())
}
