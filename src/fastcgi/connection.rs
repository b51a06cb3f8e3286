//! The receiving half of a connection: records become events and answers.

use super::encode;
use super::event::{Event, Violation};
use super::params::Collector;
use super::query::Query;
use super::record::{EightBytes, Header, KEEP_CONN, ProtocolStatus, Role, VERSION, kind, take};

/// What a connection may cost, and what a client that asks is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for parameters that are incomplete, of all requests of the connection together: names, values and
    /// 18 bytes for each pair. More is a [`Violation`]. So it is also the limit for one request, and a client cannot
    /// multiply it by beginning many.
    pub params_bytes: usize,
    /// Requests at once. Those beyond it are refused as [`Overloaded`](ProtocolStatus::Overloaded).
    pub requests: usize,
    /// The answer to `FCGI_MAX_CONNS`: connections that this server takes at once.
    pub max_conns: u32,
    /// The answer to `FCGI_MAX_REQS`: requests that this server takes at once.
    pub max_reqs: u32,
}

impl Default for Limits {
    /// 4 MiB of parameters, 1024 requests, and the same number to clients that ask.
    fn default() -> Self {
        Self {
            params_bytes: 4 << 20,
            requests: 1024,
            max_conns: 1024,
            max_reqs: 1024,
        }
    }
}

/// The receiving half of one connection.
///
/// It knows which requests are active and where in a record the client is. Bodies pass through it; all that it keeps is
/// parameters that are incomplete, within [`Limits`]. See the [module](super) for how to use it.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    reading: Reading,
    /// Active requests, ordered by id. A client has few; with many, moving them costs less than hashing each id.
    requests: Vec<Request>,
    /// How many of them have incomplete parameters.
    awaiting_params: usize,
    /// What is left of `limits.params_bytes`.
    room: usize,
    /// An Authorizer's `StdinEnd`, which no record stands for.
    stdin_end: Option<u16>,
    /// A request that is over wanted the connection closed.
    closing: bool,
}

/// Where in a record the client is.
#[derive(Debug)]
enum Reading {
    /// Before it, or in its header.
    Header(EightBytes),
    /// In its content, with this many bytes of it and of padding yet to come.
    Content {
        content: Content,
        left: u16,
        padding: u8,
    },
    /// In the padding, with this many bytes of it yet to come.
    Padding(u8),
    /// Nowhere that makes sense.
    Lost(Violation),
}

/// What a record's content is for.
#[derive(Debug)]
enum Content {
    Begin { id: u16, body: EightBytes },
    Params { id: u16 },
    Stdin { id: u16 },
    Query(Query),
    Nothing,
}

#[derive(Debug)]
struct Request {
    id: u16,
    role: Role,
    keep_connection: bool,
    stage: Stage,
}

/// What a client is expected to send next for a request.
#[derive(Debug)]
enum Stage {
    Params(Collector),
    Stdin,
    /// Nothing, unless it gives the request up: all of it is here. Whatever else comes is ignored.
    Complete,
    /// Nothing. Whatever comes is ignored.
    GivenUp,
}

impl Connection {
    /// A connection on which nothing was received yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            reading: Reading::Header(EightBytes::default()),
            requests: Vec::new(),
            awaiting_params: 0,
            room: limits.params_bytes,
            stdin_end: None,
            closing: false,
        }
    }

    /// Takes bytes from the beginning of `input` up to and with the next event. With none, all of `input` is taken and
    /// more is needed. Call it until then, and again when there is more input.
    ///
    /// What has to be answered without a program's help is appended to `replies`, whether or not there is an event. It is
    /// never more than twice the size of what was taken.
    ///
    /// # Errors
    ///
    /// After a [`Violation`] the connection is to be closed; the same error is returned from then on. Replies so far are
    /// valid.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        replies: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, Violation> {
        if let Some(id) = self.stdin_end.take() {
            return Ok(Some(Event::StdinEnd { id }));
        }
        loop {
            let event = match self.step(input, replies) {
                Ok(Step::Event(event)) => Some(event),
                Ok(Step::Done) => None,
                Ok(Step::NeedsInput) => return Ok(None),
                Err(violation) => {
                    self.reading = Reading::Lost(violation);
                    return Err(violation);
                }
            };
            // An event does not wait for padding, but padding that is there already would make the connection look
            // as if it were in the middle of a record.
            self.skip_padding(input);
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The request is over: its `FCGI_END_REQUEST` is written or about to be. Whatever the client still sends for it is
    /// ignored, and the id may be used again. It need not be complete. An id that is not active is ignored.
    pub fn finish(&mut self, id: u16) {
        if let Ok(at) = self.find(id) {
            let request = self.requests.remove(at);
            if let Stage::Params(collector) = &request.stage {
                self.awaiting_params -= 1;
                self.room += collector.claimed();
            }
            self.closing |= !request.keep_connection;
            if self.stdin_end == Some(id) {
                self.stdin_end = None;
            }
        }
    }

    /// Requests that have begun and are not finished.
    pub fn active(&self) -> usize {
        self.requests.len()
    }

    /// Nothing is half-read: the next byte is a record's first.
    pub fn is_between_records(&self) -> bool {
        self.stdin_end.is_none()
            && matches!(&self.reading, Reading::Header(header) if header.is_empty())
    }

    /// Nothing is half-read and no request is active. A new `Connection` can take this one's place, in another process
    /// for instance.
    pub fn is_idle(&self) -> bool {
        self.is_between_records() && self.requests.is_empty()
    }

    /// A request that is over wanted the connection closed, and no other one is active: close it once all replies are
    /// written.
    pub fn is_done(&self) -> bool {
        self.closing && self.requests.is_empty()
    }

    /// The client owes something that is sent in one go: the rest of a record, other than one of a body, or of a request's
    /// parameters. A client that stops here is broken or means harm, and a time-out that starts when this
    /// becomes true is fair.
    pub fn awaits_params(&self) -> bool {
        let in_record = match &self.reading {
            Reading::Header(header) => !header.is_empty(),
            Reading::Content { content, .. } => !matches!(content, Content::Stdin { .. }),
            Reading::Padding(_) => true,
            Reading::Lost(_) => false,
        };
        in_record || self.awaiting_params > 0
    }

    /// The request's body is incomplete.
    pub fn awaits_stdin(&self, id: u16) -> bool {
        self.find(id)
            .ok()
            .and_then(|at| self.requests.get(at))
            .is_some_and(|request| matches!(request.stage, Stage::Stdin))
    }

    /// Bytes of memory that incomplete parameters take. They stay below twice [`Limits::params_bytes`], plus what a
    /// `Vec` rounds up.
    pub fn buffered(&self) -> usize {
        self.requests
            .iter()
            .map(|request| match &request.stage {
                Stage::Params(collector) => collector.capacity(),
                Stage::Stdin | Stage::Complete | Stage::GivenUp => 0,
            })
            .sum()
    }

    /// Takes what belongs together: a header, a piece of content, padding.
    fn step<'a>(
        &mut self,
        input: &mut &'a [u8],
        replies: &mut Vec<u8>,
    ) -> Result<Step<'a>, Violation> {
        match &mut self.reading {
            Reading::Header(bytes) => match bytes.fill(input) {
                Some(bytes) => self.header(Header::decode(bytes), replies),
                None => Ok(Step::NeedsInput),
            },
            Reading::Content { left, .. } => {
                let piece = take(input, usize::from(*left));
                // At most what was left.
                *left -= piece.len() as u16;
                match piece {
                    [] => Ok(Step::NeedsInput),
                    _ => self.content(piece, replies),
                }
            }
            Reading::Padding(_) => {
                // `receive` has skipped what there is.
                self.skip_padding(input);
                Ok(match self.reading {
                    Reading::Padding(_) => Step::NeedsInput,
                    _ => Step::Done,
                })
            }
            Reading::Lost(violation) => Err(*violation),
        }
    }

    /// A record begins.
    fn header<'a>(&mut self, header: Header, replies: &mut Vec<u8>) -> Result<Step<'a>, Violation> {
        let id = header.id;
        if header.version != VERSION {
            return Err(Violation::Version(header.version));
        }
        let mut step = Step::Done;
        let content = match (header.kind, id) {
            (kind::BEGIN_REQUEST, _) if header.content != 8 => {
                return Err(Violation::BeginLength(header.content));
            }
            (kind::BEGIN_REQUEST, 0) => return Err(Violation::BeginId),
            (kind::BEGIN_REQUEST, _) => Content::Begin {
                id,
                body: EightBytes::default(),
            },
            (kind::ABORT_REQUEST, _) => {
                step = self.abort(id, replies);
                Content::Nothing
            }
            (kind::PARAMS, _) if header.content == 0 => {
                step = self.params_end(id)?;
                Content::Nothing
            }
            (kind::PARAMS, _) => Content::Params { id },
            (kind::STDIN, _) => match self.request_mut(id).map(|request| &mut request.stage) {
                Some(Stage::Params(_)) => return Err(Violation::EarlyStdin { id }),
                Some(stage @ Stage::Stdin) if header.content == 0 => {
                    *stage = Stage::Complete;
                    step = Step::Event(Event::StdinEnd { id });
                    Content::Nothing
                }
                Some(Stage::Stdin) => Content::Stdin { id },
                Some(Stage::Complete | Stage::GivenUp) | None => Content::Nothing,
            },
            (kind::GET_VALUES, 0) => {
                if header.content == 0 {
                    self.answer(&Query::default(), replies);
                }
                Content::Query(Query::default())
            }
            // Types that only servers send are known, if misplaced. Answering them as unknown could go on forever with
            // a peer that does the same.
            (kind::BEGIN_REQUEST..=kind::UNKNOWN_TYPE, _) => Content::Nothing,
            (unknown, 0) => {
                encode::unknown_type(replies, unknown);
                Content::Nothing
            }
            // Section 3.3: records of inactive requests are ignored. A type that nobody knows is no reason to end a
            // request that is active either.
            _ => Content::Nothing,
        };
        self.reading = match header.content {
            0 => Reading::Padding(header.padding),
            left => Reading::Content {
                content,
                left,
                padding: header.padding,
            },
        };
        Ok(step)
    }

    /// A piece of a record's content, never empty, possibly the last.
    fn content<'a>(
        &mut self,
        piece: &'a [u8],
        replies: &mut Vec<u8>,
    ) -> Result<Step<'a>, Violation> {
        let Reading::Content {
            content,
            left,
            padding,
        } = &mut self.reading
        else {
            return Ok(Step::Done);
        };
        let (ends, padding) = (*left == 0, *padding);
        let step = match content {
            Content::Begin { id, body } => {
                let (id, mut piece) = (*id, piece);
                match body.fill(&mut piece) {
                    Some(body) => self.begin(id, body, replies),
                    None => Step::Done,
                }
            }
            Content::Params { id } => {
                let id = *id;
                self.params(id, piece)?;
                Step::Done
            }
            Content::Stdin { id } => {
                let id = *id;
                // It may have been finished since the record began.
                if self.awaits_stdin(id) {
                    Step::Event(Event::Stdin { id, data: piece })
                } else {
                    Step::Done
                }
            }
            Content::Query(query) => {
                query.feed(piece);
                if ends {
                    if !query.is_between_pairs() {
                        return Err(Violation::IncompleteQuery);
                    }
                    let query = query.clone();
                    self.answer(&query, replies);
                }
                Step::Done
            }
            Content::Nothing => Step::Done,
        };
        if ends {
            self.reading = Reading::Padding(padding);
        }
        Ok(step)
    }

    /// A request begins.
    fn begin<'a>(&mut self, id: u16, body: [u8; 8], replies: &mut Vec<u8>) -> Step<'a> {
        let [role1, role0, flags, ..] = body;
        // Flags that nobody knows are ignored, and so are the reserved bytes.
        let keep_connection = flags & KEEP_CONN != 0;
        // If it is active, the client is confused. What it sent before is as good as what comes now, and its request goes
        // on; records still begin where they should.
        let Err(at) = self.find(id) else {
            return Step::Done;
        };
        let Some(role) = Role::from_number(u16::from_be_bytes([role1, role0])) else {
            return self.refuse(id, ProtocolStatus::UnknownRole, keep_connection, replies);
        };
        if self.requests.len() >= self.limits.requests {
            return self.refuse(id, ProtocolStatus::Overloaded, keep_connection, replies);
        }
        let request = Request {
            id,
            role,
            keep_connection,
            stage: Stage::Params(Collector::default()),
        };
        self.requests.insert(at, request);
        self.awaiting_params += 1;
        Step::Done
    }

    /// A request is over before it came to a program.
    fn refuse<'a>(
        &mut self,
        id: u16,
        status: ProtocolStatus,
        keep_connection: bool,
        replies: &mut Vec<u8>,
    ) -> Step<'a> {
        encode::end_request(replies, id, 0, status);
        self.closing |= !keep_connection;
        Step::Event(Event::Refused {
            id,
            status,
            keep_connection,
        })
    }

    /// A piece of a request's parameters.
    fn params(&mut self, id: u16, piece: &[u8]) -> Result<(), Violation> {
        let limit = self.limits.params_bytes;
        let mut room = self.room;
        if let Some(Request {
            stage: Stage::Params(collector),
            ..
        }) = self.request_mut(id)
        {
            collector
                .feed(piece, &mut room)
                .map_err(|_| Violation::ParamsTooLarge { id, limit })?;
        }
        self.room = room;
        Ok(())
    }

    /// A request's parameters are complete.
    fn params_end<'a>(&mut self, id: u16) -> Result<Step<'a>, Violation> {
        let Some(request) = self.request_mut(id) else {
            return Ok(Step::Done);
        };
        let Stage::Params(collector) = &mut request.stage else {
            return Ok(Step::Done);
        };
        let collector = std::mem::take(collector);
        let (role, keep_connection) = (request.role, request.keep_connection);
        request.stage = match role {
            Role::Responder => Stage::Stdin,
            Role::Authorizer => Stage::Complete,
        };
        self.awaiting_params -= 1;
        self.room += collector.claimed();
        let params = collector
            .complete()
            .ok_or(Violation::IncompletePair { id })?;
        if role == Role::Authorizer {
            self.stdin_end = Some(id);
        }
        Ok(Step::Event(Event::Request {
            id,
            role,
            keep_connection,
            params,
        }))
    }

    /// The client gives up a request.
    fn abort<'a>(&mut self, id: u16, replies: &mut Vec<u8>) -> Step<'a> {
        let Some(request) = self.request_mut(id) else {
            return Step::Done;
        };
        match request.stage {
            Stage::Params(_) => {
                let keep_connection = request.keep_connection;
                self.finish(id);
                let status = ProtocolStatus::RequestComplete;
                self.refuse(id, status, keep_connection, replies)
            }
            Stage::Stdin | Stage::Complete => {
                request.stage = Stage::GivenUp;
                Step::Event(Event::Abort { id })
            }
            Stage::GivenUp => Step::Done,
        }
    }

    fn answer(&self, query: &Query, replies: &mut Vec<u8>) {
        query.answer(self.limits.max_conns, self.limits.max_reqs, replies);
    }

    fn skip_padding(&mut self, input: &mut &[u8]) {
        if let Reading::Padding(left) = &mut self.reading {
            // At most what was left.
            *left -= take(input, usize::from(*left)).len() as u8;
            if *left == 0 {
                self.reading = Reading::Header(EightBytes::default());
            }
        }
    }

    /// Where in `requests` the request is, or would be.
    fn find(&self, id: u16) -> Result<usize, usize> {
        self.requests
            .binary_search_by_key(&id, |request| request.id)
    }

    fn request_mut(&mut self, id: u16) -> Option<&mut Request> {
        let at = self.find(id).ok()?;
        self.requests.get_mut(at)
    }
}

/// What came of some bytes.
enum Step<'a> {
    Event(Event<'a>),
    /// Nothing to tell; go on.
    Done,
    /// They did not suffice.
    NeedsInput,
}

#[cfg(test)]
mod tests;
