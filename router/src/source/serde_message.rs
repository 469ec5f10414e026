//! Turns what serde and the TOML parser say into problems that a reader of the file understands.

use super::{Problem, nearest};

/// The message, the place and a hint.
impl From<&toml::de::Error> for Problem {
    fn from(error: &toml::de::Error) -> Problem {
        let Explained { message, label, help } = explain(error.message());
        match error.span() {
            Some(span) => Problem::at(span, message).label(label).help_if(help),
            None => Problem::new(message).help_if(help),
        }
    }
}

/// What an error says about the keys of a table.
pub(super) enum Keys<'e> {
    /// There is one that the form does not have. It may be a misspelt one of the form.
    Unknown {
        /// The key of the form.
        meant: Option<&'e str>,
    },
    /// One that the form needs is not there.
    Missing(&'e str),
}

/// serde's messages are part of its interface: `serde::de::Error` documents each form.
pub(super) fn keys(error: &toml::de::Error) -> Option<Keys<'_>> {
    let message = error.message();
    let quoted = quoted(message);
    let (named, candidates) = quoted.split_first()?;
    if message.starts_with(UNKNOWN_FIELD) {
        Some(Keys::Unknown { meant: nearest(named, candidates.iter().copied()) })
    } else if message.starts_with(MISSING_FIELD) {
        Some(Keys::Missing(named))
    } else {
        None
    }
}

const UNKNOWN_FIELD: &str = "unknown field `";
const UNKNOWN_VARIANT: &str = "unknown variant `";
const MISSING_FIELD: &str = "missing field `";

struct Explained {
    message: String,
    label: String,
    help: Option<String>,
}

fn explain(message: &str) -> Explained {
    let quoted = quoted(message);
    let named = quoted.first().copied().unwrap_or_default();
    if message.starts_with(UNKNOWN_FIELD) {
        Explained {
            message: format!("unknown key `{named}`"),
            label: "no such key here".to_owned(),
            help: Some(suggest(named, &quoted[1..], "the keys here are")),
        }
    } else if message.starts_with(UNKNOWN_VARIANT) {
        Explained {
            message: format!("unknown value \"{named}\""),
            label: "not one of the values it can have".to_owned(),
            help: Some(suggest(named, &quoted[1..], "it can be")),
        }
    } else if message.starts_with(MISSING_FIELD) {
        Explained {
            message: format!("the key `{named}` is missing"),
            label: format!("this table needs `{named}`"),
            help: None,
        }
    } else if let Some((found, expected)) = wrong_type(message) {
        let expected = in_toml_terms(expected);
        let scalar = ["integer", "floating point", "boolean"];
        let unquoted = expected == "a string" && scalar.iter().any(|kind| found.starts_with(kind));
        Explained {
            message: format!("{} where {expected} is expected", in_toml_terms(found)),
            label: format!("expected {expected}"),
            help: unquoted.then(|| "put it in quotes".to_owned()),
        }
    } else {
        Explained { message: message.to_owned(), label: "here".to_owned(), help: None }
    }
}

/// What stands in backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// "invalid type: integer `3`, expected a string" → "integer `3`", "a string".
fn wrong_type(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

/// serde speaks of its data model, a file has arrays and tables.
fn in_toml_terms(what: &str) -> &str {
    match what {
        "a sequence" => "an array",
        "sequence" => "array",
        "map" => "table",
        what if what == "a map" || what.starts_with("struct ") => "a table",
        what => what,
    }
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("unknown field `a`, expected `b`", "unknown key `a`", "the keys here are: b")]
    #[case(
        "unknown field `ab`, expected `abc` or `d`",
        "unknown key `ab`",
        "did you mean `abc`? the keys here are: abc, d"
    )]
    #[case(
        "unknown field `a`, there are no fields",
        "unknown key `a`",
        "there is nothing that it could be"
    )]
    #[case(
        "unknown variant `tcq`, expected one of `tcp`, `http`, `https`",
        "unknown value \"tcq\"",
        "did you mean `tcp`? it can be: tcp, http, https"
    )]
    #[case("missing field `name`", "the key `name` is missing", "")]
    #[case(
        "invalid type: integer `1`, expected a string",
        "integer `1` where a string is expected",
        "put it in quotes"
    )]
    #[case("invalid type: map, expected a string", "table where a string is expected", "")]
    #[case(
        "invalid type: string \"a, expected b\", expected a sequence",
        "string \"a, expected b\" where an array is expected",
        ""
    )]
    #[case("invalid type: sequence, expected struct Route", "array where a table is expected", "")]
    #[case("anything else", "anything else", "")]
    fn messages_are_said_in_the_terms_of_the_file(
        #[case] serde: &str,
        #[case] message: &str,
        #[case] help: &str,
    ) {
        let explained = explain(serde);
        assert_eq!(explained.message, message);
        assert_eq!(explained.help.unwrap_or_default(), help);
    }
}
