//! howdah: a FastCGI server that embeds libphp and takes php-fpm's place.
//!
//! # Layout
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | php-fpm's configuration |
//! | [`fastcgi`] | the protocol, as a state machine without sockets or clocks |
//! | [`php`] | PHP in this process: the engine, its interpreters, one request |
//! | [`server`] | a pool process: connections, requests waiting for an interpreter, answers |
//! | [`observe`] | logs and the scoreboard |
//! | [`supervisor`] | processes, signals, privileges |
//! | [`cli`] | flags |

pub mod cli;
pub mod config;
pub mod fastcgi;
pub mod observe;
pub mod php;
pub mod server;
pub mod supervisor;
