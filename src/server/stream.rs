//! One request of a connection, from its parameters to the end of its answer.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;
use super::body::Body;
use super::dispatch::{Dispatch, Job, Ticket};
use crate::config::Timeouts;
use crate::fastcgi::{Params, ProtocolStatus, Role};

/// A request on a connection, and its answer.
pub(super) struct Stream {
    pub(super) id: u16,
    pub(super) answer: Arc<Answer>,
    progress: Progress,
}

enum Progress {
    /// The body is on its way.
    Arriving {
        request: Request,
        /// When some of it came last.
        heard: Instant,
    },
    /// It waits for an interpreter, or runs.
    Handed {
        ticket: Arc<Ticket>,
        since: Instant,
        params_bytes: usize,
        /// It ran for too long, and is being ended.
        is_ending: bool,
    },
    /// It was answered without PHP.
    Refused,
}

struct Request {
    role: Role,
    params: Params,
    body: Body,
    /// `CONTENT_LENGTH`, if it is a number: more is not kept.
    expected: Option<u64>,
    /// For as long as it arrives.
    counted: Counted,
}

/// One of so many.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What became of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    InTime,
    /// The body stopped coming; the client has been told.
    Body,
    /// No interpreter became free; the client has been told.
    Queue,
    /// It runs for too long; the client has been told, if it had seen nothing yet.
    Running,
}

impl Stream {
    /// The parameters are complete. It counts in `arriving` until the body is.
    pub(super) fn new(
        id: u16,
        role: Role,
        params: Params,
        answer: Arc<Answer>,
        arriving: &Rc<Cell<usize>>,
    ) -> Self {
        let expected = params
            .get(b"CONTENT_LENGTH")
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| text.parse().ok());
        Self {
            id,
            answer,
            progress: Progress::Arriving {
                request: Request {
                    role,
                    params,
                    body: Body::default(),
                    expected,
                    counted: Counted::new(arriving),
                },
                heard: Instant::now(),
            },
        }
    }

    /// Some of the body is still to come.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(self.progress, Progress::Arriving { .. })
    }

    /// All that `CONTENT_LENGTH` promised has come. php-fpm reads no further either: some clients never end STDIN.
    pub(super) fn is_complete(&self) -> bool {
        match &self.progress {
            Progress::Arriving { request, .. } => request.expected == Some(request.body.length()),
            Progress::Handed { .. } | Progress::Refused => false,
        }
    }

    /// Takes more of the body.
    ///
    /// # Errors
    ///
    /// If it cannot be kept; the client has been told.
    pub(super) fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let Progress::Arriving { request, heard } = &mut self.progress else {
            return Ok(());
        };
        *heard = Instant::now();
        let left = request.expected.map_or(u64::MAX, |expected| {
            expected.saturating_sub(request.body.length())
        });
        let keep = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let kept = request.body.push(data.get(..keep).unwrap_or_default());
        if kept.is_err() {
            self.refuse(
                "507 Insufficient Storage",
                "The server has no room for the request's body.\n",
                ProtocolStatus::RequestComplete,
            );
        }
        kept
    }

    /// Hands the complete request to the interpreters. False: as many wait as may wait; the client has been told.
    pub(super) fn hand_over(&mut self, dispatch: &Dispatch) -> bool {
        let ticket = Arc::new(Ticket::default());
        let Progress::Arriving { request, .. } =
            std::mem::replace(&mut self.progress, Progress::Refused)
        else {
            return true;
        };
        drop(request.counted);
        self.progress = Progress::Handed {
            ticket: Arc::clone(&ticket),
            since: Instant::now(),
            params_bytes: request.params.capacity(),
            is_ending: false,
        };
        let accepted = dispatch.submit(Job {
            role: request.role,
            params: request.params,
            body: request.body,
            answer: Arc::clone(&self.answer),
            ticket,
        });
        if accepted.is_err() {
            self.overload();
        }
        accepted.is_ok()
    }

    /// Bytes that the parameters take while no interpreter has them.
    pub(super) fn waiting_bytes(&self) -> usize {
        match &self.progress {
            Progress::Arriving { request, .. } => request.params.capacity(),
            Progress::Handed {
                params_bytes,
                ticket,
                ..
            } if !ticket.is_taken() => *params_bytes,
            Progress::Handed { .. } | Progress::Refused => 0,
        }
    }

    /// When something is too late if nothing happens.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match &self.progress {
            Progress::Arriving { heard, .. } => Some(*heard + timeouts.body?),
            Progress::Handed {
                ticket,
                since,
                is_ending,
                ..
            } => match (ticket.taken_at(), timeouts.terminate) {
                (Some(taken), Some(limit)) if !is_ending => Some(Instant::from_std(taken) + limit),
                (Some(_), _) => None,
                // Nobody tells when it is taken: the time to look is when it could be too late at the earliest.
                (None, limit) => {
                    let queue = timeouts.queue.map(|timeout| *since + timeout);
                    let look = limit.map(|limit| Instant::now() + limit);
                    queue.into_iter().chain(look).min()
                }
            },
            Progress::Refused => None,
        }
    }

    /// Answers for PHP if it is too late.
    pub(super) fn time_out(
        &mut self,
        now: Instant,
        timeouts: &Timeouts,
        dispatch: &Dispatch,
    ) -> Lateness {
        let is_late = |since: Instant, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| since + timeout <= now)
        };
        match &self.progress {
            Progress::Arriving { heard, .. } if is_late(*heard, timeouts.body) => {
                self.refuse(
                    "408 Request Timeout",
                    "The request's body did not arrive in time.\n",
                    ProtocolStatus::RequestComplete,
                );
                Lateness::Body
            }
            Progress::Handed { ticket, since, .. }
                if is_late(*since, timeouts.queue) && dispatch.withdraw(ticket) =>
            {
                self.overload();
                Lateness::Queue
            }
            Progress::Handed {
                ticket,
                is_ending: false,
                ..
            } if ticket
                .taken_at()
                .is_some_and(|taken| is_late(Instant::from_std(taken), timeouts.terminate)) =>
            {
                Lateness::Running
            }
            _ => Lateness::InTime,
        }
    }

    /// It ran for too long: gives the client an answer, if it has seen nothing yet, and the ticket of the request to end.
    pub(super) fn terminate(&mut self) -> Option<Arc<Ticket>> {
        let Progress::Handed {
            ticket, is_ending, ..
        } = &mut self.progress
        else {
            return None;
        };
        *is_ending = true;
        let ticket = Arc::clone(ticket);
        if self.answer.is_blank() {
            self.refuse(
                "504 Gateway Timeout",
                "The server took too long to answer.\n",
                ProtocolStatus::RequestComplete,
            );
        }
        Some(ticket)
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, dispatch: &Dispatch) {
        self.answer.abandon();
        if let Progress::Handed { ticket, .. } = &self.progress {
            dispatch.withdraw(ticket);
        }
    }

    /// Tells web servers that speak FastCGI fluently (OVERLOADED), and people (503).
    pub(super) fn overload(&mut self) {
        self.refuse(
            "503 Service Unavailable",
            "The server is busy. Please try again in a moment.\n",
            ProtocolStatus::Overloaded,
        );
    }

    /// Answers without PHP.
    fn refuse(&mut self, status: &str, text: &str, protocol_status: ProtocolStatus) {
        self.progress = Progress::Refused;
        self.answer.write(
            format!(
                "Status: {status}\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\r\n{text}"
            )
            .as_bytes(),
        );
        self.answer.end(protocol_status);
    }
}
