//! A packet of a capture in a line.

use std::fmt::Write as _;

use geneve::inner::{Inner, TcpFlags, Transport};
use geneve::outer::{self, Outer};
use geneve::{Fragment, Header};

use super::blocks::Packet;

/// Parts of the comment that the line says elsewhere.
const SAID: [&str; 2] = ["point=", "flow="];

/// When (UTC), where, which flow, what, and what else the gateway says.
pub(super) fn of(packet: &Packet<'_>) -> String {
    let seconds = packet.time.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let micros = packet.time.subsec_micros();
    let parts = || packet.comment.split(", ");
    let flow = parts().find_map(|part| part.strip_prefix("flow=")).unwrap_or("no flow");
    let mut line = format!(
        "{hours:02}:{minutes:02}:{:02}.{micros:06} {:<14} {flow}{}, {} bytes",
        seconds % 60,
        packet.point,
        what(packet),
        packet.len,
    );
    let others = parts().filter(|part| !SAID.iter().any(|said| part.starts_with(said)));
    for part in others {
        // A string takes anything.
        let _ = write!(line, ", {part}");
    }
    line
}

/// What the inner packet is, if there is anything to say and all of it is there.
fn what(packet: &Packet<'_>) -> String {
    let bytes = packet.bytes;
    let inner = match outer::parse(bytes) {
        Ok((outer, payload)) if is_exchanged(packet, &outer) => {
            Header::parse(&bytes[payload]).map_or(bytes, |(_, inner)| inner)
        }
        _ => bytes,
    };
    let Ok(inner) = Inner::parse(inner) else { return String::new() };
    let fragment = match inner.fragment {
        Fragment::Whole => "",
        Fragment::First { .. } => " first fragment",
        Fragment::Later { .. } => " later fragment",
    };
    match inner.transport {
        Transport::Tcp { flags, .. } => format!(" [{}]{fragment}", letters(flags)),
        Transport::IcmpError { kind, .. } => format!(" {kind:?}"),
        _ => fragment.to_owned(),
    }
}

/// Whether a packet is what the gateway exchanges with appliances. Of one that was dropped, the port
/// tells.
fn is_exchanged(packet: &Packet<'_>, outer: &Outer) -> bool {
    packet.point.ends_with("-appliance")
        || (packet.point == "drop" && outer.dst.port() == geneve::PORT)
}

/// TCP's flags as tcpdump writes them.
fn letters(flags: TcpFlags) -> String {
    let all = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, '.'),
    ];
    all.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| letter).collect()
}
