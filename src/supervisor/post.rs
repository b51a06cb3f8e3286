//! One pool's leader, as the supervisor sees it: where it is started, and started again.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socketpair, sockopt,
};
use nix::unistd::{Pid, pipe2};

use super::handover::{Descriptors, Handover};
use super::output::Output;
use super::sys;
use crate::observe::{Log, Scoreboard};

/// A leader that does not live as long as this cannot do its work.
const HEALTHY: Duration = Duration::from_secs(1);

/// The longest wait before such a leader is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Bytes of messages that may wait for the supervisor, if it may ask for so much.
const MESSAGES: usize = 1 << 20;

/// Larger than any message.
const PACKET: usize = 128 * 1024;

/// Messages that are logged before others have their turn.
const PORTION: usize = 256;

/// A leader's place: what it is to do, and the process that does it.
#[derive(Debug)]
pub(super) struct Post {
    /// The pool's place in the configuration.
    pub(super) pool: usize,
    handover: Handover,
    pub(super) scoreboard: Scoreboard,
    pub(super) leader: Option<Leader>,
    /// Leaders in a row that died young.
    failures: u32,
    /// When the next leader is due.
    pub(super) due: Option<Instant>,
}

/// A leader's process.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) pid: Pid,
    pub(super) since: Instant,
    /// A byte will come here; `None`: it has come, or never will.
    pub(super) ready: Option<OwnedFd>,
    pub(super) serves: bool,
    pub(super) messages: Messages,
    /// What it says on standard error; `None`: it cannot say more.
    pub(super) output: Option<Output>,
}

impl Post {
    /// Nobody is there yet. The handover's descriptors are filled in for each leader.
    pub(super) fn new(pool: usize, handover: Handover) -> io::Result<Self> {
        Ok(Self {
            pool,
            scoreboard: Scoreboard::create(handover.interpreters)?,
            handover,
            leader: None,
            failures: 0,
            due: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.handover.pool.name
    }

    /// Starts a leader.
    pub(super) fn start(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.due = None;
        for slot in (0..self.scoreboard.slots()).filter_map(|index| self.scoreboard.slot(index)) {
            slot.clear();
        }
        let (messages, log) = relay()?;
        let (ready, report) = pipe2(OFlag::O_CLOEXEC)?;
        let (output, standard) = pipe2(OFlag::O_CLOEXEC)?;
        self.handover.descriptors = Descriptors {
            listener: listener.as_raw_fd(),
            log: log.as_raw_fd(),
            scoreboard: self.scoreboard.as_fd().as_raw_fd(),
            ready: report.as_raw_fd(),
        };
        let handover = self.handover.write()?;
        let mut open = self.handover.descriptors.all().to_vec();
        open.push(handover.as_raw_fd());
        // Its own image, even if a newer one has taken its place: what both say to each other must fit.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(format!("howdah: pool {}", self.name()))
            .arg("--pool-leader")
            .arg(handover.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(standard.try_clone()?)
            .stderr(standard)
            // What a terminal sends to the supervisor's group (Ctrl-C) is for the supervisor.
            .process_group(0);
        sys::prepare_child(&mut command, open);
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.leader = Some(Leader {
            pid: Pid::from_raw(pid),
            since: Instant::now(),
            ready: Some(ready),
            serves: false,
            messages,
            output: Some(Output::new(output)?),
        });
        Ok(())
    }

    /// The leader is gone, or could not be started. Says when the next one is due: at once, unless this happens again and
    /// again.
    pub(super) fn bury(&mut self) -> (Option<Leader>, Duration) {
        let leader = self.leader.take();
        let healthy = leader
            .as_ref()
            .is_some_and(|leader| leader.serves && leader.since.elapsed() >= HEALTHY);
        self.failures = if healthy {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let wait = backoff(self.failures);
        self.due = Some(Instant::now() + wait);
        (leader, wait)
    }
}

/// The first failure may be chance.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 2).min(10)).min(LONGEST_WAIT),
    }
}

impl Leader {
    /// Sends a signal. A leader that does not serve yet has nothing to finish.
    pub(super) fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::SIGQUIT if !self.serves => Signal::SIGTERM,
            signal => signal,
        };
        // It has not been waited for, so the number is still its own.
        let _ = kill(self.pid, signal);
    }

    /// Takes what came on `ready`.
    pub(super) fn hear(&mut self) {
        if let Some(ready) = self.ready.take() {
            let mut byte = [0];
            self.serves = nix::unistd::read(&ready, &mut byte) == Ok(1);
        }
    }
}

/// The supervisor's end of a [`Log::relay`].
#[derive(Debug)]
pub(super) struct Messages(OwnedFd);

impl Messages {
    /// Logs what has arrived. False: nobody is left who could send more.
    pub(super) fn pass_on(&self, log: &Log) -> bool {
        let mut packet = vec![0; PACKET];
        for _ in 0..PORTION {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                // A packet without contents looks like the end.
                Ok(0) if self.is_over() => return false,
                Ok(length) => log.pass_on(packet.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(error) => return error == Errno::EAGAIN,
            }
        }
        true
    }

    fn is_over(&self) -> bool {
        let mut set = [PollFd::new(self.descriptor(), PollFlags::empty())];
        poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn relay() -> io::Result<(Messages, OwnedFd)> {
    let (receive, send) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    // Only the receiving end: who sends waits for its turn, for as long as `Log` does.
    fcntl(&receive, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // Root may have more than others. It works with less, too.
    if setsockopt(&send, sockopt::SndBufForce, &MESSAGES).is_err() {
        let _ = setsockopt(&send, sockopt::SndBuf, &MESSAGES);
    }
    Ok((Messages(receive), send))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};

    use super::*;
    use crate::config::Level;

    #[test]
    fn leaders_that_die_young_are_waited_with() {
        let waits: Vec<u64> = (0..9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX), LONGEST_WAIT);
    }

    #[test]
    fn messages_are_passed_on_to_the_last() {
        let mut file: File = tempfile::tempfile().unwrap();
        let log = Log::new(file.try_clone().unwrap().into(), Level::Notice);
        let (messages, send) = relay().unwrap();
        nix::sys::socket::send(send.as_raw_fd(), b"", MsgFlags::empty()).unwrap();
        let sender = Log::relay(send, Level::Notice);
        sender.notice("first");
        assert!(messages.pass_on(&log));
        sender.notice("last");
        drop(sender);
        assert!(!messages.pass_on(&log));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("NOTICE: last\n"), "{text}");
    }
}
