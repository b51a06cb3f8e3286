//! PHP in this process: the safe face of `php-src-bindings`.
//!
//! # Layout
//!
//! - [`Engine`]: PHP's process-wide part, started once
//! - [`Interpreter`]: one PHP interpreter, bound to its thread for life
//! - [`Request`]: what an interpreter is asked to run
//! - [`Stopper`]: how other threads end a request that runs
//! - [`Exchange`]: the other end of a request: its body, its answer, its messages
//! - [`script`]: from FastCGI parameters to the script to run
//!
//! PHP reports fatal errors by `longjmp`. No Rust frame is ever jumped over: a whole request is one C function, and what
//! it calls in Rust are leaves that return without calling PHP again (see the crate `php-src-bindings`).

mod engine;
mod exchange;
mod interpreter;
mod request;
pub mod script;
mod stopper;

pub use engine::{Engine, EngineConfig, EngineError, Paths, Settings, paths};
pub use exchange::{BodyLost, Exchange};
pub use interpreter::{Interpreter, InterpreterError, Outcome, Report};
pub use request::Request;
pub use stopper::Stopper;

/// The version of the PHP that this was built with, such as `8.2.36`.
pub fn version() -> &'static str {
    php_src_bindings::PHP_VERSION
}

/// `PHP_VERSION_ID`: 80236 is 8.2.36.
pub fn version_id() -> u32 {
    php_src_bindings::PHP_VERSION_ID
}

/// Whether this PHP is thread-safe (ZTS): many interpreters in one process. An ordinary one (NTS) has one interpreter.
pub fn is_zts() -> bool {
    php_src_bindings::ZTS
}
