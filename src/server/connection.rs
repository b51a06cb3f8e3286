//! One connection: reads requests, hands them on, sends answers.

#![forbid(unsafe_code)]

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{Answer, Left};
use super::dispatch::Ticket;
use super::listener::Shared;
use super::stream::{Lateness, Stream};
use super::{Phase, siblings, sys};
use crate::config::Level;
use crate::fastcgi::{self, Event, Limits, Params, ProtocolStatus, Role, encode};

/// How much is read at once, in bytes.
pub(super) const READ_AT_ONCE: usize = 64 << 10;

/// How much is taken from answers before some of it has been sent, in bytes.
const SEND_AT_ONCE: usize = 32 << 10;

/// How much is sent before other connections have their turn, in bytes.
const SEND_IN_A_TURN: usize = 256 << 10;

/// What the parameters of a connection's requests may take before interpreters have them, in bytes. One request's may take
/// 4 MiB.
const PARAMS_IN_WAITING: usize = 8 << 20;

/// Requests at once on one connection. nginx and Apache have one; nobody has been seen with more than a few.
const REQUESTS_AT_ONCE: usize = 256;

/// How long what a client has begun to send may still take when the pool quits.
const LAST_ORDERS: Duration = Duration::from_millis(500);

/// How often a request that ran for too long is told to end.
const END_AGAIN: Duration = Duration::from_secs(1);

/// How long a closing connection waits for a client that is still sending: closing at once would take from it what it
/// has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is new.
    Client,
    /// A sibling handed it on.
    Sibling,
    /// A sibling handed it on, and its request has waited for as long as one may.
    Queue,
}

/// A connection, from the first byte to the last.
pub(super) struct Connection {
    shared: Rc<Shared>,
    phase: watch::Receiver<Phase>,
    machine: fastcgi::Connection,
    streams: Vec<Stream>,
    /// The stream that may send first.
    turn: usize,
    /// Told by answers that they have something to send.
    wake: Arc<Notify>,
    /// What goes to the client, up to `sent` gone already.
    out: Vec<u8>,
    sent: usize,
    /// False after the client's last byte, or when what it sends is no use any more.
    reading: bool,
    /// No more requests; the connection ends when there is nothing left to send.
    closing: bool,
    /// The client is gone: there is nobody to send to.
    gone: bool,
    /// The next request has waited for too long already.
    is_late: bool,
    /// The request that ended last had not sent all of its body.
    owed_input: bool,
    /// Since when the parameters of a request are incomplete, or nothing at all has come.
    header_since: Option<Instant>,
    /// Since when the client takes nothing of what there is for it.
    blocked_since: Option<Instant>,
    /// Since when there is nothing to do.
    idle_since: Instant,
    /// When the pool began to quit.
    quit_at: Option<Instant>,
}

/// What came of an attempt to send.
enum Sent {
    /// There is nothing left.
    All,
    /// As much as is fair to others.
    Enough,
    /// The client takes no more for now, or is gone.
    Blocked,
}

/// What came of an attempt to read.
enum Read {
    /// All that was there.
    Drained,
    /// There may be more.
    More,
}

impl Connection {
    pub(super) fn new(shared: Rc<Shared>, phase: watch::Receiver<Phase>, origin: Origin) -> Self {
        let pm = &shared.ground.pool.pm;
        let machine = fastcgi::Connection::new(Limits {
            requests: REQUESTS_AT_ONCE,
            max_reqs: pm.max_children.get().saturating_add(pm.max_queue),
            max_conns: pm.max_children.get().saturating_add(pm.max_queue),
            ..Limits::default()
        });
        let now = Instant::now();
        Self {
            shared,
            phase,
            machine,
            streams: Vec::new(),
            turn: 0,
            wake: Arc::new(Notify::new()),
            out: Vec::new(),
            sent: 0,
            reading: true,
            closing: false,
            gone: false,
            is_late: origin == Origin::Queue,
            owed_input: false,
            // What a sibling hands on may be an idle connection, which is to stay.
            header_since: (origin == Origin::Client).then_some(now),
            blocked_since: None,
            idle_since: now,
            quit_at: None,
        }
    }

    /// Serves the connection to its end, or hands it to a sibling.
    pub(super) async fn serve(mut self, socket: AsyncFd<OwnedFd>) {
        let wake = Arc::clone(&self.wake);
        let mut phase = self.phase.clone();
        let mut fresh = true;
        loop {
            if self.wants_input() && fresh && !self.should_hand_on() {
                // What a client sends comes with the connection, most often.
                let _ = self.read(socket.get_ref());
                // If there was no request, there is none that has waited.
                self.is_late &= !self.is_idle();
            }
            fresh = false;
            if self.quit_at.is_some() && self.reading && self.is_idle() {
                // What was sent before the client could know is still answered.
                let _ = self.read(socket.get_ref());
                if self.is_idle() {
                    self.stop_reading();
                }
            }
            self.collect();
            if matches!(self.send(socket.get_ref()), Sent::Enough) {
                // Others are waiting, too.
                yield_now().await;
            }
            if self.gone {
                return;
            }
            if self.must_leave() {
                if !self.hand_on(socket.get_ref()) {
                    self.log(
                        Level::Warning,
                        "an idle connection was closed, as it could not be handed on to another process",
                    );
                }
                return;
            }
            if self.is_over() {
                break;
            }
            let deadline = self.deadline();
            let (read, write) = (self.wants_input(), self.sent < self.out.len());
            tokio::select! {
                ready = socket.ready(Interest::READABLE), if read => {
                    let Ok(mut ready) = ready else { self.gone = true; continue };
                    if self.should_hand_on() && self.hand_on(socket.get_ref()) {
                        return;
                    }
                    if matches!(self.read(socket.get_ref()), Read::Drained) {
                        ready.clear_ready();
                    }
                }
                ready = socket.ready(Interest::WRITABLE), if write => {
                    let Ok(mut ready) = ready else { self.gone = true; continue };
                    if matches!(self.send(socket.get_ref()), Sent::Blocked) {
                        ready.clear_ready();
                    }
                }
                () = wake.notified() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.time_out(),
                _ = phase.changed() => self.change_phase(),
            }
        }
        if self.owed_input || !self.machine.is_between_records() || has_input(socket.get_ref()) {
            linger(&socket).await;
        }
        // Closing is not enough where a script's child holds the connection, too.
        let _ = SockRef::from(socket.get_ref()).shutdown(Shutdown::Both);
    }

    // --- Reading -------------------------------------------------------------------------------

    fn wants_input(&self) -> bool {
        self.reading && !self.machine.is_done() && self.out.len() - self.sent < SEND_AT_ONCE
    }

    /// Reads what is there, and acts on it.
    fn read(&mut self, socket: &OwnedFd) -> Read {
        let shared = Rc::clone(&self.shared);
        let mut buffer = shared.buffer.borrow_mut();
        match sys::receive(socket, &mut buffer) {
            Ok(0) => {
                self.end_of_input(socket);
                Read::Drained
            }
            Ok(count) => {
                let drained = count < buffer.len();
                self.input(buffer.get(..count).unwrap_or_default());
                if drained { Read::Drained } else { Read::More }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Read::Drained
            }
            Err(_) => {
                self.gone = true;
                Read::Drained
            }
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            match self.machine.receive(&mut rest, &mut self.out) {
                Ok(Some(event)) => self.event(event),
                Ok(None) => break,
                Err(violation) => {
                    self.log(
                        Level::Warning,
                        &format!("closing a connection: {violation}"),
                    );
                    self.stop_reading();
                    break;
                }
            }
        }
        self.header_since = if self.reading && self.machine.awaits_params() {
            self.header_since.or_else(|| Some(Instant::now()))
        } else {
            None
        };
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Request {
                id, role, params, ..
            } => self.request(id, role, params),
            Event::Stdin { id, data } => self.stdin(id, data),
            Event::StdinEnd { id } => self.hand_over(id),
            Event::Abort { id } => self.abort(id),
            Event::Refused { .. } => {}
        }
    }

    /// The parameters are complete.
    fn request(&mut self, id: u16, role: Role, params: Params) {
        // The time of the next one's parameters begins anew.
        self.header_since = None;
        let answer = Arc::new(Answer::new(id, Arc::clone(&self.wake)));
        let mut stream = Stream::new(id, role, params, answer, &self.shared.arriving);
        let waiting: usize = self.streams.iter().map(Stream::waiting_bytes).sum();
        let is_too_much = waiting + stream.waiting_bytes() > PARAMS_IN_WAITING;
        if is_too_much {
            stream.overload();
        }
        let is_complete = stream.is_complete();
        self.streams.push(stream);
        if is_complete {
            self.hand_over(id);
        }
        if is_too_much {
            self.log(
                Level::Warning,
                "a request was turned away: too many with large parameters wait on one connection",
            );
        }
    }

    fn stdin(&mut self, id: u16, data: &[u8]) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
            return;
        };
        let kept = stream.push(data);
        let is_complete = stream.is_complete();
        if let Err(error) = kept {
            self.log(
                Level::Error,
                &format!(
                    "cannot keep a request's body in a temporary file: {error}; make room in {}",
                    std::env::temp_dir().display()
                ),
            );
        }
        if is_complete {
            self.hand_over(id);
        }
    }

    /// The request is complete.
    fn hand_over(&mut self, id: u16) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
            return;
        };
        if !stream.is_arriving() {
            return;
        }
        if std::mem::take(&mut self.is_late) {
            stream.overload();
            self.log_too_late();
            return;
        }
        if !stream.hand_over(&self.shared.ground.dispatch) {
            self.log(
                Level::Warning,
                "a request was turned away: as many wait as may wait (pm.max_queue); more interpreters (pm.max_children) \
                 would serve more",
            );
        }
    }

    /// The client wants no answer; it gets the end of it.
    fn abort(&mut self, id: u16) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else {
            return;
        };
        let stream = self.streams.remove(at);
        stream.forget(&self.shared.ground.dispatch);
        encode::stdout_end(&mut self.out, id);
        encode::end_request(&mut self.out, id, 0, ProtocolStatus::RequestComplete);
        self.finished(&stream);
    }

    /// The client sends no more. What it has sent completely is answered.
    fn end_of_input(&mut self, socket: &OwnedFd) {
        if sys::is_hung_up(socket.as_fd()) {
            self.gone = true;
        } else {
            self.stop_reading();
        }
    }

    /// What has not arrived completely never will.
    fn stop_reading(&mut self) {
        self.reading = false;
        self.closing = true;
        self.header_since = None;
        self.streams.retain(|stream| !stream.is_arriving());
    }

    // --- Sending -------------------------------------------------------------------------------

    /// Moves answers into `out`, each in its turn.
    fn collect(&mut self) {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        let mut unready = 0;
        while unready < self.streams.len() && self.out.len() - self.sent < SEND_AT_ONCE {
            if self.turn >= self.streams.len() {
                self.turn = 0;
            }
            let Some(stream) = self.streams.get(self.turn) else {
                break;
            };
            if !stream.answer.is_ready() {
                self.turn += 1;
                unready += 1;
                continue;
            }
            match stream.answer.collect(&mut self.out, SEND_AT_ONCE) {
                Left::Nothing | Left::More => self.turn += 1,
                Left::Complete => {
                    let stream = self.streams.remove(self.turn);
                    self.finished(&stream);
                }
                Left::Lost => {
                    self.log(
                        Level::Error,
                        "an answer is cut off: it waited in a temporary file that cannot be read",
                    );
                    self.gone = true;
                    return;
                }
            }
            unready = 0;
        }
        if self.is_idle() && self.out.is_empty() && self.out.capacity() > READ_AT_ONCE / 4 {
            // Thousands of idle connections may have had a large answer once.
            self.out = Vec::new();
        }
    }

    fn finished(&mut self, stream: &Stream) {
        // The answer may be there before the record that ends STDIN: who sends it should not find the door shut.
        self.owed_input = self.machine.awaits_stdin(stream.id);
        self.machine.finish(stream.id);
        self.idle_since = Instant::now();
    }

    /// Sends what it can, within reason.
    fn send(&mut self, socket: &OwnedFd) -> Sent {
        let mut left = SEND_IN_A_TURN;
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            if left == 0 {
                return Sent::Enough;
            }
            match sys::send(socket, rest) {
                Ok(count) => {
                    self.blocked_since = None;
                    self.sent += count;
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return Sent::Blocked;
                }
                Err(_) => {
                    self.gone = true;
                    return Sent::Blocked;
                }
            }
            if self.sent == self.out.len() {
                self.collect();
            }
        }
        Sent::All
    }

    // --- Time, and the end ---------------------------------------------------------------------

    /// Nothing is under way in either direction.
    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.machine.is_idle()
    }

    fn is_over(&self) -> bool {
        (self.closing && self.streams.is_empty() || self.machine.is_done())
            && self.sent == self.out.len()
    }

    /// A sibling should read what comes next, as no interpreter is free here.
    fn should_hand_on(&self) -> bool {
        !self.shared.ground.is_alone
            && !self.is_late
            && *self.phase.borrow() != Phase::Quitting
            && self.is_idle()
            && self.sent == self.out.len()
            && !self.shared.ground.dispatch.is_free()
    }

    /// This process retires, and nothing is under way here.
    fn must_leave(&self) -> bool {
        *self.phase.borrow() == Phase::Retiring
            && !self.closing
            && !self.machine.is_done()
            && self.is_idle()
            && self.sent == self.out.len()
    }

    /// False: it is still ours, as too many wait already.
    fn hand_on(&self, socket: &OwnedFd) -> bool {
        siblings::give(&self.shared.give, socket).is_ok()
    }

    fn change_phase(&mut self) {
        if *self.phase.borrow() == Phase::Quitting {
            self.quit_at = Some(Instant::now());
        }
    }

    /// When something is too late if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let timeouts = &self.shared.ground.pool.timeouts;
        let after = |since: Option<Instant>, timeout: Option<Duration>| Some(since? + timeout?);
        let mut first = after(self.header_since, timeouts.header);
        let mut consider = |deadline: Option<Instant>| {
            first = match (first, deadline) {
                (Some(first), Some(deadline)) => Some(first.min(deadline)),
                (first, deadline) => first.or(deadline),
            };
        };
        if self.reading {
            consider(after(self.quit_at, Some(LAST_ORDERS)));
        }
        if self.reading && self.is_idle() && self.header_since.is_none() {
            consider(after(Some(self.idle_since), timeouts.idle));
        }
        consider(after(self.blocked_since, timeouts.send));
        for stream in &self.streams {
            consider(stream.deadline(timeouts));
        }
        first
    }

    fn time_out(&mut self) {
        let now = Instant::now();
        let timeouts = self.shared.ground.pool.timeouts.clone();
        let is_late = |since: Instant, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| since + timeout <= now)
        };
        if self
            .quit_at
            .is_some_and(|since| is_late(since, Some(LAST_ORDERS)))
        {
            for stream in self
                .streams
                .iter_mut()
                .filter(|stream| stream.is_arriving())
            {
                stream.overload();
            }
            self.stop_reading();
        }
        if self
            .blocked_since
            .is_some_and(|since| is_late(since, timeouts.send))
        {
            self.log(
                Level::Warning,
                "a connection was closed: the client took nothing of an answer (request_send_timeout)",
            );
            self.gone = true;
        }
        if self
            .header_since
            .is_some_and(|since| is_late(since, timeouts.header))
        {
            self.stop_reading();
        }
        if self.is_idle() && is_late(self.idle_since, timeouts.idle) {
            self.stop_reading();
        }
        let mut overloaded = false;
        let mut terminated = Vec::new();
        for stream in &mut self.streams {
            match stream.time_out(now, &timeouts, &self.shared.ground.dispatch) {
                Lateness::InTime | Lateness::Body => {}
                Lateness::Queue => overloaded = true,
                Lateness::Running => terminated.extend(stream.terminate()),
            }
        }
        for ticket in terminated {
            let seconds = ticket
                .taken_at()
                .map_or(0.0, |taken| taken.elapsed().as_secs_f64());
            let what = ticket.description.get().map_or("a request", String::as_str);
            self.log(
                Level::Warning,
                &format!("{what} execution timed out ({seconds:.6} sec), terminating"),
            );
            spawn_local(end(ticket));
        }
        if overloaded {
            self.log_too_late();
        }
    }

    fn log_too_late(&self) {
        self.log(
            Level::Warning,
            "a request was turned away: no interpreter became free in time (request_queue_timeout); more interpreters \
             (pm.max_children) would serve more",
        );
    }

    fn log(&self, level: Level, message: &str) {
        self.shared.ground.log(level, message);
    }
}

impl Drop for Connection {
    /// Nobody waits for what is left.
    fn drop(&mut self) {
        for stream in &self.streams {
            stream.forget(&self.shared.ground.dispatch);
        }
    }
}

fn has_input(socket: &OwnedFd) -> bool {
    sys::receive(socket, &mut [0]).is_ok_and(|count| count > 0)
}

/// Ends a request that runs for too long. Its shutdown functions may be as slow, and what blocks in an extension may go on
/// blocking, so it is told again.
async fn end(ticket: Arc<Ticket>) {
    while ticket.stopper.time_out() {
        sleep(END_AGAIN).await;
    }
}

/// Lets the client read to the end: a socket that is closed with bytes unread is reset.
async fn linger(socket: &AsyncFd<OwnedFd>) {
    let _ = SockRef::from(socket.get_ref()).shutdown(Shutdown::Write);
    let until = Instant::now() + LINGER;
    let mut buffer = [0; 4096];
    loop {
        tokio::select! {
            ready = socket.ready(Interest::READABLE) => {
                let Ok(mut ready) = ready else { return };
                match sys::receive(socket.get_ref(), &mut buffer) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    Err(_) => return,
                }
            }
            () = sleep_until(until) => return,
        }
    }
}
