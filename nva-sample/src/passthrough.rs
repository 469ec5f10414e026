//! Lets everything through; or breaks on purpose, to show that somebody would notice.

use appliance_sdk::{Action, Appliance, Packet};

/// Lets everything through, unless it has a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passthrough {
    fault: Option<Fault>,
}

/// Something that an appliance must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Changes one byte of every TCP and UDP payload, with checksums that fit.
    Rewrite,
    /// Takes everything and gives nothing back, healthy all the while.
    Silent,
}

impl Passthrough {
    /// A pass-through, with a fault or without.
    pub fn new(fault: Option<Fault>) -> Self {
        Self { fault }
    }
}

impl Appliance for Passthrough {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        match self.fault {
            None => Action::ForwardFlow,
            Some(Fault::Silent) => Action::DropFlow,
            Some(Fault::Rewrite) => {
                let mut payload = packet.payload().to_vec();
                if let Some(last) = payload.last_mut() {
                    *last ^= 1;
                    // A fragment, or another protocol, cannot be rewritten and passes as it is.
                    let _ = packet.replace_payload(&payload);
                }
                Action::Forward
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use appliance_sdk::testing::{self, FakeGateway, Segment};
    use geneve::checksum::{self, Integrity};
    use geneve::inner::Inner;

    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        testing::tcp("10.0.0.1:4000", "10.0.1.1:80", Segment::data(1, 1), payload)
    }

    #[test]
    fn everything_passes_and_is_asked_about_once() {
        let mut gateway = FakeGateway::new(Passthrough::default());
        for _ in 0..3 {
            assert_eq!(gateway.send(&packet(b"hello")), [packet(b"hello")]);
        }
        assert_eq!(gateway.stats().decided_by_flow, 2);
    }

    #[test]
    fn the_rewriting_fault_changes_a_byte_and_nothing_shows_it() {
        let mut gateway = FakeGateway::new(Passthrough::new(Some(Fault::Rewrite)));
        let [returned] = gateway.send(&packet(b"hello")).try_into().unwrap();
        assert_eq!(returned, packet(b"helln"));
        let inner = Inner::parse(&returned).unwrap();
        assert_eq!(checksum::verify(&inner, &returned), Integrity::Valid);
        assert_eq!(gateway.send(&packet(b"")), [packet(b"")]);
    }

    #[test]
    fn the_silent_fault_gives_nothing_back() {
        let mut gateway = FakeGateway::new(Passthrough::new(Some(Fault::Silent)));
        assert!(gateway.send(&packet(b"hello")).is_empty());
        assert!(gateway.send(&packet(b"hello")).is_empty());
    }
}
