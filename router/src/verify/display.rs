//! A report as text: each finding with its packet, hop by hop, and what would help.

use std::fmt;

use super::words::list;
use super::{Examined, Finding, Hop, NotPlace, Packet, Report, Severity};

/// The findings, and a last line that counts them and says what was not looked at.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}\n")?;
        }
        let counts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Info]
            .into_iter()
            .filter_map(|severity| match (self.count(severity), severity) {
                (0, _) => None,
                (count, Severity::Info) => Some(format!("{count} for information")),
                (1, _) => Some(format!("1 {severity}")),
                (count, _) => Some(format!("{count} {severity}s")),
            })
            .collect();
        let found = if counts.is_empty() { "no findings".to_owned() } else { counts.join(", ") };
        let (classes, ways) = (self.examined.classes, self.examined.ways);
        write!(f, "{found} ({classes} classes of addresses, {ways} ways")?;
        let mut before = "; not places, as far as the file says: ";
        for (holds, subnets) in self.examined.alike() {
            write!(f, "{before}{} ({})", list(&subnets), holds.join(", "))?;
            before = ", ";
        }
        write!(f, ")")
    }
}

impl Examined {
    /// The names of the subnets that are no places, those together that hold the same, which is said
    /// first.
    fn alike(&self) -> Vec<(Vec<&'static str>, Vec<String>)> {
        let mut all: Vec<(Vec<&'static str>, Vec<String>)> = Vec::new();
        for NotPlace { subnet, holds } in &self.not_places {
            let holds: Vec<&str> = holds.iter().map(|kind| plural(kind)).collect();
            match all.iter_mut().find(|(other, _)| *other == holds) {
                Some((_, subnets)) => subnets.push(subnet.clone()),
                None => all.push((holds, vec![subnet.clone()])),
            }
        }
        all
    }
}

fn plural(kind: &'static str) -> &'static str {
    match kind {
        "endpoint" => "endpoints",
        "nat_gateway" => "NAT gateways",
        "transit_gateway_attachment" => "attachments",
        other => other,
    }
}

/// What is wrong, a packet that shows it, and what would help.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}: {}", self.severity, self.kind, self.text)?;
        if let Some(packet) = &self.counter_example {
            writeln!(f, "  for example: {packet}")?;
            way(f, &self.path)?;
        }
        if !self.way_back.is_empty() {
            writeln!(f, "  and its answer:")?;
            way(f, &self.way_back)?;
        }
        write!(f, "  help: {}", self.help)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} from {}", self.source, self.destination, self.from)?;
        for choice in &self.choices {
            write!(f, ", if {} takes {}", choice.at, choice.takes)?;
        }
        Ok(())
    }
}

/// Each lookup on a line, and what a NAT gateway does on a line of its own.
fn way(f: &mut fmt::Formatter<'_>, hops: &[Hop]) -> fmt::Result {
    for (number, hop) in hops.iter().enumerate() {
        let Hop { at, next, table, .. } = hop;
        let route = hop.route.as_deref().unwrap_or("no route");
        writeln!(f, "    {:>2}  {at} -> {next}  (table {table}: {route})", number + 1)?;
        if let Some(translated) = &hop.translated {
            writeln!(f, "        {translated}")?;
        }
    }
    Ok(())
}
