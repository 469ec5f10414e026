//! The `gwlb` command. See the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gwlb::cli::main(std::env::args_os())
}
