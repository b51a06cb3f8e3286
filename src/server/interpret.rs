//! The interpreters' side: takes jobs and runs them.

#![forbid(unsafe_code)]

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::watch;

use super::Phase;
use super::answer::Answer;
use super::body::Body;
use super::dispatch::{Dispatch, Job};
use crate::config::{Level, Pool};
use crate::fastcgi::{Params, ProtocolStatus};
use crate::observe::{Log, Scoreboard, Slot};
use crate::php::{BodyLost, Engine, Exchange, Interpreter, Outcome, Request, is_zts};

/// What all interpreters of the process work with.
pub(super) struct Crew {
    pub(super) engine: &'static Engine,
    pub(super) pool: Arc<Pool>,
    pub(super) limit_extensions: Arc<[String]>,
    pub(super) log: Log,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) scoreboard: Scoreboard,
    pub(super) phase: watch::Sender<Phase>,
    /// Interpreters that are not broken.
    pub(super) sound: AtomicUsize,
}

/// PHP's stack on threads of our own, in bytes. Rust's default of 2 MiB is too small for deep recursion in C, and this is
/// what Linux gives to a process's first thread.
const STACK: usize = 8 << 20;

/// A thread that serves.
pub(super) type Interpreting = thread::JoinHandle<io::Result<()>>;

/// Waits for a thread's end.
///
/// # Errors
///
/// Its error, or that it panicked.
pub(super) fn join(thread: Interpreting) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

/// Why an interpreter ended.
enum End {
    /// There are no more jobs.
    Closed,
    /// `pm.max_requests`: a fresh one goes on.
    Spent,
    /// PHP failed in a way that leaves it useless.
    Broken,
}

impl Crew {
    /// Starts a thread that serves.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub(super) fn start(self: &Arc<Self>, slot: u32) -> io::Result<Interpreting> {
        let crew = Arc::clone(self);
        thread::Builder::new()
            .name(format!("php-{slot}"))
            .stack_size(STACK)
            .spawn(move || crew.serve(slot))
    }

    /// Serves on this thread until there are no more jobs, as one interpreter after another: each has its share of requests
    /// (`pm.max_requests`). Where the next one takes a new process (NTS), the process is asked to retire, and what
    /// it still has to do is the old interpreter's.
    ///
    /// # Errors
    ///
    /// If there can be no interpreter.
    pub(super) fn serve(self: &Arc<Self>, slot: u32) -> io::Result<()> {
        loop {
            match self.work(slot) {
                Ok(End::Closed) => return Ok(()),
                Ok(End::Spent) => {}
                Ok(End::Broken) if is_zts() => {
                    self.log(Level::Error, "an interpreter broke down, and is replaced");
                    // What it holds stays with this thread, for good.
                    return self.start(slot).and_then(join);
                }
                Ok(End::Broken) => {
                    let pid = std::process::id();
                    self.log(
                        Level::Error,
                        &format!(
                            "the interpreter of child {pid} broke down; the process is replaced"
                        ),
                    );
                    self.leave();
                    return Ok(());
                }
                Err(error) => {
                    self.leave();
                    return Err(error);
                }
            }
        }
    }

    /// This thread serves no more, and the process is asked to retire. If no interpreter is left, what comes until it
    /// does gets an answer all the same.
    fn leave(&self) {
        self.retire();
        if self.sound.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        while let Some(job) = self.dispatch.next() {
            fail(&job.answer);
            job.answer.end(ProtocolStatus::RequestComplete);
        }
    }

    fn retire(&self) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Tired;
            }
            serving
        });
    }

    fn log(&self, level: Level, message: &str) {
        self.log
            .write(level, &format!("[pool {}] {message}", self.pool.name));
    }

    fn work(&self, slot: u32) -> io::Result<End> {
        let mut interpreter = Interpreter::new(self.engine).map_err(io::Error::other)?;
        let limit = self.pool.pm.max_requests.map_or(u32::MAX, NonZeroU32::get);
        let slot = self.scoreboard.slot(slot);
        if let Some(slot) = slot {
            slot.start(std::process::id());
        }
        let mut served = 0_u32;
        while let Some(job) = self.dispatch.next() {
            self.run(&mut interpreter, job, slot);
            if interpreter.is_broken() {
                return Ok(End::Broken);
            }
            served = served.saturating_add(1);
            if served < limit {
                continue;
            }
            if is_zts() {
                return Ok(End::Spent);
            }
            self.retire();
        }
        Ok(End::Closed)
    }

    fn run(&self, interpreter: &mut Interpreter, job: Job, slot: Option<Slot<'_>>) {
        let Job {
            role,
            mut params,
            body,
            answer,
            ticket,
        } = job;
        params.set(b"FCGI_ROLE", role.name().as_bytes());
        let request = Request::new(
            params,
            body.length(),
            self.engine.settings(),
            Arc::clone(&self.limit_extensions),
        );
        if let Some(slot) = slot {
            show(slot, request.params());
        }
        if self.pool.timeouts.terminate.is_some() {
            ticket
                .description
                .get_or_init(|| describe(request.params()));
        }
        let running = Running {
            crew: self,
            answer: &answer,
            body: Mutex::new(body),
        };
        if let Some(refusal) = request.refusal() {
            running.log(refusal.to_string().as_bytes(), false, true);
        }
        let report = interpreter.run(&request, &running, &ticket.stopper);
        if report.outcome != Outcome::Ended {
            fail(&answer);
        }
        answer.end(ProtocolStatus::RequestComplete);
        if let Some(slot) = slot {
            slot.end();
        }
    }
}

/// Tells the scoreboard what runs now.
fn show(slot: Slot<'_>, params: &Params) {
    let get = |name: &[u8]| params.get(name).unwrap_or_default();
    slot.begin(get(b"REQUEST_METHOD"), uri(params), get(b"SCRIPT_FILENAME"));
}

/// As php-fpm names a request in its log.
fn describe(params: &Params) -> String {
    let get = |name: &[u8]| String::from_utf8_lossy(params.get(name).unwrap_or_default());
    format!(
        "child {}, script '{}' (request: \"{} {}\")",
        std::process::id(),
        get(b"SCRIPT_FILENAME"),
        get(b"REQUEST_METHOD"),
        String::from_utf8_lossy(uri(params)),
    )
}

fn uri(params: &Params) -> &[u8] {
    params
        .get(b"REQUEST_URI")
        .or_else(|| params.get(b"SCRIPT_NAME"))
        .unwrap_or_default()
}

/// Nothing ran, or nobody knows how far: if the client has seen nothing yet, it gets an error that it understands.
fn fail(answer: &Answer) {
    if answer.is_blank() {
        answer.write(
            b"Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nInternal server error.\n",
        );
    }
}

/// A request that runs.
struct Running<'a> {
    crew: &'a Crew,
    answer: &'a Answer,
    body: Mutex<Body>,
}

impl Exchange for Running<'_> {
    fn write(&self, data: &[u8]) -> bool {
        self.answer.write(data)
    }

    fn flush(&self) -> bool {
        self.answer.flush()
    }

    fn read_body(&self, buffer: &mut [u8]) -> Result<usize, BodyLost> {
        self.body
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(buffer)
            .map_err(|_| BodyLost)
    }

    fn finish(&self) -> bool {
        self.answer.end(ProtocolStatus::RequestComplete)
    }

    /// In the log each line is one, as in php-fpm's; for the client they are joined by semicolons.
    fn log(&self, message: &[u8], from_php: bool, to_client: bool) {
        let text = String::from_utf8_lossy(message);
        let prefix = if from_php { "PHP message: " } else { "" };
        let level = if from_php {
            Level::Notice
        } else {
            Level::Error
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            self.crew.log(level, &format!("{prefix}{line}"));
        }
        if to_client {
            let separator = if self.answer.has_stderr() { "; " } else { "" };
            let mut record = format!("{separator}{prefix}").into_bytes();
            record.extend_from_slice(message);
            self.answer.write_stderr(&record);
        }
    }
}
