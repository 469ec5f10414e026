//! The description of the API holds: every route is in it, everything in it is there, and answers
//! are what it says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::testing::{Api, exchange, status};
use crate::control;
use crate::dataplane::snapshot::ResetCause;
use crate::runtime::events::{Event, FloodLimit, GatewayEvent, Happening};

const TARGET: &str = "/v1/target-groups/{group}/targets/{address}";
const GROUP: &str = "/v1/endpoint-groups/{endpoint_group}";
const BALANCER: &str = "/v1/load-balancers/{load_balancer}";

const TRACE: &str =
    r#"{"from": "subnet:app-a", "to": "203.0.113.7", "answer": true, "text": true}"#;

const EXPLAIN: &str = r#"{"from": "internet_gateway:igw", "source": "203.0.113.7",
    "destination": "10.0.1.11", "source_port": 4711, "destination_port": 443, "text": true}"#;

/// Everything that the API does, with a body that does it.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("get", "/v1/status", ""),
    ("get", "/v1/target-groups", ""),
    ("get", "/v1/target-groups/{group}/targets", ""),
    ("get", TARGET, ""),
    ("put", TARGET, r#"{"zone": "az1", "weight": 100}"#),
    ("delete", TARGET, ""),
    ("get", "/v1/load-balancers", ""),
    ("get", BALANCER, ""),
    ("patch", BALANCER, r#"{"traffic_mode": "bypass"}"#),
    ("get", "/v1/endpoint-groups", ""),
    ("get", GROUP, ""),
    ("post", "/v1/endpoint-groups/{endpoint_group}/switch", r#"{"to": "vpce-b"}"#),
    ("get", "/v1/flows", ""),
    ("get", "/v1/flows/count", ""),
    ("post", "/v1/trace", TRACE),
    ("post", "/v1/explain", EXPLAIN),
    ("post", "/v1/ping", r#"{"endpoint": "vpce-a", "timeout_ms": 10}"#),
    ("get", "/v1/events", ""),
    ("get", "/v1/log", ""),
    ("put", "/v1/log", r#"{"filter": "off,gwlb::control=off"}"#),
    ("get", "/v1/drops", ""),
    ("post", "/v1/capture", r#"{"points": ["in", "drop"], "port": 443, "seconds": 1}"#),
    ("post", "/v1/reload", include_str!("../../../examples/two-zones.toml")),
    ("get", "/v1/openapi.json", ""),
    ("get", "/live", ""),
    ("get", "/ready", ""),
    ("get", "/metrics", ""),
];

fn named(path: &str) -> String {
    path.replace("{group}", "fw")
        .replace("{address}", "192.0.2.11")
        .replace("{load_balancer}", "fw")
        .replace("{endpoint_group}", "inspection")
        // What ends.
        .replace("/v1/events", "/v1/events?follow=false")
}

/// Holds a document against a schema of the description. Fields that the schema does not have are
/// wrong, too.
fn hold(document: &Value, schema: &Value, description: &Value) -> Result<(), String> {
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    whole["unevaluatedProperties"] = json!(false);
    let validator = jsonschema::draft202012::new(&whole).map_err(|error| error.to_string())?;
    validator.validate(document).map_err(|error| format!("{error} in {document}"))
}

#[test]
fn everything_is_described_and_everything_described_answers_so() {
    crate::logging::tests::start_silently();
    let api = Api::start();
    let (_, description) = api.ask("GET", "/v1/openapi.json");
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let described: BTreeSet<(&str, &str)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| (method.as_str(), path.as_str()))
        })
        .collect();
    let known: BTreeSet<_> = REQUESTS.iter().map(|&(method, path, _)| (method, path)).collect();
    assert_eq!(described, known);

    for &(method, path, body) in REQUESTS {
        let operation = &description["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path} is not described");
        let content = operation["requestBody"]["content"].as_object();
        let headers: Vec<_> = content
            .iter()
            .flat_map(|content| content.keys().map(|it| format!("Content-Type: {it}")))
            .collect();
        assert_eq!(headers.is_empty(), body.is_empty(), "{method} {path}");
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        if let Some(schema) = content.and_then(|it| it.get("application/json")) {
            hold(&serde_json::from_str(body).unwrap(), &schema["schema"], &description).unwrap();
        }
        let (head, answer) =
            exchange(&api.socket, &method.to_uppercase(), &named(path), &headers, body.as_bytes());
        assert_eq!(status(&head), 200, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        let content = operation["responses"]["200"]["content"].as_object().unwrap();
        let (of_type, media) = content.iter().next().unwrap();
        assert!(head.contains(&format!("content-type: {of_type}")), "{method} {path}: {head}");
        if of_type == "application/json" && path != "/v1/openapi.json" {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            hold(&answer, &media["schema"], &description)
                .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        }
    }
}

#[test]
fn refusals_are_described() {
    let api = Api::start();
    let (_, description) = api.ask("GET", "/v1/openapi.json");
    let wrong = include_str!("../../../examples/two-zones.toml").replace("az1", "");
    let restart = "semantics = \"aws\"\nworkers = 9";
    let restart =
        include_str!("../../../examples/two-zones.toml").replace("semantics = \"aws\"", restart);
    let toml = &["Content-Type: application/toml"];
    let requests = [
        (400, api.json("PUT", &named(TARGET), r#"{"weight": -1}"#)),
        (404, api.ask("DELETE", "/v1/target-groups/fw/targets/192.0.2.99")),
        (409, api.send("POST", "/v1/reload", toml, restart.as_bytes())),
        (422, api.send("POST", "/v1/reload", toml, wrong.as_bytes())),
    ];
    for (code, (got, problem)) in requests {
        assert_eq!(got, code, "{problem}");
        let described = &description["paths"]["/v1/reload"]["post"]["responses"][code.to_string()];
        let schema = &described["content"]["application/problem+json"]["schema"];
        hold(&problem, schema, &description).unwrap();
    }
}

#[test]
fn what_is_not_as_described_is_noticed() {
    let api = Api::start();
    let (_, description) = api.ask("GET", "/v1/openapi.json");
    let schema = json!({ "$ref": "#/components/schemas/Registration" });
    for (document, right) in [
        (json!({ "zone": "az1", "weight": 0 }), true),
        (json!({}), true),
        (json!({ "weight": 1001 }), false),
        (json!({ "weigth": 1 }), false),
    ] {
        let held = hold(&document, &schema, &description);
        assert_eq!(held.is_ok(), right, "{document}: {held:?}");
        // What the schema takes is what the API takes.
        let (code, problem) = api.json("PUT", &named(TARGET), &document.to_string());
        assert_eq!(code == 200, right, "{document}: {problem}");
    }
}

/// Events of each kind that has a shape of its own.
fn events() -> Vec<Happening> {
    let target = "192.0.2.11:6081".parse().unwrap();
    let [target_group, load_balancer, zone] = ["fw", "fw", "az1"].map(str::to_owned);
    let standing = control::Standing::HEALTHY;
    vec![
        GatewayEvent::GatewayStarted { workers: 2, version: "1" }.into(),
        GatewayEvent::GatewayDraining {}.into(),
        GatewayEvent::ReloadRefused { reason: "x".to_owned(), left_out: 0 }.into(),
        GatewayEvent::FloodBegun { worker: 0, limit: FloodLimit::FlowTable }.into(),
        GatewayEvent::Missed { missed: 1 }.into(),
        control::Event::TargetState {
            target_group,
            target,
            load_balancer: load_balancer.clone(),
            zone: zone.clone(),
            from: standing,
            to: standing,
        }
        .into(),
        control::Event::Failover {
            load_balancer: load_balancer.clone(),
            zone,
            target,
            action: ResetCause::Unhealthy.into(),
            flows: 1,
        }
        .into(),
        control::Event::EndpointGroup {
            endpoint_group: load_balancer,
            from: router::failover::State::Pending,
            to: router::failover::State::Available,
            active: None,
            cause: router::failover::Cause::Health,
        }
        .into(),
    ]
}

#[test]
fn events_are_as_described() {
    let api = Api::start();
    let (_, description) = api.ask("GET", "/v1/openapi.json");
    let schema = json!({ "$ref": "#/components/schemas/Event" });
    for what in events() {
        let mut event = serde_json::to_value(Event::now(1, what)).unwrap();
        if let Err(error) = hold(&event, &schema, &description) {
            panic!("{error}\n{:#}", description["components"]["schemas"]["Event"]);
        }
        event["unheard_of"] = json!(1);
        assert!(hold(&event, &schema, &description).is_err(), "{event}");
        event["event"] = json!("unheard_of");
        assert!(hold(&event, &schema, &description).is_err(), "{event}");
    }
}

/// Where the page has the table of all events.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/admin-api.md");

/// The table of all events, from the description.
fn table(description: &Value) -> String {
    let schemas = &description["components"]["schemas"];
    let mut rows = Vec::new();
    for (name, schema) in schemas.as_object().unwrap() {
        let of = |variant: &Value| variant["properties"]["event"]["enum"][0].is_string();
        let variants = schema["oneOf"].as_array().into_iter().flatten().filter(|it| of(it));
        for variant in variants {
            let properties = variant["properties"].as_object().unwrap();
            // What each line of the log has besides the event that it tells.
            for taken in ["timestamp", "level", "module", "message"] {
                assert!(!properties.contains_key(taken), "{name}: {taken}");
            }
            let fields = properties.keys().filter(|field| *field != "event");
            let fields: Vec<_> = fields.map(|field| format!("`{field}`")).collect();
            let text = variant["description"].as_str().unwrap_or_else(|| panic!("{name}"));
            let event = properties["event"]["enum"][0].as_str().unwrap();
            let text = text.replace('\n', " ");
            let row = format!("| `{event}` | {text} | {} |", fields.join(", "));
            rows.push((event, row));
        }
    }
    rows.sort();
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    format!(
        "| event | what has happened | fields of its own |\n|---|---|---|\n{}\n",
        rows.join("\n")
    )
}

#[test]
fn the_page_lists_every_event() {
    let (_, description) = Api::start().ask("GET", "/v1/openapi.json");
    let table = table(&description);
    for event in events() {
        let event = serde_json::to_value(&event).unwrap();
        let row = format!("| `{}` |", event["event"].as_str().unwrap());
        assert!(table.contains(&row), "{row} in {table}");
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (begin, end) = ("<!-- every event: begin -->\n\n", "\n<!-- every event: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (present, after) = rest.split_once(end).unwrap();
    if std::env::var_os("GWLB_BLESS").is_some() {
        std::fs::write(PAGE, [before, begin, &table, end, after].concat()).unwrap();
        return;
    }
    assert_eq!(present, table, "GWLB_BLESS=1 writes the table anew");
}
