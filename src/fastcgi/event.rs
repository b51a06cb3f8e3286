//! What a connection tells the server.

use super::params::Params;
use super::record::{ProtocolStatus, Role};
#[cfg(doc)]
use super::{Connection, Limits};

/// What happened on a connection.
///
/// A request is one `Request`, any number of `Stdin`, and one `StdinEnd`; an `Abort` may cut that short after the `Request`.
/// Events of several requests may interleave. After [`Connection::finish`] a request has no more events.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request's parameters are complete.
    Request {
        /// Names the request until [`Connection::finish`]; never 0.
        id: u16,
        /// What it wants done.
        role: Role,
        /// The client wants to go on using the connection. If not, it is closed after the answer; see
        /// [`Connection::is_done`].
        keep_connection: bool,
        /// The parameters.
        params: Params,
    },
    /// The next piece of a request's body; never empty.
    Stdin {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// A request's body is complete. An [`Authorizer`](Role::Authorizer) has no body; this follows its `Request` at once.
    StdinEnd {
        /// The request.
        id: u16,
    },
    /// The client gives up a request, and wants an `FCGI_END_REQUEST` soon. It comes once and is the request's last event.
    Abort {
        /// The request.
        id: u16,
    },
    /// A request is over before any other event of it; `FCGI_END_REQUEST` is among the replies. There is nothing to do
    /// but to ask [`Connection::is_done`].
    Refused {
        /// The request; the id may be in use again.
        id: u16,
        /// Why: [`UnknownRole`](ProtocolStatus::UnknownRole), [`Overloaded`](ProtocolStatus::Overloaded), or
        /// [`RequestComplete`](ProtocolStatus::RequestComplete) if the client gave it up before its parameters were
        /// complete.
        status: ProtocolStatus,
        /// As in `Request`.
        keep_connection: bool,
    },
}

/// A client does not speak FastCGI as specified, and where its records begin, or what its request was, can't be known.
/// The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Section 3.3.
    #[error("a record has version {0} instead of 1: the client does not speak FastCGI")]
    Version(u8),
    /// Section 5.1.
    #[error("FCGI_BEGIN_REQUEST has {0} bytes of content instead of 8")]
    BeginLength(u16),
    /// Section 3.3: id 0 stands for the connection.
    #[error("FCGI_BEGIN_REQUEST has the id 0 instead of one from 1 to 65535")]
    BeginId,
    /// Section 3.4.
    #[error("the parameters of request {id} end inside a name or value")]
    IncompletePair {
        /// The request.
        id: u16,
    },
    /// Section 3.4.
    #[error("FCGI_GET_VALUES ends inside a name or value")]
    IncompleteQuery,
    /// See [`Limits::params_bytes`].
    #[error(
        "incomplete parameters, with those of request {id}, take more than the limit of {limit} bytes"
    )]
    ParamsTooLarge {
        /// The request that went past it.
        id: u16,
        /// The limit.
        limit: usize,
    },
    /// Section 6.2: parameters first, "next" the body.
    #[error("the body of request {id} begins before its parameters have ended")]
    EarlyStdin {
        /// The request.
        id: u16,
    },
}
