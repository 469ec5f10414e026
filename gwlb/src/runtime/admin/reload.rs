//! `/v1/reload`: another configuration takes the place of the present one.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use router::source::Source;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::intake::{self, Query};
use super::problem::{Problem, Refusals};
use crate::runtime::control_handle::ReloadReport;

/// The longest configuration, in bytes.
const MAX_CONFIGURATION: usize = 4 * 1024 * 1024;

/// What a configuration that comes in a body is called in what is said of it.
const NAME: &str = "request";

pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::new().routes(routes!(reload))
}

/// Takes up the configuration in the body, or the file that the gateway was started from if the
/// body is empty. It is checked whole, and a wrong one changes nothing.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "gateway",
    params(("dry_run" = Option<bool>, Query, description = "Only say what would change")),
    request_body(
        content = Option<String>,
        content_type = "application/toml",
        description = "A configuration (TOML, at most 4 MiB); empty: the gateway's own file",
    ),
    responses((status = 200, body = ReloadReport), Refusals),
)]
async fn reload(
    State(served): State<Served>,
    query: Query,
    request: Request,
) -> Result<Json<ReloadReport>, Problem> {
    query.only(&["dry_run"])?;
    let dry_run = query.flag("dry_run")?;
    let (parts, body) = request.into_parts();
    let body = intake::body(&parts.headers, body, MAX_CONFIGURATION, served.limits).await?;
    let source = if body.is_empty() {
        None
    } else {
        intake::is_of_type(&parts.headers, &["application/toml"])?;
        let text = std::str::from_utf8(&body).map_err(|error| {
            let detail = format!("the configuration is not UTF-8: {error}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        Some(Source::new(NAME, text))
    };
    let (_turn, control) = served.in_turn().await;
    Ok(Json(control.reload(source, dry_run).await?))
}
