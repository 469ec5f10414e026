//! What is kept of each flow for those who look at it: when it began, who began it and why it is
//! where it is, and what went each way. It decides nothing.
//!
//! It is a table beside that of the flows, by the same numbers, and there only if it is wanted: of a
//! further packet's flow it is one more cache line, which is fetched together with the flow.
//!
//! | word | bits | what |
//! |---|---|---|
//! | 0, 2 | | packets from the low end, and from the high end, in segments |
//! | 1, 3 | | bytes of these packets |
//! | 4, 5 | 20–63 | when the last of each came, in units of 2²⁰ ns since the table was made |
//! | | 0–19 | halves of when the flow was placed, the lower one first |
//! | 6 | 0–43 | when the flow began |
//! | | 44–49, 50–55 | TCP flags seen from each end |
//! | | 56–59 | why it is where it is |
//! | | 60, 61 | the end that began it, and whether that is known |
//! | 7 | 0–31, 32–63 | of each end in the present window of flow logs: TCP flags (0–5), whether there was a packet (6), when the first one came (8–31, the lower bits of the time) |
//! | | 7 | whether the packets of this window went past all appliances |
//!
//! Where flow logs are written, a second table has what was counted up to the present window. Only
//! who closes windows looks at it.

use std::io;
use std::time::{Duration, Instant};

use geneve::inner::TcpFlags;
use netio::mem::{Commit, Table, prefetch};

use super::{Flow, FlowNumber, FlowTable, entry};

/// What is noted of a packet, or of a super-packet.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Who sent it: 0 for the end that the canonical tuple names first, or else 1.
    pub end: usize,
    /// How many packets it stands for.
    pub segments: u32,
    /// Bytes of all of these, IP headers included.
    pub bytes: u64,
    /// The TCP flags; none of other protocols.
    pub flags: TcpFlags,
}

/// Why a flow is with its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It began, and the target was chosen for it.
    New,
    /// It was taken on in its middle: its beginning was not seen.
    Adopted,
    /// It had another target, which was gone, or none.
    Rebalanced,
    /// It began anew where an earlier flow of the same addresses and ports was over.
    Reopened,
    /// It came from another endpoint of its group.
    Moved,
}

impl Placed {
    const ALL: [Self; 5] =
        [Self::New, Self::Adopted, Self::Rebalanced, Self::Reopened, Self::Moved];

    /// The name for listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Adopted => "adopted",
            Self::Rebalanced => "rebalanced",
            Self::Reopened => "reopened",
            Self::Moved => "moved",
        }
    }

    /// What it means, in a sentence.
    pub const fn help(self) -> &'static str {
        match self {
            Self::New => "the flow began, and the target was chosen for it",
            Self::Adopted => "the flow was taken on in its middle: its beginning was not seen",
            Self::Rebalanced => "the target that the flow had was gone, or it had none",
            Self::Reopened => {
                "an earlier flow of the same addresses and ports was over, and this one began"
            }
            Self::Moved => "the flow came from another endpoint of its group",
        }
    }
}

/// What is known of a flow; times count from when the table was made, to a millisecond or so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRecord {
    /// When it began.
    pub began: Duration,
    /// When it was placed where it is.
    pub placed_at: Duration,
    /// Why it is there.
    pub placed: Placed,
    /// Who sent its first packet, if that was seen: 0 for the end that its tuple names first.
    pub initiator: Option<usize>,
    /// What came from each end; the first is the one that its tuple names first.
    pub ends: [Traffic; 2],
}

impl FlowRecord {
    /// When its last packet came: when it began, as long as none was noted.
    pub fn last(&self) -> Duration {
        self.ends.iter().filter_map(|end| end.last).fold(self.began, Duration::max)
    }

    /// How long it has been there, from its first packet to its last.
    pub fn life(&self) -> Duration {
        self.last().saturating_sub(self.began)
    }
}

/// What came from one end of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets, in segments.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// When the last one came, if any has.
    pub last: Option<Duration>,
    /// TCP flags that were seen, of the lower six.
    pub flags: TcpFlags,
}

/// What came from each end of a flow since its last window was closed; `None` from whom nothing came.
pub type Window = [Option<WindowTraffic>; 2];

/// What came from one end of a flow in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowTraffic {
    /// Packets, in segments.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// When the first one came.
    pub first: Duration,
    /// When the last one came.
    pub last: Duration,
    /// TCP flags that were seen, of the lower six.
    pub flags: TcpFlags,
    /// Whether they went past all appliances, be it that the flow has one.
    pub bypassed: bool,
}

/// A flow that has ended, with what was kept of it.
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    /// The flow.
    pub flow: Flow,
    /// How long it was there, from its first packet to its last; known of flows with records.
    pub life: Option<Duration>,
    /// The cookie of its packets, if that was kept.
    pub cookie: Option<u32>,
    /// What came since its last window was closed, if it has windows.
    pub window: Option<Window>,
}

/// Times are kept in units of 2²⁰ ns, 1.05 ms.
const UNIT: u32 = 20;
/// The bits of a word with a time that are below the unit.
const BELOW: u64 = (1 << UNIT) - 1;
/// A time in units has so many bits: all that nanoseconds of 64 bits have.
const TIME: u64 = (1 << 44) - 1;
/// The flags that are kept: those of RFC 793, which flow logs have.
const FLAGS: u8 = 0x3f;
const EVER: u32 = 44;
const PLACED: u32 = 56;
const INITIATOR: u32 = 60;
/// There was a packet in the window.
const ANY: u32 = 0x40;
/// Its packets went past all appliances.
const BYPASSED: u64 = 0x80;
/// The lower bits of when its first one came: they tell times apart that are less than five hours
/// apart, and no window is so long.
const FIRST: u32 = 8;
const FIRST_BITS: u32 = 0xff_ffff;

type Line = [u64; 8];
/// Packets and bytes from each end, up to the present window.
type Before = [u64; 4];

impl FlowTable {
    /// The same table with a record of each flow; in windows, if flow logs are written.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn with_records(mut self, windows: bool, commit: Commit) -> io::Result<Self> {
        self.records = Some(Records::new(self.entries.len(), windows, commit)?);
        Ok(self)
    }

    /// Whether there are records of the flows.
    #[inline]
    pub fn keeps_records(&self) -> bool {
        self.records.is_some()
    }

    /// Begins the record of a flow that has just been taken in, or replaced another; `initiator` is
    /// the end that began it, if that is known.
    #[inline]
    pub fn begin_record(
        &mut self,
        number: FlowNumber,
        placed: Placed,
        initiator: Option<usize>,
        now: Instant,
    ) {
        let now = self.turn(now);
        if let Some(records) = &mut self.records {
            records.begin(number.0, placed, initiator, now);
        }
    }

    /// Notes a packet of a flow in its record, if there are records.
    #[inline]
    pub fn note(&mut self, number: FlowNumber, seen: &Seen, now: Instant) {
        let now = self.turn(now);
        if let Some(records) = &mut self.records {
            records.note(number.0, seen, now);
        }
    }

    /// Notes in its record why a flow was placed where it is now.
    pub fn note_placed(&mut self, number: FlowNumber, placed: Placed, now: Instant) {
        let now = self.turn(now);
        if let Some(records) = &mut self.records {
            records.place(number.0, placed, now);
        }
    }

    /// The record of a flow, if there are records.
    pub fn record(&self, number: FlowNumber) -> Option<FlowRecord> {
        self.records.as_ref()?.get(number.0)
    }

    /// Closes the window of a flow: what came since the last one was closed. `None` without windows.
    pub fn close_window(&mut self, number: FlowNumber) -> Option<Window> {
        self.records.as_mut()?.close(number.0)
    }

    /// Whether the open window of a flow has packets and these were inspected if this one is
    /// `bypassed`, or the other way round: such are not to be in one window.
    pub fn mixes_window(&self, number: FlowNumber, bypassed: bool) -> bool {
        self.records.as_ref().is_some_and(|records| records.mixes(number.0, bypassed))
    }

    /// Notes that the packets in the open window of a flow go past all appliances. Its cookie is
    /// forgotten, so that the first one that does not is not taken for one of a settled flow.
    pub fn note_bypassed(&mut self, number: FlowNumber) {
        if let Some(records) = &mut self.records {
            records.bypass(number.0);
            entry::set_cookie(&mut self.entries[number.0 as usize], entry::NO_COOKIE);
        }
    }

    /// A flow that is about to end.
    pub(super) fn going(&mut self, number: FlowNumber) -> Gone {
        Gone {
            flow: self.get(number),
            life: self.record(number).map(|record| record.life()),
            cookie: self.cookie(number),
            window: self.close_window(number),
        }
    }

    /// A time that is counted from when the table was made.
    pub fn at(&self, since_start: Duration) -> Instant {
        self.start + since_start
    }

    /// Bytes of memory that the records take when the table is full.
    pub fn record_bytes(&self) -> usize {
        self.records.as_ref().map_or(0, Records::bytes)
    }
}

/// The records of a flow table.
#[derive(Debug)]
pub(super) struct Records {
    lines: Table<Line>,
    before: Option<Table<Before>>,
}

impl Records {
    /// Records of so many flows, in `windows` if such are to be closed.
    pub fn new(limit: usize, windows: bool, commit: Commit) -> io::Result<Self> {
        let before = windows.then(|| Table::new(limit, commit)).transpose()?;
        Ok(Self { lines: Table::new(limit, commit)?, before })
    }

    /// Bytes that they take when all flows are there.
    pub fn bytes(&self) -> usize {
        self.lines.bytes() + self.before.as_ref().map_or(0, Table::bytes)
    }

    /// Has the record of a flow fetched.
    #[inline]
    pub fn prefetch(&self, number: u32) {
        if let Some(line) = self.lines.get(number as usize) {
            prefetch(line);
        }
    }

    /// Begins the record of a flow.
    #[inline]
    pub fn begin(&mut self, number: u32, placed: Placed, initiator: Option<usize>, now: u64) {
        let time = now >> UNIT;
        let initiator = initiator.map_or(0, |end| (end as u64 & 1) | 2);
        let about = time | (placed as u64) << PLACED | initiator << INITIATOR;
        if let Some(line) = self.lines.get_mut(number as usize) {
            *line = [0, 0, 0, 0, time & BELOW, time >> UNIT & BELOW, about, 0];
        }
        if let Some(before) = self.before.as_mut().and_then(|it| it.get_mut(number as usize)) {
            *before = [0; 4];
        }
    }

    /// Notes a packet of a flow.
    #[inline]
    pub fn note(&mut self, number: u32, seen: &Seen, now: u64) {
        let Some(line) = self.lines.get_mut(number as usize) else { return };
        let end = seen.end & 1;
        line[2 * end] += u64::from(seen.segments);
        line[2 * end + 1] += seen.bytes;
        line[4 + end] = now & !BELOW | line[4 + end] & BELOW;
        let flags = u64::from(seen.flags.0 & FLAGS);
        line[6] |= flags << (EVER + 6 * end as u32);
        let half = 32 * end as u32;
        let first = u64::from((now >> UNIT) as u32 & FIRST_BITS) << FIRST | u64::from(ANY);
        let any = line[7] >> half & u64::from(ANY) != 0;
        line[7] |= (flags | if any { 0 } else { first }) << half;
    }

    /// Whether the open window has packets of the other kind.
    pub fn mixes(&self, number: u32, bypassed: bool) -> bool {
        let Some(line) = self.lines.get(number as usize) else { return false };
        let any = u64::from(ANY);
        line[7] & (any | any << 32) != 0 && (line[7] & BYPASSED != 0) != bypassed
    }

    /// Notes that packets of the open window went past all appliances.
    pub fn bypass(&mut self, number: u32) {
        if let Some(line) = self.lines.get_mut(number as usize) {
            line[7] |= BYPASSED;
        }
    }

    /// Notes that a flow has another target from now on, and why.
    pub fn place(&mut self, number: u32, placed: Placed, now: u64) {
        let Some(line) = self.lines.get_mut(number as usize) else { return };
        let time = now >> UNIT;
        line[4] = line[4] & !BELOW | time & BELOW;
        line[5] = line[5] & !BELOW | time >> UNIT & BELOW;
        line[6] = line[6] & !(0xf << PLACED) | (placed as u64) << PLACED;
    }

    /// What is known of a flow.
    pub fn get(&self, number: u32) -> Option<FlowRecord> {
        let line = self.lines.get(number as usize)?;
        let traffic = |end: usize| Traffic {
            packets: line[2 * end],
            bytes: line[2 * end + 1],
            last: (line[2 * end] > 0).then(|| units(line[4 + end] >> UNIT)),
            flags: TcpFlags((line[6] >> (EVER + 6 * end as u32)) as u8 & FLAGS),
        };
        let initiator = line[6] >> INITIATOR & 3;
        Some(FlowRecord {
            began: units(line[6] & TIME),
            placed_at: units(line[4] & BELOW | (line[5] & BELOW) << UNIT),
            placed: Placed::ALL.get((line[6] >> PLACED & 0xf) as usize).copied()?,
            initiator: (initiator & 2 != 0).then_some((initiator & 1) as usize),
            ends: [traffic(0), traffic(1)],
        })
    }

    /// Closes the window of a flow, and says what came in it. `None`: no windows are kept.
    pub fn close(&mut self, number: u32) -> Option<Window> {
        let line = self.lines.get_mut(number as usize)?;
        let before = self.before.as_mut()?.get_mut(number as usize)?;
        let bypassed = line[7] & BYPASSED != 0;
        let ends = [0, 1].map(|end: usize| {
            let half = (line[7] >> (32 * end)) as u32;
            let last = line[4 + end] >> UNIT;
            // The latest time up to the last packet that has these lower bits.
            let ago = (last as u32).wrapping_sub(half >> FIRST) & FIRST_BITS;
            (half & ANY != 0).then(|| WindowTraffic {
                packets: line[2 * end].wrapping_sub(before[2 * end]),
                bytes: line[2 * end + 1].wrapping_sub(before[2 * end + 1]),
                first: units(last.saturating_sub(ago.into())),
                last: units(last),
                flags: TcpFlags(half as u8 & FLAGS),
                bypassed,
            })
        });
        before.copy_from_slice(&line[..4]);
        line[7] = 0;
        Some(ends)
    }
}

/// A time from so many units.
fn units(units: u64) -> Duration {
    Duration::from_nanos(units << UNIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(windows: bool) -> Records {
        Records::new(4, windows, Commit::Lazily).unwrap()
    }

    /// To the precision that is kept.
    fn kept(nanos: u64) -> Duration {
        Duration::from_nanos(nanos & !BELOW)
    }

    #[test]
    fn the_line_is_a_cache_line() {
        assert_eq!(size_of::<Line>(), 64);
        assert_eq!(records(false).bytes(), 4 * 64);
        assert_eq!(records(true).bytes(), 4 * (64 + 32));
    }

    proptest! {
        /// Against sums: totals, windows that together are the totals, times and flags.
        #[test]
        fn it_keeps_what_it_is_told(
            start in 0..1u64 << 60,
            placed in 0usize..5,
            initiator in prop::option::of(0usize..2),
            steps in prop::collection::vec(
                (0usize..2, 1u32..48, 40u64..65_536, any::<u8>(), 0..400_000_000_000u64, 0u8..8), 1..60),
        ) {
            let mut records = records(true);
            let mut now = start;
            let (mut placed, mut placed_at) = (Placed::ALL[placed], start);
            records.begin(2, placed, initiator, now);
            let mut sums = [Traffic::default(); 2];
            let mut open: Window = [None; 2];
            let mut closed = [(0, 0); 2];
            for (end, segments, bytes, flags, pause, then) in steps {
                now += pause;
                records.note(2, &Seen { end, segments, bytes, flags: TcpFlags(flags) }, now);
                let sum = &mut sums[end];
                sum.packets += u64::from(segments);
                sum.bytes += bytes;
                sum.last = Some(kept(now));
                sum.flags = TcpFlags(sum.flags.0 | flags & FLAGS);
                let window = open[end].get_or_insert(WindowTraffic {
                    packets: 0, bytes: 0, first: kept(now), last: kept(now), flags: TcpFlags(0),
                    bypassed: false,
                });
                window.packets += u64::from(segments);
                window.bytes += bytes;
                window.last = kept(now);
                window.flags = TcpFlags(window.flags.0 | flags & FLAGS);
                if then == 0 || now - start > 10_000_000_000_000 {
                    let window = records.close(2).unwrap();
                    prop_assert_eq!(window, open);
                    for (sum, traffic) in closed.iter_mut().zip(window) {
                        *sum = traffic.map_or(*sum, |it| (sum.0 + it.packets, sum.1 + it.bytes));
                    }
                    open = [None; 2];
                } else if then == 1 {
                    (placed, placed_at) = (Placed::Rebalanced, now);
                    records.place(2, placed, now);
                }
            }
            let record = records.get(2).unwrap();
            prop_assert_eq!(record, FlowRecord {
                began: kept(start), placed_at: kept(placed_at), placed, initiator, ends: sums,
            });
            let last = records.close(2).unwrap();
            for ((sum, traffic), whole) in closed.into_iter().zip(last).zip(sums) {
                let last = traffic.map_or((0, 0), |it| (it.packets, it.bytes));
                prop_assert_eq!((sum.0 + last.0, sum.1 + last.1), (whole.packets, whole.bytes));
            }
            prop_assert_eq!(records.close(2), Some([None; 2]), "nothing since");
            prop_assert_eq!(records.get(1).unwrap().ends, [Traffic::default(); 2], "a neighbour");
            records.begin(2, Placed::Reopened, None, now);
            prop_assert_eq!(records.get(2).unwrap().ends, [Traffic::default(); 2]);
        }
    }

    #[test]
    fn without_windows_none_is_closed() {
        let mut records = records(false);
        records.begin(0, Placed::New, Some(0), 5);
        assert_eq!(records.close(0), None);
        assert_eq!(records.get(4), None, "behind the end");
    }
}
