//! howdah as its clients see it: the real binary, serving real PHP over real sockets.
//!
//! One program, as each would link for itself; its modules are lists of promises.
//!
//! `HOWDAH_TEST_BINARY=/usr/sbin/php-fpm8.2 cargo test --test it php::` runs the same tests against another server. Where that
//! one fails, howdah means to be better.

// A test that cannot go on says where, and fails.
#![allow(clippy::unwrap_used)]

mod apps;
mod clients;
mod fastcgi;
mod isolation;
mod memory;
mod multiplex;
mod opcache;
mod php;
mod process;
mod support;
mod terminate;
