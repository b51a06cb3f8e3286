//! Processes: who starts them, who they are, how they end.
//!
//! ```text
//! howdah (supervisor)      configuration, sockets, signals, pid file, log; never starts PHP
//!   └─ pool's leader       another run of the same program: starts PHP, gives up its privileges, forks
//!        └─ pool process   serves, see `crate::server`
//! ```
//!
//! A leader has one thread, and so has the supervisor, so that both may fork. Whoever dies takes those below with it: the
//! kernel tells children of their parent's death (`PR_SET_PDEATHSIG`).
//!
//! # Layout
//!
//! - [`start`]: from the command line to the first message
//! - `watch`: the supervisor's life: leaders, signals, messages
//! - `post`: one leader, as the supervisor sees it
//! - `handover`: what a leader is given
//! - `leader`: the leader's life: pool processes, signals, what they say
//! - `process`: what the leader forks, from there to `crate::server`
//! - `sockets`, `privileges`, `pidfile`, `daemon`, `signals`, `children`, `output`: one thing each
//! - `sys`: system calls that have no safe wrapper

mod children;
mod daemon;
mod error;
mod handover;
mod leader;
mod output;
mod pidfile;
mod post;
mod privileges;
mod process;
mod signals;
mod sockets;
mod sys;
#[cfg(test)]
mod tests;
mod watch;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

pub use children::Ending;
pub use error::Error;

use crate::config::{self, Config, Level, LogTarget};
use crate::observe::Log;
use crate::php;
use daemon::Detached;
use error::failed_to;
use privileges::Account;
use watch::Supervisor;

/// Exit codes, php-fpm's.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// The program or the system failed.
    pub const SOFTWARE: u8 = 70;
    /// The configuration is wrong, or cannot be put into effect.
    pub const CONFIG: u8 = 78;
}

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Start {
    /// `-y`: the configuration file.
    pub config: PathBuf,
    /// `-p`: what relative paths start at.
    pub prefix: Option<PathBuf>,
    /// `-g`: the pid file.
    pub pid: Option<PathBuf>,
    /// `-D` or `-F`.
    pub daemonize: Option<bool>,
    /// `-R`: root may run PHP.
    pub allow_root: bool,
    /// `-O`: messages go to standard error although it is no terminal.
    pub force_stderr: bool,
    /// What is for PHP.
    pub php: Php,
}

/// What the command line says to PHP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Php {
    /// `-c`: a php.ini, or the directory of one.
    pub ini_path: Option<PathBuf>,
    /// `-n`: read no php.ini.
    pub ignore_ini: bool,
    /// `-d`: lines of INI text.
    pub ini_entries: Vec<String>,
}

/// Serves until a signal ends it. Gives the exit code.
///
/// Call it while the process has one thread.
pub fn start(start: &Start) -> u8 {
    let Ok(first_log) = Log::stderr(Level::Notice) else {
        return exit::SOFTWARE;
    };
    let Some(config) = load(start, &first_log) else {
        return exit::CONFIG;
    };
    let (log, log_file) = match open_log(start, &config) {
        Ok(opened) => opened,
        Err(error) => return refuse(&first_log, &error),
    };
    let detached = config.global.daemonize.then(daemon::detach).transpose();
    let announcement = match detached.map_err(failed_to("go into the background")) {
        Ok(Some(Detached::Parent(code))) => return code,
        Ok(Some(Detached::Daemon(announcement))) => Some(announcement),
        Ok(None) => None,
        Err(error) => return refuse(&log, &error),
    };
    match Supervisor::new(start, config, &log, log_file) {
        Ok(supervisor) => {
            // Whoever started a daemon may wait for the end of its standard error, which these hold open.
            drop((first_log, log));
            supervisor.run(announcement)
        }
        Err(error) => {
            let code = refuse(&log, &error);
            if let Some(announcement) = announcement {
                announcement.tell(code);
            }
            code
        }
    }
}

/// Says why howdah does not start.
fn refuse(log: &Log, error: &Error) -> u8 {
    log.error(error);
    log.error("FPM initialization failed");
    exit::CONFIG
}

/// A pool's leader: another run of this program, started by the supervisor, which has left open this descriptor of what it
/// hands over. Gives the exit code.
pub fn lead(handover: i32) -> u8 {
    // It was executed as /proc/self/exe, which tools that look for processes by name would show.
    let _ = nix::sys::prctl::set_name(c"howdah");
    leader::run(handover)
}

/// `-t`: says whether the configuration makes sense, and with `dump`, what it says. Gives the exit code.
pub fn test(start: &Start, dump: bool) -> u8 {
    let Ok(log) = Log::stderr(Level::Notice) else {
        return exit::SOFTWARE;
    };
    let Some(config) = load(start, &log) else {
        return exit::CONFIG;
    };
    let mut errors: Vec<Error> = config.pools.iter().flat_map(privileges::check).collect();
    if errors.is_empty() && geteuid().is_root() {
        let accounts = config.pools.iter();
        errors.extend(accounts.filter_map(|pool| Account::of_pool(pool, start.allow_root).err()));
    }
    if !errors.is_empty() {
        for error in errors {
            log.error(error);
        }
        log.error("FPM initialization failed");
        return exit::CONFIG;
    }
    if dump {
        for line in config.dump().lines() {
            log.notice(line);
        }
    }
    let file = config.file.display();
    log.notice(format_args!("configuration file {file} test is successful"));
    exit::OK
}

/// Reads the configuration, and logs what is wrong with it.
fn load(start: &Start, log: &Log) -> Option<Config> {
    let paths = php::paths();
    let options = config::Options {
        default_prefix: &paths.prefix,
        local_state_dir: &paths.localstatedir,
        prefix: start.prefix.as_deref(),
        pid: start.pid.as_deref(),
        daemonize: start.daemonize,
        as_root: geteuid().is_root(),
        allow_root: start.allow_root,
        php_version_id: php::version_id(),
        ..config::Options::default()
    };
    let (config, warnings, errors) = match config::load(&start.config, &options) {
        Ok(mut config) => {
            let warnings = std::mem::take(&mut config.warnings);
            (Some(config), warnings, Vec::new())
        }
        Err(errors) => (None, errors.warnings, errors.errors),
    };
    for warning in warnings {
        log.write(warning.level(), &warning.to_string());
    }
    for error in errors {
        log.error(error);
    }
    if config.is_none() {
        let file = start.config.display();
        log.error(format_args!("failed to load configuration file '{file}'"));
        log.error("FPM initialization failed");
    }
    config
}

/// The log, and its file if it has one. Until howdah runs, a file's messages go to standard error as well.
///
/// As with php-fpm, the file is not used when howdah stays in the foreground of a terminal: somebody is looking.
fn open_log(start: &Start, config: &Config) -> Result<(Log, Option<PathBuf>), Error> {
    let global = &config.global;
    let uses_file = global.daemonize || !(io::stderr().is_terminal() || start.force_stderr);
    let stderr = || io::stderr().as_fd().try_clone_to_owned();
    let opened = match &global.error_log {
        LogTarget::File(path) if uses_file => {
            let file = append(path).map_err(|source| Error::ErrorLog {
                path: path.clone(),
                source,
            })?;
            let log = Log::new(file.into(), global.log_level);
            stderr().map(|stderr| (log.with_copy(stderr), Some(path.clone())))
        }
        _ => stderr().map(|stderr| (Log::new(stderr, global.log_level), None)),
    };
    opened.map_err(failed_to("use standard error"))
}

/// Opens a log's file, which is made if it is not there, for its owner alone.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
