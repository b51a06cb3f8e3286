//! Going into the background, and the standard descriptors.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};

use nix::fcntl::OFlag;
use nix::unistd::{dup2_stdin, dup2_stdout, pipe2, setsid};

use super::exit;
use super::sys::{self, Forked};

/// Which of the two processes this is after [`detach`].
pub(super) enum Detached {
    /// The one that was started. It has waited until the other one was ready, and ends with this code.
    Parent(u8),
    /// The one that goes on, in a session of its own.
    Daemon(Announcement),
}

/// Tells the process that was started how things went. Dropped without a word, it means that they went wrong.
#[derive(Debug)]
pub(super) struct Announcement(File);

impl Announcement {
    /// The process that was started ends with this code.
    pub(super) fn tell(mut self, code: u8) {
        let _ = self.0.write_all(&[code]);
    }
}

/// Goes on as a daemon.
pub(super) fn detach() -> io::Result<Detached> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    match sys::fork()? {
        Forked::Parent(_) => {
            drop(write);
            let mut code = [exit::SOFTWARE];
            // However long PHP takes to start. The end of the pipe is the end of the daemon.
            let told = File::from(read).read_exact(&mut code);
            Ok(Detached::Parent(told.map_or(exit::SOFTWARE, |()| {
                let [code] = code;
                code
            })))
        }
        Forked::Child => {
            setsid()?;
            Ok(Detached::Daemon(Announcement(write.into())))
        }
    }
}

/// Nothing comes from standard input, and nothing goes to standard output.
pub(super) fn silence() -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}
