//! Turns what serde and the TOML parser say into problems that a reader of the file understands.

use super::{Problem, nearest};

/// The message, the place and a hint.
impl From<&toml::de::Error> for Problem {
    fn from(error: &toml::de::Error) -> Problem {
        let problem = explain(error.message());
        match error.span() {
            Some(span) => {
                Problem::at(span, problem.message).label(problem.label).help_if(problem.help)
            }
            None => Problem::new(problem.message).help_if(problem.help),
        }
    }
}

/// Whether the error is about a key that the form does not have.
pub(super) fn is_unknown_key(error: &toml::de::Error) -> bool {
    error.message().starts_with(UNKNOWN_FIELD)
}

const UNKNOWN_FIELD: &str = "unknown field `";

struct Explained {
    message: String,
    label: String,
    help: Option<String>,
}

/// serde's messages are part of its interface: `serde::de::Error` documents each form.
fn explain(message: &str) -> Explained {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let named = quoted.first().copied().unwrap_or_default();
    if message.starts_with(UNKNOWN_FIELD) {
        Explained {
            message: format!("unknown key `{named}`"),
            label: "no such key here".to_owned(),
            help: Some(suggest(named, &quoted[1..], "the keys here are")),
        }
    } else if message.starts_with("unknown variant `") {
        Explained {
            message: format!("unknown value \"{named}\""),
            label: "not one of the values it can have".to_owned(),
            help: Some(suggest(named, &quoted[1..], "it can be")),
        }
    } else if message.starts_with("missing field `") {
        Explained {
            message: format!("the key `{named}` is missing"),
            label: format!("this table needs `{named}`"),
            help: None,
        }
    } else if let Some((kind, expected)) = wrong_type(message) {
        Explained {
            message: format!("{kind} where {expected} is expected"),
            label: format!("expected {expected}"),
            help: None,
        }
    } else {
        Explained { message: message.to_owned(), label: "here".to_owned(), help: None }
    }
}

/// "invalid type: integer `3`, expected a string" → "integer `3`", "a string".
fn wrong_type(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

fn suggest(name: &str, candidates: &[&str], all_are: &str) -> String {
    let list = candidates.join(", ");
    match nearest(name, candidates.iter().copied()) {
        Some(near) if candidates.len() > 1 => format!("did you mean `{near}`? {all_are}: {list}"),
        Some(near) => format!("did you mean `{near}`?"),
        None if candidates.is_empty() => "there is nothing that it could be".to_owned(),
        None => format!("{all_are}: {list}"),
    }
}
