//! The FastCGI 1.0 protocol, as a state machine without sockets or clocks: bytes in, events out.
//!
//! [`Connection`] is the receiving half of one connection. It takes bytes as they come, cut anywhere, and gives
//! [`Event`]s; what the protocol wants answered without a program's help it answers itself. [`encode`] writes the answers
//! that a program gives. Section numbers in these files are those of the FastCGI specification, version 1.0.
//!
//! ```
//! # use howdah::fastcgi::{client, encode, Connection, Event, Limits, ProtocolStatus};
//! let mut request = Vec::new();
//! client::begin(&mut request, 1, client::RESPONDER, client::KEEP_CONN);
//! client::params(&mut request, 1, [("REQUEST_METHOD", "GET")]);
//! client::params_end(&mut request, 1);
//! client::stdin_end(&mut request, 1);
//!
//! let mut connection = Connection::new(Limits::default());
//! let (mut input, mut output) = (&request[..], Vec::new());
//! while let Some(event) = connection.receive(&mut input, &mut output)? {
//!     match event {
//!         Event::Request { params, .. } => assert_eq!(params.get(b"REQUEST_METHOD"), Some(&b"GET"[..])),
//!         Event::StdinEnd { id } => {
//!             encode::stdout(&mut output, id, b"Content-Type: text/plain\r\n\r\nhello\n");
//!             encode::stdout_end(&mut output, id);
//!             encode::end_request(&mut output, id, 0, ProtocolStatus::RequestComplete);
//!             connection.finish(id);
//!         }
//!         _ => {}
//!     }
//! }
//! assert!(connection.is_idle());
//! # Ok::<(), howdah::fastcgi::Violation>(())
//! ```
//!
//! # Layout
//!
//! Bytes from a client go through these, in this order:
//!
//! - `record`: headers and constants
//! - `connection`: records become events (`event`) and answers
//! - `pairs`: names and values, cut anywhere
//! - `params`: the parameters of one request
//! - `query`: what a client asks about this server
//!
//! [`encode`] writes what goes back. [`client`] is the other side, for tests and tools.

#![forbid(unsafe_code)]

pub mod client;
mod connection;
pub mod encode;
mod event;
mod pairs;
mod params;
mod query;
mod record;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Limits};
pub use event::{Event, Violation};
pub use params::Params;
pub use record::{Header, MAX_CONTENT, ProtocolStatus, Role, kind};
