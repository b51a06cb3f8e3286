//! The program. See the library for all of it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    howdah::cli::run(std::env::args_os()).into()
}
