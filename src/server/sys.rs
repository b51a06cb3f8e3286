//! System calls that have no safe wrapper, and settings of this thread and process.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixAddr, recv, recvmsg, send as send_bytes,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More descriptors than this help nobody, and some programs that scripts start walk through all that they may have.
const ENOUGH_DESCRIPTORS: u64 = 65_536;

/// The descriptors that select(2) can watch. They are for PHP, whose scripts and extensions use it.
const FOR_SELECT: u64 = 1024;

/// Every connection is a descriptor, and the customary soft limit of 1,024 is too few for idle ones. Gives how many
/// connections leave PHP enough.
pub(super) fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return usize::MAX;
    };
    let enough = hard.min(ENOUGH_DESCRIPTORS);
    let limit = if soft < enough && setrlimit(Resource::RLIMIT_NOFILE, enough, hard).is_ok() {
        enough
    } else {
        soft
    };
    let for_php = if limit >= 2 * FOR_SELECT {
        FOR_SELECT
    } else {
        limit / 2
    };
    usize::try_from(limit - for_php).unwrap_or(usize::MAX)
}

/// The same connection under a number that select(2) does not need, if there is one.
pub(super) fn out_of_the_way(connection: OwnedFd) -> OwnedFd {
    let to = FcntlArg::F_DUPFD_CLOEXEC(FOR_SELECT as libc::c_int);
    match fcntl(&connection, to) {
        // SAFETY: the kernel has just made it for us.
        Ok(high) => unsafe { OwnedFd::from_raw_fd(high) },
        Err(_) => connection,
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
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// send(2), without SIGPIPE.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send_bytes(
        socket.as_raw_fd(),
        bytes,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    )?)
}

/// Registers a descriptor with the reactor of the runtime that this runs in.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor, always the same, for as long as it lives; and `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(io::Error::from)
}

/// recvmsg(2) of a message and the descriptor that comes with it, which a forked and executed program does not inherit.
/// `None` if there is none with it.
pub(super) fn receive_descriptor(
    socket: &OwnedFd,
    message: &mut [u8],
) -> io::Result<Option<OwnedFd>> {
    let mut iov = [IoSliceMut::new(message)];
    let mut space = cmsg_space!([libc::c_int; 1]);
    let received = recvmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made it for us. There is room for one, so there are no others.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok(None)
}
