//! Has the kernel put what it gives to a TUN into the queue of the worker that owns the flow.
//!
//! It is a hint, and no more: a worker that reads what is another one's hands it over, whatever the
//! kernel chose by. So this never fails. Where it may not have its way, or where no packet tells its
//! owner by itself, the kernel chooses as it does without us: by a hash of its own, and by what was
//! written to each queue.
//!
//! Programs are loaded while the gateway starts, which takes privileges; by which of them a device's
//! queues are chosen may change with every configuration, which takes none.

use std::io;
use std::num::NonZero;

use geneve::flow::Stickiness;
use netio::tun::steering::{Program, Steering};
use router::Attachment;

use crate::config::Settings;
use crate::dataplane::keys::Keys;

/// Tells the kernel how to choose queues.
#[derive(Debug)]
pub(super) struct Pilot {
    /// One for each of [`Stickiness::ALL`]; none where the kernel takes none, or where there is
    /// nothing to choose.
    programs: Vec<Program>,
    /// By number.
    devices: Vec<Steered>,
}

/// A device, and by what its queues are chosen now.
#[derive(Debug)]
struct Steered {
    device: Steering,
    by: Option<Stickiness>,
}

impl Pilot {
    /// For these devices with a queue for each worker, whose queues the kernel still chooses as it
    /// likes. This is done while there are privileges.
    pub fn new(keys: &Keys, workers: u16, devices: Vec<Steering>) -> Self {
        let queues = NonZero::new(workers).filter(|workers| workers.get() > 1);
        let loaded = queues.map_or(Ok(Vec::new()), |queues| load(keys, queues));
        let programs = loaded.unwrap_or_else(|error| {
            tracing::info!(
                %error,
                "the kernel takes no program to choose the owners of flows by: more packets are \
                 handed over between the workers",
            );
            Vec::new()
        });
        // Each keeps its device in being, which is no use without a program.
        let devices = devices.into_iter().filter(|_| !programs.is_empty());
        let devices = devices.map(|device| Steered { device, by: None }).collect();
        Self { programs, devices }
    }

    /// Has the queues of each device, by number, chosen by this stickiness; for `None` as the kernel
    /// does by itself.
    pub fn follow(&mut self, choices: &[Option<Stickiness>]) {
        if self.programs.is_empty() {
            return;
        }
        for (number, (steered, &by)) in self.devices.iter_mut().zip(choices).enumerate() {
            if steered.by == by {
                continue;
            }
            let place = by.and_then(|by| Stickiness::ALL.iter().position(|it| *it == by));
            let program = place.and_then(|place| self.programs.get(place));
            match steered.device.choose_by(program) {
                Ok(()) => steered.by = by,
                Err(error) => {
                    tracing::warn!(device = number, %error, "the kernel chooses queues as before");
                }
            }
        }
    }
}

fn load(keys: &Keys, queues: NonZero<u16>) -> io::Result<Vec<Program>> {
    let program = |stickiness| keys.lend_placement(|key| Program::load(key, stickiness, queues));
    Stickiness::ALL.into_iter().map(program).collect()
}

/// By what the queues of an attachment's device should be chosen. `None` where the owner of a packet
/// cannot be told from what the kernel has of it: if addresses are translated before the owner is
/// decided on, or if it depends on the load balancer how much of a flow counts.
pub(super) fn choice(settings: &Settings, at: Attachment) -> Option<Stickiness> {
    if let Attachment::InternetGateway(id) = at
        && !settings.topology.gateway(id).addresses.is_empty()
    {
        return None;
    }
    let groups = settings.load_balancers.iter().map(|it| &settings.target_groups[it.target_group]);
    let mut all = groups.map(|group| group.stickiness);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use netio::process::privileges;
    use router::source::Source;

    use super::*;
    use crate::dataplane::keys::Secret;

    /// What is chosen by at each attachment of the example, with other text in place of some of it.
    fn choices(changes: &[(&str, &str)]) -> Vec<(String, Option<Stickiness>)> {
        let text = include_str!("../../examples/two-zones.toml").to_owned();
        let text = changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let settings = crate::config::parse(&Source::new("two-zones.toml", text)).unwrap();
        let all = settings.attachments.iter();
        all.map(|it| (it.tun.to_string(), choice(&settings, it.at))).collect()
    }

    /// The kernel's refusal is taken for what it is, and with one worker it is not even asked.
    #[test]
    fn without_privileges_or_a_choice_there_are_no_programs() {
        let keys = Keys::derive(&Secret::from_bytes([1; 32]), 0);
        let pilot = |workers| Pilot::new(&keys, workers, Vec::new()).programs.len();
        assert_eq!(pilot(1), 0);
        let (unprivileged, expected) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                privileges::give_up().unwrap();
                // Some systems let anybody load such programs.
                let anybody = load(&keys, NonZero::new(2).unwrap()).is_ok();
                (pilot(2), if anybody { Stickiness::ALL.len() } else { 0 })
            });
            thread.join().unwrap()
        });
        assert_eq!(unprivileged, expected);
    }

    #[test]
    fn an_owner_is_chosen_where_a_packet_tells_it() {
        let everywhere = |by| ["internet", "app-a", "app-b"].map(|name| (name.to_owned(), by));
        assert_eq!(choices(&[]), everywhere(Some(Stickiness::FiveTuple)));
        for stickiness in Stickiness::ALL {
            let line = format!("[[target_group]]\nstickiness = \"{}\"\n", stickiness.name());
            let changes = [("[[target_group]]\n", line.as_str())];
            assert_eq!(choices(&changes), everywhere(Some(stickiness)));
        }
    }

    #[test]
    fn translated_addresses_do_not_tell_the_owner() {
        let mapping = "[[internet_gateway]]\n\
                       addresses = [{ public = \"203.0.113.9\", private = \"10.0.1.9\" }]\n";
        let mut expected = choices(&[]);
        expected[0].1 = None;
        assert_eq!(choices(&[("[[internet_gateway]]\n", mapping)]), expected);
    }

    #[test]
    fn load_balancers_must_agree_on_what_counts() {
        let second = |stickiness| {
            format!(
                "[[load_balancer]]\nname = \"second\"\ntarget_group = \"second\"\n\
                 nodes = [{{ zone = \"az1\", address = \"192.0.2.77\" }}]\n\n\
                 [[target_group]]\nname = \"second\"\ndialect = \"aws\"\n\
                 stickiness = \"{stickiness}\"\n\n[[endpoint_service]]\n"
            )
        };
        for (stickiness, agreed) in [("5-tuple", true), ("2-tuple", false)] {
            let changed = choices(&[("[[endpoint_service]]\n", &second(stickiness))]);
            assert_eq!(changed.len(), 3);
            assert!(changed.iter().all(|(_, by)| by.is_some() == agreed), "{changed:?}");
        }
    }
}
