//! Addresses as the file has them: of the underlay, of an attachment's device, of a health check's
//! host.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;

/// Why a string is not the address that its key wants.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum AddressError {
    #[error("not an IP address")]
    Syntax,
    #[error("a single address has no prefix length")]
    Prefix,
    #[error("an address without a port belongs here")]
    Port,
    #[error("not the address of one host")]
    NotUnicast,
    #[error("an IPv4 address in the form of an IPv6 one")]
    Mapped,
    #[error("a link-local address is not unique without its interface")]
    LinkLocal,
    #[error("an address with its prefix length belongs here")]
    NoPrefix,
    #[error("not an address with a prefix length")]
    PrefixSyntax,
    #[error("not an IP address and a port")]
    SocketSyntax,
    #[error("port 0 cannot be listened on")]
    PortZero,
    #[error("neither a DNS name nor an IP address")]
    Host,
}

/// The address of one host: a load balancer's node, a target, one end of a tunnel check.
pub(super) fn one_host(text: &str) -> Result<IpAddr, AddressError> {
    let address: IpAddr = text.parse().map_err(|_| {
        if text.parse::<IpNet>().is_ok() {
            AddressError::Prefix
        } else if text.parse::<SocketAddr>().is_ok() {
            AddressError::Port
        } else {
            AddressError::Syntax
        }
    })?;
    unicast(address)
}

/// An address for a device, with the length of the prefix that is reached through it.
pub(super) fn interface(text: &str) -> Result<IpNet, AddressError> {
    let address: IpNet = text.parse().map_err(|_| {
        if text.parse::<IpAddr>().is_ok() {
            AddressError::NoPrefix
        } else {
            AddressError::PrefixSyntax
        }
    })?;
    unicast(address.addr())?;
    Ok(address)
}

/// An address and a port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, AddressError> {
    match text.parse::<SocketAddr>().map_err(|_| AddressError::SocketSyntax)? {
        address if address.port() == 0 => Err(AddressError::PortZero),
        address => Ok(address),
    }
}

/// A DNS name (RFC 1123 §2.1, without the dot at its end, which RFC 6066 §3 keeps out of a TLS
/// handshake) or an IP address.
pub(super) fn host(text: &str) -> Result<String, AddressError> {
    /// What fits in a DNS message (RFC 1035 §2.3.4), written out.
    const MAX_NAME: usize = 253;
    const MAX_LABEL: usize = 63;

    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let with_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if with_port || text.parse::<SocketAddr>().is_ok() {
        return Err(AddressError::Port);
    }
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is an IPv4 address gone wrong: no top-level domain is one.
    let last = text.rsplit('.').next().unwrap_or(text);
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() <= MAX_NAME && text.split('.').all(is_label) && !numeric {
        Ok(text.to_owned())
    } else {
        Err(AddressError::Host)
    }
}

fn unicast(address: IpAddr) -> Result<IpAddr, AddressError> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(AddressError::NotUnicast);
    }
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(AddressError::Mapped),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddressError::LinkLocal),
        address => Ok(address),
    }
}

/// "IPv4" or "IPv6", for messages.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.1", None)]
    #[case("127.0.0.1", None)]
    #[case("2001:db8::1", None)]
    #[case("192.0.2.1/24", Some(AddressError::Prefix))]
    #[case("192.0.2.1:6081", Some(AddressError::Port))]
    #[case("[2001:db8::1]:6081", Some(AddressError::Port))]
    #[case("fw.example", Some(AddressError::Syntax))]
    #[case("192.0.2.01", Some(AddressError::Syntax))]
    #[case("0.0.0.0", Some(AddressError::NotUnicast))]
    #[case("224.0.0.1", Some(AddressError::NotUnicast))]
    #[case("255.255.255.255", Some(AddressError::NotUnicast))]
    #[case("ff02::1", Some(AddressError::NotUnicast))]
    #[case("::ffff:192.0.2.1", Some(AddressError::Mapped))]
    #[case("fe80::1", Some(AddressError::LinkLocal))]
    fn an_outer_address_is_of_one_host(#[case] text: &str, #[case] error: Option<AddressError>) {
        assert_eq!(one_host(text).err(), error);
    }

    #[rstest]
    #[case("10.0.1.11/24", None)]
    #[case("fd00::11/64", None)]
    #[case("10.0.1.11", Some(AddressError::NoPrefix))]
    #[case("10.0.1.11/33", Some(AddressError::PrefixSyntax))]
    #[case("224.0.0.1/24", Some(AddressError::NotUnicast))]
    fn an_address_of_a_device_keeps_its_host(
        #[case] text: &str,
        #[case] error: Option<AddressError>,
    ) {
        let parsed = interface(text);
        assert_eq!(parsed.as_ref().err(), error.as_ref());
        assert!(parsed.map_or(true, |address| address.to_string() == text));
    }

    #[rstest]
    #[case("fw", None)]
    #[case("fw-1.example.com", None)]
    #[case("1.example", None)]
    #[case("192.0.2.1", None)]
    #[case("2001:db8::1", None)]
    #[case("", Some(AddressError::Host))]
    #[case("fw.example.com.", Some(AddressError::Host))]
    #[case("fw..example", Some(AddressError::Host))]
    #[case("-fw.example", Some(AddressError::Host))]
    #[case("fw-.example", Some(AddressError::Host))]
    #[case("fw_1.example", Some(AddressError::Host))]
    #[case("*.example", Some(AddressError::Host))]
    #[case("fw.example/healthz", Some(AddressError::Host))]
    #[case("192.0.2.300", Some(AddressError::Host))]
    #[case("fw.example:80", Some(AddressError::Port))]
    #[case("192.0.2.1:80", Some(AddressError::Port))]
    #[case("[2001:db8::1]:80", Some(AddressError::Port))]
    #[case("[2001:db8::1]", Some(AddressError::Host))]
    fn a_host_is_a_name_or_an_address(#[case] text: &str, #[case] error: Option<AddressError>) {
        assert_eq!(host(text).err(), error);
    }

    #[test]
    fn a_name_is_no_longer_than_dns_carries() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!((longest.len(), host(&longest).as_deref()), (253, Ok(longest.as_str())));
        assert_eq!(host(&format!("{longest}a")), Err(AddressError::Host));
        assert_eq!(host(&"a".repeat(64)), Err(AddressError::Host));
    }

    #[test]
    fn a_listener_needs_a_port() {
        assert_eq!(listen("127.0.0.1:9961").unwrap().port(), 9961);
        assert_eq!(listen("127.0.0.1:0").unwrap_err(), AddressError::PortZero);
        assert_eq!(listen("9961").unwrap_err(), AddressError::SocketSyntax);
    }
}
