//! The `nva-sample` command; everything is in [`nva_sample::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nva_sample::cli::main(std::env::args_os())
}
