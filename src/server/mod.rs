//! A pool process: one thread for connections, one or more interpreters.
//!
//! # A request's life
//!
//! 1. `listener` accepts a connection, if `listen.allowed_clients` lets it in, or `siblings` brings one.
//! 2. `connection` reads it and feeds the state machine of [`crate::fastcgi`], which tells requests from bytes.
//! 3. `stream` is one such request, and `body` keeps what STDIN brings for it: in memory while it is small, then in a file without a name. No interpreter waits for
//!    a client: a request is handed on when it is complete.
//! 4. `dispatch` holds it until an interpreter is free, for a bounded time, in a bounded queue.
//! 5. `interpret` runs it on an interpreter's thread: it finds the script and calls [`crate::php`].
//! 6. `answer` takes what PHP writes, as FastCGI records, and wakes the connection, which sends them. What a slow client
//!    does not take goes to a file, too, so that the interpreter is free again.
//!
//! The I/O thread runs the first four and the sending; all of it belongs to that one thread, but for `dispatch` and
//! `answer`, which the interpreters share.

mod answer;
mod body;
mod connection;
mod dispatch;
mod interpret;
mod listener;
mod siblings;
mod spill;
mod stream;
mod sys;

use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::config::{Level, Pool};
use crate::observe::{Log, Scoreboard};
use crate::php::{Engine, is_zts};

use dispatch::Dispatch;
use interpret::{Crew, join};
use listener::Listener;
use siblings::Siblings;

/// What a pool process is given.
#[derive(Debug)]
pub struct Process {
    /// The pool it serves.
    pub pool: Pool,
    /// The pool's socket, which listens.
    pub listener: OwnedFd,
    /// The error log.
    pub log: Log,
    /// What interpreters do, for those who look from outside.
    pub scoreboard: Scoreboard,
    /// The scoreboard's slot of the first interpreter; the others follow.
    pub first_slot: u32,
    /// How many interpreters there are; one on an ordinary PHP.
    pub interpreters: u32,
    /// How many processes the pool has, this one counted.
    pub processes: u32,
    /// Where connections are handed to the pool's other processes, and where theirs arrive. Every process of the pool has
    /// the same two.
    pub siblings: (OwnedFd, OwnedFd),
}

/// Whether the process goes on serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Its interpreter has had its share of requests: it retires as soon as no request is half-way here.
    Tired,
    /// Another process takes over: connections are handed to it.
    Retiring,
    /// The pool ends: connections are closed once they have had their answers.
    Quitting,
}

/// Serves until SIGQUIT or until the process has had its share of requests (`pm.max_requests`), then finishes what it has
/// begun. Interpreters of an ordinary PHP run on the calling thread, which must be the one that started the engine.
///
/// # Errors
///
/// If the process cannot get what it needs: threads, descriptors, an interpreter.
pub fn run(engine: &'static Engine, process: Process) -> io::Result<()> {
    let most_connections = sys::raise_descriptor_limit();
    let dispatch = Arc::new(Dispatch::new(process.pool.pm.max_queue));
    let (phase, watch_phase) = watch::channel(Phase::Serving);
    let pool = Arc::new(process.pool);
    engine.close_in_children(&[
        process.listener.as_raw_fd(),
        process.siblings.0.as_raw_fd(),
        process.siblings.1.as_raw_fd(),
    ]);
    let crew = Crew {
        engine,
        pool: Arc::clone(&pool),
        limit_extensions: pool.limit_extensions.clone().into(),
        log: process.log.clone(),
        dispatch: Arc::clone(&dispatch),
        scoreboard: process.scoreboard,
        phase: phase.clone(),
        sound: AtomicUsize::new(process.interpreters as usize),
    };
    let ground = Ground {
        pool,
        log: process.log,
        dispatch,
        phase,
        is_alone: process.processes < 2,
        most_connections,
    };
    let (give, take) = process.siblings;
    let (listener, siblings) = (process.listener, Siblings::new(give, take));
    let io_thread = thread::Builder::new()
        .name("howdah-io".to_owned())
        .spawn(move || {
            let closer = Closer(Arc::clone(&ground.dispatch));
            let result = io_thread(ground, watch_phase, listener, siblings);
            drop(closer);
            result
        })?;
    let crew = Arc::new(crew);
    let first = process.first_slot;
    let served = if is_zts() {
        let slots = first..first.saturating_add(process.interpreters);
        // If some cannot be started, those that were still serve, and the process makes room for a better one.
        let threads: Vec<_> = slots.map(|slot| crew.start(slot)).collect();
        if threads.iter().any(Result::is_err) {
            crew.phase.send_replace(Phase::Retiring);
        }
        threads
            .into_iter()
            .map(|thread| thread.and_then(join))
            .fold(Ok(()), io::Result::and)
    } else {
        crew.serve(first)
    };
    served.and(join(io_thread))
}

/// Whatever happens to the I/O thread, interpreters must not wait for ever.
struct Closer(Arc<Dispatch>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What the I/O thread stands on.
struct Ground {
    pool: Arc<Pool>,
    log: Log,
    dispatch: Arc<Dispatch>,
    phase: watch::Sender<Phase>,
    /// There is nobody to hand connections to while this process serves.
    is_alone: bool,
    /// More would leave PHP without descriptors; they wait in the listen queue.
    most_connections: usize,
}

impl Ground {
    /// A message about the pool.
    fn log(&self, level: Level, message: impl Display) {
        self.log
            .write(level, &format!("[pool {}] {message}", self.pool.name));
    }
}

fn io_thread(
    ground: Ground,
    phase: watch::Receiver<Phase>,
    listener: OwnedFd,
    siblings: Siblings,
) -> io::Result<()> {
    sys::leave_signals_to_php()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = Listener::new(listener, siblings, Rc::new(ground), phase)?;
        listener.serve().await
    })
}
