//! Signals as something to wait for, beside other descriptors.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that wait to be read instead of interrupting.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    /// The mask that was there before.
    before: SigSet,
}

impl Signals {
    /// From now on these signals wait.
    pub(super) fn catch(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let mut before = SigSet::thread_get_mask()?;
        // Who started this process may have left them blocked.
        for &signal in signals {
            before.remove(signal);
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&set, flags)?;
        set.thread_block()?;
        Ok(Self { descriptor, before })
    }

    /// The next one that has arrived, if one has.
    pub(super) fn next(&self) -> Option<Signal> {
        let arrived = self.descriptor.read_signal().ok().flatten()?;
        i32::try_from(arrived.ssi_signo)
            .ok()
            .and_then(|number| Signal::try_from(number).ok())
    }

    /// Signals act as before. For a process that was forked from the one that waits for them.
    pub(super) fn release(self) -> io::Result<()> {
        self.before.thread_set_mask()?;
        Ok(())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// How long to wait for signals and all else; rounded up, so that the time has come when the wait is over.
pub(super) fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(Instant::now());
    let milliseconds = left.as_micros().div_ceil(1000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
