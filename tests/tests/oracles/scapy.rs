//! What Scapy reads: a Python script gets a capture and answers in JSON.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gwlb_tests::capture::{self, Captured};
use gwlb_tests::notice;

use crate::reading::Reading;

/// The environment variable that says, under `CI=true`, that Scapy must be there.
const NEEDED: &str = "GWLB_NEED_SCAPY";

/// Where a Python with Scapy is looked for: what `PATH` has, and where a distribution's package
/// goes, which an interpreter from elsewhere does not see.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Whether Scapy is there; a notice for people if it is not.
///
/// # Panics
/// If it is not and has to be: under `CI=true` with [`NEEDED`] set to 1.
pub fn is_there(test: &str) -> bool {
    if python().is_some() {
        return true;
    }
    let is = |name, value| std::env::var_os(name).is_some_and(|found| found == value);
    assert!(!(is("CI", "true") && is(NEEDED, "1")), "{test} may not be skipped: no Scapy");
    notice::skip(test, "Scapy is not installed");
    false
}

fn python() -> Option<&'static str> {
    PYTHONS.into_iter().find(|python| {
        let import = Command::new(python).args(["-c", "import scapy.all"]).output();
        import.is_ok_and(|output| output.status.success())
    })
}

/// What Scapy reads in each packet.
pub fn readings(packets: &[Captured]) -> Vec<Reading> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles/scapy_reads.py");
    let mut command = Command::new(python().unwrap());
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut scapy = command.spawn().unwrap();
    let mut input = scapy.stdin.take().unwrap();
    let bytes = capture::bytes(packets);
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = scapy.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "Scapy: {}", output.status);
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let readings: Vec<Reading> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(readings.len(), packets.len(), "Scapy tells of every packet");
    readings
}
