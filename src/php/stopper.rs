//! How other threads end a request that runs.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use php_src_bindings as ffi;

/// Ends the request that it was given to, see [`Interpreter::run`](super::Interpreter::run). Any thread may hold it, before
/// the request and after.
#[derive(Debug, Default)]
pub struct Stopper(Mutex<Option<Running>>);

/// A request that runs.
#[derive(Debug)]
struct Running {
    interpreter: NonNull<ffi::howdah_interpreter>,
    number: u64,
}

// SAFETY: the interpreter is only handed to `howdah_interpreter_end`, which any thread may call.
unsafe impl Send for Running {}

impl Stopper {
    /// Ends the request as if its time limit had passed: a fatal error that no script can catch. Shutdown functions still
    /// run, and what blocks in an extension may need to be told again. False: it does not run.
    pub fn time_out(&self) -> bool {
        let running = self.lock();
        if let Some(Running {
            interpreter,
            number,
        }) = &*running
        {
            // SAFETY: the interpreter lives as long as this is set, and the lock keeps it set.
            unsafe {
                ffi::howdah_interpreter_end(interpreter.as_ptr(), *number, ffi::HOWDAH_TIMED_OUT);
            }
        }
        running.is_some()
    }

    /// The calling thread's next request can be ended until the result is dropped.
    ///
    /// # Safety
    ///
    /// The calling thread is an interpreter, runs nothing, and goes on being one until then.
    pub(super) unsafe fn watch(&self) -> Watched<'_> {
        // SAFETY: the caller's promise.
        let running = unsafe {
            NonNull::new(ffi::howdah_interpreter_self()).map(|interpreter| Running {
                interpreter,
                number: ffi::howdah_interpreter_next(interpreter.as_ptr()),
            })
        };
        *self.lock() = running;
        Watched(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as this lives the request can be ended.
pub(super) struct Watched<'a>(&'a Stopper);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
