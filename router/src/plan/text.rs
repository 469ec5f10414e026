//! A plan as people read it.

use std::fmt;

use super::changes::{Path, PathChange};
use super::safety::{Danger, Exposure};
use super::{Plan, Why};
use crate::space::say;

/// Numbered steps, and then the addresses that go another way.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() && self.impossible.is_empty() {
            return f.write_str("nothing to do");
        }
        let width = self.steps.len().to_string().len();
        for step in &self.steps {
            writeln!(f, "{:>width$}. {}", step.number, step.text)?;
            if let Some(why) = &step.why {
                writeln!(f, "{:width$}  {why}", "")?;
            }
            for exposure in &step.exposed {
                writeln!(f, "{:width$}  EXPOSED: {exposure}", "")?;
            }
        }
        if !self.impossible.is_empty() {
            writeln!(f, "\nNo order was found for:")?;
            for it in &self.impossible {
                writeln!(
                    f,
                    "  {}\n    not after these steps: {}{}",
                    it.text,
                    it.reason,
                    by(it.rule.as_deref())
                )?;
            }
        }
        if !self.paths.is_empty() {
            writeln!(f, "\nPaths that change:")?;
            let mut from = "";
            for change in &self.paths {
                if change.from != from {
                    from = &change.from;
                    writeln!(f, "  from {from}")?;
                }
                writeln!(f, "{change}")?;
            }
        }
        write!(f, "\n{}", self.verdict())
    }
}

impl Plan {
    fn verdict(&self) -> String {
        let steps = match self.steps.len() {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        let exposed = self.steps.iter().filter(|step| !step.exposed.is_empty()).count();
        match (self.impossible.len(), exposed) {
            (0, 0) => format!(
                "{steps}, all safe: nothing is uninspected, astray or lost on the way that is not \
                 so before or afterwards"
            ),
            (0, exposed) => {
                format!("{steps}, {exposed} of them not safe: no safe order was found")
            }
            (impossible, _) => {
                format!("{steps}, and {impossible} more for which no order was found")
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not before step {}: {}{}", self.after, self.reason, by(self.rule.as_deref()))
    }
}

fn by(rule: Option<&str>) -> String {
    rule.map_or(String::new(), |rule| format!(" [rule {rule}]"))
}

impl Exposure {
    /// As in "packets from … would be lost".
    pub(super) fn if_it_were(&self) -> String {
        let verb = match self.danger {
            Danger::Uninspected => "would be uninspected",
            Danger::Astray => "would go astray",
            Danger::Lost => "would be lost",
        };
        format!("packets from {} to {} {verb}", self.from, say(&self.to))
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.danger {
            Danger::Uninspected => "are uninspected",
            Danger::Astray => "go astray",
            Danger::Lost => "are lost",
        };
        write!(f, "until the next step, packets from {} to {} {verb}", self.from, say(&self.to))
    }
}

impl fmt::Display for PathChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    to {}", say(&self.to))?;
        writeln!(f, "      before: {}", ways(&self.before))?;
        write!(f, "      after:  {}", ways(&self.after))
    }
}

fn ways(ways: &[Path]) -> String {
    ways.iter().map(Path::to_string).collect::<Vec<_>>().join(", or ")
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by.iter().try_for_each(|place| write!(f, "{place} -> "))?;
        let lost = if self.delivered { "" } else { "dropped: " };
        write!(f, "{lost}{}", self.end)?;
        match self.inspected_by.as_slice() {
            [] => Ok(()),
            services => write!(f, " (inspected by {})", services.join(", ")),
        }
    }
}
