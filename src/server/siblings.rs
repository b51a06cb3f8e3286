//! The pool's other processes: connections are handed to whoever has an interpreter free.
//!
//! All processes of a pool share one socket pair. What one puts in at the front, with the connection's descriptor, whoever
//! is free takes out at the other end; until then it waits in the kernel. Nothing has been read from such a connection,
//! so the process that takes it knows all there is to know. When it was put in goes along, so that whoever looks can tell
//! whether it has waited for too long.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, recv, sendmsg};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys;

/// Both ends of the pair.
#[derive(Debug)]
pub(super) struct Siblings {
    give: OwnedFd,
    take: OwnedFd,
}

/// The end at which connections arrive, registered with the I/O thread's reactor.
pub(super) type Arrivals = AsyncFd<OwnedFd>;

impl Siblings {
    pub(super) fn new(give: OwnedFd, take: OwnedFd) -> Self {
        Self { give, take }
    }

    /// Splits off the end at which connections arrive.
    ///
    /// # Errors
    ///
    /// If it cannot be watched.
    pub(super) fn split(self) -> io::Result<(OwnedFd, Arrivals)> {
        Ok((self.give, sys::watch(self.take, Interest::READABLE)?))
    }
}

/// Hands on a connection. The caller closes its own descriptor.
///
/// # Errors
///
/// If too many wait already (`WouldBlock`), and what sendmsg(2) says.
pub(super) fn give(to: &OwnedFd, connection: &OwnedFd) -> io::Result<()> {
    let descriptors = [connection.as_raw_fd()];
    sendmsg::<UnixAddr>(
        to.as_raw_fd(),
        &[IoSlice::new(&now().to_le_bytes())],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Takes a connection that a sibling handed on, and how long it has waited; `None` if what came was none.
///
/// # Errors
///
/// `WouldBlock` if there is none, and what recvmsg(2) says.
pub(super) fn take(from: &OwnedFd) -> io::Result<Option<(OwnedFd, Duration)>> {
    let mut since = [0; 8];
    let connection = sys::receive_descriptor(from, &mut since)?;
    Ok(connection.map(|connection| (connection, age(since))))
}

/// How long the connection that is next has waited; `None` if there is none.
pub(super) fn waited(at: &OwnedFd) -> Option<Duration> {
    let mut since = [0; 8];
    let read = recv(
        at.as_raw_fd(),
        &mut since,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK,
    );
    (read == Ok(since.len())).then(|| age(since))
}

fn age(since: [u8; 8]) -> Duration {
    Duration::from_millis(now().saturating_sub(u64::from_le_bytes(since)))
}

/// Milliseconds on a clock that all processes share.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .ok()
        .and_then(|since_boot| u64::try_from(since_boot.as_millis()).ok())
        .unwrap_or_default()
}
