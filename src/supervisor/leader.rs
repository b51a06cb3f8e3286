//! A leader's life: it starts PHP once, forks the processes that serve the pool, and replaces those that die.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::panic;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, pipe2};

use super::children::{self, Ending};
use super::handover::Handover;
use super::output::Output;
use super::process::{Common, PoolProcess, lives_with, siblings};
use super::signals::{self, Signals};
use super::{exit, sys};
use crate::config::Level;
use crate::observe::Log;
use crate::php::{self, Engine, EngineConfig, is_zts};

const SIGNALS: [Signal; 4] = [
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
];

/// How long processes have to die of SIGTERM, which scripts may handle.
const GRACE: Duration = Duration::from_secs(1);

/// A process that does not live as long as this may never work.
const HEALTHY: Duration = Duration::from_secs(1);

/// How many of these in a row are replaced at once.
const CHANCES: u32 = 5;

/// How long the next ones wait.
const PAUSE: Duration = Duration::from_millis(900);

/// Leads a pool. Gives the exit code of the leader, and of the processes that are forked here.
pub(super) fn run(handover: RawFd) -> u8 {
    let (handover, gifts) = match Handover::receive(handover) {
        Ok(received) => received,
        Err(error) => {
            eprintln!("howdah: --pool-leader is for howdah's own use: {error}");
            return exit::USAGE;
        }
    };
    let log = Log::relay(gifts.log, handover.log_level);
    report_panics(&log, &handover.pool.name);
    let supervisor = Pid::from_raw(handover.supervisor);
    if !lives_with(supervisor, Signal::SIGTERM) {
        return exit::SOFTWARE;
    }
    let pool = handover.pool.name.clone();
    let fail = |doing: &str, error: &dyn std::fmt::Display, code: u8| {
        log.error(format_args!("[pool {pool}] failed to {doing}: {error}"));
        code
    };
    if let Err(error) = sys::die_of_faults() {
        return fail("set up signals", &error, exit::SOFTWARE);
    }
    let engine = match Engine::start(&engine_config(&handover)) {
        Ok(engine) => engine,
        Err(error) => return fail("start PHP", &error, exit::CONFIG),
    };
    if engine.settings().opcache_restricted {
        log.warning(format_args!(
            "[pool {pool}] this thread-safe PHP {} is older than 8.4: opcache cannot restart safely under threads, so restarts \
             (opcache_reset(), full memory) and the JIT are switched off; use 8.4 or newer",
            php::version()
        ));
    }
    if let Some(directory) = &handover.pool.chdir
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let doing = format!("chdir({})", directory.display());
        return fail(&doing, &error, exit::CONFIG);
    }
    // What only root may ask for.
    let siblings = match siblings() {
        Ok(siblings) => siblings,
        Err(error) => return fail("make a pair of sockets", &error, exit::SOFTWARE),
    };
    // Whoever was root is not dumpable from here on: other processes of the new user cannot look into this one, whose
    // environment and log may hold secrets. php-fpm does the same.
    if let Err(error) = handover.account.assume() {
        return fail("become the pool's user", &error, exit::SOFTWARE);
    }
    // The kernel forgets it when the user changes.
    if !lives_with(supervisor, Signal::SIGTERM) {
        return exit::SOFTWARE;
    }
    // Not before PHP has started: its INI files may ask for variables of howdah's environment.
    set_environment(&handover);
    if let Err(error) = sys::expect_children() {
        return fail("wait for children", &error, exit::SOFTWARE);
    }
    let signals = match Signals::catch(&SIGNALS) {
        Ok(signals) => signals,
        Err(error) => return fail("wait for signals", &error, exit::SOFTWARE),
    };
    let leader = Leader {
        places: places(handover.interpreters),
        outputs: Vec::new(),
        phase: Phase::Serving,
        ready: Some(gifts.ready),
        signals,
        common: Common {
            pool: handover.pool,
            listener: gifts.listener,
            log,
            scoreboard: gifts.scoreboard,
            siblings,
        },
    };
    match leader.lead() {
        Life::Over { graceful } => {
            if graceful {
                engine.stop();
            }
            exit::OK
        }
        Life::Failed => exit::SOFTWARE,
        Life::Another(process) => process.serve(engine),
    }
}

/// A panic is a fault of howdah's, and standard error may lead nowhere.
fn report_panics(log: &Log, pool: &str) {
    let (log, pool) = (log.clone(), pool.to_owned());
    panic::set_hook(Box::new(move |panic| {
        let pid = getpid();
        log.alert(format_args!("[pool {pool}] process {pid}: {panic}"));
    }));
}

fn engine_config(handover: &Handover) -> EngineConfig {
    EngineConfig {
        ini_path: handover.php.ini_path.clone(),
        ignore_ini: handover.php.ignore_ini,
        ini_entries: handover.php.ini_entries.clone(),
        executable: handover.executable.clone(),
        pool_ini: handover.pool.php.clone(),
    }
}

/// The environment of scripts: `env[]`, and the account's `USER` and `HOME` unless `env[]` has others.
fn set_environment(handover: &Handover) {
    let env = &handover.pool.env;
    let account = handover
        .account
        .variables()
        .filter(|(name, _)| env.iter().all(|(other, _)| other != name));
    let own = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    sys::set_environment(handover.pool.clear_env, own.chain(account));
}

/// How many processes that many interpreters are.
fn processes(interpreters: u32) -> u32 {
    if is_zts() { 1 } else { interpreters }
}

fn places(interpreters: u32) -> Vec<Place> {
    let each = interpreters / processes(interpreters).max(1);
    (0..processes(interpreters))
        .map(|process| Place {
            slots: process * each..(process + 1) * each,
            process: None,
            failures: 0,
            due: Instant::now(),
        })
        .collect()
}

/// A leader at work.
#[derive(Debug)]
struct Leader {
    common: Common,
    places: Vec<Place>,
    /// What processes write to their standard descriptors, if that is logged.
    outputs: Vec<Said>,
    phase: Phase,
    /// Closed when the supervisor has been told that the pool serves.
    ready: Option<OwnedFd>,
    signals: Signals,
}

/// A process's place.
#[derive(Debug)]
struct Place {
    /// The interpreters' slots on the scoreboard.
    slots: Range<u32>,
    process: Option<Born>,
    /// Processes in a row that died young, and not of their own will.
    failures: u32,
    /// When the next process may start.
    due: Instant,
}

#[derive(Debug)]
struct Born {
    pid: Pid,
    since: Instant,
}

/// A process's standard output or standard error.
#[derive(Debug)]
struct Said {
    pid: Pid,
    stream: &'static str,
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Processes finish what they run.
    Finishing,
    /// Processes have until then to die.
    Terminating(Instant),
    /// They have been killed.
    Killed,
}

/// How [`Leader::lead`] ends.
enum Life {
    /// No process is left, as was asked for.
    Over { graceful: bool },
    /// No process could be started.
    Failed,
    /// This is not the leader any more, but a process of the pool.
    Another(Box<PoolProcess>),
}

impl Leader {
    fn lead(mut self) -> Life {
        loop {
            match self.phase {
                Phase::Serving => match self.fill() {
                    Ok(None) => self.report_ready(),
                    Ok(Some(fresh)) => return Life::Another(Box::new(self.become_process(fresh))),
                    // The supervisor gives up, or tries again with a new leader.
                    Err(error) if self.ready.is_some() => {
                        self.common.log.error(format_args!(
                            "[pool {}] failed to start a process: {error}",
                            self.common.pool.name
                        ));
                        self.kill_all(Signal::SIGKILL);
                        return Life::Failed;
                    }
                    Err(error) => self.common.log.error(format_args!(
                        "[pool {}] failed to start a process: {error}; trying again",
                        self.common.pool.name
                    )),
                },
                phase if self.places.iter().all(|place| place.process.is_none()) => {
                    self.listen();
                    let graceful = phase == Phase::Finishing;
                    return Life::Over { graceful };
                }
                Phase::Terminating(until) if until <= Instant::now() => {
                    self.kill_all(Signal::SIGKILL);
                    self.phase = Phase::Killed;
                }
                Phase::Finishing | Phase::Terminating(_) | Phase::Killed => {}
            }
            self.wait();
        }
    }

    /// Starts a process at each place where one is due. In such a process: its place, and its standard descriptors.
    fn fill(&mut self) -> io::Result<Option<Fresh>> {
        let now = Instant::now();
        for place in &mut self.places {
            if place.process.is_some() || place.due > now {
                continue;
            }
            // If this fails, not before this time again.
            place.due = now + PAUSE;
            let pipes = if self.common.pool.catch_workers_output {
                let pipe = || pipe2(OFlag::O_CLOEXEC);
                Some((pipe()?, pipe()?))
            } else {
                None
            };
            let leader = getpid();
            let pid = match sys::fork()? {
                sys::Forked::Parent(pid) => pid,
                sys::Forked::Child => {
                    let standard = pipes.map(|((_, stdout), (_, stderr))| (stdout, stderr));
                    return Ok(Some(Fresh {
                        leader,
                        slots: place.slots.clone(),
                        standard,
                    }));
                }
            };
            place.process = Some(Born {
                pid,
                since: Instant::now(),
            });
            self.common.log.notice(format_args!(
                "[pool {}] child {pid} started",
                self.common.pool.name
            ));
            if let Some(((stdout, _), (stderr, _))) = pipes {
                for (stream, pipe) in [("stdout", stdout), ("stderr", stderr)] {
                    let output = Output::new(pipe)?;
                    self.outputs.push(Said {
                        pid,
                        stream,
                        output,
                    });
                }
            }
        }
        Ok(None)
    }

    /// All that is the leader's goes.
    fn become_process(self, fresh: Fresh) -> PoolProcess {
        PoolProcess {
            processes: u32::try_from(self.places.len()).unwrap_or(u32::MAX),
            common: self.common,
            signals: self.signals,
            leader: fresh.leader,
            slots: fresh.slots,
            standard: fresh.standard,
        }
    }

    fn report_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // If the supervisor is gone, so is this leader, soon.
            let _ = nix::unistd::write(&ready, b"1");
        }
    }

    fn kill_all(&self, signal: Signal) {
        for process in self
            .places
            .iter()
            .filter_map(|place| place.process.as_ref())
        {
            // It has not been waited for, so the number is still its own.
            let _ = kill(process.pid, signal);
        }
    }

    /// Waits until something happens or is due, and deals with it.
    fn wait(&mut self) {
        let until = match self.phase {
            Phase::Serving => {
                let vacant = self.places.iter().filter(|place| place.process.is_none());
                vacant.map(|place| place.due).min()
            }
            Phase::Terminating(until) => Some(until),
            Phase::Finishing | Phase::Killed => None,
        };
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(self.signals.as_fd())
            .chain(self.outputs.iter().map(|said| said.output.as_fd()))
            .collect();
        let mut set: Vec<PollFd<'_>> = descriptors
            .into_iter()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // An error is a signal that nobody waits for, or a lack of memory that may pass.
        let happened = poll(&mut set, signals::timeout(until)).is_ok_and(|ready| ready > 0);
        if happened {
            self.listen();
            while let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
        }
    }

    /// Logs what processes wrote.
    fn listen(&mut self) {
        let Common { log, pool, .. } = &self.common;
        self.outputs.retain_mut(|said| {
            let (lines, open) = said.output.read();
            for line in lines {
                log.warning(format_args!(
                    "[pool {}] child {} said into {}: {line}",
                    pool.name, said.pid, said.stream
                ));
            }
            open
        });
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => {
                while let Some((pid, ending)) = children::next_ended() {
                    self.bury(pid, ending);
                }
            }
            Signal::SIGQUIT if self.phase == Phase::Serving => {
                self.phase = Phase::Finishing;
                self.kill_all(Signal::SIGQUIT);
            }
            Signal::SIGINT | Signal::SIGTERM
                if matches!(self.phase, Phase::Serving | Phase::Finishing) =>
            {
                self.phase = Phase::Terminating(Instant::now() + GRACE);
                self.kill_all(Signal::SIGTERM);
            }
            _ => {}
        }
    }

    fn bury(&mut self, pid: Pid, ending: Ending) {
        // What it said stands before its death.
        self.listen();
        let Common {
            log,
            pool,
            scoreboard,
            ..
        } = &self.common;
        let name = &pool.name;
        let is_his = |place: &&mut Place| {
            let process = place.process.as_ref();
            process.is_some_and(|process| process.pid == pid)
        };
        let Some(place) = self.places.iter_mut().find(is_his) else {
            log.debug(format_args!(
                "[pool {name}] unknown child {pid} exited {ending}"
            ));
            return;
        };
        let Some(process) = place.process.take() else {
            return;
        };
        let age = process.since.elapsed();
        let serving = children::serving(scoreboard, place.slots.clone());
        for slot in place.slots.clone().filter_map(|slot| scoreboard.slot(slot)) {
            slot.clear();
        }
        let level = match self.phase {
            Phase::Serving if ending.is_abrupt() => Level::Warning,
            Phase::Serving => Level::Notice,
            _ => Level::Debug,
        };
        let age_text = children::seconds(age);
        log.write(
            level,
            &format!(
                "[pool {name}] child {pid} exited {ending} after {age_text} from start{serving}"
            ),
        );
        let failed = !ending.is_success() && age < HEALTHY;
        place.failures = if failed { place.failures + 1 } else { 0 };
        place.due = Instant::now();
        if place.failures > CHANCES {
            place.due += PAUSE;
        }
    }
}

/// A process's share of [`Leader::fill`].
struct Fresh {
    leader: Pid,
    slots: Range<u32>,
    standard: Option<(OwnedFd, OwnedFd)>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_interpreter_has_a_slot_of_its_own() {
        for interpreters in [1, 2, 7] {
            let places = places(interpreters);
            let slots: Vec<u32> = places
                .iter()
                .flat_map(|place| place.slots.clone())
                .collect();
            assert_eq!(slots, (0..interpreters).collect::<Vec<_>>());
            assert_eq!(places.len() == 1, is_zts() || interpreters == 1);
        }
    }
}
