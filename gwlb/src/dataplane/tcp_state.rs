//! How far a TCP connection is, as far as somebody in the middle can tell by the flags.
//!
//! It decides only how long a flow is remembered and when its tuple begins a new one. Sequence
//! numbers are not followed, so a forged FIN or RST can shorten a flow's life to the time that
//! closed connections have; every further packet prolongs it, and data re-opens it.

use std::time::Duration;

use geneve::inner::TcpFlags;

use crate::config::FlowTimers;
use crate::fault::{self, Fault};

/// The state of one connection. The ends are numbered as the canonical tuple names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpState(u8);

impl TcpState {
    /// Nothing but a SYN was seen.
    pub const HALF_OPEN: Self = Self(0);
    /// Both ends have spoken, or it was taken on in its middle.
    pub const ESTABLISHED: Self = Self(ANSWERED);
    /// Both ends have finished, or one has reset it.
    pub const CLOSED: Self = Self(ANSWERED | FIN[0] | FIN[1]);

    /// The state after the first packet that was seen.
    pub fn begin(flags: TcpFlags, end: usize) -> Self {
        if opens(flags) { Self::HALF_OPEN } else { Self::ESTABLISHED.after(flags, end, false) }
    }

    /// The state after a further packet from an end, `data` if it has payload.
    #[must_use]
    pub fn after(self, flags: TcpFlags, end: usize, data: bool) -> Self {
        if flags.contains(TcpFlags::RST) && !fault::on(Fault::ResetForgotten) {
            return Self(self.0 | RESET);
        }
        if opens(flags) {
            return self;
        }
        let mut state = self.0 | ANSWERED;
        // Whoever goes on after a reset has not believed it: it was forged, or out of its window.
        if data && !fault::on(Fault::ForgedResetBelieved) {
            state &= !RESET;
        }
        if flags.contains(TcpFlags::FIN) {
            state |= FIN[end];
        }
        Self(state)
    }

    /// Whether both ends have finished, or one has reset it: a SYN begins a new connection.
    pub fn is_closed(self) -> bool {
        let needed = if fault::on(Fault::OneFinCloses) { 1 } else { 2 };
        self.0 & RESET != 0 || self.finished() >= needed
    }

    /// Whether an end has reset it.
    pub fn is_reset(self) -> bool {
        self.0 & RESET != 0
    }

    /// How long a flow in this state is remembered without a packet.
    pub fn idle_timeout(self, timers: &FlowTimers) -> Duration {
        if self.is_closed() {
            timers.tcp_closed
        } else if self.finished() == 1 {
            timers.tcp_half_closed
        } else if self.0 & ANSWERED == 0 {
            timers.tcp_half_open
        } else {
            timers.tcp_idle
        }
    }

    /// The state in few bits: never 255.
    pub(super) const fn to_bits(self) -> u8 {
        self.0
    }

    /// The state that [`to_bits`](Self::to_bits) gave these bits for.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The name for listings.
    pub fn name(self) -> &'static str {
        if self.is_closed() {
            "closed"
        } else if self.finished() == 1 {
            "half_closed"
        } else if self.0 & ANSWERED == 0 {
            "half_open"
        } else {
            "established"
        }
    }

    fn finished(self) -> u32 {
        (self.0 & (FIN[0] | FIN[1])).count_ones()
    }
}

/// Whether a packet with these flags opens a connection: a SYN that answers nothing.
pub fn opens(flags: TcpFlags) -> bool {
    let answers = fault::on(Fault::SynAckOpens);
    flags.contains(TcpFlags::SYN)
        && !flags.contains(TcpFlags::RST)
        && (!flags.contains(TcpFlags::ACK) || answers)
}

/// Something else than an opening SYN was seen.
const ANSWERED: u8 = 1;
/// This end has finished.
const FIN: [u8; 2] = [2, 4];
/// An end has reset the connection.
const RESET: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;

    #[test]
    fn a_connection_opens_and_closes() {
        let fin = TcpFlags::FIN | ACK;
        let steps = [
            (SYN, 0, false, "half_open"),
            (SYN, 0, false, "half_open"),
            (SYN | ACK, 1, false, "established"),
            (ACK, 0, true, "established"),
            (fin, 0, true, "half_closed"),
            (ACK, 1, true, "half_closed"),
            (fin, 0, false, "half_closed"),
            (fin, 1, false, "closed"),
            (ACK, 0, false, "closed"),
        ];
        let mut state = TcpState::begin(SYN, 0);
        for (flags, end, data, expected) in steps {
            state = state.after(flags, end, data);
            assert_eq!(state.name(), expected, "after {flags:?} from {end}");
        }
    }

    #[test]
    fn data_after_a_reset_says_that_nobody_believed_it() {
        let state = TcpState::ESTABLISHED.after(TcpFlags::RST, 1, false);
        assert_eq!(state.name(), "closed");
        assert_eq!(state.after(ACK, 0, false).name(), "closed", "an ACK may have crossed it");
        assert_eq!(state.after(ACK, 0, true).name(), "established");
        let half = TcpState::begin(SYN, 0).after(TcpFlags::RST | ACK, 1, false);
        assert!(half.is_closed(), "refused");
    }

    /// What is known of a connection, in plain words.
    #[derive(Clone, Copy)]
    struct Plain {
        answered: bool,
        finished: [bool; 2],
        reset: bool,
    }

    /// Every state, with every combination of the eight flags, from either end, with data and
    /// without: 16,384 steps, against plain words.
    #[test]
    fn every_step_is_the_plain_one() {
        for number in 0..16_u8 {
            let bit = |bit: u8| number & bit != 0;
            let before = Plain { answered: bit(1), finished: [bit(2), bit(4)], reset: bit(8) };
            for flags in (0..=u8::MAX).map(TcpFlags) {
                for (end, data) in [(0, false), (0, true), (1, false), (1, true)] {
                    let mut plain = before;
                    let [syn, ack, rst, fin] =
                        [SYN, ACK, TcpFlags::RST, TcpFlags::FIN].map(|flag| flags.contains(flag));
                    if rst {
                        plain.reset = true;
                    } else if !syn || ack {
                        plain.answered = true;
                        plain.reset &= !data;
                        plain.finished[end] |= fin;
                    }
                    let after = TcpState(number).after(flags, end, data);
                    let both = plain.finished == [true, true];
                    let one = plain.finished != [false, false];
                    let name = match plain {
                        Plain { reset: true, .. } => "closed",
                        _ if both => "closed",
                        _ if one => "half_closed",
                        Plain { answered: false, .. } => "half_open",
                        Plain { .. } => "established",
                    };
                    assert_eq!(after.name(), name, "{number:04b} {flags:?} from {end}, {data}");
                    assert_eq!(after.is_closed(), plain.reset || both);
                    assert_eq!(after.is_reset(), plain.reset);
                    let first = TcpState::begin(flags, end);
                    assert_eq!(first == TcpState::HALF_OPEN, syn && !ack && !rst);
                    assert_eq!(first.is_closed(), rst);
                }
            }
        }
    }

    #[test]
    fn each_state_has_its_time() {
        let seconds = Duration::from_secs;
        let timers = FlowTimers {
            tcp_idle: seconds(350),
            tcp_half_open: seconds(1),
            tcp_half_closed: seconds(2),
            tcp_closed: seconds(3),
            other_idle: seconds(4),
        };
        let half_closed = TcpState::ESTABLISHED.after(TcpFlags::FIN, 1, false);
        for (state, expected) in [
            (TcpState::HALF_OPEN, 1),
            (TcpState::ESTABLISHED, 350),
            (half_closed, 2),
            (TcpState::CLOSED, 3),
        ] {
            assert_eq!(state.idle_timeout(&timers), seconds(expected), "{}", state.name());
        }
    }

    #[test]
    fn what_is_taken_on_in_its_middle_is_established() {
        assert_eq!(TcpState::begin(ACK, 0), TcpState::ESTABLISHED);
        assert_eq!(TcpState::begin(SYN | ACK, 0), TcpState::ESTABLISHED);
        assert_eq!(TcpState::begin(TcpFlags::FIN | ACK, 0).name(), "half_closed");
        assert!(!opens(SYN | TcpFlags::RST), "no SYN that anybody would answer");
    }
}
