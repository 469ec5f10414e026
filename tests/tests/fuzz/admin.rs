//! The admin API: any request gets a well-formed answer, and whatever is refused is refused as a
//! problem with its details (RFC 9457).

use std::path::Path;

use gwlb::runtime::fuzz::{AdminApi, Answer};
use hyper::Request;
use router::source::Source;
use serde_json::Value;

use crate::engine::fuzz;
use crate::input::Input;

fn api() -> AdminApi {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/gateway.toml");
    let settings = gwlb::config::parse(&Source::read(&path).unwrap()).unwrap();
    AdminApi::new(settings).unwrap()
}

/// What requests are made of, besides bytes that the fuzzer thinks up.
const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"];
const PATHS: [&str; 12] = [
    "/v1/status",
    "/v1/target-groups",
    "/v1/target-groups/fw",
    "/v1/target-groups/fw/targets",
    "/v1/target-groups/fw/targets/192.0.2.11",
    "/v1/target-groups/fw/targets/192.0.2.99?port=6081",
    "/v1/load-balancers",
    "/v1/load-balancers/fw/traffic-mode",
    "/v1/reload?dry_run=true",
    "/v1/openapi.json",
    "/metrics",
    "/ready",
];
const TYPES: [&str; 4] = ["application/json", "application/toml", "text/plain; charset=x", ""];

#[test]
fn requests() {
    let mut api = api();
    fuzz!(300, move |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        api.reset();
        // A few in a row, for one may leave something behind that another one finds.
        for _ in 0..4 {
            if input.is_empty() {
                break;
            }
            let Some(request) = request(&mut input) else { return };
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let answer = api.ask(request).unwrap_or_else(|error| panic!("{method} {uri}: {error}"));
            assert_well_formed(method.as_str(), &answer);
        }
    });
}

/// A request, unless it is one that HTTP does not know: hyper refuses those.
fn request(input: &mut Input<'_>) -> Option<Request<Vec<u8>>> {
    let choice = input.byte();
    let method = if choice & 0x80 > 0 { input.chunk() } else { b"" };
    let method = match method {
        [] => METHODS[usize::from(choice & 7) % METHODS.len()].as_bytes(),
        other => other,
    };
    let mut path = input.pick(&PATHS).as_bytes().to_vec();
    if choice & 0x40 > 0 {
        let keep = input.below(path.len() + 1);
        path.truncate(keep);
        path.extend_from_slice(input.chunk());
    }
    let kind = input.pick(&TYPES);
    let body = input.long_chunk().to_vec();
    let mut request = Request::builder().method(method).uri(path);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    if choice & 0x20 > 0 {
        request = request.header("content-length", input.chunk()).header("expect", "100-continue");
    }
    request.body(body).ok()
}

fn assert_well_formed(method: &str, answer: &Answer) {
    let Answer { status, content_type, body } = answer;
    assert!((200..600).contains(status) && *status != 500, "{answer:?}");
    if method == "HEAD" {
        return;
    }
    let json = content_type == "application/json" || content_type == "application/problem+json";
    let value: Option<Value> = json.then(|| serde_json::from_slice(body).unwrap());
    if *status >= 400 {
        // Only what monitoring asks has answers of its own.
        assert_eq!(content_type, "application/problem+json", "{answer:?}");
        let value = value.unwrap();
        assert_eq!(value["status"], *status, "{value}");
        for text in ["title", "detail"] {
            assert!(value[text].as_str().is_some_and(|text| !text.is_empty()), "{value}");
        }
        if *status == 422 {
            let problems = value["problems"].as_array().unwrap();
            assert!(!problems.is_empty(), "{value}");
        }
        if *status == 409 && value["changes"].is_array() {
            let changes = value["changes"].as_array().unwrap();
            assert!(changes.iter().any(|change| change["restart"] == true), "{value}");
        }
    } else if let Some(value) = value {
        assert!(value.is_object(), "{value}");
        if let Some(items) = value.get("items") {
            assert!(items.is_array() && value["next"].is_null(), "{value}");
        }
    }
}

#[test]
fn connections() {
    let mut api = api();
    fuzz!(300, move |bytes: &[u8]| {
        api.reset();
        let answer = api.connection(bytes).unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        // Whoever sent a whole request gets an answer.
        if bytes.starts_with(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n") {
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    });
}
