"""What Scapy reads in packets: a capture of IP packets on stdin, one JSON object per packet on
stdout, fields and values as in `reading.rs`. Nothing is judged here, and no byte is interpreted
but by Scapy's own layers and checksum functions."""

import io
import json
import logging
import socket
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

import scapy.layers.inet6 as inet6  # noqa: E402
from scapy.contrib.geneve import GENEVE, GeneveOptions  # noqa: E402
from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_chksum  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
    in6_chksum,
)
from scapy.layers.ipsec import AH  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.utils import RawPcapReader, checksum  # noqa: E402

# Scapy knows an authentication header behind IPv6 itself, but not in a chain of headers.
inet6.ipv6nhcls[51] = AH
AH.default_payload_class = inet6._IPv6GuessPayload.default_payload_class

# Headers whose length is in units of eight bytes, the first not counted (RFC 8200 section 4).
EXTENSIONS = (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
ICMP_ERRORS = (3, 4, 5, 11, 12)
ICMPV6_ERRORS = (ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, ICMPv6ParamProblem)


def dissect(layer, data):
    """A layer with everything in it; `None` if it does not even begin."""
    try:
        return layer(data)
    except Exception:
        return None


def read(data):
    reading = {}
    packet = start(data)
    if packet is not None:
        try:
            walk(packet, data, reading)
        except (TypeError, AttributeError):
            # The packet ends within a header: what was read before that stands.
            pass
    return reading


def walk(packet, data, reading):
    upper = ip(packet, data, "outer", reading)
    if not isinstance(upper, UDP) or not isinstance(upper.payload, GENEVE):
        return
    header = upper.payload
    geneve(header, reading)
    inner = header.payload
    if isinstance(inner, Ether):
        while not isinstance(inner, (IP, IPv6)) and inner.payload:
            inner = inner.payload
    if isinstance(inner, (IP, IPv6)):
        ip(inner, inner.original, "inner", reading)


def start(data):
    versions = {4: IP, 6: IPv6}
    layer = versions.get(data[0] >> 4) if data else None
    return dissect(layer, data) if layer else None


def geneve(header, reading):
    reading["geneve.version"] = str(header.version)
    reading["geneve.options_len"] = str(header.optionlen * 4)
    reading["geneve.control"] = str(header.oam)
    reading["geneve.critical"] = str(header.critical)
    reading["geneve.protocol"] = "%04x" % header.proto
    reading["geneve.vni"] = str(header.vni)
    # Scapy 2.5 takes all that follows the first option for that option's payload (its
    # `GeneveOptions` has no `extract_padding`), so each is read from its own first byte on.
    rest = header.original[8 : 8 + header.optionlen * 4]
    number = 0
    while rest:
        option = GeneveOptions(rest)
        value = (option.classid, option.type, option.length, option.data.hex())
        reading["geneve.option %d" % number] = "%04x %02x %d %s" % value
        rest = rest[4 + option.length * 4 :]
        number += 1


def ip(packet, data, which, reading):
    """Reads an IP header and what it carries; returns the upper layer."""

    def put(name, value):
        reading["%s.%s" % (which, name)] = str(value)

    put("version", packet.version)
    put("src", packet.src)
    put("dst", packet.dst)
    fragment = None
    last = packet
    if isinstance(packet, IP):
        header_len = packet.ihl * 4
        total_len = packet.len
        protocol = packet.proto
        put("tos", packet.tos)
        put("ttl", packet.ttl)
        put("dont_fragment", int(packet.flags.DF))
        put("header_sum", "bad" if checksum(data[:header_len]) else "good")
        fragment = (packet.id, packet.frag * 8, int(packet.flags.MF))
    else:
        header_len = 40
        total_len = 40 + packet.plen
        protocol = packet.nh
        put("tos", packet.tc)
        put("ttl", packet.hlim)
        while True:
            after = last.payload
            if isinstance(after, EXTENSIONS):
                header_len += (after.len + 1) * 8
            elif isinstance(after, AH):
                header_len += (after.payloadlen + 2) * 4
            elif isinstance(after, IPv6ExtHdrFragment):
                header_len += 8
                fragment = (after.id, after.offset * 8, after.m)
            else:
                break
            protocol = after.nh
            last = after
            if fragment and fragment[1]:
                break
    put("protocol", protocol)
    put("header_len", header_len)
    put("total_len", total_len)
    identification, offset, more = fragment or (0, 0, 0)
    whole = not offset and not more
    put("fragment", "whole" if whole else "%d at %d" % (identification, offset))

    upper = last.payload
    if offset:
        return None
    rest = data[header_len:total_len]
    # Of a header that is cut, Scapy leaves the fields that are not there at `None`.
    if isinstance(upper, (TCP, UDP)) and upper.dport is not None:
        put("ports", "%d %d" % (upper.sport, upper.dport))
    if isinstance(upper, TCP) and upper.flags is not None and upper.dataofs is not None:
        put("tcp", "flags %02x header %d" % (int(upper.flags) & 0xFF, upper.dataofs * 4))
    if whole:
        error(packet, upper, rest, put)
        value = upper_sum(packet, protocol, upper, rest)
        if value:
            put("upper_sum", value)
    return upper


def error(packet, upper, message, put):
    """What an ICMP error is about."""
    if isinstance(packet, IP) and isinstance(upper, ICMP) and upper.type in ICMP_ERRORS:
        quoted = dissect(IP, message[8:])
        kind = upper.type
        mtu = upper.nexthopmtu if (upper.type, upper.code) == (3, 4) else None
    elif isinstance(packet, IPv6) and isinstance(upper, ICMPV6_ERRORS):
        quoted = dissect(IPv6, message[8:])
        kind = upper.type
        mtu = upper.mtu if isinstance(upper, ICMPv6PacketTooBig) else None
    else:
        return
    if quoted is None or not message[8:]:
        return
    about = {}
    ip(quoted, message[8:], "quoted", about)
    put("icmp_error", kind if mtu is None else "%d mtu %d" % (kind, mtu))
    ports = about.get("quoted.ports", "0 0")
    put("about", "%s %s %s" % (about["quoted.src"], about["quoted.dst"], ports))


def upper_sum(packet, protocol, upper, data):
    if isinstance(upper, UDP):
        if upper.chksum == 0:
            return "zero"
        data = data[: upper.len]
    if isinstance(packet, IP) and isinstance(upper, ICMP):
        return "bad" if checksum(data) else "good"
    icmpv6 = isinstance(packet, IPv6) and protocol == socket.IPPROTO_ICMPV6
    if not icmpv6 and not isinstance(upper, (TCP, UDP)):
        return None
    if isinstance(packet, IP):
        # The length in the pseudo-header is that of the segment, which `data` is.
        pseudo = IP(src=packet.src, dst=packet.dst, len=20 + len(data), ihl=5)
        return "bad" if in4_chksum(protocol, pseudo, data) else "good"
    return "bad" if in6_chksum(protocol, packet, data) else "good"


def main():
    for data, _ in RawPcapReader(io.BytesIO(sys.stdin.buffer.read())):
        print(json.dumps(read(data)))


if __name__ == "__main__":
    main()
