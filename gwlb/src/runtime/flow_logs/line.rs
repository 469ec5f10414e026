//! A line of a flow log, field by field.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use geneve::inner::IpVersion;
use router::EndpointId;

use crate::config::{LogField, LogFormat};
use crate::dataplane::flow_log::{Inspected, LoggedTraffic};
use crate::dataplane::snapshot::Snapshot;

/// What a field says that does not apply.
const NONE: &str = "-";

/// What the time was at one moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock(Instant, Duration);

impl WallClock {
    /// `since_1970` is what the wall clock says now.
    pub const fn new(now: Instant, since_1970: Duration) -> Self {
        Self(now, since_1970)
    }

    pub const fn now(&self) -> Instant {
        self.0
    }

    /// A moment in seconds since 1970.
    fn unix_seconds(&self, at: Instant) -> u64 {
        let Self(now, wall) = *self;
        let then = match now.checked_duration_since(at) {
            Some(ago) => wall.saturating_sub(ago),
            None => wall + at.saturating_duration_since(now),
        };
        then.as_secs()
    }
}

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written {
    /// What went one way of a flow.
    Traffic(LoggedTraffic),
    /// Nothing came to an endpoint in a window.
    Nothing { endpoint: u64, start: Instant, end: Instant },
    /// Records of an endpoint may be missing.
    Skipped { endpoint: u64, start: Instant, end: Instant },
}

/// A line in the making.
pub(super) struct Line<'a> {
    pub what: &'a Written,
    pub view: &'a Snapshot,
    pub clock: WallClock,
}

impl Line<'_> {
    /// Writes it without its end.
    pub fn write(&self, format: &LogFormat, text: &mut String) {
        for (number, field) in format.fields().iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            let before = text.len();
            if *field == LogField::Version {
                // Writing to a string does not fail.
                let _ = write!(text, "{}", format.version());
            } else {
                self.field(*field, text);
            }
            if text.len() == before {
                text.push_str(NONE);
            }
        }
    }

    /// Writes a field, or nothing if it does not apply.
    fn field(&self, field: LogField, text: &mut String) {
        let (endpoint, start, end) = match self.what {
            Written::Traffic(traffic) => (traffic.endpoint, traffic.first, traffic.last),
            Written::Nothing { endpoint, start, end }
            | Written::Skipped { endpoint, start, end } => (Some(*endpoint), *start, *end),
        };
        let known = endpoint.and_then(|wire_id| self.view.wire_ids.get(&wire_id).copied());
        let _ = match field {
            LogField::InterfaceId | LogField::Endpoint => match (known, endpoint) {
                (Some(id), _) => write!(text, "{}", self.view.topology.endpoint(id).name),
                (None, Some(wire_id)) => write!(text, "{wire_id:#018x}"),
                (None, None) => Ok(()),
            },
            LogField::Start => write!(text, "{}", self.clock.unix_seconds(start)),
            LogField::End => write!(text, "{}", self.clock.unix_seconds(end)),
            LogField::LogStatus => text.write_str(match self.what {
                Written::Traffic(_) => "OK",
                Written::Nothing { .. } => "NODATA",
                Written::Skipped { .. } => "SKIPDATA",
            }),
            LogField::VpcId
            | LogField::SubnetId
            | LogField::AzId
            | LogField::LoadBalancer
            | LogField::Zone => {
                if let Some(id) = known {
                    self.place(id, field, text);
                }
                Ok(())
            }
            _ => match self.what {
                Written::Traffic(traffic) => Self::traffic(traffic, field, text),
                Written::Nothing { .. } | Written::Skipped { .. } => Ok(()),
            },
        };
    }

    /// Where the endpoint is.
    fn place(&self, id: EndpointId, field: LogField, text: &mut String) {
        let topology = &self.view.topology;
        let endpoint = topology.endpoint(id);
        let subnet = topology.subnet(endpoint.subnet);
        let pool = self.view.pool(self.view.endpoint(id).pool);
        text.push_str(match field {
            LogField::VpcId => &topology.vpc(subnet.vpc).name,
            LogField::SubnetId => &subnet.name,
            LogField::AzId => &endpoint.zone,
            LogField::LoadBalancer => &pool.load_balancer,
            _ => &pool.zone,
        });
    }

    fn traffic(traffic: &LoggedTraffic, field: LogField, text: &mut String) -> std::fmt::Result {
        let key = &traffic.key;
        match field {
            LogField::SrcAddr | LogField::PktSrcAddr => write!(text, "{}", key.src()),
            LogField::DstAddr | LogField::PktDstAddr => write!(text, "{}", key.dst()),
            LogField::SrcPort => write!(text, "{}", key.src_port()),
            LogField::DstPort => write!(text, "{}", key.dst_port()),
            LogField::Protocol => write!(text, "{}", key.protocol()),
            LogField::Packets => write!(text, "{}", traffic.packets),
            LogField::Bytes => write!(text, "{}", traffic.bytes),
            LogField::Action => {
                text.write_str(if traffic.rejected.is_some() { "REJECT" } else { "ACCEPT" })
            }
            LogField::TcpFlags => write!(text, "{}", traffic.flags.0 & 0x3f),
            LogField::Type => text.write_str(match key.version() {
                IpVersion::V4 => "IPv4",
                IpVersion::V6 => "IPv6",
            }),
            LogField::FlowDirection => text.write_str("ingress"),
            LogField::Target => match traffic.inspector {
                Some(Inspected::Target(address)) => write!(text, "{address}"),
                Some(Inspected::Bypass) => text.write_str("bypass"),
                None => Ok(()),
            },
            LogField::Cookie => match traffic.cookie {
                Some(cookie) => write!(text, "{cookie:#010x}"),
                None => Ok(()),
            },
            LogField::DropReason => match traffic.rejected {
                Some(reason) => text.write_str(reason.name()),
                None => Ok(()),
            },
            // What has no meaning here, as the clouds write it.
            _ => Ok(()),
        }
    }
}
