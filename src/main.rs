//! The program. See the library for all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    howdah::cli::run(std::env::args_os()).into()
}
