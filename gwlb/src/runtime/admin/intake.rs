//! Taking requests apart: what is wrong is said with the name of the field.

use std::net::IpAddr;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Limits;
use super::problem::Problem;
use crate::config::Port;

/// The largest body of JSON, in bytes.
pub(super) const MAX_JSON: usize = 64 * 1024;

/// So much is read of a body that is too large before it is refused: who has sent all of it reads
/// the answer.
const MAX_THROWN_AWAY: usize = 16 * 1024 * 1024;

/// The variable parts of a path, decoded.
#[derive(Debug)]
pub(super) struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let rejected = |rejection: PathRejection| {
            Problem::new(rejection.status(), format!("the path: {}", rejection.body_text()))
        };
        Path::from_request_parts(parts, state).await.map(|Path(path)| Self(path)).map_err(rejected)
    }
}

/// The parameters behind the question mark.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// Takes no parameters but these, and none twice.
    pub fn only(&self, allowed: &[&str]) -> Result<(), Problem> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !allowed.contains(&name.as_str()) {
                let allowed = match allowed {
                    [] => "it takes none".to_owned(),
                    allowed => format!("it takes {}", allowed.join(", ")),
                };
                return Err(Problem::bad(
                    name.as_str(),
                    format!("unknown parameter {name:?}; {allowed}"),
                ));
            }
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad(name.as_str(), format!("{name} is given twice")));
            }
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn port(&self) -> Result<Option<Port>, Problem> {
        let Some(text) = self.get("port") else { return Ok(None) };
        let port = text.parse().ok().and_then(|port| Port::new(port).ok());
        let wrong = || Problem::bad("port", format!("port is 1 to 65535, and not {text:?}"));
        port.map(Some).ok_or_else(wrong)
    }

    /// A number from 0 on.
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong =
            |_| Problem::bad(name, format!("{name} is a number from 0 on, and not {text:?}"));
        text.parse().map(Some).map_err(wrong)
    }

    /// A whole number within these bounds.
    pub fn number_within(
        &self,
        name: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let wrong = || Problem::bad(name, format!("{name} is {least} to {most}, and not {text:?}"));
        number.map(Some).ok_or_else(wrong)
    }

    pub fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        self.flag_or(name, false)
    }

    pub fn flag_or(&self, name: &'static str, usual: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(usual),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(Problem::bad(name, format!("{name} is true or false, and not {other:?}")))
            }
        }
    }
}

/// An address from a path; an IPv6 address may stand in brackets, as in a URL's host.
pub(super) fn address(text: &str) -> Result<IpAddr, Problem> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    };
    address.ok_or_else(|| {
        let examples = "such as 192.0.2.13 or 2001:db8::13; a port is given as ?port=";
        Problem::bad("address", format!("{text:?} is no IP address, {examples}"))
    })
}

/// Reads a body of at most `most` bytes.
pub(super) async fn body(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    limits: Limits,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {most} bytes, and no more are taken");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let asks_first = headers.contains_key(header::EXPECT);
    let refused_at_once = if asks_first { most } else { MAX_THROWN_AWAY };
    if announced.is_some_and(|length| length > refused_at_once as u64) {
        return Err(too_large());
    }
    match timeout(limits.body, collect(body, most)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")))
        }
        Err(_) => {
            let seconds = limits.body.as_secs_f64();
            let detail = format!("the body did not come within {seconds} s");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// `None`: it has more than `most` bytes.
async fn collect(mut body: Body, most: usize) -> Result<Option<Bytes>, axum::Error> {
    let (mut bytes, mut read) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        if read <= most {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
        if read > MAX_THROWN_AWAY {
            break;
        }
    }
    Ok((read <= most).then(|| bytes.into()))
}

/// Whether the body is said to be of one of these types.
pub(super) fn is_of_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|given| given.to_str().unwrap_or_default());
    // Parameters such as the character set say nothing that matters here.
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|given| types.iter().any(|known| known.eq_ignore_ascii_case(given))) {
        return Ok(());
    }
    let given = given.map_or_else(|| "without a type".to_owned(), |given| format!("{given:?}"));
    let detail = format!("the body is to be {}, and is {given}", types.join(" or "));
    let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    Err(problem.field(header::CONTENT_TYPE.as_str()))
}

/// What a body of JSON says; an empty one says nothing.
pub(super) fn json<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    is_of_type(headers, &["application/json"])?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let (inner, mut detail) = (error.inner(), error.inner().to_string());
        // The body as a whole, and a place that has no name.
        if [".", "?"].contains(&field.as_str()) {
            return Problem::new(StatusCode::BAD_REQUEST, detail);
        }
        // Where a field has a name, nobody needs to count columns.
        let place = format!(" at line {} column {}", inner.line(), inner.column());
        detail.truncate(detail.strip_suffix(&place).map_or(detail.len(), str::len));
        Problem::bad(field, detail)
    })?;
    let end = reader.end();
    end.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(value)
}
