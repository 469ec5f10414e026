//! What `tshark` reads.

use std::collections::BTreeMap;

use gwlb_tests::capture::Captured;
use gwlb_tests::tshark::{self, Fields};

use crate::reading::Reading;

/// What is asked of it.
const FIELDS: [&str; 54] = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.cur_rt",
    "ip.proto",
    "ip.hdr_len",
    "ip.len",
    "ip.dsfield",
    "ip.ttl",
    "ip.id",
    "ip.flags.df",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.checksum.status",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "ipv6.plen",
    "ipv6.tclass",
    "ipv6.hlim",
    "ipv6.hopopts.nxt",
    "ipv6.hopopts.len_oct",
    "ipv6.dstopts.nxt",
    "ipv6.dstopts.len_oct",
    "ipv6.routing.nxt",
    "ipv6.routing.len_oct",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "ah.next_header",
    "ah.length",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.hdr_len",
    "tcp.checksum.status",
    "udp.srcport",
    "udp.dstport",
    "udp.checksum.status",
    "icmp.type",
    "icmp.code",
    "icmp.mtu",
    "icmp.checksum.status",
    "icmpv6.type",
    "icmpv6.mtu",
    "icmpv6.checksum.status",
    "geneve.version",
    "geneve.flags.oam",
    "geneve.flags.critical",
    "geneve.proto_type",
    "geneve.vni",
    "geneve.option.class",
    "geneve.options",
];
/// Asked besides: a tuple of options is put together from these.
const OPTION_FIELDS: [&str; 2] = ["geneve.option.type", "geneve.option.length"];

/// In place of a number that is not there: no field of any header can be so large.
const MISSING: u64 = 1 << 40;

/// Where the source routes of generated packets end.
const FINAL_HOP: &str = "192.0.2.1";

/// What `tshark` reads in each packet.
pub fn readings(packets: &[Captured]) -> Vec<Reading> {
    let fields = [&FIELDS[..], &OPTION_FIELDS].concat();
    tshark::decode_each(packets, &fields).iter().map(reading).collect()
}

fn reading(said: &Fields) -> Reading {
    let protocols = said["frame.protocols"].concat();
    let mut walk = Walk {
        said,
        taken: BTreeMap::new(),
        layers: protocols.split(':').collect(),
        reading: Reading::new(),
    };
    walk.layers.retain(|layer| !matches!(*layer, "raw" | "eth" | "ethertype" | "vlan"));
    walk.layers.reverse();
    walk.ip("outer");
    if walk.layers.pop_if(|layer| *layer == "geneve").is_some() {
        walk.geneve();
        walk.ip("inner");
    }
    walk.reading
}

/// The layers of a packet, one after the other; the fields of each layer are taken in turn.
struct Walk<'a> {
    said: &'a Fields,
    taken: BTreeMap<&'static str, usize>,
    /// Those that are left, the next one last.
    layers: Vec<&'a str>,
    reading: Reading,
}

impl Walk<'_> {
    /// The next value of a field.
    fn text(&mut self, field: &'static str) -> String {
        let taken = self.taken.entry(field).or_default();
        let value = self.said.get(field).and_then(|values| values.get(*taken));
        *taken += 1;
        value.cloned().unwrap_or_default()
    }

    fn number(&mut self, field: &'static str) -> u64 {
        let text = self.text(field);
        let number = match text.as_str() {
            "True" => Ok(1),
            "False" => Ok(0),
            text => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse(),
            },
        };
        number.unwrap_or(MISSING)
    }

    fn next_is(&mut self, layer: &str) -> bool {
        self.layers.pop_if(|next| *next == layer).is_some()
    }

    fn geneve(&mut self) {
        let version = self.number("geneve.version");
        let control = self.number("geneve.flags.oam");
        let critical = self.number("geneve.flags.critical");
        let protocol = self.number("geneve.proto_type");
        let vni = self.number("geneve.vni");
        // The first of these is that of the header itself, all options together, in bytes.
        let options_len = self.number("geneve.option.length");
        let bytes = self.text("geneve.options");
        let mut put = |name: &str, value: String| {
            self.reading.insert(format!("geneve.{name}"), value);
        };
        put("version", version.to_string());
        put("control", control.to_string());
        put("critical", critical.to_string());
        put("protocol", format!("{protocol:04x}"));
        put("vni", vni.to_string());
        put("options_len", options_len.to_string());
        let count = self.said.get("geneve.option.class").map_or(0, Vec::len);
        let mut at = 0;
        for number in 0..count {
            let class = self.number("geneve.option.class");
            let kind = self.number("geneve.option.type");
            // In bytes, the option's own header included.
            let len = self.number("geneve.option.length").min(MISSING) as usize;
            let data = bytes.get(2 * (at + 4)..2 * (at + len)).unwrap_or("?");
            let value = format!("{class:04x} {kind:02x} {} {data}", len.saturating_sub(4) / 4);
            self.reading.insert(format!("geneve.option {number}"), value);
            at += len;
        }
    }

    fn ip(&mut self, which: &str) {
        let mut found = Reading::new();
        let mut put = |name: &str, value: String| drop(found.insert(name.to_owned(), value));
        let (protocol, whole, later, version);
        if self.next_is("ip") {
            version = 4;
            put("src", self.text("ip.src"));
            let dst = self.text("ip.dst");
            protocol = self.number("ip.proto");
            let header_len = self.number("ip.hdr_len");
            // Of a packet with a source route that is not done, `ip.dst` is where it goes in the
            // end, and `ip.cur_rt` what its header has (RFC 791 section 3.1).
            let routed = header_len > 20 && dst == FINAL_HOP;
            put("dst", if routed { self.text("ip.cur_rt") } else { dst });
            put("header_len", header_len.to_string());
            put("total_len", self.number("ip.len").to_string());
            put("tos", self.number("ip.dsfield").to_string());
            put("ttl", self.number("ip.ttl").to_string());
            put("dont_fragment", self.number("ip.flags.df").to_string());
            let (id, more) = (self.number("ip.id"), self.number("ip.flags.mf") == 1);
            let offset = self.number("ip.frag_offset") * 8;
            (whole, later) = (!more && offset == 0, offset > 0);
            let fragment = if whole { "whole".into() } else { format!("{id} at {offset}") };
            put("fragment", fragment);
            put("header_sum", sum(&self.text("ip.checksum.status")).to_owned());
        } else if self.next_is("ipv6") {
            version = 6;
            put("src", self.text("ipv6.src"));
            put("dst", self.text("ipv6.dst"));
            put("total_len", (40 + self.number("ipv6.plen")).to_string());
            put("tos", self.number("ipv6.tclass").to_string());
            put("ttl", self.number("ipv6.hlim").to_string());
            let mut chain = Chain { next: self.number("ipv6.nxt"), len: 40, fragment: None };
            while self.extension(&mut chain) {}
            protocol = chain.next;
            put("header_len", chain.len.to_string());
            let (fragment, is_whole, is_later) = match chain.fragment {
                Some((id, offset, more)) if more || offset > 0 => {
                    (format!("{id} at {offset}"), false, offset > 0)
                }
                _ => ("whole".into(), true, false),
            };
            (whole, later) = (is_whole, is_later);
            put("fragment", fragment);
        } else {
            return;
        }
        put("version", version.to_string());
        put("protocol", protocol.to_string());
        if !later {
            self.upper(whole, &mut found);
        }
        for (name, value) in found {
            self.reading.insert(format!("{which}.{name}"), value);
        }
    }

    /// Goes over an IPv6 extension header, if one is next.
    fn extension(&mut self, chain: &mut Chain) -> bool {
        if self.next_is("ipv6.hopopts") {
            chain.next = self.number("ipv6.hopopts.nxt");
            chain.len += self.number("ipv6.hopopts.len_oct");
        } else if self.next_is("ipv6.dstopts") {
            chain.next = self.number("ipv6.dstopts.nxt");
            chain.len += self.number("ipv6.dstopts.len_oct");
        } else if self.next_is("ipv6.routing") {
            chain.next = self.number("ipv6.routing.nxt");
            chain.len += self.number("ipv6.routing.len_oct");
        } else if self.next_is("ah") {
            chain.next = self.number("ah.next_header");
            chain.len += (self.number("ah.length") + 2) * 4;
        } else if self.next_is("ipv6.fraghdr") {
            chain.next = self.number("ipv6.fraghdr.nxt");
            chain.len += 8;
            let offset = self.number("ipv6.fraghdr.offset") * 8;
            let more = self.number("ipv6.fraghdr.more") == 1;
            chain.fragment = Some((self.number("ipv6.fraghdr.ident"), offset, more));
        } else {
            return false;
        }
        true
    }

    fn upper(&mut self, whole: bool, found: &mut Reading) {
        let mut put = |name: &str, value: String| drop(found.insert(name.to_owned(), value));
        let status = if self.next_is("tcp") {
            if let Some(ports) = self.ports(["tcp.srcport", "tcp.dstport"]) {
                put("ports", ports);
            }
            let (flags, len) = (self.number("tcp.flags") as u8, self.number("tcp.hdr_len"));
            if len != MISSING {
                put("tcp", format!("flags {flags:02x} header {len}"));
            }
            self.text("tcp.checksum.status")
        } else if self.next_is("udp") {
            if let Some(ports) = self.ports(["udp.srcport", "udp.dstport"]) {
                put("ports", ports);
            }
            self.text("udp.checksum.status")
        } else if whole && self.next_is("icmp") {
            let (kind, code) = (self.number("icmp.type"), self.number("icmp.code"));
            let mtu = self.number("icmp.mtu");
            let mtu = (kind == 3 && code == 4).then_some(mtu);
            let status = self.text("icmp.checksum.status");
            self.about("ip", kind, mtu, found);
            status
        } else if whole && self.next_is("icmpv6") {
            let kind = self.number("icmpv6.type");
            let mtu = (kind == 2).then(|| self.number("icmpv6.mtu"));
            let status = self.text("icmpv6.checksum.status");
            self.about("ipv6", kind, mtu, found);
            status
        } else {
            return;
        };
        if whole && !status.is_empty() {
            found.insert("upper_sum".to_owned(), sum(&status).to_owned());
        }
    }

    /// Both ports, unless the packet ends before them.
    fn ports(&mut self, fields: [&'static str; 2]) -> Option<String> {
        let ports = fields.map(|field| self.text(field));
        ports.iter().all(|port| !port.is_empty()).then(|| ports.join(" "))
    }

    /// The packet that an ICMP error quotes, if it is one.
    fn about(&mut self, ip: &str, kind: u64, mtu: Option<u64>, found: &mut Reading) {
        if self.layers.last() != Some(&ip) {
            return;
        }
        let before = std::mem::take(&mut self.reading);
        self.ip("quoted");
        let quoted = std::mem::replace(&mut self.reading, before);
        let of = |name: &str| quoted.get(&format!("quoted.{name}")).cloned();
        let ports = of("ports").unwrap_or_else(|| "0 0".to_owned());
        // A quote that ends within its header names nobody.
        let addresses = [of("src"), of("dst")].map(Option::unwrap_or_default);
        if addresses.iter().any(String::is_empty) {
            return;
        }
        found.insert("about".to_owned(), format!("{} {ports}", addresses.join(" ")));
        let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        found.insert("icmp_error".to_owned(), format!("{kind}{mtu}"));
    }
}

/// How far the chain of IPv6's headers was followed.
struct Chain {
    next: u64,
    len: u64,
    /// Identification, offset in bytes, more fragments.
    fragment: Option<(u64, u64, bool)>,
}

/// `proto_checksum_enum_e` of Wireshark's epan/proto.h.
fn sum(status: &str) -> &'static str {
    match status {
        "0" => "bad",
        "1" => "good",
        "2" => "unverified",
        "3" | "4" => "zero",
        _ => "?",
    }
}
