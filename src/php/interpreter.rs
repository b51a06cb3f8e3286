//! One PHP interpreter.

use std::ffi::c_void;
use std::marker::PhantomData;

use php_src_bindings as ffi;

use super::engine::Engine;
use super::exchange::{Context, Exchange};
use super::request::Request;
use super::stopper::Stopper;

/// A PHP interpreter on the thread that made it; it cannot leave that thread.
#[derive(Debug)]
pub struct Interpreter {
    engine: &'static Engine,
    broken: bool,
    /// Not `Send`, not `Sync`.
    thread: PhantomData<*mut ()>,
}

/// Why a thread cannot be an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterpreterError {
    /// An ordinary (NTS) PHP has one interpreter for a process.
    #[error("this PHP is not thread-safe and has an interpreter already; use more processes")]
    OnlyOne,
    /// PHP has been shut down.
    #[error("PHP has been shut down in this process")]
    Stopped,
    /// PHP has no memory for it.
    #[error("PHP could not make an interpreter, for want of memory")]
    Memory,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As PHP means requests to end, errors of the script included.
    Ended,
    /// PHP could not start the request: nothing ran.
    NotStarted,
    /// The body could not be read: nothing ran.
    BodyLost,
    /// A fatal error got past PHP's own guards: this interpreter runs no more requests.
    Broken,
}

/// What is known of a request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status.
    pub status: u16,
    /// The script's exit status: 255 after a fatal error.
    pub exit_status: i32,
    /// The most memory that PHP's allocator held, in bytes.
    pub peak_memory: usize,
}

impl Interpreter {
    /// Makes the calling thread an interpreter.
    ///
    /// # Errors
    ///
    /// If this PHP cannot have another one, see [`InterpreterError`].
    pub fn new(engine: &'static Engine) -> Result<Self, InterpreterError> {
        engine.admit()?;
        // SAFETY: the engine runs and has admitted one more, and does not stop before it is dismissed.
        if !unsafe { ffi::howdah_interpreter_start() } {
            engine.dismiss();
            return Err(InterpreterError::Memory);
        }
        Ok(Self {
            engine,
            broken: false,
            thread: PhantomData,
        })
    }

    /// Whether a fatal error has left it in an unknown state; it then refuses to run requests.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs a request from start-up to shutdown. Whatever the script does is an answer, not an error. Other threads can end it
    /// with the stopper.
    pub fn run(&mut self, request: &Request, exchange: &dyn Exchange, stopper: &Stopper) -> Report {
        if self.broken {
            return Report {
                outcome: Outcome::Broken,
                status: 500,
                exit_status: 255,
                peak_memory: 0,
            };
        }
        let context = Context { exchange, request };
        let variables = request.variables();
        let c_request = request.for_c(&variables, (&raw const context).cast::<c_void>().cast_mut());
        // SAFETY: this thread is an interpreter (`self` exists and cannot leave it), and runs nothing before the call below.
        let watched = unsafe { stopper.watch() };
        // Counts as broken until it has returned, in case it never does.
        self.broken = true;
        // SAFETY: this thread is an interpreter (`self` exists and cannot leave it), and all that the request points at
        // outlives the call. No longjmp leaves it.
        let result = unsafe { ffi::howdah_request_run(&raw const c_request) };
        drop(watched);
        let outcome = match result.outcome {
            ffi::HOWDAH_ENDED => Outcome::Ended,
            ffi::HOWDAH_NOT_STARTED => Outcome::NotStarted,
            ffi::HOWDAH_BODY_LOST => Outcome::BodyLost,
            _ => Outcome::Broken,
        };
        self.broken = outcome == Outcome::Broken;
        Report {
            outcome,
            status: u16::try_from(result.status).unwrap_or(500),
            exit_status: result.exit_status,
            peak_memory: result.peak_memory,
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        if self.broken {
            // What it holds is in an unknown state and is left where it is, and so counts for ever.
            return;
        }
        // SAFETY: this thread is an interpreter, and runs nothing.
        unsafe { ffi::howdah_interpreter_stop() };
        self.engine.dismiss();
    }
}
