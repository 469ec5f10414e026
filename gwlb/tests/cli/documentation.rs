//! The examples of docs/admin-api.md, each against a gateway that runs.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::rig::{Gateway, exchange, text};

const DOCUMENT: &str = include_str!("../../../docs/admin-api.md");

/// The fenced blocks in their order: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = DOCUMENT;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("\n```").unwrap();
        blocks.push((language, block));
        rest = after;
    }
    blocks
}

/// The words of a command, as a shell takes them.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.replace("\\\n", " ").split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// What a command of curl's asks for.
struct Asked {
    method: String,
    path: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

fn understood(command: &str, gateway: &Gateway) -> Asked {
    let mut words = words(command).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"), "{command}");
    let (mut method, mut path, mut headers, mut body) = (None, None, Vec::new(), None);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap();
        match word.as_str() {
            "--unix-socket" => assert_eq!(value(), "/run/gwlb/main.sock", "the default"),
            "--request" => method = Some(value()),
            "--header" => headers.push(value()),
            "--json" => {
                body = Some(value().into_bytes());
                headers.push("Content-Type: application/json".to_owned());
            }
            "--data-binary" => {
                assert_eq!(value(), "@gateway.toml");
                body = Some(fs::read(gateway.file()).unwrap());
            }
            url => path = Some(url.strip_prefix("http://gwlb").unwrap().to_owned()),
        }
    }
    let usual = if body.is_some() { "POST" } else { "GET" };
    Asked {
        method: method.unwrap_or_else(|| usual.to_owned()),
        path: path.unwrap(),
        headers,
        body: body.unwrap_or_default(),
    }
}

/// Whether an answer has just the fields that the document shows, of the same kinds.
fn is_like(shown: &Value, answer: &Value) -> Result<(), String> {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => {
            if !shown.keys().eq(answer.keys()) {
                return Err(format!("{:?} and not {:?}", answer.keys(), shown.keys()));
            }
            shown.iter().try_for_each(|(key, value)| {
                is_like(value, &answer[key]).map_err(|error| format!("{key}: {error}"))
            })
        }
        (Value::Array(shown), Value::Array(answer)) => {
            let pairs = shown.iter().zip(answer);
            pairs.into_iter().try_for_each(|(shown, answer)| is_like(shown, answer))
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null) => Ok(()),
        (shown, answer) => Err(format!("{answer} and not {shown}")),
    }
}

#[test]
fn every_example_works_and_every_endpoint_has_one() {
    let gateway = Gateway::grouped();
    gateway.edit("weight = 100", "weight = 50");
    let (code, description) = exchange(&gateway.socket(), ("GET", "/v1/openapi.json"), &[], b"");
    assert_eq!(code, 200);
    let description: Value = serde_json::from_slice(&description).unwrap();
    let mut without: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();

    let blocks = blocks();
    let mut examples = 0;
    for (index, (language, command)) in blocks.iter().enumerate() {
        if *language != "sh" {
            continue;
        }
        examples += 1;
        let asked = understood(command, &gateway);
        // A reload takes the change up that the one after it is to show.
        if asked.path == "/v1/reload" {
            gateway.edit("weight = 50", "weight = 60");
        }
        if asked.path == "/v1/reload?dry_run=true" {
            gateway.edit("weight = 60", "weight = 70");
        }
        let asked = understood(command, &gateway);
        let shown = blocks.get(index + 1).filter(|(language, _)| *language == "json");
        let shown: Option<Value> = shown.map(|(_, text)| serde_json::from_str(text).unwrap());
        let expected = shown.as_ref().and_then(|shown| shown["status"].as_u64()).unwrap_or(200);
        let (code, answer) =
            exchange(&gateway.socket(), (&asked.method, &asked.path), &asked.headers, &asked.body);
        assert_eq!(u64::from(code), expected, "{command}: {}", text(&answer));
        if let Some(shown) = shown {
            let answer = serde_json::from_slice(&answer).unwrap();
            is_like(&shown, &answer).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
        if code == 200 {
            without.retain(|(method, path)| {
                method != &asked.method || !is_of(asked.path.split('?').next().unwrap(), path)
            });
        }
    }
    assert!(examples > 10, "{examples}");
    assert!(without.is_empty(), "no example of {without:?}");
}

/// Whether a path is one that the template stands for.
fn is_of(path: &str, template: &str) -> bool {
    let (path, template) = (path.split('/'), template.split('/'));
    path.clone().count() == template.clone().count()
        && path.zip(template).all(|(part, of)| of.starts_with('{') || part == of)
}
