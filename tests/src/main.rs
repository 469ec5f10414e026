//! Every command of the workspace in one binary: the first argument says which. A package gets no
//! paths to the binaries of other packages, so the end-to-end tests start this one.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    // Each command takes its own name for the first argument, as if it had been started by it.
    let arguments = std::iter::once(command.clone()).chain(arguments);
    match command.to_str() {
        Some("gwlb") => gwlb::cli::main(arguments),
        Some("nva-sample") => nva_sample::cli::main(arguments),
        Some("router") => router::cli::main(arguments),
        _ => {
            eprintln!("usage: gwlb-tests gwlb|nva-sample|router ARGUMENTS...");
            ExitCode::from(2)
        }
    }
}
