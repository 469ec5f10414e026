//! IP addresses as the file has them: of the underlay, and of an attachment's device.

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
}

/// An outer address: of a load balancer's node, or of a target.
pub(super) fn underlay(text: &str) -> Result<IpAddr, AddressError> {
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
