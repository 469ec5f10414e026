//! Appliances that are broken on purpose, to see that the checks can fail.
//!
//! They look healthy, as broken appliances do.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use appliance_sdk::geneve::inner::Transport;
use appliance_sdk::{Action, Appliance, Packet, Runtime};

use super::plan::Sabotage;

/// A TCP payload of this many bytes or more has its first byte changed: that is bulk data.
const WORTH_CHANGING: usize = 1300;

/// Runs the broken appliance until it is told to end.
pub(super) fn run(fault: Sabotage, listen: Option<SocketAddr>, stats: Option<&Path>) -> ExitCode {
    crate::cli::start_logging();
    let mut builder = Runtime::builder();
    if let Some(address) = listen {
        builder = builder.listen(address);
    }
    let served = builder.build(move |_| Broken { fault }).start().map_err(|e| e.to_string());
    let served = served.and_then(|running| {
        let stats = stats.ok_or("no place for the statistics was given")?;
        let listener = UnixListener::bind(stats).map_err(|error| error.to_string())?;
        for mut stream in listener.incoming().flatten() {
            let stats = serde_json::to_vec(&running.handle().stats()).unwrap_or_default();
            // Who asked and went away does without.
            let _ = stream.write_all(&stats);
        }
        Ok(())
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::cli::fail(&format!("the broken appliance is really broken: {error}")),
    }
}

struct Broken {
    fault: Sabotage,
}

impl Appliance for Broken {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        match self.fault {
            Sabotage::Silent => Action::Drop,
            Sabotage::Rewrite if is_bulk(packet) => {
                let mut payload = packet.payload().to_vec();
                payload[0] ^= 1;
                match packet.replace_payload(&payload) {
                    Ok(()) => Action::Forward,
                    // A fragment, of which there are none in the lab.
                    Err(_) => Action::Drop,
                }
            }
            // A wrong route needs no appliance.
            Sabotage::Rewrite | Sabotage::WrongRoute => Action::Forward,
        }
    }
}

fn is_bulk(packet: &Packet<'_>) -> bool {
    let tcp = matches!(packet.inner().transport, Transport::Tcp { .. });
    tcp && packet.payload().len() >= WORTH_CHANGING
}
