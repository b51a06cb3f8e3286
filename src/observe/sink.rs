//! Where messages go: a file, a pipe, a terminal, a socket. None of them may hold up who writes, for more than a moment.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

/// Bytes that go into a pipe at once or not at all (PIPE_BUF), so that room for some is room for these.
const PIECE: usize = 4096;

/// A place that messages are written to, from any number of threads.
///
/// Who reads them may have stopped (`howdah -F 2>&1 | less`). A message is waited with for the sink's patience, and then
/// dropped, which is better than a server that hangs because of its log. While nothing can be written further ones are
/// dropped at once, and the next that can be is preceded by their number.
#[derive(Debug)]
pub(super) struct Sink {
    descriptor: OwnedFd,
    kind: Kind,
    patience: Duration,
    /// The last message was dropped: the next one is not waited with.
    stalled: AtomicBool,
    /// A message was dropped when a part of it had been written.
    cut: AtomicBool,
    /// Messages that were dropped and have not been reported yet.
    dropped: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A regular file, which the system never lets wait for a reader.
    File,
    /// May be told with each message not to wait.
    Socket,
    /// A pipe or a terminal. It is asked before each piece whether there is room. See [`unshared`], too.
    Other,
}

impl Sink {
    pub(super) fn new(descriptor: OwnedFd, patience: Duration) -> Self {
        let kind = fstat(&descriptor).map_or(Kind::Other, |status| {
            match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFREG => Kind::File,
                SFlag::S_IFSOCK => Kind::Socket,
                _ => Kind::Other,
            }
        });
        Self {
            descriptor: match kind {
                Kind::Other => unshared(descriptor),
                Kind::File | Kind::Socket => descriptor,
            },
            kind,
            patience,
            stalled: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// Writes a message, after one that `report` makes of the number of those that were dropped, if some were.
    pub(super) fn write(&self, message: &[u8], report: impl FnOnce(u64) -> Vec<u8>) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let reported = dropped == 0 || self.put(&report(dropped));
        let unreported = if reported { 0 } else { dropped };
        let lost = u64::from(!(reported && self.put(message)));
        if unreported + lost > 0 {
            self.dropped.fetch_add(unreported + lost, Ordering::Relaxed);
        }
    }

    /// One write where the system lets it be one. False: the message, or the rest of it, was dropped.
    fn put(&self, message: &[u8]) -> bool {
        let patience = if self.stalled.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            self.patience
        };
        let until = Instant::now() + patience;
        // The rest of a line that was cut ends here.
        let joined;
        let cut = self.cut.swap(false, Ordering::Relaxed);
        let whole = if cut {
            joined = [b"\n", message].concat();
            &joined
        } else {
            message
        };
        let mut rest = whole;
        let mut wait = self.kind == Kind::Other;
        while !rest.is_empty() {
            if wait && !self.has_room(until) {
                break;
            }
            match self.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                // Somebody else took the room that there was.
                Err(Errno::EAGAIN) if wait && Instant::now() >= until => break,
                Err(Errno::EAGAIN) => wait = true,
                Err(_) => break,
            }
        }
        let done = rest.is_empty();
        self.stalled.store(!done, Ordering::Relaxed);
        if !done && (cut || rest.len() < whole.len()) {
            self.cut.store(true, Ordering::Relaxed);
        }
        done
    }

    fn try_write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.kind {
            Kind::File => nix::unistd::write(&self.descriptor, bytes),
            Kind::Socket => send(
                self.descriptor.as_raw_fd(),
                bytes,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ),
            Kind::Other => {
                let piece = bytes.get(..PIECE).unwrap_or(bytes);
                nix::unistd::write(&self.descriptor, piece)
            }
        }
    }

    fn has_room(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000));
            let mut set = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut set, timeout.unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

/// The same pipe or terminal, opened anew for writes that never wait: between the answer that there is room and the write,
/// others may have taken it. The descriptor that was inherited shares its settings with them, and they may not expect that
/// one. Where the system opens none (a FIFO whose reader is gone, no /proc) it must do.
fn unshared(inherited: OwnedFd) -> OwnedFd {
    OpenOptions::new()
        .write(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(format!("/proc/self/fd/{}", inherited.as_raw_fd()))
        .map_or(inherited, OwnedFd::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn report(dropped: u64) -> Vec<u8> {
        format!("{dropped} dropped\n").into_bytes()
    }

    /// Writes until a message is dropped, which must take one patience and not more. Says how many went through.
    fn fill(sink: &Sink, message: &[u8]) -> usize {
        let mut written = 0;
        loop {
            let start = Instant::now();
            sink.write(message, report);
            let waited = start.elapsed();
            assert!(waited < PATIENCE * 10, "{waited:?}");
            if sink.dropped.load(Ordering::Relaxed) > 0 {
                assert!(waited >= PATIENCE, "{waited:?}");
                return written;
            }
            written += 1;
        }
    }

    /// While nobody reads, messages cost no more time.
    fn expect_no_wait(sink: &Sink, message: &[u8]) {
        let start = Instant::now();
        for _ in 0..99 {
            sink.write(message, report);
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let sink = Sink::new(write, PATIENCE);
        let written = fill(&sink, b"message\n");
        assert!(written > 1000, "{written}");
        expect_no_wait(&sink, b"message\n");

        let mut read = std::fs::File::from(read);
        let mut buffer = vec![0; 65_536];
        let mut text = Vec::new();
        while text.len() < 8 * written {
            let length = read.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..length]);
        }
        sink.write(b"and on\n", report);
        sink.write(b"and on\n", report);
        drop(sink);
        read.read_to_end(&mut text).unwrap();
        let expected = "message\n".repeat(written) + "100 dropped\nand on\nand on\n";
        assert!(text == expected.as_bytes());
    }

    #[test]
    fn a_line_that_was_cut_keeps_to_itself() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let sink = Sink::new(write, PATIENCE);
        let long = [[b'x'; 100_000].as_slice(), b"\n"].concat();
        assert_eq!(fill(&sink, &long), 0);
        let mut read = std::fs::File::from(read);
        let mut buffer = vec![0; 200_000];
        let cut = read.read(&mut buffer).unwrap();
        assert!(buffer[..cut].iter().all(|&byte| byte == b'x'));
        sink.write(b"next\n", report);
        let length = read.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"\n1 dropped\nnext\n");
    }

    #[test]
    fn a_pipe_keeps_its_settings_for_others() {
        let (_read, write) = nix::unistd::pipe().unwrap();
        let others = write.try_clone().unwrap();
        let _sink = Sink::new(write, PATIENCE);
        let flags = nix::fcntl::fcntl(&others, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_socket_that_nobody_reads_holds_nobody_up() {
        let pair = |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        for kind in [SockType::SeqPacket, SockType::Stream] {
            let (read, write) = pair(kind).unwrap();
            let sink = Sink::new(write, PATIENCE);
            let message = [b'm'; 5_000];
            let written = fill(&sink, &message);
            assert!(written > 0);
            expect_no_wait(&sink, &message);
            drop(read);
            sink.write(&message, report);
        }
    }
}
