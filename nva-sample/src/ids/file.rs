//! The patterns as a file has them, and what can be wrong with them.

use std::collections::HashMap;

use serde::Deserialize;
use toml::Spanned;

use super::patterns::{Pattern, PatternSet};
use crate::problem::{Problem, Problems, Source};

/// Reads patterns; on failure says everything that is wrong with them. Patterns that name no action
/// of their own block if `block` says so.
pub fn parse(source: &Source, block: bool) -> Result<PatternSet, Problems> {
    let form: FileForm = source.parse()?;
    let whole = form.patterns.span();
    let mut check = Check { source, problems: Vec::new(), names: HashMap::new() };
    let forms = form.patterns.into_inner().into_iter().enumerate();
    let patterns: Vec<_> =
        forms.filter_map(|(index, form)| check.pattern(index + 1, &form, block)).collect();
    if patterns.is_empty() && check.problems.is_empty() {
        check.add("there is nothing to look for", whole, "empty", "add a [[pattern]]");
    }
    if !check.problems.is_empty() {
        return Err(source.problems(check.problems));
    }
    PatternSet::new(patterns).map_err(|error| {
        let help = Some("take shorter patterns, or fewer".to_owned());
        source.problems(vec![source.problem(error.to_string(), 0..0, "here", help)])
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(rename = "pattern")]
    patterns: Spanned<Vec<PatternForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternForm {
    name: Spanned<String>,
    text: Option<Spanned<String>>,
    hex: Option<Spanned<String>>,
    #[serde(default)]
    ignore_case: bool,
    action: Option<Spanned<String>>,
}

/// Goes through a file and collects what is wrong with it.
struct Check<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
    names: HashMap<String, usize>,
}

impl Check<'_> {
    fn pattern(&mut self, number: usize, form: &PatternForm, block: bool) -> Option<Pattern> {
        let name = form.name.get_ref().clone();
        if let Some(other) = self.names.insert(name.clone(), number) {
            self.add(
                format!("two patterns have the name \"{name}\""),
                form.name.span(),
                format!("pattern {other} has it too"),
                "alerts name the pattern: give each a name of its own",
            );
        }
        let bytes = match (&form.text, &form.hex) {
            (Some(text), None) => Some((text.get_ref().clone().into_bytes(), text.span())),
            (None, Some(hex)) => self.hex(hex).map(|bytes| (bytes, hex.span())),
            (Some(_), Some(hex)) => {
                let help = "keep one of the two";
                self.add("a pattern is either text or hex", hex.span(), "and text above", help);
                None
            }
            (None, None) => {
                let help = "add text = \"…\" or hex = \"de ad be ef\"";
                self.add("a pattern needs bytes", form.name.span(), "has none", help);
                None
            }
        };
        let block = form.action.as_ref().map_or(Some(block), |action| self.action(action));
        let (bytes, span) = bytes?;
        if bytes.is_empty() {
            let help = "write what to look for, or remove the pattern";
            self.add("an empty pattern is everywhere", span, "no bytes", help);
            return None;
        }
        Some(Pattern { name, bytes, ignore_case: form.ignore_case, block: block? })
    }

    fn action(&mut self, text: &Spanned<String>) -> Option<bool> {
        match text.get_ref().as_str() {
            "alert" => Some(false),
            "block" => Some(true),
            other => {
                self.add(
                    format!("there is no action \"{other}\""),
                    text.span(),
                    "unknown",
                    "\"alert\" (only tell) or \"block\" (tell, and stop the flow)",
                );
                None
            }
        }
    }

    fn hex(&mut self, text: &Spanned<String>) -> Option<Vec<u8>> {
        let digits: Vec<u8> = text.get_ref().bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
                _ => None,
            })
            .collect();
        if bytes.is_none() {
            let help = "two hexadecimal digits for each byte, like \"de ad be ef\"";
            self.add("this is not hexadecimal", text.span(), "not understood", help);
        }
        bytes
    }

    fn add(
        &mut self,
        message: impl Into<String>,
        span: std::ops::Range<usize>,
        label: impl Into<String>,
        help: &str,
    ) {
        self.problems.push(self.source.problem(message, span, label, Some(help.to_owned())));
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::plain_report;

    fn report(text: &str) -> String {
        plain_report(&parse(&Source::new("patterns.toml", text), false).unwrap_err())
    }

    #[test]
    fn a_whole_file_is_understood() {
        let text = r#"
            [[pattern]]
            name = "text"
            text = "needle"
            ignore_case = true

            [[pattern]]
            name = "bytes"
            hex = "DE ad be ef"
            action = "alert"
        "#;
        let set = parse(&Source::new("patterns.toml", text), true).unwrap();
        let [text, bytes] = set.patterns() else { panic!("{set:?}") };
        assert_eq!(
            (text.bytes.as_slice(), text.ignore_case, text.block),
            (&b"needle"[..], true, true)
        );
        assert_eq!((bytes.bytes.as_slice(), bytes.block), (&[0xde, 0xad, 0xbe, 0xef][..], false));
    }

    #[test]
    fn everything_wrong_is_reported_at_once_and_where_it_stands() {
        insta::assert_snapshot!(report(
            r#"[[pattern]]
name = "a"
text = ""

[[pattern]]
name = "a"
text = "x"
hex = "00"

[[pattern]]
name = "b"
hex = "0g"
action = "explode"

[[pattern]]
name = "c"
"#
        ));
    }

    #[test]
    fn nothing_to_look_for_is_a_problem() {
        insta::assert_snapshot!(report("pattern = []\n"));
    }

    #[test]
    fn too_much_to_look_for_is_a_problem() {
        let text = format!("[[pattern]]\nname = \"huge\"\ntext = \"{}\"\n", "x".repeat(20_000));
        assert!(report(&text).contains("20000 bytes"));
    }
}
