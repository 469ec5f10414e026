//! `gwlb capture`: packets of a running gateway, into a file or a line each.

mod blocks;
mod line;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use netio::process::idle::give_way;
use serde_json::{Value, json};

use super::client::{AskError, Client, GatewayArgs};
use super::{WRONG_USE, fail};
use blocks::Blocks;

/// Capture packets of a running gateway where they pass: as they come in, on the way to appliances
/// and back, as they leave, and where they are dropped.
///
/// With -w it writes pcapng, which Wireshark reads: one interface for each point, Geneve where there
/// is Geneve, and on each packet a comment with worker, endpoint, target, cookie, flow, and the reason
/// of a drop. Without -w it prints a line for each packet. It ends with a bound or with Ctrl-C, and
/// then says how many packets there were, how many were lost, and how many the gateway had no time to
/// look at: it lets no packet wait for a capture, and leaves out of it what comes too fast. With -w it
/// has only the time that nothing else on the machine wants.
///
/// Exit status: 0 it was captured; 1 something failed, or the gateway cannot be asked; 2 it is asked
/// for something wrong.
#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Only flows with this address at one end, or with one of this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX", help_heading = "Filters")]
    address: Option<String>,
    /// Only flows with this port at one end.
    #[arg(long, help_heading = "Filters", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only tcp, udp, icmp, icmpv6 or a number.
    #[arg(long, help_heading = "Filters")]
    protocol: Option<String>,
    /// Only this flow, in both directions: 203.0.113.7:4711-10.0.1.11:443/tcp.
    #[arg(long, value_name = "FLOW", help_heading = "Filters")]
    tuple: Option<String>,
    /// Only flows through this endpoint, by its name or its id on the wire.
    #[arg(long, help_heading = "Filters")]
    endpoint: Option<String>,
    /// Only flows that this target inspects: its address, with or without port.
    #[arg(long, value_name = "ADDRESS[:PORT]", help_heading = "Filters")]
    target: Option<String>,
    /// Only at these points, with commas between: in, to-appliance, from-appliance, out, drop.
    #[arg(long, value_delimiter = ',')]
    points: Option<Vec<String>>,
    /// The file for the capture, which is made for its owner alone; `-` is stdout.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many packets [default: 100000; at most 10000000].
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so many seconds [default: 60; at most 3600].
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// End with so many bytes of capture [default: 104857600, which are 100 MiB; at most 10 GiB].
    #[arg(long, value_name = "B")]
    max_bytes: Option<u64>,
    /// Keep at most so many bytes of each packet [default: all].
    #[arg(long, value_name = "N")]
    snaplen: Option<u64>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

impl CaptureArgs {
    /// What is asked of the gateway.
    fn body(&self) -> Value {
        let all = json!({
            "address": self.address,
            "port": self.port,
            "protocol": self.protocol,
            "tuple": self.tuple,
            "endpoint": self.endpoint,
            "target": self.target,
            "points": self.points,
            "max_packets": self.count,
            "seconds": self.seconds,
            "max_bytes": self.max_bytes,
            "snaplen": self.snaplen,
        });
        let given = all.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        given.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

pub(super) fn run(arguments: &CaptureArgs) -> ExitCode {
    let to_stdout = arguments.write.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if to_stdout && io::stdout().is_terminal() {
        let _ = fail("a capture is nothing for a terminal: give -w a file, or leave it out");
        return ExitCode::from(WRONG_USE);
    }
    if arguments.write.is_some() {
        // It may run beside the gateway, whose packets come first. Where it cannot give way, it goes
        // on as it is.
        let _ = give_way();
    }
    arguments.gateway.ask(async |client: &Client| {
        // The file is made when the gateway has said yes.
        let answer = client.open("/v1/capture", &arguments.body()).await?;
        let to: Output = match &arguments.write {
            None => Output::Lines(io::stdout()),
            Some(_) if to_stdout => Output::File(Box::new(io::stdout())),
            Some(path) => match create(path) {
                Ok(file) => Output::File(Box::new(io::BufWriter::new(file))),
                Err(error) => {
                    let name = path.display();
                    return Err(AskError::Other(format!("cannot write {name}: {error}")));
                }
            },
        };
        Ok(follow(answer, to).await)
    })
}

/// Makes a file that nobody else may read: what hosts say to each other is in it, and cookies. One that
/// is there already keeps the mode that somebody has given it.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Where packets go.
enum Output {
    File(Box<dyn Write>),
    Lines(io::Stdout),
}

/// Writes what comes until it ends, or until Ctrl-C, and says how much that was.
async fn follow(mut answer: Incoming, mut to: Output) -> ExitCode {
    let mut blocks = Blocks::default();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut failure = None;
    loop {
        let frame = tokio::select! {
            biased;
            // Without a handler Ctrl-C ends the program as it always does.
            Ok(()) = &mut interrupted => break,
            frame = answer.frame() => frame,
        };
        let bytes = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                failure = Some(format!("the gateway's answer broke off: {error}"));
                break;
            }
        };
        let written = match blocks.take(&bytes) {
            Err(error) => {
                failure = Some(format!("the gateway's answer is no capture: {error}"));
                break;
            }
            Ok(whole) => to.write(&mut blocks, &whole),
        };
        match written {
            Ok(()) => {}
            // Who has seen enough has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                failure = Some(format!("cannot write the capture: {error}"));
                break;
            }
        }
    }
    if let Err(error) = to.finish()
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        failure = failure.or(Some(format!("cannot write the capture: {error}")));
    }
    let (packets, lost, passed_by) = (blocks.packets(), blocks.lost(), blocks.passed_by());
    let noun = if packets == 1 { "packet" } else { "packets" };
    let mut said = format!("gwlb: {packets} {noun} captured, {lost} lost for want of room");
    if passed_by > 0 {
        // Writing to a string cannot fail.
        let _ = write!(said, ", {passed_by} not looked at for want of time");
    }
    let _ = writeln!(io::stderr(), "{said}");
    match failure {
        Some(failure) => fail(&failure),
        None => ExitCode::SUCCESS,
    }
}

impl Output {
    /// Takes whole blocks.
    fn write(&mut self, blocks: &mut Blocks, whole: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => {
                blocks.each(whole, |_| {})?;
                file.write_all(whole)?;
                file.flush()
            }
            Self::Lines(stdout) => {
                let mut text = String::new();
                blocks.each(whole, |packet| {
                    text += &line::of(&packet);
                    text.push('\n');
                })?;
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Lines(stdout) => stdout.flush(),
        }
    }
}
