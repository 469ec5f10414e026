//! Which flows are meant: the filter that listings of flows and captures share.
//!
//! A [`FlowFilter`] is what somebody asked for, in checked words. [Bound](FlowFilter::bind) to a view
//! of the configuration it becomes a [`FlowMatcher`], in which names are numbers: that looks at a flow
//! without taking memory and in a few comparisons.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use geneve::flow::{CanonicalKey, FlowKey, Stickiness};
use geneve::inner::protocol;
use ipnet::IpNet;
use router::source::nearest;
use router::trace::Protocol;
use thiserror::Error;

use super::flow_table::Inspector;
use super::snapshot::{Snapshot, TargetSlot};
use super::tcp_state::TcpState;
use crate::config::TrafficMode;

/// Which flows are meant: those of which everything is true that is said here. Of the parts that are
/// absent, anything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// An end has an address within this prefix.
    pub address: Option<IpNet>,
    /// An end has this port.
    pub port: Option<u16>,
    /// The upper-layer protocol.
    pub protocol: Option<Protocol>,
    /// It is this flow, in either direction.
    pub tuple: Option<Tuple>,
    /// It goes through this endpoint.
    pub endpoint: Option<EndpointName>,
    /// Who inspects it.
    pub target: Option<TargetName>,
    /// How far its TCP connection is.
    pub state: Option<StateName>,
}

/// Both ends of a flow and its protocol, written `SOURCE:PORT-DESTINATION:PORT/PROTOCOL`; without
/// ports for protocols that have none. An IPv6 address with a port stands in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple(pub FlowKey);

/// An endpoint, by its name or by its id on the wire, which is written `0x0123456789abcdef`: flows
/// outlive the names of endpoints that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointName {
    /// By name.
    Name(String),
    /// By its id in the Geneve option.
    WireId(u64),
}

/// Who inspects a flow, or would if its load balancer's traffic mode were not `bypass`: a target by
/// its address, with or without its port. Or nobody for now, which is written `bypass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetName {
    /// The target, or all targets, with this address.
    Address(IpAddr),
    /// The target with this address and port.
    Socket(SocketAddr),
    /// Flows that bypass the appliances.
    Bypass,
}

/// How far a TCP connection is, by [name](TcpState::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateName(&'static str);

impl StateName {
    /// All states of TCP connections.
    pub const ALL: [&'static str; 4] = ["half_open", "established", "half_closed", "closed"];
}

/// Why words are no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FilterError {
    /// The part that is wrong; one of [`FlowFilter::PARTS`], or what was given in place of one.
    pub part: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl FilterError {
    fn new(part: &str, message: impl fmt::Display) -> Self {
        Self { part: part.to_owned(), message: message.to_string() }
    }
}

impl FlowFilter {
    /// The names of the parts, as parameters of requests and options of commands have them.
    pub const PARTS: [&'static str; 7] =
        ["address", "port", "protocol", "tuple", "endpoint", "target", "state"];

    /// Sets one part by its name.
    ///
    /// # Errors
    /// Which part is wrong, and what is allowed.
    pub fn set(&mut self, part: &str, value: &str) -> Result<(), FilterError> {
        let wrong = |error: &dyn fmt::Display| FilterError::new(part, error);
        match part {
            "address" => self.address = Some(prefix(value).map_err(|error| wrong(&error))?),
            "port" => self.port = Some(port(value).map_err(|error| wrong(&error))?),
            "protocol" => {
                self.protocol = Some(value.parse().map_err(|error| wrong(&error))?);
            }
            "tuple" => self.tuple = Some(value.parse().map_err(|error| wrong(&error))?),
            "endpoint" => self.endpoint = Some(value.parse().map_err(|error| wrong(&error))?),
            "target" => self.target = Some(value.parse().map_err(|error| wrong(&error))?),
            "state" => self.state = Some(value.parse().map_err(|error| wrong(&error))?),
            other => {
                let known = Self::PARTS.join(", ");
                let message = match nearest(other, Self::PARTS) {
                    Some(near) => format!("no filter {other:?}; did you mean {near:?}?"),
                    None => format!("no filter {other:?}; there are {known}"),
                };
                return Err(FilterError::new(other, message));
            }
        }
        Ok(())
    }

    /// The parts that are said, with their values in words that [`set`](Self::set) takes.
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let Self { address, port, protocol, tuple, endpoint, target, state } = self;
        let parts = [
            ("address", address.map(|it| it.to_string())),
            ("port", port.map(|it| it.to_string())),
            ("protocol", protocol.map(|it| protocol_word(it.0))),
            ("tuple", tuple.map(|it| it.to_string())),
            ("endpoint", endpoint.as_ref().map(ToString::to_string)),
            ("target", target.map(|it| it.to_string())),
            ("state", state.map(|it| it.to_string())),
        ];
        parts.into_iter().filter_map(|(part, value)| Some((part, value?))).collect()
    }

    /// The same with names as numbers, in a view of the configuration.
    ///
    /// # Errors
    /// There is no such endpoint or target.
    pub fn bind(&self, view: &Snapshot) -> Result<FlowMatcher, FilterError> {
        let endpoint = match &self.endpoint {
            None => None,
            Some(EndpointName::WireId(id)) => Some(*id),
            Some(EndpointName::Name(name)) => {
                let topology = &view.topology;
                let found = topology.endpoint_by_name(name);
                let found = found.ok_or_else(|| {
                    let names = topology.endpoints().map(|(_, it)| it.name.as_str());
                    let there = said_of(name, names);
                    FilterError::new("endpoint", format!("there is no endpoint {name:?}; {there}"))
                })?;
                Some(topology.endpoint(found).wire_id)
            }
        };
        let inspectors = self.target.map(|target| inspectors(view, target)).transpose()?;
        let bypassed = match self.target {
            Some(TargetName::Bypass) => bypassed(view),
            _ => Vec::new(),
        };
        let tuples = self.tuple.map(|Tuple(key)| Stickiness::ALL.map(|it| key.sticky(it)));
        Ok(FlowMatcher {
            address: self.address,
            port: self.port,
            protocol: self.protocol.map(|it| it.0),
            tuples,
            endpoint,
            inspectors,
            bypassed,
            state: self.state.map(|it| it.0),
        })
    }
}

/// A [`FlowFilter`] in terms of a view of the configuration.
#[derive(Debug, Clone, Default)]
pub struct FlowMatcher {
    address: Option<IpNet>,
    port: Option<u16>,
    protocol: Option<u8>,
    /// As the flow table knows the flow, for each stickiness that there is.
    tuples: Option<[CanonicalKey; 3]>,
    /// By its id on the wire.
    endpoint: Option<u64>,
    inspectors: Option<Vec<Inspector>>,
    /// Endpoints, by their ids in order, whose flows are meant whoever they are kept for.
    bypassed: Vec<u64>,
    state: Option<&'static str>,
}

impl FlowMatcher {
    /// Whether a flow is meant that the flow table knows.
    pub fn matches(
        &self,
        tuple: &CanonicalKey,
        endpoint: u64,
        inspector: Inspector,
        tcp: Option<TcpState>,
    ) -> bool {
        self.matches_tuple(tuple)
            && self.matches_endpoint(endpoint)
            && (self.matches_inspector(inspector) || self.bypassed.binary_search(&endpoint).is_ok())
            && self.matches_state(tcp)
    }

    /// Whether flows with these ends and this protocol may be meant.
    pub fn matches_tuple(&self, tuple: &CanonicalKey) -> bool {
        let ends = [tuple.low(), tuple.high()];
        self.protocol.is_none_or(|wanted| tuple.protocol() == wanted)
            && self.port.is_none_or(|wanted| ends.iter().any(|end| end.port() == wanted))
            && self.address.is_none_or(|wanted| ends.iter().any(|end| wanted.contains(&end.ip())))
            && self.tuples.is_none_or(|wanted| wanted.contains(tuple))
    }

    /// Whether flows through the endpoint with this id on the wire may be meant.
    pub fn matches_endpoint(&self, endpoint: u64) -> bool {
        self.endpoint.is_none_or(|wanted| wanted == endpoint)
    }

    /// Whether flows that this one inspects may be meant.
    pub fn matches_inspector(&self, inspector: Inspector) -> bool {
        self.inspectors.as_ref().is_none_or(|wanted| wanted.contains(&inspector))
    }

    /// Whether flows whose connection is so far may be meant.
    pub fn matches_state(&self, tcp: Option<TcpState>) -> bool {
        self.state.is_none_or(|wanted| tcp.is_some_and(|tcp| tcp.name() == wanted))
    }

    /// Whether only flows through some endpoint are meant.
    pub fn needs_endpoint(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Whether only flows that somebody inspects, or that nobody does, are meant.
    pub fn needs_inspector(&self) -> bool {
        self.inspectors.is_some()
    }

    /// Whether only flows are meant whose connection is at some state.
    pub fn needs_state(&self) -> bool {
        self.state.is_some()
    }
}

/// The endpoints that nobody inspects the packets of, by their ids, in order.
fn bypassed(view: &Snapshot) -> Vec<u64> {
    let bypass = |pool| view.pool(pool).traffic_mode == TrafficMode::Bypass;
    let endpoints = view.endpoints.iter().filter(|endpoint| bypass(endpoint.pool));
    let mut bypassed: Vec<_> = endpoints.map(|endpoint| endpoint.wire_id).collect();
    bypassed.sort_unstable();
    bypassed
}

fn inspectors(view: &Snapshot, target: TargetName) -> Result<Vec<Inspector>, FilterError> {
    let (ip, port) = match target {
        TargetName::Bypass => return Ok(vec![Inspector::Bypass]),
        TargetName::Address(ip) => (ip, None),
        TargetName::Socket(address) => (address.ip(), Some(address.port())),
    };
    let at: &[TargetSlot] = view.sources.get(&ip).map_or(&[], Vec::as_slice);
    let of_port =
        |slot: &&TargetSlot| port.is_none_or(|port| view.target(**slot).address.port() == port);
    let found: Vec<_> = at.iter().filter(of_port).map(|slot| Inspector::Target(*slot)).collect();
    if found.is_empty() {
        let mut known: Vec<_> =
            view.sources.values().flatten().map(|slot| view.target(*slot).address).collect();
        known.sort_unstable();
        let known: Vec<_> = known.iter().map(ToString::to_string).collect();
        let there = said_of(&target.to_string(), known.iter().map(String::as_str));
        return Err(FilterError::new("target", format!("there is no target {target}; {there}")));
    }
    Ok(found)
}

/// What there is in place of something that is not there.
fn said_of<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    /// More names than this are no help.
    const FEW: usize = 8;
    let known: Vec<_> = known.collect();
    let (few, more) = known.split_at(known.len().min(FEW));
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if few.is_empty() => "there is none".to_owned(),
        None if more.is_empty() => format!("there are {}", few.join(", ")),
        None => format!("there are {}, …", few.join(", ")),
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let of_one = text.parse::<IpAddr>().map(IpNet::from);
    let prefix = of_one.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        format!("{text:?} is no address and no prefix, such as 10.0.1.11, 10.0.0.0/16 or fd00::/48")
    })?;
    Ok(prefix.trunc())
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{text:?} is no port: a number from 1 to 65535"))
}

/// A protocol in one word: its name where it has one here, or else its number.
pub fn protocol_word(number: u8) -> String {
    match Protocol(number).to_string() {
        name if name.parse::<Protocol>().is_ok() => name,
        _ => number.to_string(),
    }
}

impl FromStr for Tuple {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no flow: write SOURCE:PORT-DESTINATION:PORT/tcp, such as \
                 203.0.113.7:4711-10.0.1.11:443/tcp or [2001:db8::7]:4711-[fd00::11]:443/udp, and \
                 without ports 203.0.113.7-10.0.1.11/icmp"
            )
        };
        let (ends, protocol) = text.rsplit_once('/').ok_or_else(wrong)?;
        let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
        let (source, destination) = ends.split_once('-').ok_or_else(wrong)?;
        let has_ports = [protocol::TCP, protocol::UDP].contains(&protocol.0);
        let end = |text: &str| -> Option<SocketAddr> {
            let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
            match bare.parse::<IpAddr>() {
                // Without ports: as fragments, and flows that are known without, have them.
                Ok(address) => Some(SocketAddr::new(address, 0)),
                Err(_) => text.parse().ok().filter(|_| has_ports),
            }
        };
        let (source, destination) = end(source).zip(end(destination)).ok_or_else(wrong)?;
        if (source.port() == 0) != (destination.port() == 0) {
            return Err(wrong());
        }
        let key = FlowKey::new(source, destination, protocol.0).map_err(|_| {
            format!("{text:?} is no flow: its ends are of IPv4 or of IPv6, and not of both")
        })?;
        Ok(Self(key))
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key) = self;
        let protocol = protocol_word(key.protocol());
        let (source, destination) = (key.src(), key.dst());
        match (key.src_port(), key.dst_port()) {
            (0, 0) => write!(f, "{source}-{destination}/{protocol}"),
            (from, to) => {
                let source = SocketAddr::new(source, from);
                write!(f, "{source}-{}/{protocol}", SocketAddr::new(destination, to))
            }
        }
    }
}

impl FromStr for EndpointName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).map(Self::WireId).map_err(|_| {
                format!("{text:?} is no id of an endpoint: 0x and up to 16 digits of 0–9 and a–f")
            }),
            None if text.is_empty() => Err("an endpoint has a name".to_owned()),
            None => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::WireId(id) => write!(f, "{id:#018x}"),
        }
    }
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "bypass" {
            return Ok(Self::Bypass);
        }
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        let address = bare.parse().map(Self::Address);
        address.or_else(|_| text.parse().map(Self::Socket)).map_err(|_| {
            format!(
                "{text:?} is no target: an address, such as 192.0.2.11 or 192.0.2.11:6081, or \
                 bypass for flows that nobody inspects"
            )
        })
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::Socket(address) => address.fmt(f),
            Self::Bypass => f.write_str("bypass"),
        }
    }
}

impl FromStr for StateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|name| *name == text);
        found.map(Self).ok_or_else(|| {
            format!("{text:?} is no state of a flow: there are {}", Self::ALL.join(", "))
        })
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use geneve::arbitrary;
    use geneve::inner::TcpFlags;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::testing::Plane;
    use super::*;

    fn filter(parts: &[(&str, &str)]) -> FlowFilter {
        let mut filter = FlowFilter::default();
        for (part, value) in parts {
            filter.set(part, value).unwrap();
        }
        filter
    }

    fn tuple(text: &str) -> CanonicalKey {
        text.parse::<Tuple>().unwrap().0.canonical()
    }

    #[rstest]
    #[case("address", "10.0.0", "is no address and no prefix")]
    #[case("address", "10.0.0.0/33", "is no address and no prefix")]
    #[case("port", "0", "1 to 65535")]
    #[case("port", "65536", "1 to 65535")]
    #[case("protocol", "tpc", "write tcp, udp")]
    #[case("tuple", "10.0.0.1:1-10.0.0.2:2", "write SOURCE:PORT")]
    #[case("tuple", "10.0.0.1:1-10.0.0.2/tcp", "write SOURCE:PORT")]
    #[case("tuple", "10.0.0.1:1-10.0.0.2:2/icmp", "write SOURCE:PORT")]
    #[case("tuple", "10.0.0.1:1-[::1]:2/tcp", "not of both")]
    #[case("endpoint", "0x", "up to 16 digits")]
    #[case("endpoint", "", "has a name")]
    #[case("target", "fw", "is no target")]
    #[case("state", "open", "half_open, established, half_closed, closed")]
    #[case("adress", "10.0.0.1", "did you mean \"address\"?")]
    #[case("colour", "red", "there are address, port")]
    fn what_is_wrong_is_said(#[case] part: &str, #[case] value: &str, #[case] said: &str) {
        let error = FlowFilter::default().set(part, value).unwrap_err();
        assert_eq!(error.part, part);
        assert!(error.message.contains(said), "{error}");
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        let view = Plane::new("drop").snapshot;
        let refused = |part, value| filter(&[(part, value)]).bind(&view).unwrap_err().message;
        assert!(refused("endpoint", "vpce-b").contains("did you mean \"vpce-a\"?"));
        assert!(refused("target", "192.0.2.99").contains("192.0.2.11:6081"), "what there is");
        assert!(refused("target", "192.0.2.11:1").contains("192.0.2.11:6081"));
        for value in ["192.0.2.11", "192.0.2.11:6081", "bypass"] {
            filter(&[("target", value)]).bind(&view).unwrap();
        }
    }

    #[test]
    fn either_end_counts_and_all_parts_do() {
        let view = Plane::new("drop").snapshot;
        let wire_id = view.endpoints[0].wire_id;
        let by_id = format!("{wire_id:#x}");
        let flow = tuple("203.0.113.7:4711-10.0.1.11:443/tcp");
        let (first, second) = (
            view.sources[&"192.0.2.11".parse::<IpAddr>().unwrap()][0],
            view.sources[&"192.0.2.12".parse::<IpAddr>().unwrap()][0],
        );
        let established = TcpState::begin(TcpFlags::ACK, 0);
        let meant = |parts: &[(&str, &str)]| {
            let matcher = filter(parts).bind(&view).unwrap();
            matcher.matches(&flow, wire_id, Inspector::Target(first), Some(established))
        };
        let right = [
            ("address", "203.0.113.7"),
            ("address", "10.0.1.0/24"),
            ("port", "443"),
            ("port", "4711"),
            ("protocol", "tcp"),
            ("tuple", "10.0.1.11:443-203.0.113.7:4711/tcp"),
            ("endpoint", "vpce-a"),
            ("endpoint", &by_id),
            ("target", "192.0.2.11"),
            ("state", "established"),
        ];
        let wrong = [
            ("address", "10.0.2.0/24"),
            ("address", "::/0"),
            ("port", "80"),
            ("protocol", "udp"),
            ("tuple", "10.0.1.11:443-203.0.113.7:4712/tcp"),
            ("endpoint", "0x1"),
            ("target", "192.0.2.12:6081"),
            ("target", "bypass"),
            ("state", "closed"),
        ];
        assert!(meant(&[]));
        assert!(right.iter().all(|part| meant(&[*part])));
        for part in wrong {
            assert!(!meant(&[part]), "{part:?}");
            // All parts count, whatever the others say.
            let others = right.iter().filter(|(other, _)| *other != part.0).copied();
            assert!(!meant(&others.chain([part]).collect::<Vec<_>>()), "{part:?}");
        }
        let matcher = filter(&[("state", "closed")]).bind(&view).unwrap();
        assert!(!matcher.matches(&flow, wire_id, Inspector::Target(second), None), "no connection");
        let bypass = filter(&[("target", "bypass")]).bind(&view).unwrap();
        assert!(bypass.matches(&flow, wire_id, Inspector::Bypass, None));
        // While the switch is on, nobody inspects it, be it that it is kept for somebody.
        let mut off = Snapshot::clone(&view);
        off.pools[0].traffic_mode = TrafficMode::Bypass;
        for (target, meant) in [("bypass", true), ("192.0.2.11", true), ("192.0.2.12", false)] {
            let asked = filter(&[("target", target)]).bind(&off).unwrap();
            let fits = |endpoint| asked.matches(&flow, endpoint, Inspector::Target(first), None);
            assert_eq!(fits(wire_id), meant, "{target}");
            assert_eq!(fits(wire_id + 1), meant && target != "bypass", "{target}");
        }
    }

    #[test]
    fn a_tuple_finds_flows_that_are_known_without_ports() {
        let view = Plane::new("drop").snapshot;
        let asked = filter(&[("tuple", "203.0.113.7:4711-10.0.1.11:443/tcp")]).bind(&view).unwrap();
        let key = "203.0.113.7:4711-10.0.1.11:443/tcp".parse::<Tuple>().unwrap().0;
        for stickiness in Stickiness::ALL {
            assert!(asked.matches_tuple(&key.sticky(stickiness)), "{stickiness:?}");
        }
        assert!(!asked.matches_tuple(&tuple("203.0.113.7-10.0.1.11/icmp")));
    }

    proptest! {
        /// What a filter says of itself makes the same filter.
        #[test]
        fn a_filter_is_what_it_says(
            key in arbitrary::flow_key(), port in 1u16.., protocol: u8, wire_id: u64, state in 0usize..4,
        ) {
            let whole = FlowFilter {
                address: Some(IpNet::from(key.src())),
                port: Some(port),
                protocol: Some(Protocol(protocol)),
                tuple: None,
                endpoint: Some(EndpointName::WireId(wire_id)),
                target: Some(TargetName::Socket(SocketAddr::new(key.dst(), port))),
                state: Some(StateName(StateName::ALL[state])),
            };
            let mut read = FlowFilter::default();
            for (part, value) in whole.parts() {
                read.set(part, &value).unwrap();
            }
            prop_assert_eq!(read, whole);
        }

        #[test]
        fn tuples_are_read_as_they_are_written(
            v6: bool, from: [u8; 16], to: [u8; 16], ports in (1u16.., 1u16..), protocol in 0usize..5,
        ) {
            let v4 = |[a, b, c, d, ..]: [u8; 16]| IpAddr::from([a, b, c, d]);
            let address = |bytes| if v6 { IpAddr::from(bytes) } else { v4(bytes) };
            let (number, has_ports) = [(6, true), (17, true), (1, false), (58, false), (47, false)][protocol];
            let (from_port, to_port) = if has_ports { ports } else { (0, 0) };
            let ends = [SocketAddr::new(address(from), from_port), SocketAddr::new(address(to), to_port)];
            let tuple = Tuple(FlowKey::new(ends[0], ends[1], number).unwrap());
            prop_assert_eq!(tuple.to_string().parse::<Tuple>(), Ok(tuple));
        }

        #[test]
        fn noise_is_never_a_panic(part in "\\PC{0,12}", value in "\\PC{0,40}") {
            let _ = FlowFilter::default().set(&part, &value);
            for part in FlowFilter::PARTS {
                let _ = FlowFilter::default().set(part, &value);
            }
        }
    }
}
