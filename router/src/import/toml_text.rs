//! TOML as people write it: a table after the other, and one route on each line.

use std::fmt::Display;

/// A text in the making.
#[derive(Default)]
pub(super) struct Text {
    text: String,
}

/// An inline table on a line of its own.
pub(super) struct Line {
    pub(super) members: Vec<(&'static str, Member)>,
    pub(super) comment: Option<String>,
    /// It is no more than a comment.
    pub(super) off: bool,
}

impl Line {
    /// A line with nothing beside it.
    pub(super) fn plain(members: Vec<(&'static str, Member)>) -> Line {
        Line { members, comment: None, off: false }
    }
}

pub(super) enum Member {
    Text(String),
    True,
}

impl Text {
    /// A line that nothing reads.
    pub(super) fn comment(&mut self, text: &str) {
        self.line(&in_comment(text));
    }

    /// As many lines that nothing reads as it takes, of which all but the first are indented.
    pub(super) fn paragraph(&mut self, first: &str, text: &str) {
        const WIDTH: usize = 96;
        let rest = " ".repeat(first.len());
        let mut line = first.to_owned();
        for word in text.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > rest.len() {
                self.comment(&line);
                line.clone_from(&rest);
            }
            if line.len() > rest.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.comment(&line);
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// The header of a `[[table]]`, with what stands beside it.
    pub(super) fn table(&mut self, key: &str, beside: &[&str]) {
        self.gap();
        let beside: Vec<&str> = beside.iter().copied().filter(|text| !text.is_empty()).collect();
        if beside.is_empty() {
            self.line(&format!("[[{key}]]"));
        } else {
            self.line(&format!("[[{key}]] {}", in_comment(&beside.join(", "))));
        }
    }

    /// The header of a `[table]`.
    pub(super) fn section(&mut self, key: &str) {
        self.line(&format!("[{key}]"));
    }

    pub(super) fn key(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {}", quoted(value)));
    }

    pub(super) fn flag(&mut self, key: &str) {
        self.line(&format!("{key} = true"));
    }

    /// A list on one line; nothing, if it is empty.
    pub(super) fn list(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        let values: Vec<String> =
            values.into_iter().map(|value| quoted(&value.to_string())).collect();
        if !values.is_empty() {
            self.line(&format!("{key} = [{}]", values.join(", ")));
        }
    }

    /// A list with a line for each value, even an empty one.
    pub(super) fn every(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        self.line(&format!("{key} = ["));
        for value in values {
            self.line(&format!("  {},", quoted(&value.to_string())));
        }
        self.line("]");
    }

    /// A list of inline tables, each on a line; nothing, if it is empty.
    pub(super) fn lines(&mut self, key: &str, lines: &[Line]) {
        if lines.is_empty() {
            return;
        }
        self.line(&format!("{key} = ["));
        for line in lines {
            let members: Vec<String> = line
                .members
                .iter()
                .map(|(key, value)| match value {
                    Member::Text(value) => format!("{key} = {}", quoted(value)),
                    Member::True => format!("{key} = true"),
                })
                .collect();
            let table = format!("{{ {} }},", members.join(", "));
            let beside = line.comment.as_deref().unwrap_or_default();
            if line.off {
                let colon = if beside.is_empty() { "" } else { ": " };
                self.line(&format!("  {}", in_comment(&format!("{beside}{colon}{table}"))));
            } else if beside.is_empty() {
                self.line(&format!("  {table}"));
            } else {
                self.line(&format!("  {table} {}", in_comment(beside)));
            }
        }
        self.line("]");
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// The text in quotes, as the TOML library would have it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A comment ends with its line, and TOML allows no control characters in it.
fn in_comment(text: &str) -> String {
    let mut comment = String::from("# ");
    for c in text.chars() {
        if c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
            comment.extend(c.escape_debug());
        } else {
            comment.push(c);
        }
    }
    comment.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paragraphs_are_no_wider_than_a_screen_and_whole() {
        let words: Vec<String> = (0..60).map(|number| format!("word{number}")).collect();
        let long = "x".repeat(200);
        let mut text = Text::default();
        text.paragraph("- ", &format!("{} {long} end", words.join(" ")));
        let lines: Vec<&str> = text.text.lines().collect();
        assert!(lines[0].starts_with("# - word0 word1 "));
        assert!(lines[1..].iter().all(|line| line.starts_with("#   ")));
        assert!(lines.iter().all(|line| line.len() < 100 || line.ends_with(&long)));
        let whole: Vec<&str> = lines.iter().flat_map(|line| line[4..].split(' ')).collect();
        assert_eq!(whole.join(" "), format!("{} {long} end", words.join(" ")));
    }

    proptest! {
        /// Whatever stands in a value or a comment, the value is read as it was, and the comment
        /// not at all.
        #[test]
        fn every_text_survives(value in any::<String>(), beside in any::<String>()) {
            let mut text = Text::default();
            text.comment(&beside);
            text.paragraph("- ", &beside);
            text.table("thing", &[&beside, &value]);
            text.key("name", &value);
            text.list("cidrs", [&value, &beside]);
            let line = |off| Line {
                members: vec![("destination", Member::Text(value.clone())), ("local", Member::True)],
                comment: Some(beside.clone()),
                off,
            };
            text.lines("routes", &[line(false), line(true)]);
            let read: toml::Table = text.into_string().parse().unwrap();
            let mut thing = toml::Table::new();
            thing.insert("name".to_owned(), value.clone().into());
            thing.insert("cidrs".to_owned(), vec![value.clone(), beside].into());
            let mut route = toml::Table::new();
            route.insert("destination".to_owned(), value.into());
            route.insert("local".to_owned(), true.into());
            thing.insert("routes".to_owned(), vec![route].into());
            prop_assert_eq!(&read["thing"], &toml::Value::from(vec![thing]));
            prop_assert_eq!(read.len(), 1);
        }
    }
}
