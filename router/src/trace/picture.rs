//! A trace as a picture: a graph in Graphviz's language, or drawn as SVG.

use std::fmt::Write as _;

use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};

use super::{Hop, Passage, Trace};

/// The places that a packet passes, and the lookups that lead from one to the next. The answer is
/// drawn in blue, a packet that is lost ends in red.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Names, and more lines about them.
    nodes: Vec<(String, Vec<String>)>,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug)]
struct Edge {
    from: usize,
    to: usize,
    label: String,
    colour: &'static str,
}

impl Picture {
    /// The picture of a trace, with its answer if it has one.
    pub fn of(trace: &Trace) -> Picture {
        let mut picture = Picture::default();
        picture.add(trace, "", "black");
        if let Some(back) = &trace.back {
            picture.add(back, "answer ", "blue");
        }
        picture
    }

    /// In the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut dot = "digraph trace {\n    rankdir=LR;\n".to_owned();
        for (number, (name, lines)) in self.nodes.iter().enumerate() {
            let text = [std::slice::from_ref(name), lines].concat().join("\\n");
            // Writing to a string cannot fail.
            let _ = writeln!(dot, "    n{number} [shape=box, label=\"{}\"];", escaped(&text));
        }
        for Edge { from, to, label, colour } in &self.edges {
            let label = escaped(label);
            let _ = writeln!(dot, "    n{from} -> n{to} [label=\"{label}\", color=\"{colour}\"];");
        }
        dot + "}\n"
    }

    /// Drawn, as SVG.
    ///
    /// # Errors
    /// What the drawing library says of the graph; there is no trace that it is known to refuse.
    pub fn to_svg(&self) -> Result<String, String> {
        let dot = self.to_dot();
        let graph = DotParser::new(&dot).process()?;
        let mut builder = GraphBuilder::new();
        builder.visit_graph(&graph);
        let mut svg = SVGWriter::new();
        builder.get().do_it(false, false, false, &mut svg);
        Ok(svg.finalize())
    }

    fn add(&mut self, trace: &Trace, prefix: &str, colour: &'static str) {
        let address = trace.packet.source.map(|source| source.to_string());
        let mut at = self.node(&trace.from, address);
        for (number, Hop { lookup, passage }) in trace.hops.iter().enumerate() {
            let route = lookup
                .route
                .as_ref()
                .map_or("no route".to_owned(), |route| route.destination.to_string());
            let label =
                format!("{prefix}{}. table {}\\n{route}", number + 1, escaped_name(&lookup.table));
            let last = number + 1 == trace.hops.len();
            let dropped = last && !trace.delivered;
            let to = if last {
                let address = Some(lookup.destination.to_string()).filter(|_| trace.delivered);
                self.node(&trace.end, address)
            } else {
                self.passed(passage.as_ref(), &lookup.next)
            };
            let colour = if dropped { "red" } else { colour };
            self.edges.push(Edge { from: at, to, label, colour });
            at = to;
        }
    }

    /// The place that a passage leads to.
    fn passed(&mut self, passage: Option<&Passage>, next: &str) -> usize {
        match passage {
            Some(Passage::Inspected { endpoint, service, zone, target, .. }) => {
                let mut lines = vec![format!("{service}, {zone}")];
                lines.extend(target.as_ref().and_then(|chosen| chosen.target.clone()));
                self.node(&format!("endpoint:{endpoint}"), lines)
            }
            Some(Passage::Transit { subnet, transit_gateway, zone, .. }) => self.node(
                &format!("subnet:{subnet}"),
                vec![format!("from transit gateway {transit_gateway}"), zone.clone()],
            ),
            Some(Passage::Translated { nat_gateway, .. }) => {
                self.node(&format!("nat_gateway:{nat_gateway}"), None)
            }
            Some(Passage::LostInTransit { transit_gateway, .. }) => {
                self.node(&format!("transit_gateway:{transit_gateway}"), None)
            }
            None => self.node(next, None),
        }
    }

    /// The node of this name, with these lines unless it has them already.
    fn node(&mut self, name: &str, lines: impl IntoIterator<Item = String>) -> usize {
        let found = self.nodes.iter().position(|(known, _)| known == name);
        let number = found.unwrap_or(self.nodes.len());
        if found.is_none() {
            self.nodes.push((name.to_owned(), Vec::new()));
        }
        let known = &mut self.nodes[number].1;
        for line in lines {
            if !known.contains(&line) {
                known.push(line);
            }
        }
        number
    }
}

/// Quotes would end a label. Backslashes stand only where a line is to be broken.
fn escaped(label: &str) -> String {
    label.replace('"', "'")
}

/// A name has neither quotes nor backslashes, but an opaque thing's kind may.
fn escaped_name(name: &str) -> String {
    name.replace(['\\', '"'], "'")
}
