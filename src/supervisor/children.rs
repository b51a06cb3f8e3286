//! How processes end.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use nix::libc::{WCOREDUMP, WEXITSTATUS, WIFEXITED, WIFSIGNALED, WTERMSIG};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::sys;
use crate::observe::Scoreboard;

/// How many requests a message names.
const TOLD: usize = 4;

/// How a process ended. Reads on from "exited", in php-fpm's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal {
        /// The signal's number.
        number: i32,
        /// The system kept its memory in a file.
        core: bool,
    },
}

impl Ending {
    /// By itself, with nothing to complain about.
    pub(super) fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// Requests may have been lost.
    pub(super) fn is_abrupt(self) -> bool {
        match self {
            Self::Code(code) => code != 0,
            Self::Signal { number, .. } => number != Signal::SIGQUIT as i32,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "with code {code}"),
            Self::Signal { number, core } => {
                // Real-time signals have no name of their own.
                let name = Signal::try_from(number).map_or("", Signal::as_str);
                let core = if core { " - core dumped" } else { "" };
                write!(f, "on signal {number} ({name}{core})")
            }
        }
    }
}

/// The next child that has ended, if one has.
pub(super) fn next_ended() -> Option<(Pid, Ending)> {
    while let Some((pid, status)) = sys::reap() {
        if WIFEXITED(status) {
            return Some((pid, Ending::Code(WEXITSTATUS(status))));
        }
        if WIFSIGNALED(status) {
            let (number, core) = (WTERMSIG(status), WCOREDUMP(status));
            return Some((pid, Ending::Signal { number, core }));
        }
    }
    None
}

/// The next child that a signal has stopped, if one has.
pub(super) fn next_stopped() -> Option<Pid> {
    match waitid(Id::All, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Stopped(pid, _)) => Some(pid),
        _ => None,
    }
}

/// What interpreters that are gone were serving: nothing, or the end of a message about their death.
pub(super) fn serving(board: &Scoreboard, slots: Range<u32>) -> String {
    let requests: Vec<String> = slots
        .filter_map(|index| board.slot(index)?.current())
        .map(|serving| format!("{} {} ({})", serving.method, serving.uri, serving.script))
        .collect();
    let told: Vec<&str> = requests.iter().take(TOLD).map(String::as_str).collect();
    match requests.len() {
        0 => String::new(),
        1..=TOLD => format!(", while serving {}", told.join(" and ")),
        all => format!(
            ", while serving {} and {} more",
            told.join(", "),
            all - TOLD
        ),
    }
}

/// A length of time as php-fpm's log has it.
pub(super) fn seconds(age: Duration) -> impl fmt::Display {
    format!("{}.{:06} seconds", age.as_secs(), age.subsec_micros())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_known_by_their_requests() {
        let board = Scoreboard::create(8).unwrap();
        assert_eq!(serving(&board, 0..8), "");
        let begin = |index: u32| {
            let uri = format!("/{index}?a");
            let slot = board.slot(index).unwrap();
            slot.begin(b"GET", uri.as_bytes(), b"/srv/x.php");
        };
        begin(1);
        assert_eq!(
            serving(&board, 0..8),
            ", while serving GET /1?a (/srv/x.php)"
        );
        assert_eq!(serving(&board, 2..8), "");
        (2..8).for_each(begin);
        let text = serving(&board, 0..8);
        assert!(text.ends_with("GET /4?a (/srv/x.php) and 3 more"), "{text}");
    }

    #[test]
    fn endings_read_like_php_fpms() {
        let signal = |number, core| Ending::Signal { number, core }.to_string();
        assert_eq!(Ending::Code(255).to_string(), "with code 255");
        assert_eq!(signal(11, false), "on signal 11 (SIGSEGV)");
        assert_eq!(signal(6, true), "on signal 6 (SIGABRT - core dumped)");
        assert_eq!(signal(34, false), "on signal 34 ()");
    }

    #[test]
    fn ages_have_microseconds() {
        let age = Duration::from_micros(12_000_345);
        assert_eq!(seconds(age).to_string(), "12.000345 seconds");
    }

    #[test]
    fn a_soft_end_loses_nothing() {
        assert!(!Ending::Code(0).is_abrupt() && Ending::Code(0).is_success());
        assert!(
            !Ending::Signal {
                number: 3,
                core: false
            }
            .is_abrupt()
        );
        assert!(
            Ending::Signal {
                number: 9,
                core: false
            }
            .is_abrupt()
        );
        assert!(Ending::Code(70).is_abrupt());
    }
}
