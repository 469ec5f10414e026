//! What is measured of each set-up, and in which order: every case goes round the set-ups, and
//! round again.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::super::error::BenchError;
use super::super::progress::Progress;
use super::super::report::figure;
use super::Part;
use super::case::{Case, Figure, Of, Series, Streams};
use super::cpu;
use super::gateway::Gateway;
use super::setup::Setup;
use super::stage::{FLOODED_NEW_FLOWS, Path, Stage};
use super::traffic::{Bulk, Churn, Datagrams, Echo, Flood, Pattern};
use super::watched::Watched;
use crate::lab::statistics::GatewayStatus;
use crate::runtime::clock;

/// The share of a measurement's length that is for warming up before it.
const WARM_UP: f64 = 0.25;
/// The share of its own capacity that loads a path.
const HALF: f64 = 0.5;
/// New flows that a flood offers, for each that the gateway takes.
const OVERFLOW: f64 = 1.5;

/// What is sent through a gateway that is looked at, and through one that is not.
pub(super) const OBSERVED: [Case; 3] =
    [Case::Tcp(Streams::One), Case::Udp(Pattern::Runs), Case::Udp(Pattern::Interleaved)];

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In front of every namespace's name; unique to this run.
    pub prefix: String,
    pub parts: Vec<Part>,
    pub setups: Vec<Setup>,
    /// How often.
    pub pairs: usize,
    /// How long each time.
    pub length: Duration,
}

impl Plan {
    /// Whether a part is to be measured.
    pub(super) fn measures(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// What goes round the set-ups.
    fn cases(&self) -> impl Iterator<Item = Case> {
        let cases = |part: &Part| match part {
            Part::Tcp => {
                [Streams::One, Streams::Eight, Streams::EightThreads].map(Case::Tcp).to_vec()
            }
            Part::Udp => vec![Case::Udp(Pattern::Runs), Case::Udp(Pattern::Interleaved)],
            Part::Latency => {
                vec![Case::Latency { loaded: false }, Case::Latency { loaded: true }]
            }
            Part::Connections => vec![Case::Connections],
            Part::Flood | Part::Observability => Vec::new(),
        };
        self.parts.iter().flat_map(cases)
    }

    /// How many steps measuring has.
    pub(super) fn steps(&self) -> usize {
        let rounds = self.cases().count() * self.setups.len();
        let floods = usize::from(self.measures(Part::Flood));
        let watched = usize::from(self.measures(Part::Observability));
        let watched = watched * OBSERVED.len() * Watched::NAMES.len();
        self.setups.len() + self.pairs * (rounds + floods + watched)
    }
}

/// Measures all that the plan says.
pub(super) async fn run(
    plan: &Plan,
    stage: &mut Stage,
    progress: &Progress,
) -> Result<Vec<Series>, BenchError> {
    let mut capacities = Vec::new();
    for &setup in &plan.setups {
        progress.doing(format!("trying {}", setup.name()));
        let capacity = try_out(plan, stage, setup).await?;
        progress.done(&format!("{}: packets arrive", setup.name()));
        capacities.push((setup, capacity));
    }
    let mut all = Vec::new();
    for case in plan.cases() {
        for _ in 0..plan.pairs {
            for &(setup, capacity) in &capacities {
                let name = setup.name();
                progress.doing(format!("{}: {name}", case.name()));
                let measured = measure(plan, stage, case, setup, capacity).await?;
                progress.done(&told(case, name, &measured));
                record(&mut all, case, name, measured);
            }
        }
    }
    if plan.measures(Part::Flood) {
        flood(plan, stage, progress, &mut all).await?;
    }
    if plan.measures(Part::Observability) {
        observability(plan, stage, progress, &mut all).await?;
    }
    Ok(all)
}

type Values = Vec<(Figure, f64)>;

fn record(all: &mut Vec<Series>, case: Case, setup: &'static str, measured: Values) {
    for (figure, value) in measured {
        let of = Of { case, setup, figure };
        match all.iter_mut().find(|series| series.of == of) {
            Some(series) => series.values.push(value),
            None => all.push(Series { of, values: vec![value] }),
        }
    }
}

/// A line about one measurement: its first figure.
fn told(case: Case, setup: &str, measured: &Values) -> String {
    let first = measured.first().map(|(of, value)| format!("{} {}", figure(*value), of.unit));
    format!("{}: {setup}: {}", case.name(), first.unwrap_or_default())
}

async fn measure(
    plan: &Plan,
    stage: &mut Stage,
    case: Case,
    setup: Setup,
    capacity: f64,
) -> Result<Values, BenchError> {
    match case {
        Case::Tcp(streams) => tcp(plan, stage.path(setup)?, streams).await,
        Case::Udp(pattern) => udp(plan, stage.path(setup)?, pattern).await,
        Case::Latency { loaded } => {
            let load = loaded.then_some(capacity * HALF);
            latency(plan, stage, setup, load).await
        }
        Case::Connections => connections(plan, stage, setup).await,
        Case::Flood => Ok(Values::new()),
    }
}

/// A moment on the clock, and in the machine's account.
struct Moment {
    at: Instant,
    busy: Duration,
}

/// From one moment to another, in seconds.
struct Span {
    wall: f64,
    cpu: f64,
}

impl Moment {
    fn now() -> Result<Self, BenchError> {
        let busy = cpu::busy().map_err(BenchError::io("read the machine's processor time"))?;
        Ok(Self { at: clock::now(), busy })
    }

    fn until_now(&self) -> Result<Span, BenchError> {
        let now = Self::now()?;
        let wall = now.at.saturating_duration_since(self.at).as_secs_f64();
        Ok(Span { wall, cpu: now.busy.saturating_sub(self.busy).as_secs_f64() })
    }
}

async fn warm_up(plan: &Plan) {
    sleep(plan.length.mul_f64(WARM_UP)).await;
}

/// Sees that a path leads where it should; the bytes that one connection carries in a second.
async fn try_out(plan: &Plan, stage: &mut Stage, setup: Setup) -> Result<f64, BenchError> {
    let ends = stage.ends(setup)?;
    let inspected = stage.inspected(setup).await?;
    let bulk = Bulk::start(&ends, None)?;
    warm_up(plan).await;
    let (start, before) = (Moment::now()?, bulk.received());
    sleep(plan.length).await;
    let (bytes, span) = (bulk.received() - before, start.until_now()?);
    whole(&bulk)?;
    drop(bulk);
    let name = setup.name();
    if bytes == 0 {
        return Err(BenchError::Wrong(format!("{name}: nothing arrived in {:.2} s", span.wall)));
    }
    if let (Some(before), Some(after)) = (inspected, stage.inspected(setup).await?)
        && after - before < bytes
    {
        let through = after - before;
        let why = format!("{name}: {bytes} bytes arrived, and its appliance saw {through}");
        return Err(BenchError::Wrong(why));
    }
    Ok(bytes as f64 / span.wall)
}

/// Sees that no connection has ended by itself: then the figures would mean something else.
fn whole(bulk: &Bulk) -> Result<(), BenchError> {
    let wrong = |why| BenchError::Wrong(format!("a connection has ended by itself: {why}"));
    bulk.broken().map_or(Ok(()), |why| Err(wrong(why)))
}

async fn tcp(
    plan: &Plan,
    (ends, mut gateway): Path<'_>,
    streams: Streams,
) -> Result<Values, BenchError> {
    let (connections, hands) = streams.served();
    let bulk = Bulk::start_many(&ends, connections, hands)?;
    warm_up(plan).await;
    let status = status(&mut gateway).await?;
    let (start, before, repeated) = (Moment::now()?, bulk.received(), bulk.repeated());
    sleep(plan.length).await;
    let (bytes, span) = (bulk.received() - before, start.until_now()?);
    let repeated = bulk.repeated() - repeated;
    whole(&bulk)?;
    let gigabits = bytes as f64 * 8e-9;
    let mut values = vec![
        (Figure::THROUGHPUT, gigabits / span.wall),
        (Figure::EFFICIENCY, gigabits / span.cpu),
        (Figure::REPEATED, repeated as f64 / span.wall),
    ];
    values.extend(inside(&mut gateway, status).await?);
    Ok(values)
}

async fn udp(
    plan: &Plan,
    (ends, mut gateway): Path<'_>,
    pattern: Pattern,
) -> Result<Values, BenchError> {
    let datagrams = Datagrams::start(&ends, pattern)?;
    warm_up(plan).await;
    let status = status(&mut gateway).await?;
    let (start, sent, received) = (Moment::now()?, datagrams.sent(), datagrams.received());
    sleep(plan.length).await;
    let received = (datagrams.received() - received) as f64;
    let (sent, span) = ((datagrams.sent() - sent) as f64, start.until_now()?);
    let mut values = vec![
        (Figure::PACKETS, received / span.wall),
        (Figure::OFFERED, sent / span.wall),
        (Figure::LOSS, (1.0 - received / sent).max(0.0) * 100.0),
        (Figure::CPU, span.cpu * 1e6 / received),
    ];
    values.extend(inside(&mut gateway, status).await?);
    Ok(values)
}

/// What the gateway has counted so far, where the set-up is one.
async fn status(gateway: &mut Option<&mut Gateway>) -> Result<Option<GatewayStatus>, BenchError> {
    match gateway {
        Some(gateway) => Ok(Some(gateway.status().await?)),
        None => Ok(None),
    }
}

/// What the gateway did meanwhile, packet for packet.
async fn inside(
    gateway: &mut Option<&mut Gateway>,
    before: Option<GatewayStatus>,
) -> Result<Values, BenchError> {
    let Some((now, before)) = status(gateway).await?.zip(before) else {
        return Ok(Values::new());
    };
    let since = now.since(&before);
    let (handed_over, taken_in) = (since.tun.handed_over as f64, since.tun.received as f64);
    Ok(vec![
        (Figure::SYSCALLS, since.syscalls_per_packet()),
        (Figure::HANDED_OVER, handed_over / taken_in.max(1.0) * 100.0),
    ])
}

async fn latency(
    plan: &Plan,
    stage: &mut Stage,
    setup: Setup,
    load: Option<f64>,
) -> Result<Values, BenchError> {
    let ends = stage.ends(setup)?;
    let bulk = match load {
        Some(pace) => Some(Bulk::start(&ends, Some(pace))?),
        None => None,
    };
    let carried = || bulk.as_ref().map_or(0, Bulk::received);
    let echo = Echo::start(&ends)?;
    warm_up(plan).await;
    let (start, before, lost) = (Moment::now()?, carried(), echo.lost());
    echo.forget();
    sleep(plan.length).await;
    let (times, span) = (echo.times(), start.until_now()?);
    let (bytes, lost) = (carried() - before, echo.lost() - lost);
    bulk.as_ref().map_or(Ok(()), whole)?;
    let percentiles = Figure::PERCENTILES.into_iter();
    let mut values: Values = percentiles
        .map(|(share, figure)| {
            let time =
                if times.is_empty() { f64::NAN } else { times.value_at_quantile(share) as f64 };
            (figure, time * 1e-3)
        })
        .collect();
    values.push((Figure::UNANSWERED, lost as f64 / span.wall));
    if load.is_some() {
        values.push((Figure::LOAD, bytes as f64 * 8e-9 / span.wall));
    }
    Ok(values)
}

async fn connections(plan: &Plan, stage: &mut Stage, setup: Setup) -> Result<Values, BenchError> {
    let churn = Churn::start(&stage.ends(setup)?)?;
    warm_up(plan).await;
    let (start, before) = (Moment::now()?, churn.done());
    sleep(plan.length).await;
    let (done, span) = ((churn.done() - before) as f64, start.until_now()?);
    Ok(vec![
        (Figure::CONNECTIONS, done / span.wall),
        (Figure::CPU_CONNECTION, span.cpu * 1e6 / done),
    ])
}

/// One connection from the beginning to the end, with and without a flood beside it in turns.
async fn flood(
    plan: &Plan,
    stage: &mut Stage,
    progress: &Progress,
    all: &mut Vec<Series>,
) -> Result<(), BenchError> {
    let Some((gateway, ends)) = stage.flooded() else { return Ok(()) };
    let bulk = Bulk::start(&ends, None)?;
    let workers = gateway.status().await?.workers;
    let rate = f64::from(FLOODED_NEW_FLOWS) * workers as f64 * OVERFLOW;
    let mut first = 0;
    for _ in 0..plan.pairs {
        for flooded in [false, true] {
            let flood = if flooded { Some(Flood::start(&ends, rate, first)?) } else { None };
            let sent = || flood.as_ref().map_or(0, Flood::sent);
            progress.doing(Case::Flood.name());
            warm_up(plan).await;
            let before = gateway.status().await?;
            let (start, received, offered) = (Moment::now()?, bulk.received(), sent());
            sleep(plan.length).await;
            let (bytes, span) = (bulk.received() - received, start.until_now()?);
            whole(&bulk)?;
            let (packets, flows) = (sent() - offered, gateway.status().await?.since(&before).flows);
            first += sent();
            let mut values = vec![(Figure::THROUGHPUT, bytes as f64 * 8e-9 / span.wall)];
            if flooded {
                values.extend([
                    (Figure::FLOOD, packets as f64 / span.wall),
                    (Figure::NEW_FLOWS, flows.created as f64 / span.wall),
                    (Figure::UNTRACKED, flows.untracked as f64 / span.wall),
                    // The table would take it on again as one that it does not know.
                    (Figure::LOST_ENTRIES, flows.adopted as f64),
                ]);
                progress.done(&told(Case::Flood, "flooded", &values));
            }
            record(all, Case::Flood, if flooded { "flooded" } else { "quiet" }, values);
        }
    }
    Ok(())
}

/// The gateway that nobody looks at, and the other, in turns.
async fn observability(
    plan: &Plan,
    stage: &mut Stage,
    progress: &Progress,
    all: &mut Vec<Series>,
) -> Result<(), BenchError> {
    let Some((both, directory)) = stage.watched() else { return Ok(()) };
    for pair in 0..plan.pairs {
        progress.doing("new gateways, one of which is looked at");
        both.renew(directory).await?;
        for case in OBSERVED {
            // Neither is always the first.
            for number in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
                let name = Watched::NAMES[number];
                progress.doing(format!("{}: {name}", case.name()));
                let (gateway, ends) = both.path(number)?;
                let path = (ends, Some(gateway));
                let measured = match case {
                    Case::Tcp(streams) => tcp(plan, path, streams).await?,
                    Case::Udp(pattern) => udp(plan, path, pattern).await?,
                    _ => continue,
                };
                both.check().await?;
                progress.done(&told(case, name, &measured));
                record(all, case, name, measured);
            }
        }
    }
    Ok(())
}
