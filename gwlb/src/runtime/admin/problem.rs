//! Errors of the API: RFC 9457 problem details.

use std::collections::BTreeMap;
use std::io;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::config::{Change, ProblemReport};
use crate::control::CommandError;
use crate::runtime::StartError;
use crate::runtime::control_handle::{ControlError, ReloadError};

/// Why a request was refused; nothing has changed (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What the status means.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request, and what would be right.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// What of the request is wrong: a part of the path, a parameter, or a field of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub field: Option<Box<str>>,
    /// The configuration that has problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub file: Option<Box<str>>,
    /// What is wrong with a configuration (422), as `gwlb check --json` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<ProblemReport>>,
    /// All that a configuration would change, of which something takes a restart (409).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<Box<str>>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            file: None,
            problems: None,
            changes: None,
        }
    }

    /// A value that is not what it may be.
    pub fn bad(field: impl Into<Box<str>>, detail: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).field(field)
    }

    pub fn field(mut self, field: impl Into<Box<str>>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, content_type, Json(self)).into_response()
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::UnknownGroup { .. }
            | CommandError::UnknownLoadBalancer { .. }
            | CommandError::UnknownEndpointGroup { .. }
            | CommandError::UnknownTarget { .. } => StatusCode::NOT_FOUND,
            CommandError::TooMany { .. }
            | CommandError::TooManyLeaving
            | CommandError::NotSwitched { .. } => StatusCode::CONFLICT,
            CommandError::NotAMember { .. }
            | CommandError::NoNodeInZone { .. }
            | CommandError::ZoneMissing { .. }
            | CommandError::Family { .. } => StatusCode::BAD_REQUEST,
        };
        Self { field: error.field().map(Box::from), ..Self::new(status, error.to_string()) }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Command(error) => error.into(),
            ControlError::Resources(error) => error.into(),
            ControlError::Ending => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let status = match &error {
            // Without a restart it will never be had.
            StartError::Fixed(_) | StartError::OnlyAtStart(_) => StatusCode::CONFLICT,
            StartError::Udp { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                StatusCode::CONFLICT
            }
            // The machine lacks something, and may have it later.
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::NoFile => Self::new(StatusCode::CONFLICT, detail),
            ReloadError::Wrong(problems) => {
                let (count, file) = (problems.len(), problems.source().name().to_owned());
                let noun = if count == 1 { "problem" } else { "problems" };
                Self {
                    problems: Some(ProblemReport::list(&problems)),
                    file: Some(file.into()),
                    ..Self::new(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        format!("the configuration has {count} {noun}; nothing has changed"),
                    )
                }
            }
            ReloadError::Restart(changes) => {
                Self { changes: Some(changes), ..Self::new(StatusCode::CONFLICT, detail) }
            }
            ReloadError::Resources(error) => error.into(),
            ReloadError::Ending => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    }
}

/// What every request may get: for the description.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let meanings = [
            ("400", "A value is not what it may be; `field` says which"),
            ("401", "The token is missing or wrong (TCP only)"),
            ("404", "There is nothing of this name; `field` says which"),
            ("405", "The path does not take this method"),
            ("408", "The body did not come in time"),
            ("409", "It contradicts what there is, or takes a restart; see `changes`"),
            ("413", "The body is too large"),
            ("415", "The body is of another type than is taken"),
            ("422", "The configuration is wrong; see `problems`"),
            ("503", "Too many clients, or the gateway lacks something, or it is ending"),
        ];
        let response = |meaning: &str| {
            let content =
                ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
            ResponseBuilder::new()
                .description(meaning)
                .content("application/problem+json", content)
                .build()
                .into()
        };
        meanings.map(|(code, meaning)| (code.to_owned(), response(meaning))).into()
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_takes_a_restart_is_a_conflict_and_what_may_come_is_not() {
        let udp = |errno: Errno| StartError::Udp {
            address: ([192, 0, 2, 1], 443).into(),
            netns: "underlay".to_owned(),
            error: errno.into(),
        };
        for (error, status) in [
            (StartError::Fixed("outer_dont_fragment"), 409),
            (StartError::OnlyAtStart("another network namespace".to_owned()), 409),
            (udp(Errno::EACCES), 409),
            (udp(Errno::EPERM), 409),
            (udp(Errno::EADDRINUSE), 503),
            (udp(Errno::EMFILE), 503),
            (StartError::Thread(Errno::EAGAIN.into()), 503),
        ] {
            let said = error.to_string();
            assert_eq!(Problem::from(error).status, status, "{said}");
        }
    }
}
