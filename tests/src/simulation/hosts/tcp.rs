//! One end of a TCP connection: enough of RFC 9293 that a transfer survives what networks do, and
//! no more. It sends the same bytes again until they are acknowledged, and takes bytes in order.

use std::time::Duration;

use geneve::TcpFlags;

/// How many unanswered tries there are before an end gives up: two minutes, together.
const TRIES: u32 = 7;
/// Segments under way at the same time.
const WINDOW: u64 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// One end.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each was seen or not, whatever the others")]
pub(super) struct End {
    pub state: State,
    first: u32,
    peer_first: u32,
    /// Bytes of the stream that the peer has acknowledged, and that were sent.
    acknowledged: u64,
    sent: u64,
    /// Bytes of the stream that there are to send.
    pub goal: u64,
    /// Whether nothing follows them.
    pub closing: bool,
    fin_sent: bool,
    pub fin_acknowledged: bool,
    /// Bytes that were received in order.
    pub received: u64,
    pub peer_closed: bool,
    pub segment: u64,
    wait: Duration,
    tries: u32,
    /// Counts the timers that were set: an older one means nothing.
    pub timer: u64,
    offload: bool,
}

/// How far a connection is, as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Closed,
    SynSent,
    SynReceived,
    Open,
    /// The peer has reset it.
    Reset,
    /// This end has reset it.
    Aborted,
    /// Nobody answered.
    GaveUp,
}

/// A segment that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub flags: TcpFlags,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// Where in the stream its bytes are.
    pub offset: u64,
    pub len: u64,
    /// Whether it says how large segments may be.
    pub mss: Option<u16>,
    /// Whether it is to be cut into segments of this size by the device.
    pub cut: Option<u16>,
}

/// A segment that has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived<'a> {
    pub flags: TcpFlags,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub mss: Option<u16>,
    pub data: &'a [u8],
}

impl End {
    pub fn new(first: u32, segment: usize, offload: bool) -> End {
        End {
            state: State::Closed,
            first,
            peer_first: 0,
            acknowledged: 0,
            sent: 0,
            goal: 0,
            closing: false,
            fin_sent: false,
            fin_acknowledged: false,
            received: 0,
            peer_closed: false,
            segment: segment as u64,
            wait: FIRST_WAIT,
            tries: 0,
            timer: 0,
            offload,
        }
    }

    pub fn open(&mut self, out: &mut Vec<Segment>) {
        self.state = State::SynSent;
        self.say_again(out);
    }

    /// Sends a reset, after which this end is gone.
    pub fn abort(&mut self, out: &mut Vec<Segment>) {
        out.push(self.make(TcpFlags::RST | TcpFlags::ACK, self.sent, 0));
        self.state = State::Aborted;
    }

    /// Whether all was said and heard.
    pub fn is_done(&self) -> bool {
        self.fin_acknowledged && self.peer_closed || self.state == State::Aborted
    }

    /// Whether it waits for an acknowledgement.
    fn waits(&self) -> bool {
        match self.state {
            State::SynSent | State::SynReceived => true,
            State::Open => {
                self.acknowledged < self.sent || (self.fin_sent && !self.fin_acknowledged)
            }
            _ => false,
        }
    }

    /// Until when it waits, if it does.
    pub fn waits_for(&self) -> Option<Duration> {
        self.waits().then_some(self.wait)
    }

    /// Its time is over.
    pub fn time_out(&mut self, out: &mut Vec<Segment>) {
        if !self.waits() {
            return;
        }
        self.tries += 1;
        if self.tries > TRIES {
            self.state = State::GaveUp;
            return;
        }
        self.wait = (self.wait * 2).min(Duration::from_secs(30));
        self.say_again(out);
    }

    /// Sends what was not acknowledged, in segments of at most so many bytes.
    pub fn shrink(&mut self, segment: u64, out: &mut Vec<Segment>) {
        if segment < self.segment {
            self.segment = segment;
            self.say_again(out);
        }
    }

    fn say_again(&mut self, out: &mut Vec<Segment>) {
        (self.sent, self.fin_sent) = (self.acknowledged, false);
        let mss = Some(self.segment as u16);
        let opening = |flags, acknowledgement| Segment {
            flags,
            sequence: self.first,
            acknowledgement,
            offset: 0,
            len: 0,
            mss,
            cut: None,
        };
        match self.state {
            State::SynSent => out.push(opening(TcpFlags::SYN, 0)),
            State::SynReceived => {
                let flags = TcpFlags::SYN | TcpFlags::ACK;
                out.push(opening(flags, self.peer_first.wrapping_add(1)));
            }
            State::Open => self.pump(out),
            _ => {}
        }
        self.timer += 1;
    }

    /// Sends what there is to send.
    pub fn pump(&mut self, out: &mut Vec<Segment>) {
        if self.state != State::Open {
            return;
        }
        let before = out.len();
        let window = self.acknowledged + WINDOW * self.segment;
        while self.sent < self.goal.min(window) {
            let mut len = (self.goal.min(window) - self.sent).min(self.segment);
            let mut cut = None;
            let more = self.goal.min(window) - self.sent;
            if self.offload && more > self.segment {
                (len, cut) = (more, Some(self.segment as u16));
            }
            let flags = TcpFlags::ACK;
            out.push(Segment { cut, ..self.make(flags, self.sent, len) });
            self.sent += len;
        }
        if self.closing && self.sent == self.goal && !self.fin_sent {
            self.fin_sent = true;
            out.push(self.make(TcpFlags::FIN | TcpFlags::ACK, self.sent, 0));
        }
        if out.len() > before {
            self.timer += 1;
        }
    }

    fn make(&self, flags: TcpFlags, offset: u64, len: u64) -> Segment {
        Segment {
            flags,
            sequence: self.first.wrapping_add(1).wrapping_add(offset as u32),
            acknowledgement: self.next_expected(),
            offset,
            len,
            mss: None,
            cut: None,
        }
    }

    fn next_expected(&self) -> u32 {
        let next = self.received + u64::from(self.peer_closed);
        self.peer_first.wrapping_add(1).wrapping_add(next as u32)
    }

    /// Takes a segment; returns which of its bytes are new, and where in the stream they are.
    pub fn take<'a>(
        &mut self,
        arrived: Arrived<'a>,
        out: &mut Vec<Segment>,
    ) -> Option<(u64, &'a [u8])> {
        let Arrived { flags, sequence, acknowledgement, mss, data } = arrived;
        if flags.contains(TcpFlags::RST) {
            if !matches!(self.state, State::Closed | State::Aborted) && !self.is_done() {
                self.state = State::Reset;
            }
            return None;
        }
        if let Some(mss) = mss {
            self.segment = self.segment.min(mss.into());
        }
        let (syn, ack) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK));
        match self.state {
            State::Closed | State::SynReceived if syn && !ack => {
                (self.state, self.peer_first) = (State::SynReceived, sequence);
                self.say_again(out);
                return None;
            }
            State::SynSent if syn && ack && acknowledgement == self.first.wrapping_add(1) => {
                (self.state, self.peer_first) = (State::Open, sequence);
                self.calm();
                let before = out.len();
                self.pump(out);
                if out.len() == before {
                    out.push(self.make(TcpFlags::ACK, self.sent, 0));
                }
                return None;
            }
            State::SynReceived if ack && acknowledgement == self.first.wrapping_add(1) => {
                self.state = State::Open;
                self.calm();
            }
            State::Open if syn => {
                // It did not get the acknowledgement.
                out.push(self.make(TcpFlags::ACK, self.sent, 0));
                return None;
            }
            State::Open => {}
            _ => return None,
        }
        self.note_acknowledgement(acknowledgement);
        let offset = sequence.wrapping_sub(self.peer_first.wrapping_add(1)).cast_signed();
        let offset = u64::try_from(offset).ok();
        let mut new = None;
        if let Some(offset) = offset
            && !data.is_empty()
            && offset <= self.received
            && offset + data.len() as u64 > self.received
        {
            new = Some((self.received, &data[(self.received - offset) as usize..]));
            self.received = offset + data.len() as u64;
        }
        let fin = flags.contains(TcpFlags::FIN);
        if fin && offset.is_some_and(|offset| offset + data.len() as u64 == self.received) {
            self.peer_closed = true;
        }
        if fin || !data.is_empty() {
            out.push(self.make(TcpFlags::ACK, self.sent, 0));
        }
        self.pump(out);
        new
    }

    fn note_acknowledgement(&mut self, acknowledgement: u32) {
        let offset = acknowledgement.wrapping_sub(self.first.wrapping_add(1)).cast_signed();
        let Ok(offset) = u64::try_from(offset) else { return };
        if offset > self.goal + 1 {
            return;
        }
        if self.closing && offset == self.goal + 1 {
            self.fin_acknowledged = true;
            self.fin_sent = true;
        }
        let bytes = offset.min(self.goal);
        if bytes > self.acknowledged || self.fin_acknowledged {
            self.acknowledged = self.acknowledged.max(bytes);
            self.sent = self.sent.max(self.acknowledged);
            self.calm();
        }
    }

    fn calm(&mut self) {
        (self.wait, self.tries) = (FIRST_WAIT, 0);
        self.timer += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends, and a network that loses every so-many-th segment.
    fn talk(lost: usize, offload: bool) -> [End; 2] {
        // Close to where numbers begin anew.
        let mut ends = [End::new(u32::MAX - 5, 100, offload), End::new(7, 300, offload)];
        (ends[0].goal, ends[0].closing) = (1000, true);
        (ends[1].goal, ends[1].closing) = (700, true);
        let mut out = Vec::new();
        ends[0].open(&mut out);
        let mut under_way: std::collections::VecDeque<_> =
            out.drain(..).map(|it| (1, it)).collect();
        let mut count = 0;
        for _ in 0..1000 {
            let Some((to, segment)) = under_way.pop_front() else {
                for (number, end) in ends.iter_mut().enumerate() {
                    end.time_out(&mut out);
                    under_way.extend(out.drain(..).map(|it| (1 - number, it)));
                }
                continue;
            };
            count += 1;
            if lost > 0 && count % lost == 0 {
                continue;
            }
            let data = vec![0; segment.len as usize];
            let arrived = Arrived {
                flags: segment.flags,
                sequence: segment.sequence,
                acknowledgement: segment.acknowledgement,
                mss: segment.mss,
                data: &data,
            };
            let _ = ends[to].take(arrived, &mut out);
            under_way.extend(out.drain(..).map(|it| (1 - to, it)));
        }
        ends
    }

    #[test]
    fn a_transfer_survives_losses() {
        for lost in [0, 7, 3] {
            for offload in [false, true] {
                let [client, server] = talk(lost, offload);
                assert!(client.is_done() && server.is_done(), "{lost}: {client:?} {server:?}");
                assert_eq!((client.received, server.received), (700, 1000));
            }
        }
    }

    #[test]
    fn nobody_waits_for_ever() {
        let [client, server] = talk(1, false);
        assert_eq!((client.state, server.state), (State::GaveUp, State::Closed));
    }
}
