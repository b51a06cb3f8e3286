//! The answer to one request, between the interpreter that makes it and the connection that sends it.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::spill::Spill;
use crate::fastcgi::{Header, MAX_CONTENT, ProtocolStatus, encode, kind};

/// How many bytes wait in memory for the client: with as many in the connection, and what a `Vec` rounds up, 500 clients
/// that do not read take less than 64 MiB.
const IN_MEMORY: usize = 32 << 10;

/// How long an interpreter waits for a client that does not read before the answer goes to a file. Who reads at all makes room
/// sooner, even if the machine is busy; and a hundred slow clients in a row cost a second.
const PATIENCE: Duration = Duration::from_millis(10);

/// How large such a file may become, in bytes: nginx's default for the same purpose. An interpreter with more to say waits
/// for the client after all.
const MAX_SPILL: u64 = 1 << 30;

/// What stands between an interpreter and a connection. Shared by the two.
#[derive(Debug)]
pub(super) struct Answer {
    id: u16,
    state: Mutex<State>,
    /// There is room again, or nobody reads any more.
    room: Condvar,
    /// There is something to collect.
    ready: AtomicBool,
    /// Wakes the connection.
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// Whole records, but for the one at `open`.
    records: Vec<u8>,
    /// Where the STDOUT record begins whose length is not known yet.
    open: Option<usize>,
    /// What comes before `records`.
    spill: Option<Spill>,
    /// STDERR was used, and so has an end.
    stderr: bool,
    /// The headers, or anything, was written.
    begun: bool,
    /// END_REQUEST is written.
    ended: bool,
    /// Nobody reads this.
    gone: bool,
}

/// What [`Answer::collect`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing for now.
    Nothing,
    /// More than there was room for.
    More,
    /// Nothing, for ever: the answer is complete.
    Complete,
    /// The file could not be read back: the answer is cut off.
    Lost,
}

impl Answer {
    /// An empty answer to request `id`; `wake` is told when there is something to collect.
    pub(super) fn new(id: u16, wake: Arc<Notify>) -> Self {
        Self {
            id,
            state: Mutex::default(),
            room: Condvar::new(),
            ready: AtomicBool::new(false),
            wake,
        }
    }

    /// Appends to STDOUT, waiting for the client within reason. False: nobody reads it.
    pub(super) fn write(&self, data: &[u8]) -> bool {
        let mut state = self.lock();
        for piece in data.chunks(IN_MEMORY) {
            if state.gone {
                return false;
            }
            if state.ended {
                // After fastcgi_finish_request(): dropped, and no error.
                return true;
            }
            state.begun = true;
            state.append_stdout(self.id, piece);
            if state.records.len() >= IN_MEMORY {
                self.announce();
                state = self.make_room(state);
            }
        }
        !state.gone
    }

    /// Appends to STDERR.
    pub(super) fn write_stderr(&self, data: &[u8]) {
        let mut state = self.lock();
        if state.gone || state.ended {
            return;
        }
        state.close_record(self.id);
        state.stderr = true;
        encode::stderr(&mut state.records, self.id, data);
        if state.records.len() >= IN_MEMORY {
            self.announce();
            drop(self.make_room(state));
        }
    }

    /// STDERR was written to before.
    pub(super) fn has_stderr(&self) -> bool {
        self.lock().stderr
    }

    /// Nothing was written to STDOUT, and nothing can have been seen by the client.
    pub(super) fn is_blank(&self) -> bool {
        !self.lock().begun
    }

    /// Sends what there is. False: nobody reads it.
    pub(super) fn flush(&self) -> bool {
        let state = self.lock();
        if !state.gone && !state.records.is_empty() {
            self.announce();
        }
        !state.gone
    }

    /// Ends the answer; nothing can be added to it. False: it had ended before.
    pub(super) fn end(&self, status: ProtocolStatus) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.close_record(self.id);
        if state.stderr {
            encode::stderr_end(&mut state.records, self.id);
        }
        encode::stdout_end(&mut state.records, self.id);
        encode::end_request(&mut state.records, self.id, 0, status);
        state.ended = true;
        if state.spill.is_some() && state.spill(self.id).is_ok() {
            state.records = Vec::new();
        }
        self.announce();
        true
    }

    /// Nobody will read it: what is there is dropped, and whoever writes learns of it.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.records = Vec::new();
        state.open = None;
        state.spill = None;
        self.ready.store(false, Ordering::Release);
        self.room.notify_all();
    }

    /// Whether [`collect`](Self::collect) would find something.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Moves whole records to the end of `out`, about `room` bytes of them.
    pub(super) fn collect(&self, out: &mut Vec<u8>, room: usize) -> Left {
        let mut state = self.lock();
        state.close_record(self.id);
        let left = state.collect(out, room);
        self.ready.store(left == Left::More, Ordering::Release);
        self.room.notify_all();
        left
    }

    fn announce(&self) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Waits until the client has taken what is in memory, or puts it into a file.
    fn make_room<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut patience = if state.spill.is_some() {
            Duration::ZERO
        } else {
            PATIENCE
        };
        while !state.gone && state.records.len() >= IN_MEMORY {
            let waited = self
                .room
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            // A disk that is full is as good as none: then the interpreter waits.
            if waited.1.timed_out()
                && state.records.len() >= IN_MEMORY
                && state.spill(self.id).is_err()
            {
                patience = PATIENCE;
            }
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock left whole bytes behind, at worst too few.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Goes on with the open record, or with a new one. Its header is written when its length is known, so that PHP's bytes
    /// are copied once.
    fn append_stdout(&mut self, id: u16, mut data: &[u8]) {
        while !data.is_empty() {
            let open = *self.open.get_or_insert_with(|| {
                let at = self.records.len();
                self.records.extend_from_slice(&[0; Header::LEN]);
                at
            });
            let room = (open + Header::LEN + MAX_CONTENT).saturating_sub(self.records.len());
            let (now, later) = data.split_at(room.min(data.len()));
            self.records.extend_from_slice(now);
            data = later;
            if !data.is_empty() {
                self.close_record(id);
            }
        }
    }

    fn close_record(&mut self, id: u16) {
        let Some(open) = self.open.take() else {
            return;
        };
        let content = self.records.len().saturating_sub(open + Header::LEN);
        // `append_stdout` keeps it below MAX_CONTENT.
        let header = Header::new(kind::STDOUT, id, u16::try_from(content).unwrap_or(u16::MAX));
        if let Some(place) = self.records.get_mut(open..open + Header::LEN) {
            place.copy_from_slice(&header.encode());
        }
        self.records
            .resize(self.records.len() + usize::from(header.padding), 0);
    }

    fn spill(&mut self, id: u16) -> std::io::Result<()> {
        self.close_record(id);
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new()?),
        };
        if spill.size() >= MAX_SPILL {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        spill.push(&self.records)?;
        self.records.clear();
        Ok(())
    }

    fn collect(&mut self, out: &mut Vec<u8>, room: usize) -> Left {
        if let Some(spill) = &mut self.spill {
            if pull_records(spill, out, room).is_err() {
                return Left::Lost;
            }
            if spill.left() > 0 {
                return Left::More;
            }
            self.spill = None;
            if !self.records.is_empty() {
                return Left::More;
            }
        }
        if out.is_empty() {
            std::mem::swap(out, &mut self.records);
        } else {
            out.append(&mut self.records);
        }
        if self.ended {
            Left::Complete
        } else {
            Left::Nothing
        }
    }
}

/// Takes about `room` bytes, up to the end of a record: what comes next may be another request's.
fn pull_records(spill: &mut Spill, out: &mut Vec<u8>, room: usize) -> std::io::Result<()> {
    let mut record = out.len();
    let mut wanted = record + room;
    loop {
        pull(spill, out, wanted)?;
        // Where the record ends that this leaves incomplete.
        while let Some(header) = out.get(record..).and_then(<[u8]>::first_chunk) {
            let header = Header::decode(*header);
            record += Header::LEN + usize::from(header.content) + usize::from(header.padding);
        }
        // Of the last record there is less than its header, or its length is known.
        wanted = if record < out.len() {
            record + Header::LEN
        } else {
            record
        };
        if wanted == out.len() || spill.left() == 0 {
            return Ok(());
        }
    }
}

/// Takes bytes until `out` is as long as wanted, or there are no more.
fn pull(spill: &mut Spill, out: &mut Vec<u8>, wanted: usize) -> std::io::Result<()> {
    let mut end = out.len();
    out.resize(wanted.max(end), 0);
    while let Some(rest) = out.get_mut(end..).filter(|rest| !rest.is_empty()) {
        match spill.pull(rest) {
            Ok(0) => break,
            Ok(count) => end += count,
            Err(error) => {
                out.truncate(end);
                return Err(error);
            }
        }
    }
    out.truncate(end);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fastcgi::client::{self, Reply};

    fn answer() -> Answer {
        Answer::new(7, Arc::new(Notify::new()))
    }

    /// Collects all there is, and checks that every piece is whole records.
    fn collect(answer: &Answer, room: usize) -> (Vec<u8>, Left) {
        let (mut stdout, mut last) = (Vec::new(), Left::More);
        while last == Left::More {
            let mut out = Vec::new();
            last = answer.collect(&mut out, room);
            let mut input = out.as_slice();
            while let Some(reply) = client::receive(&mut input).unwrap() {
                if let Reply::Stdout { id: 7, data } = reply {
                    stdout.extend_from_slice(data);
                }
            }
            assert_eq!(input, b"", "a record is cut");
        }
        (stdout, last)
    }

    #[test]
    fn an_answer_that_nobody_reads_waits_in_a_file_in_whole_records() {
        for room in [1, 7, 100, 32 << 10, 1 << 20] {
            let answer = answer();
            let page: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
            for piece in page.chunks(10_000) {
                assert!(answer.write(piece));
            }
            answer.end(ProtocolStatus::RequestComplete);
            let (stdout, left) = collect(&answer, room);
            assert_eq!(left, Left::Complete);
            assert!(stdout == page, "with room for {room}");
        }
    }

    #[test]
    fn nothing_is_added_after_the_end_and_nobody_is_told_twice() {
        let answer = answer();
        assert!(answer.write(b"one"));
        assert!(answer.end(ProtocolStatus::RequestComplete));
        assert!(!answer.end(ProtocolStatus::RequestComplete));
        assert!(answer.write(b"two"));
        assert_eq!(collect(&answer, 1 << 20), (b"one".to_vec(), Left::Complete));
    }

    #[test]
    fn who_writes_learns_that_nobody_reads() {
        let answer = answer();
        assert!(answer.write(b"one") && answer.flush());
        answer.abandon();
        assert!(!answer.write(b"two") && !answer.flush());
        assert!(!answer.is_ready());
    }
}
