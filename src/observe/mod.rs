//! What howdah lets others see: the error log, and what its interpreters do.
//!
//! # Layout
//!
//! - [`Log`]: lines of the error log, as php-fpm writes them
//! - [`Scoreboard`]: shared memory in which each interpreter says what it does

mod log;
mod scoreboard;
mod sink;
mod sys;

pub use log::Log;
pub use scoreboard::{Scoreboard, Serving, Slot};
