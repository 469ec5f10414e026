//! Links, addresses, routes and statistics of one network namespace, by rtnetlink.
//!
//! The functions are synchronous: they are for building networks and for tests, not for the packet
//! path. Each call waits for the kernel's answer, and an error says what was asked of which
//! namespace.

mod policy;
mod vxlan;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, Stats64,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{
    Handle, LinkDelRequest, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use tokio::runtime::{Builder, Runtime};

use crate::netns::{Netns, NetnsError};

pub use vxlan::Vxlan;

/// The links of one network namespace.
pub struct Links {
    netns: Netns,
    /// `Some` until dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Links {
    /// Opens a netlink socket inside `netns`. Changes need `CAP_NET_ADMIN` over the namespace.
    pub fn in_netns(netns: &Netns) -> Result<Self, LinkError> {
        let fail = |source| LinkError::new("open netlink", netns, source);
        let connect = || {
            let runtime = Builder::new_current_thread().enable_io().build()?;
            let guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            drop(guard);
            runtime.spawn(connection);
            Ok((runtime, handle))
        };
        let (runtime, handle) = netns.run(connect)?.map_err(fail)?;
        Ok(Self { netns: netns.clone(), runtime: Some(runtime), handle })
    }

    /// The namespace that these links are in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Every link of the namespace.
    pub fn all(&self) -> Result<Vec<Link>, LinkError> {
        let links = self.wait(self.handle.link().get().execute().try_collect::<Vec<_>>());
        let links = links.map_err(|error| self.error("list the links", error))?;
        Ok(links.iter().map(Link::from).collect())
    }

    /// One link.
    ///
    /// # Errors
    /// With [`io::ErrorKind::NotFound`] (`ENODEV`) if there is none of that name.
    pub fn get(&self, name: &str) -> Result<Link, LinkError> {
        Ok(Link::from(&self.look_up(name)?))
    }

    /// Whether there is a link of that name.
    pub fn exists(&self, name: &str) -> Result<bool, LinkError> {
        match self.get(name) {
            Ok(_) => Ok(true),
            Err(error) if error.is_no_such_device() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the kernel has counted on a link since it was made.
    pub fn statistics(&self, name: &str) -> Result<LinkStatistics, LinkError> {
        Ok(self.get(name)?.statistics)
    }

    /// Makes a virtual cable: `name` here, `peer` in `peer_netns`. Both ends are down.
    pub fn create_veth(&self, name: &str, peer: &str, peer_netns: &Netns) -> Result<(), LinkError> {
        let end =
            LinkUnspec::new_with_name(peer).setns_by_fd(peer_netns.as_fd().as_raw_fd()).build();
        let pair =
            LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(end))).build();
        self.wait(self.handle.link().add(pair).execute()).map_err(|error| {
            let peer_netns = peer_netns.name();
            self.error(format!("create veth {name:?} with {peer:?} in {peer_netns:?}"), error)
        })
    }

    /// Deletes a link; the other end of a veth pair goes with it.
    pub fn delete(&self, name: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_name(name).build();
        let request = LinkDelRequest::new_with_message(self.handle.clone(), message);
        self.wait(request.execute())
            .map_err(|error| self.error(format!("delete link {name:?}"), error))
    }

    /// Sets a link up.
    pub fn set_up(&self, name: &str) -> Result<(), LinkError> {
        self.change(name, LinkMessageBuilder::up, || "set it up".to_owned())
    }

    /// Sets a link down.
    pub fn set_down(&self, name: &str) -> Result<(), LinkError> {
        self.change(name, LinkMessageBuilder::down, || "set it down".to_owned())
    }

    /// Sets the largest packet, in bytes, that a link takes.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), LinkError> {
        self.change(name, |link| link.mtu(mtu), || format!("set its MTU to {mtu}"))
    }

    /// Sets the largest super-packet, in bytes, that the kernel hands to a link with segmentation
    /// offload; at most the device's own limit, 65,536 on a TUN. For sizes up to 65,536 this holds
    /// for IPv4 and IPv6 alike.
    pub fn set_gso_max_size(&self, name: &str, bytes: u32) -> Result<(), LinkError> {
        let attribute = LinkAttribute::GsoMaxSize(bytes);
        let what = || format!("set its gso_max_size to {bytes}");
        self.change(name, |link| link.append_extra_attribute(attribute), what)
    }

    /// Gives a link an address. Duplicate address detection is off for IPv6, since it would take a
    /// second or more.
    ///
    /// Set the link (and its other end) up first: the address can then be reached as soon as this
    /// returns. An IPv6 address that was there before loses its first packet, and with it a second.
    pub fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let link = self.look_up(name)?;
        let mut request = self.handle.address().add(link.header.index, address, prefix);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        self.wait(request.execute()).map_err(|error| {
            self.error(format!("add address {address}/{prefix} to link {name:?}"), error)
        })?;
        if address.is_ipv6() && link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp) {
            self.wait_until_local(address)?;
        }
        Ok(())
    }

    /// Takes an address away from a link.
    pub fn delete_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let what = || format!("delete address {address}/{prefix} from link {name:?}");
        let index = self.look_up(name)?.header.index;
        let request = self.handle.address().get().set_link_index_filter(index);
        let found = self
            .wait(
                request
                    .set_address_filter(address)
                    .set_prefix_length_filter(prefix)
                    .execute()
                    .try_next(),
            )
            .map_err(|error| self.error(what(), error))?;
        let Some(message) = found else {
            return Err(LinkError::new(
                what(),
                &self.netns,
                io::ErrorKind::AddrNotAvailable.into(),
            ));
        };
        self.wait(self.handle.address().del(message).execute())
            .map_err(|error| self.error(what(), error))
    }

    /// The kernel receives for an IPv6 address from when it has a local route, which it adds a
    /// little after it has answered.
    fn wait_until_local(&self, address: IpAddr) -> Result<(), LinkError> {
        // A second: should it take longer still, the address is there all the same.
        for _ in 0..1000 {
            let what = || format!("look up the route to {address}");
            let route = self.route_message(&Route::new(address, 128), what)?;
            let mut request = self.handle.route().get(route).execute();
            if let Ok(Some(route)) = self.wait(request.try_next())
                && route.header.kind == RouteType::Local
            {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The addresses of a link with their prefix lengths, the kernel's own link-local ones included.
    pub fn addresses(&self, name: &str) -> Result<Vec<(IpAddr, u8)>, LinkError> {
        let index = self.get(name)?.index;
        let request = self.handle.address().get().set_link_index_filter(index).execute();
        let found = self
            .wait(request.try_collect::<Vec<_>>())
            .map_err(|error| self.error(format!("list the addresses of link {name:?}"), error))?;
        Ok(found.iter().filter_map(address).collect())
    }

    /// Adds a route, to the main table if it names no other.
    pub fn add_route(&self, route: &Route<'_>) -> Result<(), LinkError> {
        let what = || format!("add route {route}");
        let message = self.route_message(route, what)?;
        self.wait(self.handle.route().add(message).execute())
            .map_err(|error| self.error(what(), error))
    }

    /// Deletes a route, from the main table if it names no other.
    pub fn delete_route(&self, route: &Route<'_>) -> Result<(), LinkError> {
        let what = || format!("delete route {route}");
        let message = self.route_message(route, what)?;
        self.wait(self.handle.route().del(message).execute())
            .map_err(|error| self.error(what(), error))
    }

    fn route_message(
        &self,
        route: &Route<'_>,
        what: impl Fn() -> String,
    ) -> Result<RouteMessage, LinkError> {
        let unfit = |error: &dyn fmt::Display| {
            LinkError::new(what(), &self.netns, io::Error::other(error.to_string()))
        };
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.destination, route.prefix)
            .map_err(|error| unfit(&error))?;
        if let Some(gateway) = route.via {
            message = message.gateway(gateway).map_err(|error| unfit(&error))?;
        } else {
            message = message.scope(RouteScope::Link);
        }
        if let Some(source) = route.source {
            message = message.pref_source(source).map_err(|error| unfit(&error))?;
        }
        if let Some(device) = route.device {
            message = message.output_interface(self.get(device)?.index);
        }
        if let Some(mtu) = route.mtu {
            let metrics = RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]);
            message.get_mut().attributes.push(metrics);
        }
        if let Some(table) = route.table {
            message = message.table_id(table);
        }
        Ok(message.build())
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
        what: impl FnOnce() -> String,
    ) -> Result<(), LinkError> {
        let message = change(LinkUnspec::new_with_name(name)).build();
        self.wait(self.handle.link().set(message).execute())
            .map_err(|error| self.error(format!("change link {name:?}: {}", what()), error))
    }

    fn look_up(&self, name: &str) -> Result<LinkMessage, LinkError> {
        let what = || format!("look up link {name:?}");
        let mut request = self.handle.link().get().match_name(name).execute();
        let found = self.wait(request.try_next()).map_err(|error| self.error(what(), error))?;
        let none = || io::Error::from_raw_os_error(libc::ENODEV);
        found.ok_or_else(|| LinkError::new(what(), &self.netns, none()))
    }

    fn error(&self, what: impl Into<String>, error: rtnetlink::Error) -> LinkError {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => refusal(&message),
            other => io::Error::other(other.to_string()),
        };
        LinkError::new(what, &self.netns, source)
    }

    /// Drives `request` to its end; also where the caller itself runs on a tokio runtime, in which
    /// `block_on` would panic.
    fn wait<T: Send>(&self, request: impl Future<Output = T> + Send) -> T {
        let Some(runtime) = &self.runtime else { unreachable!("the runtime lives until the drop") };
        if tokio::runtime::Handle::try_current().is_err() {
            return runtime.block_on(request);
        }
        thread::scope(|scope| {
            let waiting = scope.spawn(|| runtime.block_on(request));
            waiting.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // A plain drop would panic on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("netns", &self.netns).finish_non_exhaustive()
    }
}

/// Why the kernel refused. The code is an error number with its sign turned; one that is none must
/// not turn over.
pub(crate) fn refusal(message: &ErrorMessage) -> io::Error {
    io::Error::from_raw_os_error(message.raw_code().wrapping_neg())
}

/// The address that a message is about, with its prefix length.
pub(crate) fn address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some((address?, message.header.prefix_len))
}

/// What the kernel says about a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The name, unique in its namespace.
    pub name: String,
    /// The number, unique in its namespace.
    pub index: u32,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Largest super-packet, in bytes.
    pub gso_max_size: u32,
    /// Whether it was set up.
    pub up: bool,
    /// What was counted so far.
    pub statistics: LinkStatistics,
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = *bytes,
                LinkAttribute::Stats64(statistics) => link.statistics = statistics.into(),
                _ => {}
            }
        }
        link
    }
}

/// A link's counters. On a TUN, `rx` is what a program wrote and `tx` what it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Packets received; a super-packet counts once.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received with a fault.
    pub rx_errors: u64,
    /// Packets received and dropped for want of room.
    pub rx_dropped: u64,
    /// Packets sent; a super-packet counts once.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped before sending: on a TUN, because its queue was full.
    pub tx_dropped: u64,
}

impl From<&Stats64> for LinkStatistics {
    fn from(from: &Stats64) -> Self {
        Self {
            rx_packets: from.rx_packets,
            rx_bytes: from.rx_bytes,
            rx_errors: from.rx_errors,
            rx_dropped: from.rx_dropped,
            tx_packets: from.tx_packets,
            tx_bytes: from.tx_bytes,
            tx_errors: from.tx_errors,
            tx_dropped: from.tx_dropped,
        }
    }
}

/// A route, to be added or deleted.
///
/// ```
/// # use netio::link::Route;
/// let route = Route::new("10.1.0.0".parse()?, 16).via("10.0.0.1".parse()?).device("eth0").mtu(1400);
/// assert_eq!(route.to_string(), "10.1.0.0/16 via 10.0.0.1 dev eth0 mtu 1400");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    destination: IpAddr,
    prefix: u8,
    via: Option<IpAddr>,
    device: Option<&'a str>,
    source: Option<IpAddr>,
    mtu: Option<u32>,
    table: Option<u32>,
}

impl<'a> Route<'a> {
    /// A route to `destination`/`prefix`; the bits beyond the prefix must be zero.
    pub fn new(destination: IpAddr, prefix: u8) -> Self {
        Self { destination, prefix, via: None, device: None, source: None, mtu: None, table: None }
    }

    /// Through the gateway at `address`.
    #[must_use]
    pub fn via(mut self, address: IpAddr) -> Self {
        self.via = Some(address);
        self
    }

    /// Out of the link `name`.
    #[must_use]
    pub fn device(mut self, name: &'a str) -> Self {
        self.device = Some(name);
        self
    }

    /// With `address` as the source that the kernel prefers.
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// With packets of at most `bytes`.
    #[must_use]
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// In a routing table of this number, in place of the main one; [`Links::add_rule`] says what
    /// is routed by it.
    #[must_use]
    pub fn table(mut self, table: u32) -> Self {
        self.table = Some(table);
        self
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(device) = self.device {
            write!(f, " dev {device}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(table) = self.table {
            write!(f, " table {table}")?;
        }
        Ok(())
    }
}

/// Why something could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused.
    #[error("cannot {what} in network namespace {netns:?}: {source}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The namespace's name.
        netns: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl LinkError {
    /// The kernel's answer, where there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Netns(error) => error.io_error(),
            Self::Refused { source, .. } => Some(source),
        }
    }

    fn is_no_such_device(&self) -> bool {
        self.io_error().and_then(io::Error::raw_os_error) == Some(libc::ENODEV)
    }

    fn new(what: impl Into<String>, netns: &Netns, source: io::Error) -> Self {
        Self::Refused { what: what.into(), netns: netns.name().to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_why() {
        let netns = Netns::current().unwrap();
        let error = LinkError::new(
            "set up link \"eth7\"",
            &netns,
            io::Error::from_raw_os_error(libc::ENODEV),
        );
        assert_eq!(
            error.to_string(),
            "cannot set up link \"eth7\" in network namespace \"(current)\": No such device (os error 19)"
        );
        assert!(error.is_no_such_device());
    }

    #[test]
    fn a_route_is_written_as_ip_route_writes_it() {
        let route = Route::new("::".parse().unwrap(), 0).device("tun0");
        assert_eq!(route.to_string(), "::/0 dev tun0");
        let source = Route::new("192.0.2.0".parse().unwrap(), 24)
            .device("eth0")
            .source("192.0.2.1".parse().unwrap());
        assert_eq!(source.to_string(), "192.0.2.0/24 dev eth0 src 192.0.2.1");
        let table = Route::new("0.0.0.0".parse().unwrap(), 0).device("eth0").table(100);
        assert_eq!(table.to_string(), "0.0.0.0/0 dev eth0 table 100");
    }
}
