//! A process of the pool, from its fork to its end: what the leader's copy of itself does to become one.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, getpid, getppid};

use super::exit;
use super::signals::Signals;
use crate::config::Pool;
use crate::observe::{Log, Scoreboard};
use crate::php::Engine;
use crate::server::{self, Process};

/// Bytes of connections on their way between processes, if so many may be had.
const SIBLINGS: usize = 4 << 20;

/// What the leader shares with the processes it forks.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) pool: Pool,
    pub(super) listener: OwnedFd,
    pub(super) log: Log,
    pub(super) scoreboard: Scoreboard,
    pub(super) siblings: (OwnedFd, OwnedFd),
}

/// One that was just forked.
pub(super) struct PoolProcess {
    pub(super) common: Common,
    pub(super) signals: Signals,
    pub(super) leader: Pid,
    pub(super) slots: Range<u32>,
    /// How many processes the leader has.
    pub(super) processes: u32,
    /// Where standard output and standard error go; `None`: nowhere.
    pub(super) standard: Option<(OwnedFd, OwnedFd)>,
}

impl PoolProcess {
    /// Serves until it is told to stop. Gives the exit code.
    pub(super) fn serve(self, engine: &'static Engine) -> u8 {
        let Common {
            pool,
            listener,
            log,
            scoreboard,
            siblings,
        } = self.common;
        let name = pool.name.clone();
        let prepared = redirect(self.standard).and_then(|()| self.signals.release());
        if let Err(error) = prepared {
            log.error(format_args!(
                "[pool {name}] child failed to initialize: {error}"
            ));
            return exit::SOFTWARE;
        }
        // Not SIGTERM, which a script may handle: no process outlives its leader.
        if !lives_with(self.leader, Signal::SIGKILL) {
            return exit::SOFTWARE;
        }
        let process = Process {
            pool,
            listener,
            log: log.clone(),
            scoreboard,
            first_slot: self.slots.start,
            interpreters: self.slots.end.saturating_sub(self.slots.start),
            processes: self.processes,
            siblings,
        };
        let result = server::run(engine, process);
        engine.stop();
        match result {
            Ok(()) => exit::OK,
            Err(error) => {
                let pid = getpid();
                log.error(format_args!("[pool {name}] child {pid} failed: {error}"));
                exit::SOFTWARE
            }
        }
    }
}

/// Standard output and standard error go to the leader, or nowhere.
fn redirect(standard: Option<(OwnedFd, OwnedFd)>) -> io::Result<()> {
    match standard {
        Some((stdout, stderr)) => {
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
        }
        None => {
            let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            dup2_stdout(null.as_fd())?;
            dup2_stderr(null.as_fd())?;
        }
    }
    Ok(())
}

/// What the pool's processes pass connections through. A single process has a successor, at least.
pub(super) fn siblings() -> io::Result<(OwnedFd, OwnedFd)> {
    let (send, receive) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    if setsockopt(&send, sockopt::SndBufForce, &SIBLINGS).is_err() {
        let _ = setsockopt(&send, sockopt::SndBuf, &SIBLINGS);
    }
    Ok((send, receive))
}

/// Asks for a signal when the parent dies. False: it is dead already.
pub(super) fn lives_with(parent: Pid, signal: Signal) -> bool {
    set_pdeathsig(signal).is_ok() && getppid() == parent
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_at_the_pair_of_siblings() {
        let (send, receive) = siblings().unwrap();
        nix::unistd::write(&send, b"x").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(nix::unistd::read(&receive, &mut buffer), Ok(1));
        assert_eq!(
            nix::unistd::read(&receive, &mut buffer),
            Err(nix::errno::Errno::EAGAIN)
        );
    }
}
