//! The way of a packet as people read it: numbered steps, and under each what it depends on.

use std::fmt;
use std::ops::Range;

use super::{CandidateScore, Explanation, KnownFlow, Step};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self.steps.iter().map(Step::told).collect();
        let alike = alike(&self.steps, &told);
        for (number, (title, facts)) in (1..).zip(told) {
            match alike[number - 1] {
                Alike::No => {}
                Alike::Yes => continue,
                Alike::Last(pieces) => {
                    writeln!(f, "{number:2}. … {pieces} more of the same that go the same way")?;
                    continue;
                }
            }
            writeln!(f, "{number:2}. {title}")?;
            let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            for (name, value) in facts {
                if name.is_empty() {
                    writeln!(f, "      {value}")?;
                } else {
                    writeln!(f, "      {name:width$}  {value}")?;
                }
            }
        }
        let arrived = if self.delivered { "" } else { "not delivered: " };
        write!(f, "{arrived}{}", self.end)
    }
}

/// Datagrams of one packet that are shown.
const SHOWN: usize = 3;

/// Whether a step is told: of the pieces of a packet that come back one by one and fare alike, one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    No,
    /// It is one of those that are told of together, further below.
    Yes,
    /// It is the last of so many pieces that fared as the one before them.
    Last(usize),
}

fn alike(steps: &[Step], told: &[(String, Facts)]) -> Vec<Alike> {
    let mut marks = vec![Alike::No; steps.len()];
    let back = |step: &Step| matches!(step, Step::Returned { supposed: true, .. });
    let starts: Vec<_> = (0..steps.len()).filter(|at| back(&steps[*at])).collect();
    let ends = starts.iter().skip(1).copied().chain([steps.len()]);
    let pieces: Vec<_> = starts.iter().copied().zip(ends).map(|(from, to)| from..to).collect();
    let titles =
        |piece: &Range<usize>| told[piece.clone()].iter().map(|it| &it.0).collect::<Vec<_>>();
    let mut same = 0;
    for (at, piece) in pieces.iter().enumerate().skip(1) {
        let before = &pieces[at - 1];
        if titles(piece) != titles(before) {
            same = 0;
            continue;
        }
        if same > 0 {
            marks[before.end - 1] = Alike::Yes;
        }
        same += 1;
        marks[piece.clone()].fill(Alike::Yes);
        marks[piece.end - 1] = Alike::Last(same);
    }
    marks
}

/// Names and values below a step.
type Facts = Vec<(&'static str, String)>;

impl Step {
    /// A sentence, and what it depends on.
    fn told(&self) -> (String, Facts) {
        match self {
            Self::Enters { at, device, packet, packets, segment_size, .. } => {
                let mut facts =
                    vec![("device", device_name(device.as_deref())), ("packet", packet.clone())];
                facts.extend(segment_size.map(|size| {
                    let of = format!("{packets} packets with up to {size} bytes of payload each");
                    ("super-packet", format!("longer than the device's MTU: stands for {of}"))
                }));
                (format!("enters at {at}"), facts)
            }
            Self::Translated { at, address, from, to } => (
                format!("{at} translates the {address} address"),
                vec![("", format!("{from} -> {to}"))],
            ),
            Self::Routed { at, table, destination, route, next, reason } => (
                format!("table {table} of {at} leads to {next}"),
                vec![
                    ("looked up", destination.to_string()),
                    ("route", route.clone().unwrap_or_else(|| "none".to_owned())),
                    ("why", reason.clone()),
                ],
            ),
            Self::Endpoint { .. } => self.endpoint(),
            Self::HandedOver { to } => (format!("is handed over to worker {to}"), Vec::new()),
            Self::Flow { .. } => self.flow(),
            Self::Encapsulated { .. } => self.encapsulated(),
            Self::Returned { from, to, supposed, header } => {
                let title = if *supposed {
                    format!("{from} returns it to {to}, let us say unchanged")
                } else {
                    format!("comes from {from} to {to}")
                };
                let lines =
                    header.iter().map(|line| ("", format!("{}  {}", line.bytes, line.means)));
                (title, lines.collect())
            }
            Self::Accepted { target, endpoint, packet } => (
                format!("is genuine: source, options and cookie are those of {target}"),
                vec![
                    ("endpoint", endpoint.clone().unwrap_or_default()),
                    ("packet", packet.clone()),
                ],
            ),
            Self::Released { packet } => (
                "is the first fragment that another has waited for".to_owned(),
                vec![("packet", packet.clone())],
            ),
            Self::Leaves { at, device, uninspected, packet, .. } => {
                let past = if *uninspected { ", UNINSPECTED" } else { "" };
                (
                    format!("leaves at {at}{past}"),
                    vec![("device", device_name(device.as_deref())), ("packet", packet.clone())],
                )
            }
            Self::Probe { own: true } => {
                ("was a probe of the gateway's own".to_owned(), Vec::new())
            }
            Self::Probe { own: false } => (
                "has the addresses and ports of a probe, and is not ours: it ends here".to_owned(),
                Vec::new(),
            ),
            Self::Replied { cause, at, device, packet, .. } => (
                format!("is answered by the gateway: {cause}"),
                vec![
                    ("leaves at", format!("{at}, device {}", device_name(device.as_deref()))),
                    ("packet", packet.clone()),
                ],
            ),
            Self::Held => ("waits for its first fragment".to_owned(), Vec::new()),
            Self::Dropped { reason, help, advice, .. } => (
                format!("is dropped: {reason}"),
                vec![("meaning", help.clone()), ("advice", advice.clone())],
            ),
            Self::More { pieces } => (format!("{pieces} more pieces are not followed"), Vec::new()),
        }
    }

    fn endpoint(&self) -> (String, Facts) {
        let Self::Endpoint {
            endpoint,
            group,
            zone,
            service,
            load_balancer,
            node,
            stickiness,
            traffic_mode,
        } = self
        else {
            return Default::default();
        };
        let of = group.as_ref().map_or_else(String::new, |group| format!(" of group {group}"));
        let mut facts = vec![
            ("zone", zone.clone()),
            ("service", service.clone()),
            ("load balancer", format!("{load_balancer}, node {node}, {stickiness} stickiness")),
        ];
        if traffic_mode == "bypass" {
            facts.push(("mode", "bypass: packets go on UNINSPECTED".to_owned()));
        }
        (format!("comes to endpoint {endpoint}{of}"), facts)
    }

    fn flow(&self) -> (String, Facts) {
        let Self::Flow { tuple, worker, known, age_seconds, becomes, unremembered, candidates } =
            self
        else {
            return Default::default();
        };
        let title = match (known, becomes) {
            (Some(_), _) => "is of a flow that is known",
            (None, Some(_)) => "begins a flow",
            (None, None) => "is of no flow that is remembered",
        };
        let mut facts = vec![("flow", tuple.clone()), ("worker", worker.to_string())];
        facts.extend(unremembered.as_deref().map(|why| {
            let why = match why {
                "table_full" => "the worker's flow table is full (`max_flows_per_worker`)",
                _ => {
                    "the worker takes in no more in this second \
                     (`max_new_flows_per_second_per_worker`)"
                }
            };
            ("unremembered", format!("{why}: each packet is placed by itself"))
        }));
        facts.extend(age_seconds.map(|age| ("began", format!("{age:.1} s ago"))));
        facts.extend(known.as_ref().map(|flow| ("before", flow.to_string())));
        facts.extend(becomes.as_ref().map(|flow| ("after", flow.to_string())));
        for candidate in candidates {
            let CandidateScore { target, weight, score, chosen } = candidate;
            let score = score.map_or_else(|| "never".to_owned(), |score| format!("{score:.6}"));
            let mark = match (chosen, known) {
                (true, None) => "  <- chosen",
                (true, Some(_)) => "  <- would be chosen for a new flow",
                (false, _) => "",
            };
            facts.push(("candidate", format!("{target}  weight {weight}  score {score}{mark}")));
        }
        if candidates.is_empty() {
            facts.push(("candidates", "none".to_owned()));
        }
        (title.to_owned(), facts)
    }

    fn encapsulated(&self) -> (String, Facts) {
        let Self::Encapsulated { target, path_mtu, fits, change, datagrams, .. } = self else {
            return Default::default();
        };
        let change = match change.as_deref() {
            Some("fragmented") => format!("cut into {} fragments", datagrams.len()),
            Some("mss_clamped") => "its TCP MSS option is lowered".to_owned(),
            _ => "none is needed".to_owned(),
        };
        let mut facts =
            vec![("fits", format!("{fits} bytes; outside {path_mtu} bytes")), ("change", change)];
        for sent in &datagrams[..datagrams.len().min(SHOWN)] {
            for line in &sent.headers {
                let bytes = if line.bytes.is_empty() { "by the kernel" } else { &line.bytes };
                facts.push(("", format!("{bytes:24}  {}", line.means)));
            }
            facts.push(("", format!("{:24}  {}", "packet", sent.packet)));
        }
        if let Some(more @ 1..) = datagrams.len().checked_sub(SHOWN) {
            facts.push(("", format!("and {more} datagrams more")));
        }
        (format!("goes to {target} behind a Geneve header"), facts)
    }
}

fn device_name(device: Option<&str>) -> String {
    device.unwrap_or("none").to_owned()
}

impl fmt::Display for KnownFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Some(target) if self.bypassed => write!(f, "past the appliances, kept for {target}")?,
            Some(target) => write!(f, "with {target}")?,
            None => f.write_str("past the appliances")?,
        }
        write!(
            f,
            ", {}, forgotten in {:.1} s without a packet",
            self.state, self.idle_seconds_left
        )?;
        match self.fate.as_str() {
            "stay" => Ok(()),
            "rebalance" => f.write_str("; its target is gone, it moves"),
            _ => f.write_str("; its target is gone, TCP is reset"),
        }
    }
}
