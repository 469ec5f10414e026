//! A packet, as far as somebody says what it is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

/// What is known of a packet. Routing needs its destination alone; the choice of an appliance, all
/// of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct Packet {
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Where it goes.
    pub destination: IpAddr,
    /// What is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The port that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
}

/// A protocol by its number (IANA, Protocol Numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Protocol(pub u8);

/// Why a text is no protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no protocol: write tcp, udp, icmp, icmpv6 or a number from 0 to 255")]
pub struct UnknownProtocol(String);

/// The names that are read and written.
const NAMES: [(&str, u8); 4] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58)];

impl Packet {
    /// A packet of which the destination is known.
    pub fn to(destination: IpAddr) -> Packet {
        Packet {
            source: None,
            destination,
            protocol: None,
            source_port: None,
            destination_port: None,
        }
    }

    /// The answer to it; the source must be known, or its destination stays.
    #[must_use]
    pub fn reversed(&self) -> Packet {
        Packet {
            source: Some(self.destination),
            destination: self.source.unwrap_or(self.destination),
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Protocol, UnknownProtocol> {
        let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = named.map(|(_, number)| *number).or_else(|| text.parse().ok());
        number.map(Protocol).ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

/// `tcp 203.0.113.7:40000 -> 10.0.1.11:443`, or `to 10.0.1.11` if no more is known.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol} ")?;
        }
        let with_port = |address, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        match self.source {
            Some(source) => write!(f, "{} -> ", with_port(source, self.source_port))?,
            None => f.write_str("to ")?,
        }
        f.write_str(&with_port(self.destination, self.destination_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_written_as_far_as_they_are_known() {
        let mut packet = Packet::to("10.0.1.11".parse().unwrap());
        assert_eq!(packet.to_string(), "to 10.0.1.11");
        packet.source = Some("203.0.113.7".parse().unwrap());
        packet.protocol = Some("TCP".parse().unwrap());
        packet.destination_port = Some(443);
        assert_eq!(packet.to_string(), "tcp 203.0.113.7 -> 10.0.1.11:443");
        assert_eq!(packet.reversed().to_string(), "tcp 10.0.1.11:443 -> 203.0.113.7");
        assert_eq!(packet.reversed().reversed(), packet);
    }

    #[test]
    fn protocols_are_names_or_numbers() {
        for (text, number) in [("udp", 17), ("icmpv6", 58), ("47", 47), ("255", 255)] {
            assert_eq!(text.parse(), Ok(Protocol(number)));
        }
        for text in ["", "tpc", "256", "-1"] {
            text.parse::<Protocol>().unwrap_err();
        }
        assert_eq!(Protocol(47).to_string(), "protocol 47");
    }
}
