//! One event: what has happened, when, and how it is told.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use utoipa::ToSchema;

use crate::control;
use crate::runtime::clock;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Its number; each is one more than the one before. The first of a run of the gateway has the
    /// time of the start, in microseconds since 1970: no run has numbers of another one.
    #[schema(example = 1_795_332_600_123_457_u64)]
    pub id: u64,
    /// When it happened (RFC 3339, UTC).
    #[schema(example = "2026-11-22T07:30:00.123Z")]
    pub time: String,
    /// Whether it is something to worry about.
    pub severity: Severity,
    /// The same for people, in one line.
    pub text: String,
    #[serde(flatten)]
    pub what: Happening,
}

/// Whether an event is something to worry about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// It is good to know.
    Info,
    /// Somebody should look at it.
    Warning,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Happening {
    /// With targets, load balancers and the configuration.
    Control(control::Event),
    /// With the gateway itself.
    Gateway(GatewayEvent),
}

impl From<control::Event> for Happening {
    fn from(event: control::Event) -> Self {
        Self::Control(event)
    }
}

impl From<GatewayEvent> for Happening {
    fn from(event: GatewayEvent) -> Self {
        Self::Gateway(event)
    }
}

/// Something that has happened with the gateway itself.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum GatewayEvent {
    /// The gateway has started, and packets flow.
    GatewayStarted {
        /// How many worker threads carry them.
        workers: usize,
        /// The version of the program.
        version: &'static str,
    },
    /// The gateway ends: it takes in no more packets, and waits for those that are with the
    /// appliances.
    GatewayDraining {},
    /// Another configuration was refused, and nothing has changed.
    ReloadRefused {
        /// Why.
        reason: String,
        /// Refusals since the last one that was told, none of which is: they came too fast.
        left_out: u64,
    },
    /// More flows begin than a worker takes in. Packets of the others go where they would go, one by
    /// one.
    FloodBegun {
        /// The worker, from 0.
        worker: usize,
        /// What it has reached.
        limit: FloodLimit,
    },
    /// A worker has taken in every flow for some seconds.
    FloodOver {
        /// The worker, from 0.
        worker: usize,
        /// What it had reached.
        limit: FloodLimit,
        /// Packets of flows that it did not take in.
        packets: u64,
        /// How long that took, in seconds.
        seconds: f64,
    },
    /// Something else is logged than before.
    LogFilter {
        /// The filter that there was.
        from: String,
        /// The filter that there is.
        to: String,
    },
    /// Events that this reader did not get: it was too slow, or came back too late. Only who has
    /// missed them is told.
    Missed {
        /// How many.
        missed: u64,
    },
}

/// What bounds the flows of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FloodLimit {
    /// New flows in a second (`max_new_flows_per_second_per_worker`).
    NewFlowsPerSecond,
    /// Flows at a time (`max_flows_per_worker`).
    FlowTable,
}

impl Event {
    /// What has just happened.
    pub fn now(id: u64, what: Happening) -> Self {
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + clock::wall_clock()).to_string();
        let severity = if what.is_grave() { Severity::Warning } else { Severity::Info };
        // A name or a message may hold anything, and a line is one line.
        let text = what.to_string().replace(char::is_control, " ");
        Self { id, time, severity, text, what }
    }

    /// Tells a reader who has seen the event `seen`, and is about to get `next`, of those between.
    pub fn missed(seen: Option<u64>, next: Option<&Arc<Self>>) -> Option<Self> {
        let next = next?.id;
        let missed = next.checked_sub(seen? + 1).filter(|&missed| missed > 0)?;
        // Who comes back after this one goes on with the next.
        Some(Self::now(next - 1, GatewayEvent::Missed { missed }.into()))
    }

    /// Writes it to the log. Its time, severity and text are what each line has; the rest of it goes
    /// into `event_json`, from where it gets into a line for programs; who keeps the log otherwise, in
    /// whose program a gateway is, takes it from there or leaves it out.
    pub fn log(&self) {
        match self.severity {
            Severity::Info => tracing::info!(event_json = self.fields(), "{}", self.text),
            Severity::Warning => tracing::warn!(event_json = self.fields(), "{}", self.text),
        }
    }

    /// Its number and what it tells, as JSON.
    fn fields(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Fields<'a> {
            id: u64,
            #[serde(flatten)]
            what: &'a Happening,
        }
        serde_json::to_string(&Fields { id: self.id, what: &self.what }).ok()
    }
}

impl Happening {
    fn is_grave(&self) -> bool {
        match self {
            Self::Control(event) => event.is_grave(),
            Self::Gateway(event) => matches!(
                event,
                GatewayEvent::ReloadRefused { .. }
                    | GatewayEvent::FloodBegun { .. }
                    | GatewayEvent::Missed { .. }
            ),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(event) => event.fmt(f),
            Self::Gateway(event) => event.fmt(f),
        }
    }
}

impl fmt::Display for GatewayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GatewayStarted { workers, version } => {
                let noun = if *workers == 1 { "worker" } else { "workers" };
                write!(f, "packets flow: gwlb {version} with {workers} {noun}")
            }
            Self::GatewayDraining {} => {
                f.write_str("draining: no more packets are taken in, and the gateway ends")
            }
            Self::ReloadRefused { reason, left_out } => {
                write!(f, "not reloaded, and nothing has changed: {reason}")?;
                match left_out {
                    0 => Ok(()),
                    left_out => write!(f, " (and {left_out} times before, which was not told)"),
                }
            }
            Self::FloodBegun { worker, limit } => {
                let what = match limit {
                    FloodLimit::NewFlowsPerSecond => {
                        "more flows begin than it may take in within a second"
                    }
                    FloodLimit::FlowTable => "its flow table is full",
                };
                write!(f, "worker {worker}: {what}; packets of further flows are placed one by one")
            }
            Self::FloodOver { worker, limit, packets, seconds } => {
                let what = match limit {
                    FloodLimit::NewFlowsPerSecond => "it takes in all new flows again",
                    FloodLimit::FlowTable => "its flow table has room again",
                };
                let seconds = seconds.round();
                write!(
                    f,
                    "worker {worker}: {what}; {packets} packets were placed one by one in {seconds} s"
                )
            }
            Self::LogFilter { from, to } => write!(f, "the log filter is {to:?}, it was {from:?}"),
            Self::Missed { missed: 1 } => f.write_str("1 event is missing here"),
            Self::Missed { missed } => write!(f, "{missed} events are missing here"),
        }
    }
}
