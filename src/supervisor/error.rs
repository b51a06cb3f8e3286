//! Why howdah does not start.

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::children::Ending;

/// Why howdah does not start. Each message names the thing, its value and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A user or group that does not exist.
    #[error(
        "[pool {pool}] {directive} = {value}: there is no {kind} of this name; create it or correct the line"
    )]
    NoAccount {
        /// The pool that names it.
        pool: String,
        /// The directive that names it.
        directive: &'static str,
        /// The name.
        value: String,
        /// `user` or `group`.
        kind: &'static str,
    },
    /// A number that no account has, and no group with it.
    #[error(
        "[pool {pool}] {directive} = {value}: there is no account of this number, and so none that names a group; set group"
    )]
    NoGroup {
        /// The pool that names it.
        pool: String,
        /// The directive that names it.
        directive: &'static str,
        /// The number.
        value: String,
    },
    /// The database of accounts cannot be asked.
    #[error(
        "[pool {pool}] {directive} = {value}: the {kind} cannot be looked up: {source}; mend the databases that /etc/nsswitch.conf \
         names, or give the {kind}'s number"
    )]
    Lookup {
        /// The pool that names it.
        pool: String,
        /// The directive that names it.
        directive: &'static str,
        /// The name.
        value: String,
        /// `user` or `group`.
        kind: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Another name for root.
    #[error(
        "[pool {pool}] {directive} = {value}: please specify user and group other than root (or start with -R to run PHP as root)"
    )]
    Root {
        /// The pool that names it.
        pool: String,
        /// The directive that names it.
        directive: &'static str,
        /// The name.
        value: String,
    },
    /// `error_log` cannot be opened.
    #[error(
        "failed to open error_log ({}): {source}; create its directory, or set error_log in [global] to a file that can be written", path.display()
    )]
    ErrorLog {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `pid` cannot be written.
    #[error(
        "Unable to create the PID file ({}): {source}; create its directory, or set pid in [global] to a file that can be written", path.display()
    )]
    PidFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody serves there.
    #[error(
        "[pool {pool}] Another FPM instance seems to already listen on {}; stop it or choose another path", path.display()
    )]
    SocketInUse {
        /// The pool that wants it.
        pool: String,
        /// The path of `listen`.
        path: PathBuf,
    },
    /// A file that is not ours to remove.
    #[error(
        "[pool {pool}] unable to bind listening socket for address '{}': a file that is no socket is in the way; remove it or choose another path", path.display()
    )]
    NotASocket {
        /// The pool that wants the path.
        pool: String,
        /// The path of `listen`.
        path: PathBuf,
    },
    /// An address cannot be had.
    #[error(
        "[pool {pool}] unable to bind listening socket for address '{address}': {source}; {remedy}"
    )]
    Bind {
        /// The pool that wants it.
        pool: String,
        /// The address of `listen`.
        address: String,
        /// The system's reason.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A Unix socket cannot be given to its owner.
    #[error(
        "[pool {pool}] failed to chown() the socket '{}': {source}; remove listen.owner and listen.group, or start as root", path.display()
    )]
    Chown {
        /// The pool whose socket it is.
        pool: String,
        /// The path of `listen`.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A pool cannot start.
    #[error(
        "[pool {pool}] the pool could not be started: its leader {pid} exited {ending}; the messages before this one say why"
    )]
    Pool {
        /// The pool.
        pool: String,
        /// The leader's process number.
        pid: i32,
        /// How it ended.
        ending: Ending,
    },
    /// The system refuses what cannot be done without.
    #[error("failed to {doing}: {source}{}", remedy(source))]
    System {
        /// What was to be done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// What may help against what the system says, as the end of a message.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            "; raise the limit of open files (ulimit -n, or LimitNOFILE of the service)"
        }
        Some(Errno::ENFILE) => "; raise the system's limit of open files (fs.file-max)",
        // What fork(2) says.
        Some(Errno::EAGAIN) => {
            "; raise the limit of processes (ulimit -u, or TasksMax of the service)"
        }
        Some(Errno::ENOMEM) => "; give it more memory, or lower pm.max_children",
        // Files that the configuration names have errors of their own.
        Some(Errno::ENOENT) => "; see that /proc and /dev are mounted",
        _ => "",
    }
}

/// For `map_err`: what was to be done.
pub(super) fn failed_to<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System {
        doing,
        source: source.into(),
    }
}
