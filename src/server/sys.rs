//! System calls that have no safe wrapper, and settings of this thread and process.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More descriptors than this help nobody, and some programs that scripts start walk through all that they may have.
const ENOUGH_DESCRIPTORS: u64 = 65_536;

/// Every connection is a descriptor, and the customary soft limit of 1,024 is too few for idle ones.
pub(super) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let enough = hard.min(ENOUGH_DESCRIPTORS);
        if soft < enough {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, enough, hard);
        }
    }
}

/// Blocks, on the calling thread, what is meant for scripts: SIGPROF ends a script's time, SIGALRM and the rest may be
/// pcntl's. What asks the whole process to end may arrive here.
pub(super) fn leave_signals_to_php() -> io::Result<()> {
    let mut signals = SigSet::all();
    for signal in [
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
    ] {
        signals.remove(signal);
    }
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    Ok(())
}

/// Whether the other side is gone for good, rather than done with sending.
pub(super) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut set = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        && set[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

/// recv(2).
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::recv(
        socket.as_raw_fd(),
        buffer,
        nix::sys::socket::MsgFlags::MSG_DONTWAIT,
    )?)
}

/// send(2), without SIGPIPE.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::send(
        socket.as_raw_fd(),
        bytes,
        nix::sys::socket::MsgFlags::MSG_DONTWAIT | nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
    )?)
}

/// Registers a descriptor with the reactor of the runtime that this runs in.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor, always the same, for as long as it lives; and `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(io::Error::from)
}

/// An owner for a descriptor that has just come out of the kernel.
///
/// # Safety
///
/// Nobody else owns `descriptor`.
pub(super) unsafe fn own(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) }
}
