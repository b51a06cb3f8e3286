//! What the tests are made of.
//!
//! - [`server`]: the binary under test, with a site of its own
//! - [`record`], [`client`]: FastCGI in raw bytes; nothing of it is howdah's
//! - [`processes`]: what runs, and what it takes
//! - [`http`], [`front`]: browsers and web servers

pub(crate) mod client;
pub(crate) mod front;
pub(crate) mod http;
pub(crate) mod processes;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod server;

use std::time::{Duration, Instant};

pub(crate) use client::{Address, Client};
pub(crate) use request::{Request, Response};
pub(crate) use server::{Server, Setup};

/// How long anything may take that is expected to happen. Long, as machines may be busy; nothing waits for its end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// The same, for things that must happen soon.
pub(crate) fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
