//! The gateway's own metrics.

use std::collections::{BTreeMap, BTreeSet};

use super::instrument::Instrument;
use super::instrument::Kind::{Counter, Gauge, Histogram};
use crate::control::{NodePackets, NodeStatus, TargetState, TargetStatus};
use crate::dataplane::fragments::HostileTotals;
use crate::dataplane::stats::{
    BatchTotals, EndpointTotals, FlowLogTotals, FlowTableTotals, FlowTotals, HistogramTotals,
    IoTotals, ResetTotals, TargetTotals,
};
use crate::dataplane::verdict::DropReason;
use crate::runtime::status::{EndpointStatus, FlowLogStatus, GatewayState, Status};

const OF_TARGET: &[&str] = &["target_group", "target", "zone"];
const OF_ENDPOINT: &[&str] = &["endpoint", "service", "load_balancer", "zone"];
const OF_NODE: &[&str] = &["load_balancer", "zone"];
/// Histograms of times have microseconds.
const IN_A_SECOND: f64 = 1e6;
/// But that of flows' lives, which has milliseconds.
const IN_MILLISECONDS: f64 = 1e3;

/// All of them, in the order in which they are listed.
pub(super) fn instruments() -> Vec<Instrument> {
    let mut all = Vec::from(gateway());
    all.extend(packets());
    all.extend(plain("gwlb_flows_", FlowTableTotals::default().fields(), |it, n| {
        it.totals.flows.fields().nth(n).map(|(_, _, value)| value)
    }));
    all.push(Instrument::new(Gauge, "gwlb_flows_active", "Flows in the tables now.", &[], {
        |status, series| series.count(&[], status.active_flows)
    }));
    all.push(Instrument::new(
        Histogram,
        "gwlb_flow_life_seconds",
        "How long flows that are over were there, from the first packet to the last; none without \
         `flow_records`.",
        &[],
        |status, series| series.histogram(&[], &status.flow_life, IN_MILLISECONDS),
    ));
    all.extend(endpoints());
    all.extend(nodes());
    all.extend(targets());
    all.extend(plain("gwlb_tcp_resets_", ResetTotals::default().fields(), |it, n| {
        it.totals.resets.fields().nth(n).map(|(_, _, value)| value)
    }));
    all.extend(plain("gwlb_fragments_", HostileTotals::default().fields(), |it, n| {
        it.fragments.fields().nth(n).map(|(_, _, value)| value)
    }));
    all.extend(flow_logs());
    all.extend(batches());
    all.extend(plain("gwlb_io_", IoTotals::default().fields(), |it, n| {
        it.totals.io.fields().nth(n).map(|(_, _, value)| value)
    }));
    all.extend(attachments());
    all
}

/// Name and help text of a field, and a value that means nothing here.
type Field = (&'static str, &'static str, u64);

/// Counters without labels, one for each field.
fn plain(
    prefix: &str,
    fields: impl Iterator<Item = Field>,
    value: fn(&Status, usize) -> Option<u64>,
) -> Vec<Instrument> {
    let instrument = |(index, (name, help, _)): (usize, Field)| {
        Instrument::new(Counter, format!("{prefix}{name}_total"), help, &[], move |it, series| {
            series.count(&[], value(it, index).unwrap_or_default());
        })
    };
    fields.enumerate().map(instrument).collect()
}

fn gateway() -> [Instrument; 4] {
    [
        Instrument::new(
            Gauge,
            "gwlb_build_info",
            "Which version of the gateway runs; always 1.",
            &["version"],
            |status, series| series.count(&[status.version], 1),
        ),
        Instrument::new(
            Gauge,
            "gwlb_uptime_seconds",
            "For how long the gateway has been running.",
            &[],
            |status, series| series.count(&[], status.uptime_seconds),
        ),
        Instrument::new(
            Gauge,
            "gwlb_draining",
            "Whether the gateway is on its way out: 1 if it takes no more packets in.",
            &[],
            |status, series| {
                series.count(&[], u64::from(status.state == GatewayState::Draining));
            },
        ),
        Instrument::new(
            Gauge,
            "gwlb_workers",
            "Worker threads that carry packets.",
            &[],
            |status, series| series.count(&[], status.workers as u64),
        ),
    ]
}

fn packets() -> Vec<Instrument> {
    let zero = FlowTotals::default();
    let fields = zero.fields().enumerate();
    let ledger = fields.map(|(index, (name, help, _))| {
        let name = format!("gwlb_packets_{name}_total");
        Instrument::new(Counter, name, help, &["side"], move |status, series| {
            for (side, ledger) in [("tun", &status.totals.tun), ("udp", &status.totals.udp)] {
                let value = ledger.flow.fields().nth(index).map(|(_, _, value)| value);
                series.count(&[side], value.unwrap_or_default());
            }
        })
    });
    let dropped = Instrument::new(
        Counter,
        "gwlb_packets_dropped_total",
        "Packets dropped, by the side where they entered and the reason.",
        &["side", "reason"],
        |status, series| {
            for (side, ledger) in [("tun", &status.totals.tun), ("udp", &status.totals.udp)] {
                for reason in DropReason::ALL.iter().map(|it| it.name()) {
                    // Zeros too: a series that appears with its first drop hides the first drop.
                    let value = ledger.drops.get(reason).copied().unwrap_or_default();
                    series.count(&[side, reason], value);
                }
            }
        },
    );
    ledger.chain([dropped]).collect()
}

fn endpoints() -> Vec<Instrument> {
    fn labels(endpoint: &EndpointStatus) -> [&str; 4] {
        [&endpoint.name, &endpoint.service, &endpoint.load_balancer, &endpoint.zone]
    }
    let zero = EndpointTotals::default();
    let fields = zero.fields().enumerate();
    let counters = fields.map(|(index, (name, help, _))| {
        let name = format!("gwlb_endpoint_{name}_total");
        Instrument::new(Counter, name, help, OF_ENDPOINT, move |status, series| {
            for endpoint in &status.endpoints {
                let value = endpoint.totals.fields().nth(index).map(|(_, _, value)| value);
                series.count(&labels(endpoint), value.unwrap_or_default());
            }
        })
    });
    let active = Instrument::new(
        Gauge,
        "gwlb_endpoint_active_flows",
        "Flows that the endpoint has now.",
        OF_ENDPOINT,
        |status, series| {
            for endpoint in &status.endpoints {
                series.count(&labels(endpoint), endpoint.active_flows);
            }
        },
    );
    counters.chain([active]).collect()
}

/// Whether a node's packets pass it in some way: name, help text, way.
const WAYS: [(&str, &str, NodePackets); 2] = [
    (
        "gwlb_node_bypassed",
        "Whether the packets of new flows pass uninspected at this node: 1 if they do.",
        NodePackets::Bypassed,
    ),
    (
        "gwlb_node_dropping",
        "Whether the packets of new flows are dropped at this node, for want of a target: 1 if they \
         are.",
        NodePackets::Dropped,
    ),
];

/// How many of the targets that a node may use are in a state: name, help text, value.
type Usable = (&'static str, &'static str, fn(&NodeStatus) -> usize);

const USABLE: [Usable; 2] = [
    (
        "gwlb_node_healthy_targets",
        "Targets that the node may use, of whatever zone, and that pass its checks.",
        |node| node.healthy_targets,
    ),
    (
        "gwlb_node_unhealthy_targets",
        "Targets that the node may use, of whatever zone, and that fail its checks.",
        |node| node.unhealthy_targets,
    ),
];

fn nodes() -> Vec<Instrument> {
    let ways = WAYS.map(|(name, help, way)| {
        Instrument::new(Gauge, name, help, OF_NODE, move |status, series| {
            for balancer in &status.load_balancers {
                for node in &balancer.nodes {
                    let labels = [&*balancer.name, &*node.zone];
                    series.count(&labels, u64::from(node.packets == way));
                }
            }
        })
    });
    let hosts = Instrument::new(
        Gauge,
        "gwlb_target_group_targets",
        "Targets of the group in the zone that are in this state.",
        &["target_group", "zone", "state"],
        |status, series| {
            for (group, zone, state, count) in hosts(status) {
                series.count(&[group, zone, state], count);
            }
        },
    );
    let usable = USABLE.map(|(name, help, count)| {
        Instrument::new(Gauge, name, help, OF_NODE, move |status, series| {
            for balancer in &status.load_balancers {
                for node in &balancer.nodes {
                    series.count(&[&balancer.name, &node.zone], count(node) as u64);
                }
            }
        })
    });
    ways.into_iter().chain(usable).chain([hosts]).collect()
}

const STATES: [TargetState; 6] = [
    TargetState::Initial,
    TargetState::Healthy,
    TargetState::Unhealthy,
    TargetState::Unused,
    TargetState::Draining,
    TargetState::Unavailable,
];

/// Group, zone, state, and how many targets are in that.
fn hosts(status: &Status) -> Vec<(&str, &str, &'static str, u64)> {
    // Zones without a target, too: a series that vanishes with the last one raises no alarm.
    let nodes = status.load_balancers.iter().flat_map(|balancer| {
        balancer.nodes.iter().map(|node| (&*balancer.target_group, &*node.zone))
    });
    let targets = status.targets.iter().map(|target| (&*target.target_group, &*target.zone));
    let places: BTreeSet<_> = nodes.chain(targets).collect();
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for target in &status.targets {
        let place = (&*target.target_group, &*target.zone);
        *counts.entry((place, target.state.name())).or_default() += 1;
    }
    let all = places.into_iter().flat_map(|place| STATES.map(|state| (place, state.name())));
    all.map(|(place, state)| {
        let count = counts.get(&(place, state)).copied().unwrap_or_default();
        (place.0, place.1, state, count)
    })
    .collect()
}

/// What each target has at the moment: name, help text and value.
type TargetGauge = (&'static str, &'static str, fn(&TargetStatus) -> u64);

const TARGET_GAUGES: [TargetGauge; 4] = [
    ("active_flows", "Flows that the target has now.", |target| target.active_flows),
    ("weight", "The target's share of new flows, as configured.", |target| target.weight.into()),
    (
        "effective_weight",
        "The target's share of new flows as it counts now: smaller in slow start, 0 when it gets \
         none.",
        |target| target.effective_weight.into(),
    ),
    ("inner_mtu_bytes", "The largest inner packet that gets to the target and back.", |target| {
        target.inner_mtu.into()
    }),
];

/// How long things take with each target: name, help text and value.
type TargetHistogram = (&'static str, &'static str, fn(&TargetStatus) -> &HistogramTotals);

const TARGET_HISTOGRAMS: [TargetHistogram; 2] = [
    (
        "probe_duration_seconds",
        "How long health checks took that the target has passed, from the connection's beginning to \
         the end of the answer.",
        |target| &target.probe_times,
    ),
    (
        "round_trip_seconds",
        "How long packets took to the target and back, by samples: at most ten in a second of each \
         worker, and none that took longer than three seconds.",
        |target| &target.round_trips,
    ),
];

fn targets() -> Vec<Instrument> {
    fn labels(target: &TargetStatus) -> [&str; 3] {
        [&target.target_group, &target.address, &target.zone]
    }
    let zero = TargetTotals::default();
    let fields = zero.fields().enumerate();
    let counters = fields.map(|(index, (name, help, _))| {
        let name = format!("gwlb_target_{name}_total");
        Instrument::new(Counter, name, help, OF_TARGET, move |status, series| {
            for target in &status.targets {
                let value = target.totals.fields().nth(index).map(|(_, _, value)| value);
                series.count(&labels(target), value.unwrap_or_default());
            }
        })
    });
    let gauges = TARGET_GAUGES.into_iter().map(|(name, help, value)| {
        let name = format!("gwlb_target_{name}");
        Instrument::new(Gauge, name, help, OF_TARGET, move |status, series| {
            for target in &status.targets {
                series.count(&labels(target), value(target));
            }
        })
    });
    let histograms = TARGET_HISTOGRAMS.into_iter().map(|(name, help, value)| {
        let name = format!("gwlb_target_{name}");
        Instrument::new(Histogram, name, help, OF_TARGET, move |status, series| {
            for target in &status.targets {
                series.histogram(&labels(target), value(target), IN_A_SECOND);
            }
        })
    });
    counters.chain(gauges).chain(histograms).collect()
}

/// How many packets are handled together: name, help text and value.
type BatchHistogram = (&'static str, &'static str, fn(&BatchTotals) -> &HistogramTotals);

const BATCHES: [BatchHistogram; 3] = [
    (
        "gwlb_batch_read_packets",
        "Packets and super-packets that a worker read from a TUN device to handle them together.",
        |batches| &batches.read,
    ),
    (
        "gwlb_batch_received_packets",
        "Datagrams from an appliance that the kernel gave in one buffer.",
        |batches| &batches.received,
    ),
    (
        "gwlb_batch_sent_packets",
        "Datagrams that the kernel was given for an appliance in one send.",
        |batches| &batches.sent,
    ),
];

/// What was written to a flow log: name, help text and value.
type FlowLogCounter = (&'static str, &'static str, fn(&FlowLogStatus) -> u64);

/// What workers tell of flows for all logs, and what was written to each.
fn flow_logs() -> Vec<Instrument> {
    let all: [FlowLogCounter; 2] = [
        ("gwlb_flow_log_lines_total", "Lines that were written to the flow log.", |log| log.lines),
        (
            "gwlb_flow_log_lines_lost_total",
            "Lines that could not be written to the flow log.",
            |log| log.lines_lost,
        ),
    ];
    let lines = all.into_iter().map(|(name, help, value)| {
        Instrument::new(Counter, name, help, &["flow_log"], move |status, series| {
            for log in &status.flow_logs {
                series.count(&[&log.name], value(log));
            }
        })
    });
    let records = plain("gwlb_flow_log_", FlowLogTotals::default().fields(), |it, n| {
        it.totals.flow_log.fields().nth(n).map(|(_, _, value)| value)
    });
    records.into_iter().chain(lines).collect()
}

fn batches() -> [Instrument; 3] {
    BATCHES.map(|(name, help, value)| {
        Instrument::new(Histogram, name, help, &[], move |status, series| {
            series.histogram(&[], value(&status.batches), 1.0);
        })
    })
}

fn attachments() -> Vec<Instrument> {
    let all: [(_, _, fn(&_) -> _); 2] = [
        (
            "gwlb_attachment_tx_dropped_total",
            "Packets that the kernel dropped because the device's queue was full, before they came in; \
             a super-packet counts once.",
            |it: &crate::runtime::AttachmentStatus| it.tx_dropped,
        ),
        (
            "gwlb_attachment_rx_dropped_total",
            "Packets that the kernel dropped after they were delivered to the device.",
            |it: &crate::runtime::AttachmentStatus| it.rx_dropped,
        ),
    ];
    let instrument = |(name, help, value): (&str, &str, fn(&_) -> Option<u64>)| {
        Instrument::new(Counter, name, help, &["attachment", "device"], move |status, series| {
            for attachment in &status.attachments {
                // Nothing, where the kernel does not tell.
                if let Some(value) = value(attachment) {
                    series.count(&[&attachment.at, &attachment.tun], value);
                }
            }
        })
    };
    all.into_iter().map(instrument).collect()
}
