//! The supervisor's life: it keeps a leader at every post, until a signal ends it.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, geteuid};

use super::children::{self, Ending};
use super::daemon::{self, Announcement};
use super::error::{Error, failed_to};
use super::handover::{Descriptors, Handover};
use super::pidfile::PidFile;
use super::post::{Leader, Messages, Post};
use super::privileges::Account;
use super::signals::{self, Signals};
use super::sockets::{self, Listening};
use super::{Start, append, exit, refuse, sys};
use crate::config::{Config, Pool};
use crate::observe::Log;
use crate::php;

/// What the supervisor waits for. Whatever else it was sent must not end it: a reload by habit (USR2, and HUP on Debian)
/// would be an outage.
const SIGNALS: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGHUP,
];

/// How long leaders have to end their processes after SIGTERM. They themselves need less, see `leader`.
const GRACE: Duration = Duration::from_secs(3);

/// How long the last messages are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often a dead leader's pipe is read: more than it can hold.
const LAST_LINES: u32 = 2;

/// The supervisor.
#[derive(Debug)]
pub(super) struct Supervisor {
    config: Config,
    log: Log,
    /// Where the log is, if it can be reopened.
    log_file: Option<PathBuf>,
    signals: Signals,
    /// One for each pool.
    listening: Vec<Listening>,
    posts: Vec<Post>,
    /// Messages of leaders that are gone: their processes may still be there.
    fading: Vec<Messages>,
    phase: Phase,
    code: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Leaders start PHP. One that fails ends it all.
    Starting,
    /// Leaders that die are replaced.
    Serving,
    /// The last signal that leaders were sent, and when the next one is due.
    Stopping(Signal, Option<Instant>),
}

/// Something that was waited for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Ready(usize),
    Messages(usize),
    Output(usize),
    Fading,
}

impl Supervisor {
    /// Opens sockets and prepares posts. Starts nothing.
    pub(super) fn new(
        start: &Start,
        config: Config,
        log: &Log,
        log_file: Option<PathBuf>,
    ) -> Result<Self, Error> {
        sys::keep_descriptors_private();
        allow_descriptors(config.pools.len());
        daemon::silence().map_err(failed_to("open /dev/null"))?;
        // The processes of a leader that dies come here and are waited for, also in a container whose first process waits
        // for nobody. It is a nicety: without it they are somebody else's.
        let _ = set_child_subreaper(true);
        let signals = Signals::catch(&SIGNALS).map_err(failed_to("wait for signals"))?;
        sys::ignore_no_longer(&SIGNALS).map_err(failed_to("set up signals"))?;
        let accounts = config
            .pools
            .iter()
            .map(|pool| account(pool, start, log))
            .collect::<Result<Vec<_>, _>>()?;
        let executable = std::env::current_exe().map_err(failed_to("find this program"))?;
        let mut posts = Vec::new();
        for ((index, pool), account) in config.pools.iter().enumerate().zip(accounts) {
            for interpreters in shares(pool, php::is_zts()) {
                let handover = Handover {
                    pool: pool.clone(),
                    account: account.clone(),
                    php: start.php.clone(),
                    executable: executable.clone(),
                    log_level: log.level(),
                    interpreters,
                    supervisor: nix::unistd::getpid().as_raw(),
                    descriptors: Descriptors::default(),
                };
                let post = Post::new(index, handover);
                posts.push(post.map_err(failed_to("make shared memory"))?);
            }
        }
        let listening = config
            .pools
            .iter()
            .map(|pool| sockets::open(pool, log))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            config,
            log: log.clone(),
            log_file,
            signals,
            listening,
            posts,
            fading: Vec::new(),
            phase: Phase::Starting,
            code: exit::OK,
        })
    }

    /// Serves until a signal ends it, or a pool cannot start. Gives the exit code.
    pub(super) fn run(mut self, mut announcement: Option<Announcement>) -> u8 {
        let mut pid_file = None;
        for post in 0..self.posts.len() {
            self.start(post);
            if self.phase != Phase::Starting {
                break;
            }
        }
        loop {
            let serves = |post: &Post| post.leader.as_ref().is_some_and(|leader| leader.serves);
            if self.phase == Phase::Starting && self.posts.iter().all(serves) {
                match self.begin() {
                    Ok(file) => {
                        pid_file = file;
                        if let Some(announcement) = announcement.take() {
                            announcement.tell(exit::OK);
                        }
                    }
                    Err(error) => self.fail(&error),
                }
            }
            let gone = |post: &Post| post.leader.is_none();
            if matches!(self.phase, Phase::Stopping(..)) && self.posts.iter().all(gone) {
                break;
            }
            self.escalate();
            self.replace();
            self.wait(self.next_deadline());
        }
        let until = Instant::now() + LAST_WORDS;
        while !self.fading.is_empty() && Instant::now() < until {
            self.wait(Some(until));
        }
        if let Some(announcement) = announcement {
            let failed = self.code != exit::OK;
            announcement.tell(if failed { self.code } else { exit::SOFTWARE });
        } else if self.code == exit::OK {
            self.log.notice("exiting, bye-bye!");
        }
        drop(pid_file);
        self.code
    }

    /// All leaders serve.
    fn begin(&mut self) -> Result<Option<PidFile>, Error> {
        let file = self.config.global.pid.as_deref();
        let pid_file = file.map(PidFile::create).transpose()?;
        self.phase = Phase::Serving;
        self.reopen_log().map_err(|source| Error::ErrorLog {
            path: self.log_file.clone().unwrap_or_default(),
            source,
        })?;
        self.log
            .notice(format_args!("fpm is running, pid {}", std::process::id()));
        self.log.notice("ready to handle connections");
        Ok(pid_file)
    }

    /// From now on messages go to the log's file alone. What others write to standard error goes there, too.
    fn reopen_log(&mut self) -> io::Result<()> {
        if let Some(path) = &self.log_file {
            let file = append(path)?;
            dup2_stderr(&file)?;
            self.log = Log::new(file.into(), self.log.level());
        }
        Ok(())
    }

    /// A pool cannot start, so none does.
    fn fail(&mut self, error: &Error) {
        self.code = refuse(&self.log, error);
        self.stop(Signal::SIGTERM);
    }

    /// Starts a leader. While all of them start, one that cannot ends it all.
    fn start(&mut self, index: usize) {
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        let Some(listening) = self.listening.get(post.pool) else {
            return;
        };
        match post.start(listening.socket.as_fd()) {
            Ok(()) => {
                let pid = post.leader.as_ref().map_or(0, |leader| leader.pid.as_raw());
                self.log
                    .debug(format_args!("[pool {}] leader {pid} started", post.name()));
            }
            Err(source) if self.phase == Phase::Starting => self.fail(&Error::System {
                doing: "start a pool's leader",
                source,
            }),
            Err(error) => {
                let (_, wait) = post.bury();
                self.log.error(format_args!(
                    "[pool {}] failed to start the pool's leader: {error}; the next try is in {} seconds",
                    post.name(),
                    wait.as_secs()
                ));
            }
        }
    }

    /// Starts the leaders that are due.
    fn replace(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        let now = Instant::now();
        let due = |post: &Post| post.due.is_some_and(|due| due <= now);
        let due: Vec<usize> = (0..self.posts.len())
            .filter(|&index| self.posts.get(index).is_some_and(due))
            .collect();
        for index in due {
            self.start(index);
        }
    }

    /// Ends the leaders, by this signal first.
    fn stop(&mut self, signal: Signal) {
        for leader in self.posts.iter().filter_map(|post| post.leader.as_ref()) {
            leader.signal(signal);
        }
        let timeout = self.config.global.process_control_timeout;
        let wait = match signal {
            // php-fpm's default of 0 ends requests at once, which makes its graceful stop none. Here it waits for them.
            Signal::SIGQUIT => Some(timeout).filter(|timeout| !timeout.is_zero()),
            _ => Some(GRACE),
        };
        self.phase = Phase::Stopping(signal, wait.map(|wait| Instant::now() + wait));
    }

    /// Leaders that are late get a stronger signal.
    fn escalate(&mut self) {
        if let Phase::Stopping(signal, Some(due)) = self.phase
            && due <= Instant::now()
        {
            self.stop(match signal {
                Signal::SIGQUIT => Signal::SIGTERM,
                _ => Signal::SIGKILL,
            });
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting => None,
            Phase::Serving => self.posts.iter().filter_map(|post| post.due).min(),
            Phase::Stopping(_, due) => due,
        }
    }

    /// Waits until something happens, or until then, and deals with it.
    fn wait(&mut self, until: Option<Instant>) {
        for source in ready(&self.sources(), until) {
            match source {
                Source::Ready(index) => {
                    if let Some(leader) = self.leader(index) {
                        leader.hear();
                    }
                }
                Source::Messages(index) => {
                    let log = self.log.clone();
                    if let Some(leader) = self.leader(index) {
                        leader.messages.pass_on(&log);
                    }
                }
                Source::Output(index) => self.quote(index),
                Source::Fading | Source::Signals => {}
            }
        }
        let log = &self.log;
        self.fading.retain(|messages| messages.pass_on(log));
        // Last, so that what leaders said stands before their deaths.
        while let Some(signal) = self.signals.next() {
            self.obey(signal);
        }
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd())];
        for (index, post) in self.posts.iter().enumerate() {
            let Some(leader) = &post.leader else { continue };
            if let Some(ready) = &leader.ready {
                sources.push((Source::Ready(index), ready.as_fd()));
            }
            // PHP's complaints first: what the leader has to say comes after them.
            if let Some(output) = &leader.output {
                sources.push((Source::Output(index), output.as_fd()));
            }
            sources.push((Source::Messages(index), leader.messages.descriptor()));
        }
        for messages in &self.fading {
            sources.push((Source::Fading, messages.descriptor()));
        }
        sources
    }

    fn leader(&mut self, index: usize) -> Option<&mut Leader> {
        self.posts.get_mut(index)?.leader.as_mut()
    }

    /// Logs what a leader wrote to its standard error: PHP's complaints at its start, and what it says when it dies.
    fn quote(&mut self, index: usize) {
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        let pool = self.config.pools.get(post.pool);
        let pool = pool.map_or("", |pool| pool.name.as_str());
        let Some(leader) = &mut post.leader else {
            return;
        };
        let Some(output) = &mut leader.output else {
            return;
        };
        let (lines, open) = output.read();
        for line in lines {
            self.log.warning(format_args!(
                "[pool {pool}] leader {} said into stderr: {line}",
                leader.pid
            ));
        }
        if !open {
            leader.output = None;
        }
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => {
                while let Some(pid) = children::next_stopped() {
                    self.wake(pid);
                }
                while let Some((pid, ending)) = children::next_ended() {
                    self.bury(pid, ending);
                }
            }
            Signal::SIGINT | Signal::SIGTERM => match self.phase {
                Phase::Stopping(Signal::SIGTERM | Signal::SIGKILL, _) => {}
                _ => {
                    self.log.notice("Terminating ...");
                    self.stop(Signal::SIGTERM);
                }
            },
            Signal::SIGQUIT => {
                if !matches!(self.phase, Phase::Stopping(..)) {
                    self.log.notice("Finishing ...");
                    self.stop(Signal::SIGQUIT);
                }
            }
            Signal::SIGUSR1 => match self.reopen_log() {
                Ok(()) => self.log.notice("error log file re-opened"),
                Err(error) => self
                    .log
                    .error(format_args!("failed to reopen the error log: {error}")),
            },
            signal => self.log.warning(format_args!(
                "{signal} asks for a reload, which this version of howdah cannot do yet; restart it instead"
            )),
        }
    }

    /// A leader runs as its pool's user, so a script can stop it: then nobody would replace the pool's processes.
    fn wake(&self, pid: Pid) {
        let is_his = |post: &&Post| post.leader.as_ref().is_some_and(|leader| leader.pid == pid);
        if let Some(post) = self.posts.iter().find(is_his) {
            self.log.warning(format_args!(
                "[pool {}] leader {pid} was stopped by a signal, and is made to go on",
                post.name()
            ));
            let _ = kill(pid, Signal::SIGCONT);
        }
    }

    fn bury(&mut self, pid: Pid, ending: Ending) {
        let is_his = |post: &Post| post.leader.as_ref().is_some_and(|leader| leader.pid == pid);
        let Some(index) = self.posts.iter().position(is_his) else {
            // A process of a leader that is gone, or a daemon that a script started.
            self.log
                .debug(format_args!("unknown child {pid} exited {ending}"));
            return;
        };
        // What it said last.
        for _ in 0..LAST_LINES {
            self.quote(index);
        }
        let log = self.log.clone();
        if let Some(leader) = self.leader(index) {
            leader.messages.pass_on(&log);
        }
        let Some(post) = self.posts.get_mut(index) else {
            return;
        };
        let pool = post.name().to_owned();
        let serving = children::serving(&post.scoreboard, 0..post.scoreboard.slots());
        let (leader, wait) = post.bury();
        let Some(leader) = leader else { return };
        let age = children::seconds(leader.since.elapsed());
        self.fading.push(leader.messages);
        let message =
            format!("[pool {pool}] leader {pid} exited {ending} after {age} from start{serving}");
        match self.phase {
            Phase::Starting => {
                let pid = pid.as_raw();
                self.fail(&Error::Pool { pool, pid, ending });
            }
            Phase::Serving if wait.is_zero() => self.log.warning(format_args!(
                "{message}; a new one is started, with new processes"
            )),
            Phase::Serving => self.log.error(format_args!(
                "{message}; a new one is started in {} seconds",
                wait.as_secs()
            )),
            Phase::Stopping(..) => self.log.debug(message),
        }
    }
}

/// Which of these can be read from, or have ended. None when the time is over.
fn ready(sources: &[(Source, BorrowedFd<'_>)], until: Option<Instant>) -> Vec<Source> {
    let mut set: Vec<PollFd<'_>> = sources
        .iter()
        .map(|(_, descriptor)| PollFd::new(*descriptor, PollFlags::POLLIN))
        .collect();
    match poll(&mut set, signals::timeout(until)) {
        Ok(_) => {}
        // A signal that is not waited for, or a lack of memory that may pass.
        Err(_) => return Vec::new(),
    }
    let ready = |polled: &PollFd<'_>| polled.any().unwrap_or_default();
    let sources = sources.iter().zip(&set);
    sources
        .filter(|(_, polled)| ready(polled))
        .map(|((source, _), _)| *source)
        .collect()
}

/// With many pools, the customary soft limit of 1,024 descriptors is too few.
fn allow_descriptors(pools: usize) {
    let needed = u64::try_from(pools).unwrap_or(u64::MAX).saturating_mul(10);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft.saturating_sub(100) < needed
    {
        // If it is not enough, what fails says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Who runs a pool's PHP.
fn account(pool: &Pool, start: &Start, log: &Log) -> Result<Account, Error> {
    if geteuid().is_root() {
        return Account::of_pool(pool, start.allow_root);
    }
    for (directive, value) in [("user", &pool.user), ("group", &pool.group)] {
        if value.is_some() {
            log.notice(format_args!(
                "[pool {}] '{directive}' directive is ignored when FPM is not running as root",
                pool.name
            ));
        }
    }
    Ok(Account::own())
}

/// The interpreters of each of a pool's leaders. An ordinary PHP has one leader, whose processes share one opcache; a
/// thread-safe PHP has one for each process.
fn shares(pool: &Pool, threads: bool) -> Vec<u32> {
    let all = pool.pm.max_children.get();
    let leaders = match pool.pm.processes {
        Some(processes) if threads => processes.get().min(all),
        _ => 1,
    };
    let (share, rest) = (all / leaders, all % leaders);
    (0..leaders)
        .map(|leader| share + u32::from(leader < rest))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::tests::pool;
    use super::*;

    #[test]
    fn a_pools_interpreters_are_shared_out() {
        let mut pool = pool();
        let mut shared = |children, processes, threads| {
            pool.pm.max_children = NonZeroU32::new(children).unwrap_or(NonZeroU32::MIN);
            pool.pm.processes = NonZeroU32::new(processes);
            shares(&pool, threads)
        };
        assert_eq!(shared(5, 0, true), [5]);
        assert_eq!(shared(5, 2, true), [3, 2]);
        assert_eq!(shared(2, 5, true), [1, 1]);
        assert_eq!(shared(5, 2, false), [5], "an ordinary PHP");
    }
}
