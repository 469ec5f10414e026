//! The `router` command; see [`router::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    router::cli::main(std::env::args_os())
}
