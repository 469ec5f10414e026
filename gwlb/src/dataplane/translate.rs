//! The one-to-one mapping of an internet gateway: public addresses outside, private ones inside.
//!
//! It happens at the attachment, before anything else looks at an address: routes, flow keys, owners,
//! cookies and appliances see private addresses only. What no mapping names passes as it is, and so
//! do IPv4 options and all of IPv6. AWS's gateway also refuses what comes from or goes to a private
//! address that has no public one: nothing is refused here, that would be the routes' business.

use std::net::IpAddr;

use ahash::AHashMap;
use geneve::checksum::update;
use netio::offload::{Offload, PartialChecksum};
use pnet_packet::icmp::{IcmpPacket, IcmpTypes};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols as protocols};
use pnet_packet::ipv4::Ipv4Packet;
use router::AddressMapping;

use crate::fault::{self, Fault};

/// The mappings of one internet gateway.
#[derive(Debug, Clone)]
pub struct Translation {
    to_private: Addresses,
    to_public: Addresses,
}

type Address = [u8; 4];
type Addresses = AHashMap<Address, Address>;

impl Translation {
    /// The translation by these mappings; `None` if there are none.
    pub fn of(mappings: &[AddressMapping]) -> Option<Self> {
        let pairs = mappings.iter().filter_map(|mapping| match (mapping.public, mapping.private) {
            (IpAddr::V4(public), IpAddr::V4(private)) => Some((public.octets(), private.octets())),
            // semantics 1d: "IPv6: no NAT"
            _ => None,
        });
        let to_private: Addresses = pairs.collect();
        let to_public = to_private.iter().map(|(&public, &private)| (private, public)).collect();
        (!to_private.is_empty()).then_some(Self { to_private, to_public })
    }

    /// Translates a packet that comes in from the internet: its public destination becomes private.
    /// In an ICMP error so does the source of the packet that it quotes, which once went out. Tells
    /// whether anything was changed.
    ///
    /// Checksums are updated, not computed anew, so that a wrong one stays wrong. Bytes that are no
    /// IPv4 packet are left alone.
    pub fn inward(&self, packet: &mut [u8], offload: &Offload) -> bool {
        let partial = offload.checksum.map(Partial::of);
        translate(&self.to_private, [End::Destination, End::Source], packet, partial)
    }

    /// The reverse, for a packet that leaves to the internet: its private source becomes public, and
    /// in an ICMP error the destination of the packet that it quotes, which once came in.
    pub fn outward(&self, packet: &mut [u8], offload: &Offload) -> bool {
        let partial = offload.checksum.map(Partial::of);
        translate(&self.to_public, [End::Source, End::Destination], packet, partial)
    }

    /// What [`inward`](Self::inward) makes of the start of a packet that is only looked at. `None` if
    /// it stays as it is.
    pub fn inward_head(&self, start: &[u8], offload: &Offload) -> Option<Head> {
        let mut head = Head::of(start);
        self.inward(&mut head.bytes[..head.len], offload).then_some(head)
    }

    /// What [`outward`](Self::outward) makes of the start of a packet, for one that cannot be changed
    /// where it lies; the rest of it stays as it is. `None` if all of it does.
    ///
    /// `start` is the packet, or its headers, as those of a super-packet lie apart.
    pub fn outward_head(&self, start: &[u8], offload: &Offload) -> Option<Head> {
        let mut head = Head::of(start);
        self.outward(&mut head.bytes[..head.len], offload).then_some(head)
    }
}

/// The start of a packet, translated.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Head {
    /// All that a translation changes lies in so many bytes: an ICMP error, and the packet that it
    /// quotes up to the end of TCP's checksum, with all the options that two IPv4 headers can have.
    pub const MAX: usize = IPV4_MAX + ICMP_HEADER + IPV4_MAX + TCP_CHECKSUM + 2;

    /// A copy of a packet's start.
    fn of(start: &[u8]) -> Self {
        let len = start.len().min(Self::MAX);
        let mut head = Self { bytes: [0; Self::MAX], len };
        head.bytes[..len].copy_from_slice(&start[..len]);
        head
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// A packet as it leaves: the head, if it has one, in place of as many of its bytes, then the
    /// rest.
    pub fn before<'a>(head: Option<&'a Self>, packet: &'a [u8]) -> [&'a [u8]; 2] {
        match head {
            Some(Self { bytes, len }) => [&bytes[..*len], packet.get(*len..).unwrap_or_default()],
            None => [packet, &[]],
        }
    }
}

const IPV4_MIN: usize = 20;
const IPV4_MAX: usize = 60;
const IPV4_CHECKSUM: usize = 10;
/// What an ICMP error has in front of the quote.
const ICMP_HEADER: usize = 8;
const ICMP_CHECKSUM: usize = 2;
const TCP_CHECKSUM: usize = 16;
/// In UDP, UDP-Lite (RFC 3828) and DCCP (RFC 4340) alike.
const UDP_CHECKSUM: usize = 6;

/// Which of a packet's addresses.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl End {
    /// Where in the IPv4 header it stands.
    fn at(self) -> usize {
        match self {
            End::Source => 12,
            End::Destination => 16,
        }
    }
}

/// Where in a packet a checksum lies that its device left unfinished: it holds the sum over the
/// pseudo-header, not complemented, and what it covers is summed up later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partial(usize);

impl Partial {
    fn of(PartialChecksum { start, offset }: PartialChecksum) -> Self {
        Self(usize::from(start) + usize::from(offset))
    }
}

/// Bytes of a packet that became others.
#[derive(Debug, Clone, Copy)]
struct Change<const N: usize> {
    old: [u8; N],
    new: [u8; N],
}

/// Translates one address of a packet, and the other one of the packet that it quotes.
fn translate(
    addresses: &Addresses,
    [end, quoted_end]: [End; 2],
    packet: &mut [u8],
    partial: Option<Partial>,
) -> bool {
    let Some(layout) = Layout::read(packet) else { return false };
    let change = change(addresses, end, packet);
    if let Some(change) = change {
        layout.apply(packet, end, change, partial);
    }
    let summed_later = partial == Some(Partial(layout.header_len + ICMP_CHECKSUM));
    let quote = layout
        .icmp_error(packet)
        .filter(|_| !fault::on(Fault::QuoteUntranslated))
        .and_then(|error| translate_quote(addresses, quoted_end, error, summed_later));
    change.is_some() || quote.is_some()
}

/// Translates one address of the packet that an ICMP error quotes; `None` if it has no mapping.
fn translate_quote(
    addresses: &Addresses,
    end: End,
    error: &mut [u8],
    summed_later: bool,
) -> Option<()> {
    let (header, quote) = error.split_at_mut_checked(ICMP_HEADER)?;
    let layout = Layout::read(quote)?;
    let change = change(addresses, end, quote);
    // The sum over the quoted IPv4 header is what it was: its checksum makes up for the address. So
    // for ICMP's checksum only that of the quoted transport header counts, if it is in the quote.
    if let Some(Change { old, new }) = layout.apply(quote, end, change?, None)
        && !summed_later
    {
        let checksum = field(header, ICMP_CHECKSUM)?;
        *checksum = update(u16::from_be_bytes(*checksum), old, new).to_be_bytes();
    }
    Some(())
}

fn change(addresses: &Addresses, end: End, packet: &[u8]) -> Option<Change<4>> {
    let old = *packet.get(end.at()..)?.first_chunk()?;
    addresses.get(&old).map(|&new| Change { old, new })
}

/// What has to be known of an IPv4 packet, of which perhaps only the start is there.
struct Layout {
    header_len: usize,
    protocol: IpNextHeaderProtocol,
    /// How far into the transport layer its bytes begin: 0 unless it is a later fragment.
    skipped: usize,
}

impl Layout {
    /// `None` without a complete IPv4 header.
    fn read(packet: &[u8]) -> Option<Self> {
        let header = Ipv4Packet::new(packet)?;
        let header_len = usize::from(header.get_header_length()) * 4;
        let complete = (IPV4_MIN..=packet.len()).contains(&header_len);
        (header.get_version() == 4 && complete).then(|| Self {
            header_len,
            protocol: header.get_next_level_protocol(),
            skipped: usize::from(header.get_fragment_offset()) * 8,
        })
    }

    /// Where the checksum lies that covers the addresses, if there is one and it is not in an earlier
    /// fragment. Fragments begin at multiples of 8 bytes, so that none cuts it in two.
    fn checksum_at(&self) -> Option<usize> {
        let at: usize = match self.protocol {
            protocols::Tcp => TCP_CHECKSUM,
            protocols::Udp | protocols::UdpLite | protocols::Dccp => UDP_CHECKSUM,
            _ => return None,
        };
        Some(self.header_len + at.checked_sub(self.skipped)?)
    }

    /// Writes an address and updates the checksums that cover it. Returns what became of that of the
    /// transport layer, if it is there.
    fn apply(
        &self,
        packet: &mut [u8],
        end: End,
        change: Change<4>,
        partial: Option<Partial>,
    ) -> Option<Change<2>> {
        let Change { old, new } = change;
        *field(packet, end.at())? = new;
        let header = field(packet, IPV4_CHECKSUM)?;
        *header = update(u16::from_be_bytes(*header), old, new).to_be_bytes();

        let at = self.checksum_at()?;
        let bytes = field(packet, at)?;
        let checksum = u16::from_be_bytes(*bytes);
        let updated = match self.protocol {
            // Not complemented: the other sign.
            _ if partial == Some(Partial(at)) && !fault::on(Fault::PartialChecksumTakenAsWhole) => {
                !update(!checksum, old, new)
            }
            _ if fault::on(Fault::TranslatedChecksumStale) => checksum,
            // RFC 768: "An all zero transmitted checksum value means that the transmitter generated
            // no checksum".
            protocols::Udp if checksum == 0 => return None,
            // And a checksum of zero "is transmitted as all ones"; RFC 3828 section 3.1 alike.
            protocols::Udp | protocols::UdpLite => match update(checksum, old, new) {
                0 => 0xffff,
                updated => updated,
            },
            _ => update(checksum, old, new),
        };
        let change = Change { old: *bytes, new: updated.to_be_bytes() };
        *bytes = change.new;
        Some(change)
    }

    /// The ICMP message in the packet if it is one that quotes a packet (RFC 792), or the first
    /// fragment of one.
    fn icmp_error<'a>(&self, packet: &'a mut [u8]) -> Option<&'a mut [u8]> {
        if self.protocol != protocols::Icmp || self.skipped > 0 {
            return None;
        }
        let message = packet.get_mut(self.header_len..)?;
        let kind = IcmpPacket::new(message)?.get_icmp_type();
        let quotes = matches!(
            kind,
            IcmpTypes::DestinationUnreachable
                | IcmpTypes::SourceQuench
                | IcmpTypes::RedirectMessage
                | IcmpTypes::TimeExceeded
                | IcmpTypes::ParameterProblem
        );
        quotes.then_some(message)
    }
}

/// `N` bytes of a packet, if they are there.
fn field<const N: usize>(packet: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    packet.get_mut(at..)?.first_chunk_mut()
}

#[cfg(test)]
mod tests;
